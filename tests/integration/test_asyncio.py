"""The driver on asyncio (``examples/asyncio_peer.py``) with the one on Twisted, in both roles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.internet.error import ConnectionDone
from twisted.internet.threads import deferToThread

import mutauth_twisted
from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.errors import PeerRefused
from tests.integration.handshake_case import LOOPBACK, HandshakeTestCase

ROOT = Path(mutauth_twisted.__file__).parents[1]
COMMAND = (sys.executable, str(ROOT / "examples" / "asyncio_peer.py"))


class AsyncioTests(HandshakeTestCase):
    """Each driver's client with the other's service, over real sockets."""

    async def ask(self, port: int, spn: object = None) -> tuple[int, str]:
        """Have the example's client ask; its exit code and what it says."""
        command = [*COMMAND, "ask", LOOPBACK, str(port), str(spn or self.by_dn), "hello"]
        done = await deferToThread(
            lambda: subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
        )
        return done.returncode, done.stdout + done.stderr

    async def serve(self, pattern: str) -> tuple[int, subprocess.Popen[str]]:
        """Start the example's service; its port and its process."""
        process = subprocess.Popen(
            [*COMMAND, "serve", str(self.lab.keytab("svc-echo")), pattern],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(self.stop, process)
        line = await self.line(process)
        self.assertRegex(line, r"^listening on \d+\n$")
        return int(line.split()[-1]), process

    def stop(self, process: subprocess.Popen[str]) -> None:
        """End the example's service."""
        process.kill()
        process.communicate(timeout=10)

    async def line(self, process: subprocess.Popen[str]) -> str:
        """The next line that the example's service says."""
        assert process.stdout is not None
        return await deferToThread(process.stdout.readline)

    async def test_its_client(self) -> None:
        """Its client is authenticated, says its whole stream and hears all of the answer."""
        code, said = await self.ask(await self.listen())
        self.assertEqual((code, said), (0, f"{self.by_dn}@{self.lab.realm}: HELLO\n"))
        (served,) = self.servers
        identity = served.protected.peer_identity
        self.assertEqual(identity.principal, self.lab.principal("alice"))
        self.assertTrue(identity.mutauth)
        self.assertEqual(served.received, b"hello")
        self.assertIsInstance(await served.ended, ConnectionDone)

    async def test_its_service(self) -> None:
        """Its service authenticates itself and its client, and ends its stream."""
        port, process = await self.serve(f"*@{self.lab.realm}")
        client = await self.connect(port)
        self.assertTrue(client.protected.peer_identity.mutauth)
        self.assertEqual(client.protected.peer_identity.spn, self.by_dn)
        client.protected.write(bytes(100_000) + b"hello")
        await client.wait_for(100_005)
        self.assertEqual(client.received, bytes(100_000) + b"HELLO")
        client.protected.loseConnection()
        self.assertIsInstance(await client.ended, ConnectionDone)
        self.assertEqual(await self.line(process), f"serving {self.lab.principal('alice')}\n")

    async def test_with_itself(self) -> None:
        """Its two sides know each other as mutauth peers do."""
        port, process = await self.serve(f"*@{self.lab.realm}")
        code, said = await self.ask(port)
        self.assertEqual((code, said), (0, f"{self.by_dn}@{self.lab.realm}: HELLO\n"))
        self.assertEqual(await self.line(process), f"serving {self.lab.principal('alice')}\n")

    async def test_not_authorized(self) -> None:
        """A client that is not authorized by either service has no connection, and is told why."""
        denied = "its access policy does not allow this principal"
        port, process = await self.serve("bob@*")
        await self.refused(self.connect_only(port), PeerRefused, denied)
        self.assertIn(self.lab.principal("alice"), await self.line(process))
        code, said = await self.ask(await self.listen(policy=AccessPolicy(allow=("bob@*",))))
        self.assertEqual(code, 1)
        self.assertIn(denied, said)
        self.assertEqual(self.servers, [])

    async def test_another_service(self) -> None:
        """Its client takes nobody for a service that does not hold the SPN's key."""
        code, said = await self.ask(await self.listen(), f"host/{self.lab.host('srv1')}")
        self.assertEqual((code, said.count("\n")), (1, 1), said)
        self.assertEqual(self.servers, [])

    async def test_cut(self) -> None:
        """Its service tells a stream that was cut from one that was ended."""
        port, process = await self.serve(f"*@{self.lab.realm}")
        client = await self.connect(port)
        self.assertIn("serving", await self.line(process))
        client.protected.abortConnection()
        self.assertRegex(await self.line(process), "cut before the peer's end of stream|reset")
