"""Keytabs as the tools make them: samba-tool and msktutil, with an account's keys under several
names.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from uuid import uuid4

import krb5

from mutauth_twisted.errors import CredentialError
from mutauth_twisted.kerberos.enctypes import AES_TYPES
from mutauth_twisted.kerberos.keytab import keytab_keys, keytab_principal
from tests.integration.commands import CommandTestCase
from tests.integration.kerberos_case import Key, keytab

SMB_CONF = ("samba", "etc", "smb.conf")


class KeytabCase(CommandTestCase):
    """A service and its keytab."""

    def setUp(self) -> None:
        super().setUp()
        self.keytab = Path(self.state) / "service.keytab"

    def tool(self, *words: str, hosts: bool = False) -> str:
        """Run someone else's tool as the administrator.

        :param hosts: let it find the domain controller's address as it would with the domain's DNS:
            in a mount namespace of its own with another /etc/hosts.
        """
        if hosts:
            table = Path(self.state) / "hosts"
            controller = self.lab.host("dc1")
            table.write_text(f"127.0.0.1 localhost\n{self.lab.nameserver} {controller}\n")
            words = (
                "unshare",
                "--mount",
                "sh",
                "-c",
                f'mount --bind "{table}" /etc/hosts && exec "$@"',
                "sh",
                *words,
            )
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            env=self.environment("administrator"),
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done)
        return done.stdout

    def export(self, *names: str) -> None:
        """``samba-tool domain exportkeytab``, once for each name, into one file."""
        configuration = str(self.lab.directory.joinpath(*SMB_CONF))
        for name in names:
            self.tool(
                "samba-tool",
                "domain",
                "exportkeytab",
                str(self.keytab),
                f"--principal={name}",
                "-s",
                configuration,
            )

    def names(self) -> set[str]:
        """Under which names there are AES keys."""
        return {
            key.principal.rpartition("@")[0]
            for key in keytab_keys(str(self.keytab))
            if key.kind in AES_TYPES
        }

    def served(self, *options: str) -> str:
        """Serve one client that finds the service by its SCP; the service's log."""
        with self.service("--keytab", str(self.keytab), *options) as running:
            ended = self.mutauth("connect", self.endpoint, given="a word\n")
            self.assertEqual((ended.code, ended.output), (0, "a word\n"), (ended, running.log))
            running.stop()
        return running.log


class SambaToolTests(KeytabCase):
    """``samba-tool domain exportkeytab``: the account's entry, its SPNs', and RC4 keys with
    them.
    """

    def spns(self) -> list[str]:
        return [
            f"{self.service_class}/{self.host}/{self.guid_of_scp()}",
            f"{self.service_class}/{self.host}/CN={self.service_class},CN=SRV1,CN=Computers,{self.lab.base_dn}",
        ]

    def guid_of_scp(self) -> str:
        """The GUID of the service's connection point."""
        found = self.mutauth(
            "scp", "find", self.service_class, "--nameserver", self.lab.nameserver, "--json"
        )
        return str(json.loads(found.output)[0]["guid"])

    def test_account_and_spns(self) -> None:
        """With the account's keys and its SPNs', in whichever order, nothing has to be named."""
        self.assertEqual(self.install().code, 0)
        spns = self.spns()
        self.export(spns[0], "svc-echo", spns[1])
        self.assertEqual(self.names(), {"svc-echo", *spns})
        self.assertIn("svc-echo holds", self.served())

    def test_spns_only(self) -> None:
        """Keys under SPNs alone accept clients; who asks the directory with them has to be the
        account.
        """
        self.assertEqual(self.install().code, 0)
        self.export(*self.spns())
        ended = self.start_refused("--keytab", str(self.keytab))
        self.refused(ended, 4, "of SPNs only", "export the account's own entry too")
        with self.service(
            "--keytab", str(self.keytab), "--publish", "none", "--spn-check", "off"
        ) as running:
            address = (
                f"mutauth:tcp\\:{self.lab.address_of(self.host)}\\:{running.port}:"
                f"spn={self.spns()[1]}"
            )
            ended = self.mutauth("connect", address, given="a word\n")
            self.assertEqual((ended.code, ended.output), (0, "a word\n"), ended)

    def test_two_accounts(self) -> None:
        """Where two accounts are left one has to be named."""
        self.assertEqual(self.install().code, 0)
        self.export("svc-other", "svc-echo")
        ended = self.start_refused("--keytab", str(self.keytab))
        self.refused(ended, 4, "several accounts", "--account")
        self.served("--account", "svc-echo")


