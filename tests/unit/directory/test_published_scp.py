"""Small things of the directory side that need no directory."""

from __future__ import annotations

import shlex
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.commands import install_command
from mutauth_twisted.directory.scp import ServiceConnectionPoint
from mutauth_twisted.errors import UsageError
from mutauth_twisted.ldap.controllers import Server, parse_server
from mutauth_twisted.spn import SPN

GUID = UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1")


class InstallCommandTests(SynchronousTestCase):
    """The command that errors print."""

    def test_defaults_are_left_out(self) -> None:
        """What an administrator need not type is not there."""
        self.assertEqual(
            install_command("echo", "h.example", "svc", scp_name="echo"),
            "mutauth install --service-class echo --host h.example --account svc",
        )

    def test_everything_is_quoted(self) -> None:
        """It can be copied into a shell, whatever is in it."""
        command = install_command(
            "a b", "h", "x;rm", spn_forms=["guid"], scp_name="q'", scp_parent="OU=a b,DC=c"
        )
        self.assertEqual(
            " | ".join(shlex.split(command)[2:]),
            "--service-class | a b | --host | h | --account | x;rm | --spn-form | guid | "
            "--scp-name | q' | --scp-parent | OU=a b,DC=c",
        )


class ServerTests(SynchronousTestCase):
    """Directory URLs."""

    def test_forms(self) -> None:
        """With and without scheme and port."""
        for text, server in (
            ("dc1.example", Server("dc1.example", 389)),
            ("ldap://dc1.example", Server("dc1.example", 389)),
            ("LDAP://dc1.example.:1389/", Server("dc1.example", 1389)),
            ("ldaps://dc1.example", Server("dc1.example", 636, tls=True)),
            ("ldaps://dc1.example:3269", Server("dc1.example", 3269, tls=True)),
        ):
            self.assertEqual(parse_server(text), server)

    def test_refused(self) -> None:
        """Each with its reason."""
        for text, words in (
            ("http://dc1", "no directory protocol"),
            ("ldap://10.0.0.1", "cannot prove who it is"),
            ("ldap://dc1:0", "out of range"),
            ("ldap://dc1:99999", "out of range"),
            ("ldap://", "no LDAP server"),
            ("a b", "no LDAP server"),
        ):
            self.assertIn(words, str(self.assertRaises(UsageError, parse_server, text)))


class SCPTests(SynchronousTestCase):
    """SPNs from a connection point."""

    def test_forms(self) -> None:
        """The three forms, with the final dot of the host dropped."""
        point = ServiceConnectionPoint("CN=echo,CN=srv1,DC=a", GUID, "echo", "srv1.a.")
        self.assertEqual(point.spn("guid"), SPN("echo", "srv1.a", str(GUID)))
        self.assertEqual(point.spn("dn"), SPN("echo", "srv1.a", "CN=echo,CN=srv1,DC=a"))
        self.assertEqual(point.spn("host", "other"), SPN("echo", "other"))
        self.assertRaises(UsageError, point.spn, "rnr")

    def test_incomplete(self) -> None:
        """Without class or host there is no SPN."""
        point = ServiceConnectionPoint("CN=echo,DC=a", GUID)
        self.assertIn("serviceDNSName", str(self.assertRaises(UsageError, point.spn, "dn")))
        self.assertIn("serviceClassName", str(self.assertRaises(UsageError, point.spn, "dn", "h")))
