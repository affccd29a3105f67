"""Interface of every wire format to the handshake."""

from __future__ import annotations

from typing import ClassVar, Final, Protocol

from attrs import field, frozen


class FrameError(ValueError):
    """The bytes received are not of this wire format; the text says why."""


@frozen
class Token:
    """A security token of the peer.

    :param payload: the token, opaque to us; may be empty.
    :param done: the peer says that its context is complete.
    :param mutauth: the peer says that it is another mutauth peer.  Nothing
        authenticates this; it means something with a service's last token only.
    """

    payload: bytes = field(repr=False)
    done: bool
    mutauth: bool = False


@frozen
class Fault:
    """The peer ended the handshake.

    :param code: an HRESULT or win32 error code.
    """

    code: int


class Wrapping(Protocol):
    """Functions of an established context that records need."""

    @property
    def signature_size(self) -> int:
        """The size of every signature that :meth:`wrap_apart` makes, in bytes."""

    def wrap(self, data: bytes, *, seal: bool) -> bytes:
        """Protect one record; calls in send order.

        :raises AuthenticationError: when the context can protect nothing any more.
        """

    def unwrap(self, body: bytes) -> tuple[bytes, bool]:
        """Verify one record; the plaintext and whether it was sealed.

        :raises RecordError: for any record that is rejected: bad MAC, replayed or out of order.
        """

    def wrap_apart(self, data: bytes, *, seal: bool) -> tuple[bytes, bytes]:
        """Protect one record in two parts: what protects it, and the data, sealed or not; calls in
        send order.

        :raises AuthenticationError: when the context can protect nothing any more.
        """

    def unwrap_apart(self, trailer: bytes, data: bytes, *, seal: bool) -> tuple[bytes, bool]:
        """Verify one record of two parts; the plaintext and whether it was sealed.

        :raises RecordError: for any record that is rejected: bad MAC, replayed or out of order.
        """


class Reader(Protocol):
    """Finds the frames of one connection in a stream of bytes."""

    def feed(self, data: bytes) -> None:
        """Take what one read of the connection brought, however much that is.

        :raises FrameError: when too much is waiting already.
        """

    def next_frame(self) -> Token | Fault | None:
        """The next frame of the handshake, or None while it is incomplete.

        :raises FrameError: for anything that is not such a frame.
        """

    def next_record(self) -> bytes | None:
        """The next record's body, or None while it is incomplete.

        :raises FrameError: for a length outside the format's limits.
        """

    @property
    def pending(self) -> int:
        """Number of bytes that wait for the rest of their frame or record."""

    def take_rest(self) -> bytes:
        """Take out whatever waits, for another wire's reader to go on with."""


# Less than one frame waits for its rest, and whole ones wait only while the application pauses:
# then what the last read of the socket brought, which a TLS transport delivers in two pieces.  Who
# sends more than that sends unasked.
_MAX_PENDING: Final = 2 * (0x10000 + 4)


class BufferedReader:
    """Common base of all readers: bytes that wait, and a bound on them."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """See :class:`Reader`."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """See :class:`Reader`."""
        if len(self._buffer) > _MAX_PENDING:
            raise FrameError(f"bytes go on coming while {len(self._buffer)} of them wait")
        self._buffer += data

    def take_rest(self) -> bytes:
        """See :class:`Reader`."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _take(self, header: int, body: int) -> bytes | None:
        end = header + body
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            taken = bytes(view[header:end])
        del self._buffer[:end]
        return taken


class Wire(Protocol):
    """One wire format."""

    name: ClassVar[str]
    #: Whether a frame tells that its sender's context is complete; if not, each side has finished
    #: when its own is.
    says_done: ClassVar[bool]
    #: Whether the context's flags decide what is done to records (MS-NNS); if not, both sides just
    #: have to know.
    flags_decide: ClassVar[bool]
    #: The largest token a frame can carry, in bytes.
    max_token: ClassVar[int]
    #: The most application bytes one record may carry.
    max_plaintext: ClassVar[int]

    def reader(self) -> Reader:
        """A new reader for one connection."""

    def token(self, payload: bytes, done: bool, mutauth: bool = False) -> bytes:
        """The frame of a token of at most ``max_token`` bytes; no bytes, where the format sends
        nothing for it.

        :param mutauth: mark it as another mutauth peer's; a third-party peer must never get such a
            frame.
        """

    def fault(self, code: int) -> bytes:
        """The frame that ends the handshake with a code; no bytes, where the format has none."""

    def record(self, body: bytes) -> bytes:
        """The frame of a protected record."""

    def protect(self, context: Wrapping, data: bytes, seal: bool) -> bytes:
        """The frame of a record with this plaintext.

        :raises AuthenticationError: as the context does.
        """

    def unprotect(self, context: Wrapping, body: bytes, seal: bool) -> tuple[bytes, bool]:
        """The plaintext of a received record's body, and whether it was sealed.

        :raises FrameError: for a body that is not laid out as a record.
        :raises RecordError: as the context does.
        """