class MsktutilTests(KeytabCase):
    """``msktutil create``: a computer's keytab, with its name in two ways and SPNs of its host."""

    def service_words(self, *options: str) -> tuple[str, ...]:
        # The computer is not one of the lab's.
        return (
            "mutauth",
            *self.common,
            "--echo",
            "--allow",
            f"*@{self.lab.realm}",
            *self.directory,
            *options,
        )

    def test_host(self) -> None:
        """The service runs under the computer's account, with the host's keytab."""
        computer = f"t{uuid4().hex[:8]}"
        self.host = f"{computer}.{self.lab.realm.lower()}"
        self.common = ("--service-class", self.service_class, "--host", self.host)
        words = (
            "--computer-name",
            computer,
            "--hostname",
            self.host,
            "-b",
            "CN=Computers",
            "--enctypes",
            "0x18",
        )
        where = (
            "--server",
            self.lab.host("dc1"),
            "--realm",
            self.lab.realm,
            "--no-reverse-lookups",
        )
        more = ("-s", f"{self.service_class}/{self.host}")
        configuration = str(self.lab.directory.joinpath(*SMB_CONF))
        self.addCleanup(
            self.tool, "samba-tool", "computer", "delete", computer, "-s", configuration
        )
        self.tool("msktutil", "create", *words, *where, "-k", str(self.keytab), *more, hosts=True)
        self.assertTrue(
            {f"{computer}$", f"host/{computer}", f"{self.service_class}/{self.host}"}
            <= self.names()
        )
        installed = self.mutauth(
            "install",
            *self.common,
            "--account",
            f"{computer}$",
            *self.directory,
            user="administrator",
        )
        self.assertEqual(installed.code, 0, installed)
        self.addCleanup(self._uninstall)
        self.assertNotIn("is a user's", installed.errors)
        address = self.lab.address_of(self.lab.host("srv1"))
        with self.service(
            "--keytab", str(self.keytab), "--listen", f"tcp:0:interface={address}"
        ) as running:
            for name in (f"{self.service_class}/{self.host}", f"host/{computer}"):
                endpoint = f"mutauth:tcp\\:{address}\\:{running.port}:spn={name}"
                ended = self.mutauth("connect", endpoint, given="a word\n")
                if name.startswith("host/"):
                    self.assertEqual(ended.code, 4, "a ticket of another class is a mix-up")
                else:
                    self.assertEqual((ended.code, ended.output), (0, "a word\n"), ended)
            running.stop()
        self.assertIn(f"{computer}$ holds", running.log.lower())


class PrincipalTests(KeytabCase):
    """Which entry is the account's, of keytabs as tools are known to write them."""

    def put(self, *names: str) -> str:
        """A keytab with entries of these names."""
        kind = 18
        self.keytab.write_bytes(
            keytab(Key(f"{name}@LAB.EXAMPLE", 1, kind, os.urandom(32)) for name in names)
        )
        self.assertEqual(
            len(list(krb5.kt_resolve(krb5.init_context(), f"FILE:{self.keytab}".encode()))),
            len(names),
        )
        return str(self.keytab)

    def test_account(self) -> None:
        """The one that is not an SPN; ktpass writes one SPN alone, which it makes the account's
        UPN.
        """
        for names, account in (
            (
                ("SRV1$", "host/SRV1", "host/srv1.lab.example", "RestrictedKrbHost/SRV1"),
                "SRV1$",
            ),  # adcli
            (("srv1$", "SRV1$", "host/srv1.lab.example", "host/srv1"), "srv1$"),  # msktutil
            (("host/srv1.lab.example", "host/SRV1", "SRV1$"), "SRV1$"),  # net ads keytab create
            (("svc-echo",), "svc-echo"),
            (("HTTP/srv1.lab.example",), "HTTP/srv1.lab.example"),  # ktpass
        ):
            self.assertEqual(
                keytab_principal(self.put(*names), None), f"{account}@LAB.EXAMPLE", names
            )

    def test_named(self) -> None:
        """A name that was given is looked for among all of them; a computer's with its $ or
        without.
        """
        path = self.put("SRV1$", "srv1$", "svc-echo", "host/srv1")
        for given in ("srv1", "SRV1$", "LAB\\srv1$", "srv1$@LAB.EXAMPLE"):
            self.assertEqual(keytab_principal(path, given), "SRV1$@LAB.EXAMPLE")
        for given, text in ((None, "several accounts"), ("svc-other", "no key of svc-other")):
            self.assertIn(
                text, str(self.assertRaises(CredentialError, keytab_principal, path, given))
            )
