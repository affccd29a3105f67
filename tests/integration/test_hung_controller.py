"""A service's start with a domain controller, or a KDC, that takes connections and never
answers.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

from mutauth_twisted.service import publisher
from tests.integration.commands import CommandTestCase
from tests.integration.rogue import Listener, RogueDNS


class Hole(Listener):
    """Takes connections, reads what comes, and says nothing.

    :ivar taken: how many connections.
    """

    taken = 0

    def talk(self, connection: socket.socket) -> None:
        self.taken += 1
        while connection.recv(65536):
            pass


class HungCase(CommandTestCase):
    """With a name in DNS behind which nobody answers."""

    def setUp(self) -> None:
        super().setUp()
        here = self.lab.address_of("rogue")
        self.hole, self.dns = Hole(here), RogueDNS(self.lab, here)
        self.addCleanup(self.hole.close)
        self.addCleanup(self.dns.close)
        self.ask = ("--nameserver", self.dns.nameserver)
        self.assertEqual(self.install().code, 0)

    def hang(self) -> None:
        """The domain controller has another address."""
        self.dns.hosts[self.lab.dc_host] = self.hole.address
        for name in ("_ldap._tcp.dc._msdcs", "_gc._tcp"):
            self.dns.srv[f"{name}.{self.lab.realm.lower()}"] = [
                (0, self.lab.dc_host.encode(), self.hole.port)
            ]


class StartTests(HungCase):
    """The start ends soon, and names what does not answer."""

    def test_controller(self) -> None:
        """A domain controller that hangs is named, with its address, and the KDC is not."""
        self.hang()
        ended = self.start_refused(*self.ask)
        self.assertEqual(ended.code, 3, ended)
        wanted = (
            f"domain controller {self.lab.dc_host}:{self.hole.port}: {self.hole.address}: no "
            "answer in time"
        )
        self.assertIn(wanted, ended.output)
        self.assertNotIn("KDC", ended.output)
        self.assertNotIn("Traceback", ended.output)

    def test_given_controller(self) -> None:
        """The same for one that the user named."""
        self.hang()
        ended = self.start_refused(
            *self.ask, "--directory", f"ldap://{self.lab.dc_host}:{self.hole.port}"
        )
        self.assertEqual(ended.code, 3, ended)
        self.assertIn(f"domain controller {self.lab.dc_host}:{self.hole.port}", ended.output)
        self.assertNotIn("KDC", ended.output)

    def test_kdc(self) -> None:
        """A KDC that hangs is named, and no domain controller is blamed; the start does not wait
        for krb5 to give up.
        """
        config = Path(self.state) / "krb5.conf"
        config.write_text(
            self.lab.krb5_conf.read_text().replace(f"kdc = {self.lab.nameserver}", self.kdcs())
        )
        began = time.monotonic()
        ended = self.command("twistd", *self.service_words(*self.ask), KRB5_CONFIG=str(config))
        self.assertEqual(ended.code, 3, ended)
        gave_up = (
            f"gave up after {publisher.START_DEADLINE:.0f} s: the KDC of LAB.EXAMPLE does not "
            "answer"
        )
        self.assertIn(gave_up, ended.output)
        self.assertNotIn(self.lab.dc_host, ended.output)
        self.assertGreater(
            time.monotonic() - began, publisher.START_DEADLINE
        )  # it is the deadline that ended it

    def kdcs(self) -> str:
        """Enough of them that krb5 would go on for longer."""
        return "\n        ".join(f"kdc = {self.hole.address}:{self.hole.port}" for _ in range(8))

    def test_the_next_one_serves(self) -> None:
        """With an address that hangs and one that does not, it starts with the second, and waits
        for the first once.
        """
        holes = [Hole(self.hole.address, port) for port in (389, 3268)]
        for each in holes:
            self.addCleanup(each.close)
        self.dns.hosts[self.lab.dc_host] = f"{self.hole.address} {self.lab.nameserver}"
        with self.service(*self.ask, "--allow-group", "echo-users") as running:
            self.assertIn("group echo-users is", running.log)
        self.assertEqual([each.taken for each in holes], [1, 0])
