"""Connections that cannot be, each for one foreseeable mistake, which one clear line names."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.integration.commands import INTERRUPTIBLE, CommandTestCase


class ClientRefusalTests(CommandTestCase):
    """A connection that cannot be."""

    def refused_connection(self, endpoint: str, code: int, *words: str, **how: str) -> None:
        self.refused(self.mutauth("connect", endpoint, given="a secret", **how), code, *words)

    def installed_spn(self) -> str:
        """An SPN for which there is a ticket to be had, so that the handshake begins."""
        return self.install().output.partition("added SPN ")[2].partition(" to ")[0]

    def direct(self, port: int, spn: str) -> str:
        return f"mutauth:tcp\\:127.0.0.1\\:{port}:spn={spn}:timeout=5"

    def test_unknown_keyword(self) -> None:
        """A keyword that nobody published, however it is spelled."""
        self.refused_connection(self.endpoint, 1, self.service_class)
        hostile = self.endpoint.replace(self.service_class, "*)(objectClass=*")
        self.refused_connection(hostile, 2, "*)(objectClass=*", "valid service class")
        self.refused_connection(f"{hostile}:class=echoSvc", 1, "*)(objectClass=*")

    def test_no_binding_information(self) -> None:
        """An SCP whose service has not published its port."""
        self.install()
        self.refused_connection(self.endpoint, 1, self.service_class, "running")

    def test_nothing_listens(self) -> None:
        """A service that was killed: the address that was tried stands beside the name."""
        self.install()
        with self.service() as service:
            os.kill(service.process.pid, signal.SIGKILL)
            service.process.wait(15)
        where = f"{self.host}:{service.port} ({self.lab.address_of(self.host)})"
        self.refused_connection(self.endpoint, 3, where, "nothing listens there")

    def test_wrong_spn(self) -> None:
        """An SPN that nobody registered."""
        with self.peer(lambda connection: connection.recv(1)) as port:
            self.refused_connection(
                self.direct(port, f"{self.service_class}/{self.host}"), 4, self.service_class
            )

    def test_no_ticket(self) -> None:
        """No ticket cache."""
        with self.peer(lambda connection: connection.recv(1)) as port:
            self.refused_connection(
                self.direct(port, "echoSvc/srv1"),
                4,
                "no Kerberos ticket",
                "kinit",
                KRB5CCNAME="FILE:/nonexistent/cc",
            )
        self.refused_connection(self.endpoint, 4, "ticket", KRB5CCNAME="FILE:/nonexistent/cc")

    def test_expired_ticket(self) -> None:
        """A ticket whose time is over."""
        cache = str(Path(self.state) / "ccache")
        keytab = str(self.lab.keytab("alice"))
        # krb5 takes lifetimes in whole seconds; the KDC's clock is ours.
        kinit = ["kinit", "-k", "-t", keytab, "-l", "1s", "-c", cache, self.lab.principal("alice")]
        subprocess.run(kinit, env=self.environment("alice"), check=True, timeout=10)
        time.sleep(2)
        with self.peer(lambda connection: connection.recv(1)) as port:
            self.refused_connection(
                self.direct(port, "echoSvc/srv1"), 4, "expired", "kinit", KRB5CCNAME=cache
            )

    def test_unreadable_configuration(self) -> None:
        """A krb5.conf that cannot be read, as after someone else's environment was taken over."""
        ended = self.command(
            "mutauth",
            "connect",
            self.endpoint,
            prefix=("setpriv", "--bounding-set=-dac_override,-dac_read_search"),
            KRB5_CONFIG=str(self.unreadable()),
        )
        self.refused(ended, 4, "krb5.conf", "KRB5_CONFIG")

    def unreadable(self) -> Path:
        path = Path(self.state) / "krb5.conf"
        path.touch()
        path.chmod(0)
        return path

    def test_interrupted(self) -> None:
        """Ctrl-C on an established connection is an interrupt, and no fault of the peer."""
        self.install()
        with self.service():
            words, stdin = ("connect", "-v", self.endpoint), subprocess.PIPE
            process = self.begin("mutauth", *words, prefix=INTERRUPTIBLE, stdin=stdin)
            while "authenticated as" not in process.stderr.readline():
                pass
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
            self.assertEqual(
                (process.returncode, errors.split()), (130, ["mutauth:", "interrupted"])
            )

    def test_closed_port(self) -> None:
        """A port where nothing listens."""
        spn = self.installed_spn()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.refused_connection(self.direct(port, spn), 3, f"127.0.0.1:{port}", "refused")

    def test_unresolvable_host(self) -> None:
        """A host that does not resolve."""
        spn = self.installed_spn()
        self.refused_connection(
            f"mutauth:tcp\\:nowhere.invalid\\:1:spn={spn}", 3, "nowhere.invalid", "resolve"
        )

    def test_another_protocol(self) -> None:
        """A peer that speaks something else."""
        spn = self.installed_spn()
        with self.peer(
            lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n") or time.sleep(1)
        ) as port:
            self.refused_connection(
                self.direct(port, spn), 4, f"127.0.0.1:{port}", "another protocol"
            )

    def test_closed_midway(self) -> None:
        """A peer that takes the token and closes."""
        spn = self.installed_spn()
        with self.peer(lambda connection: connection.recv(65536)) as port:
            self.refused_connection(
                self.direct(port, spn), 3, f"127.0.0.1:{port}", "closed the connection"
            )

    def test_silence(self) -> None:
        """A peer that never answers."""
        spn = self.installed_spn()
        with self.peer(lambda connection: time.sleep(3)) as port:
            endpoint = self.direct(port, spn).replace("timeout=5", "timeout=1")
            self.refused_connection(endpoint, 3, f"127.0.0.1:{port}", "within 1 s")

    def test_denied(self) -> None:
        """An authenticated client whom the policy does not allow learns a code, and that it was
        refused.
        """
        self.install()
        with self.service("--allow", "bob@LAB.EXAMPLE") as service:
            self.refused_connection(self.endpoint, 4, "access policy")
            allowed = self.mutauth("connect", self.endpoint, given="hi\n", user="bob")
            self.assertEqual((allowed.code, allowed.output), (0, "hi\n"))
            service.stop()
        self.assertIn("alice@LAB.EXAMPLE", service.log)

    def test_told_once(self) -> None:
        """With -v what went wrong is the last step that is told, and is not told again."""
        self.install()
        with self.service("--allow", "bob@LAB.EXAMPLE"):
            told = self.mutauth("connect", "-v", self.endpoint)
        self.assertEqual((told.code, told.errors.count("access policy")), (4, 1), told)

    def test_session_over(self) -> None:
        """A session that the service ends, while there may be more to say, is said to have ended;
        the code is 0.
        """
        self.install()
        with self.service("--max-session", "1"):
            process = self.begin("mutauth", "connect", self.endpoint, stdin=subprocess.PIPE)
            self.addCleanup(process.kill)
            process.wait(15)
            output, errors = process.communicate()
        self.assertEqual((process.returncode, output, len(errors.splitlines())), (0, "", 1), errors)
        self.assertIn("the service has ended the session", errors)
        self.assertIn("or its access was withdrawn", errors)

    def test_impostor(self) -> None:
        """A service with the key of another account cannot use the ticket."""
        self.install()
        with self.service():
            other = (
                "--keytab",
                str(self.lab.keytab("svc-other")),
                "--publish",
                "none",
                "--spn-check",
                "off",
            )
            with self.service(*other) as impostor, self.service() as genuine:
                spn = genuine.log.partition("svc-echo holds ")[2].partition(",")[0]
                endpoint = (
                    f"mutauth:tcp\\:{self.lab.address_of(self.host)}\\:{impostor.port}:spn={spn}"
                )
                self.refused_connection(endpoint, 4, "refused the ticket", "another key")
                impostor.stop()
            self.assertIn("another key", impostor.log)
            self.assertNotIn("authenticated as", impostor.log)

    def test_usage(self) -> None:
        """Endpoint strings that cannot be."""
        cases = {
            "tcp:127.0.0.1:1": "proves nothing",
            "mutauth:tcp": "spn",
            "mutauth:scp=x:bogus=1": "bogus",
            "mutauth:scp=x:wire=pigeon": "pigeon",
            "mutauth:scp=x:protection=none": "none",
            "mutauth:scp=x:timeout=-1": "timeout",
            "mutauth:scp=x:nameserver=dns.example": "dns.example",
            "mutauth:scp=x:directory=ldap\\://127.0.0.1": "127.0.0.1",
            "mutauth:scp=x:spn-form=sideways": "sideways",
            self.direct(99999, self.installed_spn()): "99999",
            "mutauth:tcp\\:127.0.0.1\\:1:spn=a": "SPN",
            "mutauth:nonsense\\:1:spn=a/b": "nonsense",
        }
        for endpoint, word in cases.items():
            self.refused_connection(endpoint, 2, word)
        for listen in ("tcp:99999", "nonsense:1"):
            self.refused(self.mutauth("connect", self.endpoint, "--listen", listen), 2, listen)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            self.refused(
                self.mutauth("connect", self.endpoint, "--listen", listen), 3, listen, "in use"
            )
