"""Changes that an attacker makes to the bytes between two sides, and the outcome they may have."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

from attrs import define, field
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.wire import NNS, WINSOCK, Wire

UP, DOWN = "to the service", "to the client"
#: Which of each side's messages is which, between two mutauth peers that say one thing each; only
#: the client opens.
TOKEN, OPENING, DATA, END = range(4)
#: The records of each direction.
RECORDS = {UP: (OPENING, DATA, END), DOWN: (DATA, END)}
#: What becomes of one message on its way: none, one or more in its place; a None among them closes
#: the connection.
Change = Callable[[bytes], list[bytes | None]]
#: The same for every message: takes the direction, the message's number in it and the message.
Tamper = Callable[[str, int, bytes], list[bytes | None]]

#: Every wire with every protection whose records Kerberos makes.
_KERBEROS = (Protection.SEAL, Protection.SIGN)
CHANNELS: Final = tuple(
    SecurityOptions(wire, protection) for wire in (NNS, WINSOCK) for protection in _KERBEROS
)

SPN_ASKED: Final = SPN.parse("echoSvc/srv1.test.example")
ALICE: Final = "alice@TEST.EXAMPLE"
#: Of a length that makes the part of a record that is rotated 64 bytes long when sealed, and 32
#: when signed.
QUESTION: Final = b"what is the question"
ANSWER: Final = QUESTION.upper()


def name(security: SecurityOptions) -> str:
    """A channel as a test's message names it."""
    return f"{security.wire.name}, {security.protection.value}"


def flipped(message: bytes, position: int, bit: int) -> bytes:
    """The message with one bit changed."""
    return message[:position] + bytes([message[position] ^ 1 << bit]) + message[position + 1 :]


def untouched(direction: str, number: int, message: bytes) -> list[bytes | None]:
    """The message as it is."""
    return [message]


def replace(direction: str, number: int, change: Change) -> Tamper:
    """Change one message only."""

    def tamper(where: str, which: int, message: bytes) -> list[bytes | None]:
        return change(message) if (where, which) == (direction, number) else [message]

    return tamper


def flip(position: int, bit: int) -> Change:
    """A change of one bit; of the last byte, in a token that has come out a byte or two shorter
    than usual.
    """
    return lambda message: [flipped(message, min(position, len(message) - 1), bit)]


def cut(direction: str, number: int, end: int) -> Tamper:
    """Let a message through up to this byte, and close the connection."""
    return replace(direction, number, lambda message: [message[:end], None])


def silence(direction: str, number: int, end: int) -> Tamper:
    """Let a message through up to this byte, and nothing after it."""

    def tamper(where: str, which: int, message: bytes) -> list[bytes | None]:
        if where != direction or which < number:
            return [message]
        return [message[:end]] if which == number else []

    return tamper


def reflect(direction: str, number: int) -> Tamper:
    """Give a side its own last message in place of its peer's."""
    said: dict[str, bytes] = {}

    def tamper(where: str, which: int, message: bytes) -> list[bytes | None]:
        said[where] = message
        other = DOWN if where == UP else UP
        return [said[other] if (where, which) == (direction, number) else message]

    return tamper


def numbers(direction: str) -> Iterator[int]:
    """The numbers of a direction's messages, in their order."""
    return (number for number in count() if direction == UP or number != OPENING)


class Splitter:
    """Finds the messages of one direction.

    :param wire: the format; only its header sizes are used here.
    :param direction: :data:`UP` or :data:`DOWN`.
    """

    def __init__(self, wire: Wire, direction: str) -> None:
        self._records = wire is WINSOCK  # its frames look like its records
        self._direction = direction
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that the data completes."""
        self._buffer += data
        while (size := self._size()) is not None and len(self._buffer) >= size:
            message, self._buffer = self._buffer[:size], self._buffer[size:]
            # With Kerberos a client's first message is its only frame, and a service's first done
            # its last.
            self._records = self._records or message[0] == 0x14 or self._direction == UP
            yield message

    def rest(self) -> bytes:
        """Return the bytes left, which are no whole message, and forget them."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _size(self) -> int | None:
        if self._records:  # on winsock the highest bit may be the service's mark
            return (
                4 + (struct.unpack_from("<I", self._buffer)[0] & 0x7FFFFFFF)
                if len(self._buffer) >= 4
                else None
            )
        return 5 + struct.unpack_from(">H", self._buffer, 3)[0] if len(self._buffer) >= 5 else None


@define
class Attempt:
    """Result of one conversation through the one in the middle.

    :ivar error: why the client got no connection, or lost it; None where it ended well.
    :ivar server_error: the same for the service; over TCP as far as it allows a client.
    :ivar spn: what the client takes as authenticated.
    :ivar client: what the client's application received.
    :ivar principals: whom the service allowed.
    :ivar server: what the service's application received.
    :ivar proofs: what each side takes as authenticated: protection and flags.
    :ivar gave_up: whether the client closed because what it waited for did not come: an end that no
        side calls an error.
    """

    error: BaseException | None = None
    server_error: BaseException | None = None
    spn: SPN | None = None
    client: bytes = b""
    principals: tuple[str, ...] = ()
    server: bytes = b""
    proofs: set[tuple[Protection, int]] = field(factory=set)
    gave_up: bool = False

    @property
    def harmless(self) -> bool:
        """True if neither side noticed anything."""
        return self.error is None and self.server_error is None and not self.gave_up


def check(
    test: SynchronousTestCase,
    attempt: Attempt,
    what: str,
    *,
    spn: SPN = SPN_ASKED,
    principal: str = ALICE,
    protection: Protection = Protection.SEAL,
    question: bytes = QUESTION,
) -> None:
    """In any case no peer was taken for another, no protection was lost, and nothing wrong
    was delivered.
    """
    answer = question.upper()
    test.assertIn(attempt.spn, (None, spn), what)
    test.assertTrue(set(attempt.principals) <= {principal}, what)
    # MIT's contexts can always seal, where signing was agreed as well.
    test.assertTrue(
        attempt.proofs <= {(protection, int(protection.requested_flags))}, (what, attempt.proofs)
    )
    test.assertIn(attempt.server, (b"", question), what)
    test.assertIn(attempt.client, (b"", answer), what)
    for error in (attempt.error, attempt.server_error):
        if error is not None:
            test.assertIsInstance(error, (MutualAuthError, ConnectionLost), what)
            test.assertNotIn("\n", str(error), what)
    if attempt.harmless:
        test.assertEqual(
            (attempt.spn, attempt.client, attempt.server), (spn, answer, question), what
        )
        test.assertEqual(attempt.principals, (principal,), what)
