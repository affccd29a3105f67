"""What every wire format offers to the exchange."""

from __future__ import annotations

from typing import ClassVar, Protocol

from attrs import field, frozen


class FrameError(ValueError):
    """The bytes received are not of this wire format; the text says why."""


@frozen
class Token:
    """A security token of the peer.

    :param payload: the token, opaque to us; may be empty.
    :param done: the peer says that its context is complete.
    """

    payload: bytes = field(repr=False)
    done: bool


@frozen
class Fault:
    """The peer ended the exchange.

    :param code: an HRESULT or win32 error code.
    """

    code: int


class Reader(Protocol):
    """Finds the frames of one connection in a stream of bytes."""

    def feed(self, data: bytes) -> None:
        """Take what one read of the connection brought, however much that is.

        :raises FrameError: when too much is waiting already.
        """

    def next_frame(self) -> Token | Fault | None:
        """The next frame of the exchange, or None while it is incomplete.

        :raises FrameError: for anything that is not such a frame.
        """

    def next_record(self) -> bytes | None:
        """The next record's body, or None while it is incomplete.

        :raises FrameError: for a length outside the format's limits.
        """

    @property
    def pending(self) -> int:
        """How many bytes wait for the rest of their frame or record."""


class Wire(Protocol):
    """One wire format."""

    name: ClassVar[str]
    #: The largest token a frame can carry, in bytes.
    max_token: ClassVar[int]
    #: The most application bytes one record may carry.
    max_plaintext: ClassVar[int]

    def reader(self) -> Reader:
        """A new reader for one connection."""

    def token(self, payload: bytes, done: bool) -> bytes:
        """The frame of a token of at most ``max_token`` bytes."""

    def fault(self, code: int) -> bytes:
        """The frame, if the format has one, that ends the exchange with a code."""

    def record(self, body: bytes) -> bytes:
        """The frame of a protected record."""
