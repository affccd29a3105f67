"""The replay cache of ``twistd mutauth``, by what copied requests get."""

from __future__ import annotations

import os
import signal
import socket
import struct
from pathlib import Path

import gssapi

from mutauth_twisted.testing.forge import set_environment
from tests.integration.commands import CommandTestCase, Running
from tests.integration.nns_peer import ERROR, IN_PROGRESS

NAME = f"krb5_{os.geteuid()}.rcache2"


class ServiceTests(CommandTestCase):
    """A service in a process of its own."""

    def setUp(self) -> None:
        super().setUp()
        set_environment(self, self.lab.environment("alice"))
        self.assertEqual(self.install().code, 0)
        os.chmod(self.state, 0o700)

    def environment(self, user: str, **changes: str) -> dict[str, str]:
        # The lab's own says where the cache is.
        return {
            **super().environment(user),
            "KRB5RCACHEDIR": "",
            "KRB5RCACHENAME": "",
            **self.variables,
            **changes,
        }

    variables: dict[str, str] = {}

    def request(self) -> bytes:
        """A frame with a new request of alice's."""
        spn = (
            f"{self.service_class}/{self.host}/CN={self.service_class},CN=SRV1,"
            f"CN=Computers,{self.lab.base_dn}"
        )
        credential = gssapi.Credentials(
            usage="initiate", store={"ccache": self.lab.ccache("alice")}
        )
        name = gssapi.Name(spn, gssapi.NameType.kerberos_principal)
        token = gssapi.SecurityContext(
            name=name, creds=credential, usage="initiate", flags=62
        ).step()
        assert token is not None
        return struct.pack(">BBBH", IN_PROGRESS, 1, 0, len(token)) + token

    def answered(self, running: Running, frame: bytes) -> int:
        """Kind of the last frame of the service's answer to this one."""
        with socket.create_connection(
            (self.lab.address_of(self.host), running.port), 10
        ) as connection:
            connection.settimeout(10)
            connection.sendall(frame)
            kind = IN_PROGRESS
            while kind == IN_PROGRESS:
                header = connection.recv(5, socket.MSG_WAITALL)
                kind, size = header[0], int.from_bytes(header[3:5], "big")
                connection.recv(size, socket.MSG_WAITALL)
            return kind

    def test_own(self) -> None:
        """By default it is in the service's own directory, and a copied request is refused after a
        restart as well.
        """
        with self.service() as running:
            frame = self.request()
            self.assertNotEqual(self.answered(running, frame), ERROR)
            self.assertEqual(self.answered(running, frame), ERROR)
            running.stop()
        with self.service() as running:
            self.assertEqual(self.answered(running, frame), ERROR)
            self.assertNotEqual(self.answered(running, self.request()), ERROR)
            running.stop()
        self.assertIn("the same request was seen before (replay)", running.log)
        self.assertGreater(os.stat(os.path.join(self.state, NAME)).st_size, 0)

    def test_workers(self) -> None:
        """A request that one worker has seen opens nothing at another."""
        with self.service("--workers", "2") as running:
            pid = running.process.pid
            one, other = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            frame = self.request()
            os.kill(int(other), signal.SIGSTOP)
            self.assertNotEqual(self.answered(running, frame), ERROR)
            os.kill(int(one), signal.SIGSTOP)
            os.kill(int(other), signal.SIGCONT)
            self.assertEqual(self.answered(running, frame), ERROR)
            self.assertNotEqual(self.answered(running, self.request()), ERROR)
            os.kill(int(one), signal.SIGCONT)
            running.stop()
        self.assertIn("the same request was seen before (replay)", running.log)

    def test_without(self) -> None:
        """Without one the service does not start, unless its administrator accepts that by name;
        each start says so.
        """
        for variables in ({"KRB5RCACHENAME": "none:"}, {"KRB5RCACHEDIR": "/nonexistent"}):
            self.variables = variables
            self.refused(self.start_refused(), 4, "the replay cache: ")
        self.variables = {"KRB5RCACHENAME": "none:"}
        with self.service("--accept-replays") as running:
            frame = self.request()
            for _ in range(2):
                self.assertNotEqual(self.answered(running, frame), ERROR)
            running.stop()
        self.assertIn("this service HAS NO REPLAY CACHE", running.log)
