"""Mechanism for tests: both sides know one word, and no KDC is asked.

It is registered for the time of a ``with`` block::

    with mock.patch.dict(MECHANISMS, {FAKE.name: FAKE}):
        serverFromString(reactor, "mutauth:tcp\\\\:9000:package=fake:fake-word=x:allow-all=yes")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from mutauth_twisted.core.channelbinding import ChannelBinding
from mutauth_twisted.core.mechanism import Mechanism, NewContext
from mutauth_twisted.credentials import Credentials
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.fakes import FakeContext

FAKE = Mechanism(
    "fake",
    "a word that both sides know",
    __name__,
    ("it did not accept the word", "give both sides one word"),
    client_options=frozenset({"fake-word"}),
    service_options=frozenset({"fake-word"}),
    required={"fake-word": "word that both sides know"},
)


@frozen
class FakeCredentials(Credentials):
    """The word that both sides know."""

    word: str = field(repr=False)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> FakeCredentials:
        """See :meth:`Credentials.from_options`."""
        return cls(options["fake-word"])


CLIENT_CREDENTIALS = SERVICE_CREDENTIALS = FakeCredentials


class _Context(FakeContext):
    """Context whose tokens hold the word."""

    def __init__(self, credentials: FakeCredentials, spn: SPN | None, *, initiator: bool) -> None:
        super().__init__(initiator=initiator)
        self._word = credentials.word.encode()
        self._spn = spn

    def token(self, number: int) -> bytes:
        return super().token(number) + self._word

    def verify(self, protection: Protection) -> PeerIdentity:
        return evolve(super().verify(protection), spn=self._spn, package=FAKE.name)


class FakeKeys:
    """A service's keys: the word."""

    accepts_replays = False
    authenticates_service = True

    def __init__(self, credentials: FakeCredentials) -> None:
        self._credentials = credentials

    def check(self) -> None:
        """Part of Keys: a word can always be used."""

    def acceptor(self, peer: str, channel: ChannelBinding | None = None) -> FakeContext:
        """A context for one connection."""
        return _Context(self._credentials, None, initiator=False)


def initiators(
    package: Mechanism, spn: SPN | None, credentials: FakeCredentials, protection: Protection
) -> NewContext:
    """See :meth:`Mechanism.initiators`."""
    return lambda peer, channel: _Context(credentials, spn, initiator=True)


def acceptor_keys(
    package: Mechanism, credentials: FakeCredentials, service_class: str | None
) -> FakeKeys:
    """See :meth:`Mechanism.acceptor_keys`."""
    return FakeKeys(credentials)
