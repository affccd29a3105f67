"""Sockets that exist before a service listens on them."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import NetworkError, UsageError
from mutauth_twisted.net.listening import Listener


class Hello(Protocol):
    """Says hello to whoever says something, and who that is."""

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(b"hello " + str(getattr(transport.getPeer(), "host", "")).encode())
        transport.loseConnection()


class ListeningTests(SynchronousTestCase):
    """Real sockets on loopback, and a reactor of the test's own, which turns when it is told to."""

    def setUp(self) -> None:
        self.reactor = SelectReactor()
        self.factory = Factory.forProtocol(Hello)
        self.factory.noisy = False
        self.addCleanup(self.turn, 3)

    def turn(self, times: int) -> None:
        for _ in range(times):
            self.reactor.iterate(0.01)

    def bind(self, text: str, inherited: socket.socket | None = None) -> Listener:
        listener = Listener(self.reactor, text, inherited)
        self.addCleanup(listener.close)
        return listener

    def listen(self, listener: Listener) -> Any:
        port = self.successResultOf(Deferred.fromCoroutine(listener.listen(self.factory)))
        self.addCleanup(port.stopListening)
        return port

    def said(self, family: int, where: Any) -> bytes:
        """Bytes that a client hears."""
        with socket.socket(family) as client:
            client.settimeout(5)
            client.connect(where)
            client.sendall(b"!")
            self.turn(5)
            return b"".join(iter(lambda: client.recv(100), b""))

    def test_refused_until_it_listens(self) -> None:
        """A TCP port that is bound is nobody else's, and refuses clients at first."""
        for text, family in (
            ("tcp:0:interface=127.0.0.1", socket.AF_INET),
            ("tcp6:0:interface=\\:\\:1", socket.AF_INET6),
        ):
            listener = self.bind(text)
            assert listener.socket is not None
            where = listener.socket.getsockname()
            with socket.socket(family) as client:
                self.assertRaises(ConnectionRefusedError, client.connect, where)
            with socket.socket(family) as other:
                self.assertRaises(OSError, other.bind, where)
            port = self.listen(listener)
            self.assertEqual(port.getHost().port, where[1])
            self.assertEqual(self.said(family, where), b"hello " + where[0].encode())

    def test_is_closed(self) -> None:
        """A port that stops listening leaves no socket behind that would keep clients waiting."""
        listener = self.bind("tcp:0:interface=127.0.0.1")
        port = self.listen(listener)
        where = port.socket.getsockname()
        port.stopListening()
        self.turn(3)
        with socket.socket() as client:
            self.assertRaises(ConnectionRefusedError, client.connect, where)

    def test_taken(self) -> None:
        """A place that is taken is found when it is bound; one that is taken afterwards, then."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            text = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            error = self.assertRaises(NetworkError, Listener, self.reactor, text)
            self.assertIn("already in use", str(error))
        listener = self.bind("tcp:0:interface=127.0.0.1")
        assert listener.socket is not None
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(listener.socket.getsockname())
            other.listen()
            failing = Deferred.fromCoroutine(listener.listen(self.factory))
            self.assertIn("already in use", str(self.failureResultOf(failing).value))

    def test_wrapped(self) -> None:
        """A layer that an endpoint puts between, such as the header of a proxy, stays there."""
        listener = self.bind("haproxy:tcp:0:interface=127.0.0.1")
        where = self.listen(listener).socket.getsockname()
        with socket.create_connection(where, 5) as client:
            client.settimeout(5)
            client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n!")
            self.turn(5)
            self.assertEqual(client.recv(100), b"hello 192.0.2.7")

    def unix(self) -> Path:
        directory = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, directory)
        return Path(directory, "socket")

    def test_unix(self) -> None:
        """A UNIX socket has its mode before anybody can connect, and is removed at the end."""
        path = self.unix()
        listener = self.bind(f"unix:{path}:mode=600")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        port = self.listen(listener)
        self.assertEqual(self.said(socket.AF_UNIX, str(path)), b"hello ")
        port.stopListening()
        self.turn(3)
        self.assertFalse(path.exists())

    def passed(self, listening: socket.socket, name: str = "shop") -> str:
        """Endpoint string of a socket that systemd has passed under a name."""
        from twisted.internet import endpoints

        inherited = os.dup(listening.fileno())  # which the endpoint closes
        fds = ListenFDs([inherited], (name,))
        self.patch(endpoints._SystemdParser, "_sddaemon", fds)
        return f"systemd:domain={listening.family.name.removeprefix('AF_')}:name=shop"

    def test_from_systemd(self) -> None:
        """A socket of systemd's is listened on, and stays open at the end: whoever comes then waits
        for the next instance.
        """
        with socket.create_server(("127.0.0.1", 0)) as given:
            text = self.passed(given).replace("domain=INET:", "")  # which the socket knows
            port = self.listen(self.bind(text))
            self.assertEqual(self.said(socket.AF_INET, given.getsockname()), b"hello 127.0.0.1")
            port.stopListening()
            self.turn(3)
            with socket.create_connection(given.getsockname(), 5):
                self.assertTrue(given.accept())

    def test_unix_from_systemd(self) -> None:
        """The file of a UNIX socket is its unit's: nobody else may connect, and it stays.

        Twisted's own adoptStreamPort() would open it to every user, and remove it.
        """
        path = self.unix()
        with socket.socket(socket.AF_UNIX) as given:
            given.bind(str(path))
            self.addCleanup(path.unlink)
            path.chmod(0o600)
            given.listen()
            port = self.listen(self.bind(self.passed(given)))
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
            self.assertEqual(port.getHost().name, os.fsencode(path))
            self.assertEqual(self.said(socket.AF_UNIX, str(path)), b"hello ")
            port.stopListening()
            self.turn(3)
            self.assertTrue(path.exists())
            with socket.socket(socket.AF_UNIX) as late:
                late.connect(str(path))

    def test_not_passed(self) -> None:
        """A socket that systemd has not passed, or of another kind, is named."""
        with socket.create_server(("127.0.0.1", 0)) as given:
            self.passed(given)
            for text, cause in (
                ("systemd:domain=INET:name=other", "systemd has passed no such socket"),
                ("systemd:domain=INET:index=1", "systemd has passed no such socket"),
                ("systemd:domain=NONE:name=shop", "there is no such domain"),
                ("systemd:domain=INET6:name=shop", "its domain is INET"),
            ):
                error = self.assertRaises(UsageError, Listener, self.reactor, text)
                self.assertIn(cause, str(error), text)
        with socket.socket() as connected:
            text = self.passed(connected)
            error = self.assertRaises(UsageError, Listener, self.reactor, text)
            self.assertIn("not a listening stream socket", str(error))

    def test_inherited(self) -> None:
        """A worker listens on its parent's socket, which the parent goes on having."""
        path = self.unix()
        self.addCleanup(path.unlink)
        families: dict[str, Callable[[], socket.socket]] = {
            "tcp:1:interface=127.0.0.1": lambda: socket.create_server(("127.0.0.1", 0)),
            "systemd:domain=INET:name=shop": lambda: socket.create_server(("127.0.0.1", 0)),
            f"unix:{path}:mode=600": lambda: self.bound(path),
        }
        for text, make in families.items():
            with make() as given:
                port = self.listen(self.bind(text, given.dup()))
                said = self.said(given.family, given.getsockname())
                self.assertTrue(said.startswith(b"hello "), text)
                port.stopListening()
                self.turn(3)
                with socket.socket(given.family) as late:
                    late.connect(given.getsockname())  # the parent has it still
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        error = self.assertRaises(UsageError, Listener, self.reactor, "stdio:", socket.socket())
        self.assertIn("processes cannot share its socket", str(error))

    def bound(self, path: Path) -> socket.socket:
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(str(path))
        path.chmod(0o600)
        bound.listen()
        return bound
