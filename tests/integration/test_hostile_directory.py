"""Servers in place of a domain controller that have not authenticated anything, and lie."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import (
    DirectoryUnreachable,
)
from mutauth_twisted.ldap import sealing
from mutauth_twisted.testing._ber import element, elements
from tests.integration.directory_case import DirectoryTestCase


class HostileServerTests(DirectoryTestCase):
    """A server that has not authenticated anything."""

    def hostile(self, talk: Any) -> str:
        """A server at the domain controller's address that talks in its own way; its URL."""
        listener = socket.create_server((self.lab.nameserver, 0))
        self.addCleanup(listener.close)

        def serve() -> None:
            try:
                connection, _ = listener.accept()
                with connection:
                    self.request = connection.recv(65536)
                    talk(connection)
            except OSError:
                pass

        threading.Thread(target=serve, daemon=True).start()
        return f"ldap://{self.lab.dc_host}:{listener.getsockname()[1]}"

    async def refusal(self, talk: Any, timeout: float = 5.0) -> str:
        directory = self.directory(
            servers=[self.hostile(talk)],
            timeout=timeout,
            credentials=ClientCredentials(ccache=self.lab.ccache("alice")),
        )
        return await self.failure_of(
            directory.run(lambda session: session.domain_dn), DirectoryUnreachable
        )

    async def test_endless_answer(self) -> None:
        """An answer without end is cut off after a mebibyte."""
        sent = 0

        def flood(connection: socket.socket) -> None:
            nonlocal sent
            connection.sendall(bytes.fromhex("30847fffffff"))
            while True:
                sent += connection.send(bytes(65536))

        self.assertIn("too large", await self.refusal(flood))
        self.assertLess(sent, 16 * sealing.LOGIN_LIMIT)

    async def test_dripping_answer(self) -> None:
        """A byte now and then does not hold a thread for ever."""

        def drip(connection: socket.socket) -> None:
            connection.sendall(bytes.fromhex("3084000fffff"))
            while True:
                connection.sendall(b"\0")
                time.sleep(0.05)

        began = time.monotonic()
        line = await self.refusal(drip, timeout=0.2)
        self.assertIn("no answer in time", line)
        self.assertLess(time.monotonic() - began, 5.0)

    async def test_long_words(self) -> None:
        """Words of a stranger about a refused login are cut and escaped."""

        def talk(connection: socket.socket) -> None:
            number = elements(elements(self.request)[0][1])[0][1]
            words = element(0x04, b"\x1b[31mno\n" + b"x" * 500_000)
            refusal = element(0x61, element(0x0A, b"\x31"), element(0x04), words)
            connection.sendall(element(0x30, element(0x02, number), refusal))

        line = await self.refusal(talk)
        self.assertIn("it refused the login: invalidCredentials \\x1b[31mno", line)
        self.assertLess(len(line), 600)

    async def test_garbage(self) -> None:
        """Bytes that are not LDAP are refused with one line."""
        for answer in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            bytes(100),
            b"\x30\x03\x02\x01\x01",
            b"\xff" * 64,
            b"",
        ):
            line = await self.refusal(
                lambda connection, answer=answer: connection.sendall(answer), timeout=1.0
            )
            self.assertIn(self.lab.dc_host, line)
