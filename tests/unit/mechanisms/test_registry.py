"""The registry of mechanisms: one more is one file and one entry, and none is loaded unasked."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from unittest import mock

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import PeerRefused, UsageError
from mutauth_twisted.mechanisms import KERBEROS, MECHANISMS, NEGOTIATE, NTLM
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.fakes import FakeTransport, RecorderFactory, ThreadedReactor
from tests.support.mechanism import FAKE

ASKED = "echoSvc/srv1.test.example"
CLIENT = rf"mutauth:tcp\:127.0.0.1\:9000:spn={ASKED}"
SERVER = r"mutauth:tcp\:9000:allow-all=yes"

_LOADED = r"""
import sys
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.testing import MemoryReactorClock
from mutauth_twisted.mechanisms import MECHANISMS
unasked = [name for name in sys.modules if name.startswith("mutauth_twisted.mechanisms.")]
assert not unasked, unasked
for name in ("kerberos", "negotiate"):
    clientFromString(
        MemoryReactorClock(), rf"mutauth:tcp\:srv1\:9000:spn=echoSvc/srv1:package={name}"
    )
    assert MECHANISMS[name]._implementation.__name__ in sys.modules
import mutauth_twisted.service.tap
print(*sorted(name for name in sys.modules if "spnego" in name or "ntlm" in name))
"""


class OneMoreTests(SynchronousTestCase):
    """A mechanism that nothing but its entry names."""

    def setUp(self) -> None:
        patched = mock.patch.dict(MECHANISMS, {FAKE.name: FAKE})
        patched.start()
        self.addCleanup(patched.stop)
        self.reactor = ThreadedReactor()
        self.factories = RecorderFactory(), RecorderFactory()

    def connect(self, client_words: str, server_words: str) -> tuple[Any, Any, list[Any]]:
        """Both sides' protocols after all their bytes have crossed, and what connect() came to."""
        server, client = self.factories
        listening = serverFromString(self.reactor, f"{SERVER}:{server_words}").listen(server)
        self.successResultOf(listening)
        results: list[Any] = []
        endpoint = clientFromString(self.reactor, f"{CLIENT}:{client_words}")
        endpoint.connect(client).addBoth(results.append)
        address: Any = mock.Mock(host="127.0.0.1", port=9000)
        sides = []
        for factory in (self.reactor.tcpServers[0][1], self.reactor.tcpClients[0][2]):
            protocol, transport = factory.buildProtocol(address), FakeTransport()
            protocol.makeConnection(transport)
            sides.append((protocol, transport))
        (one, to_other), (other, to_one) = sides
        while pieces := (to_other.take(), to_one.take()):
            if not any(pieces):
                break
            for protocol, piece in ((other, pieces[0]), (one, pieces[1])):
                if piece:
                    protocol.dataReceived(piece)
        return one, other, results

    def test_handshake(self) -> None:
        """Client and server authenticate with it by their endpoint strings, and carry data."""
        words = "package=fake:fake-word=open sesame"
        one, other, results = self.connect(words, words)
        (server,), (client,) = (factory.built for factory in self.factories)
        self.assertEqual(results, [client])
        identity = client.transport.peer_identity
        self.assertEqual((identity.package, identity.spn), ("fake", SPN.parse(ASKED)))
        self.assertEqual(server.transport.peer_identity.package, "fake")
        client.transport.write(b"data")
        one.dataReceived(other.transport.take())
        self.assertEqual(server.received, [b"data"])

    def test_refused(self) -> None:
        """Another word is refused with its own text, before any application is built."""
        _, _, results = self.connect("package=fake:fake-word=a", "package=fake:fake-word=b")
        self.assertEqual([factory.built for factory in self.factories], [[], []])
        (failure,) = results
        assert isinstance(failure, Failure)
        self.assertIsInstance(failure.value, PeerRefused)
        self.assertIn("it did not accept the word", str(failure.value))
        self.assertIn("give both sides one word", str(failure.value))

    def test_options(self) -> None:
        """Its option is required with it and refused with others, and theirs are with it."""
        for words, text in (
            ("package=fake", "keyword fake-word: it is missing; add fake-word=VALUE: Word that"),
            ("fake-word=a", "keyword fake-word: it means nothing without package=fake"),
            ("package=fake:fake-word=a:keytab=/k", "keyword keytab: it means nothing without"),
            ("package=fake:fake-word=a:bogus=1", "keyword bogus: there is no such keyword"),
            ("package=other", "use kerberos or negotiate or ntlm-service-unproven or fake"),
        ):
            for make, start in ((clientFromString, CLIENT), (serverFromString, SERVER)):
                error = self.assertRaises(UsageError, make, self.reactor, f"{start}:{words}")
                self.assertIn(text, str(error))


class MechanismTests(SynchronousTestCase):
    """Rules that all of them keep to."""

    def test_names(self) -> None:
        """Each is found by its name, and the one that does not authenticate the service says so in
        it.
        """
        for name, each in MECHANISMS.items():
            self.assertEqual(name, each.name)
            self.assertIs("service-unproven" not in name, each.authenticates_service)
            self.assertLessEqual(
                set(each.required), each.client_options | each.service_options, name
            )

    def test_credentials(self) -> None:
        """A mechanism makes its own credentials, and refuses another's on either side."""
        options = {"ntlm-users": "/etc/users", "keytab": "/etc/keytab"}
        for package, other in ((KERBEROS, NTLM), (NTLM, NEGOTIATE)):
            foreign = other.client_credentials(options), other.service_credentials(options)
            for make in (
                lambda: package.initiators(SPN.parse(ASKED), foreign[0], Protection.SEAL),  # noqa: B023
                lambda: package.acceptor_keys(foreign[1]),  # noqa: B023
            ):
                with self.assertRaisesRegex(UsageError, f"package {package.name}: it cannot use"):
                    make()

    def test_loaded_when_asked_for(self) -> None:
        """A caller that asks for Kerberos, with endpoints or with twistd, never loads NTLM's file,
        nor pyspnego with its own NTLM.
        """
        done = subprocess.run(
            [sys.executable, "-c", _LOADED], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.stderr, done.stdout), ("", "\n"))
