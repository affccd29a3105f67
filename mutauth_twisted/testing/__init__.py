"""A kit for testing what uses ``mutauth_twisted``, without a KDC, a domain or a network.

What this page names is public; every module in here is private, and so is what they hold besides.

Your protocol with an authenticated peer
    :func:`authenticated_pair` connects a server's protocol and a client's.  The handshake, the
    records, the limits and the endings are the real ones; in place of Kerberos there are security
    contexts that say what you want.  Nothing moves until you say so::

        class GreetingTests(SynchronousTestCase):
            def test_greeting(self):
                pair = authenticated_pair(
                    Factory.forProtocol(Greeter), RecorderFactory(), principal="bob@EXAMPLE.COM"
                )
                pair.client.transport.write(b"hello")
                pair.flush()
                self.assertEqual(pair.client.received, [b"hello, bob@EXAMPLE.COM"])

    ``pair.server.transport.peer_identity`` is the client with that principal and the groups you
    give; ``pair.client.transport.peer_identity`` is the service with that SPN.  ``pair.advance()``
    lets time pass, ``pair.cut()`` breaks the connection as a failing network does.

The other side
    :class:`Recorder` is a protocol that remembers what happens to it (``events``, ``received``,
    ``reason``) and answers as you tell it (``on_connect``, ``on_data``); :class:`RecorderFactory`
    builds them.

A directory
    :class:`Domain` is an Active Directory domain in memory, with a domain controller's rules: an
    SPN is registered on one account, a host gives itself two-part SPNs of its own name only, access
    control lists decide who may write.  The same tests run against it and against Samba::

        domain = Domain("example.com")
        domain.add_computer("srv1")
        domain.add_user("svc-echo")
        directory = domain.directory("administrator")   # or any other account's name
        session = domain.session("svc-echo")

    ``directory`` takes the place of :class:`~mutauth_twisted.ldap.connection.Directory`, but its
    work is done at once; ``session`` that of one connection.  ``domain.refuse_write(3)`` and
    ``domain.lose_answer(3)`` disturb the third write.

A real domain
    :class:`LabMixin` has a test of trial or unittest run in a real Samba domain on loopback, and
    starts services there.  pytest has the fixtures ``mutauth_lab`` and ``mutauth_serve``; see
    :mod:`mutauth_twisted.testing.pytest_plugin`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutauth_twisted.testing.directory import Domain
    from mutauth_twisted.testing.fakes import Recorder, RecorderFactory
    from mutauth_twisted.testing.lab import LabMixin
    from mutauth_twisted.testing.pair import AuthenticatedPair, authenticated_pair

__all__ = [
    "AuthenticatedPair",
    "Domain",
    "LabMixin",
    "Recorder",
    "RecorderFactory",
    "authenticated_pair",
]

_HOMES = {
    "AuthenticatedPair": "pair",
    "Domain": "directory",
    "LabMixin": "lab",
    "Recorder": "fakes",
    "RecorderFactory": "fakes",
    "authenticated_pair": "pair",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a directory takes LDAP, which a protocol's test does without.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
