"""End of a connection, as a state machine without I/O.

Theory of operation.  :data:`TABLE` is the whole machine: for each state, what may happen
(:class:`Input`), the state that follows, and what to do then, in this order (:class:`Action`).
What is not listed changes nothing.  docs/closing.svg is drawn from it.

Each direction ends with its end of stream; see :mod:`mutauth_twisted.core.records`.  An orderly
end takes a round trip: this side sends its end of stream, ends its half of the TCP connection, and
reads on until the peer has done the same (draining).  Closing the socket with the peer's bytes
unread would have the kernel reset the connection and destroy, at the peer, the end of stream just
sent.

A half-closeable application decides itself when to end after the peer has.  Any other ends with
the peer, or with its producer, if it has one, once that is done or silent.

What is waited for is the linger.  It belongs to the state in which it was started, and stops when
another state follows.  As long as the peer takes some of what is still to be sent, it starts anew:
only where a service's limit has ended the session, or the linger before, has the peer no more time
than that.  From where nothing is sent or delivered any more, it leads to the end whatever the peer
does; before that, the application decides how long it goes on, and a service's limits do.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, Generic, TypeVar

from attrs import define

Reason = TypeVar("Reason")


class State(Enum):
    """Where a connection stands: its name, and whether it sends and delivers."""

    #: Both directions are open.
    OPEN = "open", True, True
    #: The application has ended its half; its producer has more to send.
    HALF_CLOSING = "half closing", True, True
    #: The application has closed; its producer has more to send.
    CLOSING = "closing", True, False
    #: Our end of stream is sent; the peer may go on.
    WRITE_CLOSED = "write closed", False, True
    #: The application has closed, our end of stream is sent, and the peer's is to come.
    DRAINING = "draining", False, False
    #: The peer has ended; the application may go on.
    PEER_ENDED = "peer ended", True, True
    #: The peer has ended, and our producer has more to send.
    FINISHING = "finishing", True, False
    #: As finishing, but the producer has sent nothing since the linger was started.
    SILENT = "silent", True, False
    #: Both have ended; what was written may take as long as the peer takes to read it.
    BOTH_ENDED = "both ended", False, False
    #: The connection is over for the application; the linger is the last.
    LEAVING = "leaving", False, False
    #: The connection was dropped.
    ABORTED = "aborted", False, False
    #: The network's connection is gone, and the application knows.
    LOST = "lost", False, False

    def __init__(self, title: str, sends: bool, delivers: bool) -> None:
        self.title = title
        #: Whether what the application writes is sent.
        self.sends = sends
        #: Whether what the peer sends is delivered; else it is verified and dropped, or not read.
        self.delivers = delivers


class Input(Enum):
    """Events that may happen to a connection."""

    #: The application closes.
    CLOSE = auto()
    #: The application ends its half.
    HALF_CLOSE = auto()
    #: There is no producer any more; where there was none, at once behind CLOSE and HALF_CLOSE.
    PRODUCED = auto()
    #: The application, or its producer, wrote something.
    WROTE = auto()
    #: The peer has ended.
    PEER_ENDED = auto()
    #: The peer has ended, and the application is not half-closeable.
    END_WITH_PEER = auto()
    #: The peer has ended, and the application is not half-closeable, but has a producer.
    END_WITH_PRODUCER = auto()
    #: All that was written is sent, or is for the layer below, such as TLS, to send.
    WRITTEN = auto()
    #: The linger is over.
    LINGERED = auto()
    #: One of the service's limits ends the session.
    LIMIT = auto()
    #: What the application passes on was cut: it ends, and our end of stream would be a lie.
    CUT = auto()
    #: The peer did what it may not, or was cut off; the application failed, or aborts.
    FAULT = auto()
    #: The network's connection is gone.
    GONE = auto()


class Action(Enum):
    """Actions that answer an event."""

    #: Send our end of stream.
    SEND_END = auto()
    #: End our half of the TCP connection, behind all that was written; TLS has no halves.
    END_OUTPUT = auto()
    #: The same; where there are no halves, CLOSE.
    CLOSE_OUTPUT = auto()
    #: Close the connection, behind all that was written; WRITTEN follows where there are no halves.
    CLOSE = auto()
    #: Close the socket, below any TLS, behind all that was written.
    CLOSE_SOCKET = auto()
    #: Drop the connection.
    ABORT = auto()
    #: Stop the producer, if there is one; it is the application's, and may fail.
    STOP_PRODUCER = auto()
    #: Read on, though the application has paused: the peer's end is to come.
    READ_ON = auto()
    #: Start the linger, or start it anew.
    START_LINGER = auto()
    #: Start a linger that is not prolonged by what the peer takes.
    START_LAST_LINGER = auto()
    #: Tell the application, if it is half-closeable, that the peer has ended.
    TELL_PEER_ENDED = auto()
    #: Tell the application, if it is half-closeable, that all it wrote is sent.
    TELL_WRITTEN = auto()
    #: Tell the application that the connection is lost, and why: :attr:`Closing.reason`.
    TELL_LOST = auto()


#: The state that follows, and what to do then.
Row = tuple[State, *tuple[Action, ...]]

_LEAVE: Final = (Action.CLOSE, Action.START_LAST_LINGER, Action.STOP_PRODUCER)
_FINISH: Final[Row] = (State.BOTH_ENDED, Action.SEND_END, Action.CLOSE, Action.START_LINGER)
_CLOSE_SOCKET: Final[Row] = (State.LEAVING, Action.CLOSE_SOCKET, Action.START_LAST_LINGER)
_ABORT: Final[Row] = (State.ABORTED, Action.ABORT)
_LOSE: Final[Row] = (State.LOST, Action.TELL_LOST)
# Without our end of stream, but behind all that was written.
_CUT: Final[Row] = (
    State.DRAINING,
    Action.CLOSE_OUTPUT,
    Action.START_LINGER,
    Action.READ_ON,
    Action.STOP_PRODUCER,
)
_CUT_BOTH: Final[Row] = (
    State.BOTH_ENDED,
    Action.CLOSE,
    Action.START_LINGER,
    Action.STOP_PRODUCER,
)
#: Of all states in which our end of stream is still to be sent.
_SENDING: Final[Mapping[Input, Row]] = {
    Input.LIMIT: (State.LEAVING, Action.SEND_END, *_LEAVE),
    Input.FAULT: _ABORT,
    Input.GONE: _LOSE,
}
#: Of all states in which it was sent.
_SENT: Final[Mapping[Input, Row]] = {**_SENDING, Input.LIMIT: (State.LEAVING, *_LEAVE)}

TABLE: Final[Mapping[State, Mapping[Input, Row]]] = {
    State.OPEN: {
        Input.CLOSE: (State.CLOSING,),
        Input.HALF_CLOSE: (State.HALF_CLOSING,),
        Input.PEER_ENDED: (State.PEER_ENDED, Action.TELL_PEER_ENDED),
        Input.CUT: _CUT,
        **_SENDING,
    },
    State.HALF_CLOSING: {
        Input.CLOSE: (State.CLOSING,),
        Input.PRODUCED: (State.WRITE_CLOSED, Action.SEND_END, Action.END_OUTPUT),
        Input.PEER_ENDED: (State.FINISHING, Action.TELL_PEER_ENDED),
        Input.CUT: _CUT,
        **_SENDING,
    },
    State.CLOSING: {
        Input.PRODUCED: (
            State.DRAINING,
            Action.SEND_END,
            Action.CLOSE_OUTPUT,
            Action.START_LINGER,
            Action.READ_ON,
        ),
        Input.PEER_ENDED: (State.FINISHING,),
        Input.CUT: _CUT,
        **_SENDING,
    },
    State.WRITE_CLOSED: {
        Input.CLOSE: (State.DRAINING, Action.START_LINGER, Action.READ_ON),
        Input.CUT: (State.DRAINING, Action.START_LINGER, Action.READ_ON),
        Input.WRITTEN: (State.WRITE_CLOSED, Action.TELL_WRITTEN),
        Input.PEER_ENDED: (
            State.BOTH_ENDED,
            Action.TELL_PEER_ENDED,
            Action.CLOSE,
            Action.START_LINGER,
        ),
        **_SENT,
    },
    State.DRAINING: {
        Input.WRITTEN: (State.DRAINING, Action.START_LINGER),
        Input.PEER_ENDED: (State.BOTH_ENDED, Action.CLOSE, Action.START_LINGER),
        Input.LINGERED: _CLOSE_SOCKET,
        **_SENT,
    },
    State.PEER_ENDED: {
        Input.CLOSE: (State.FINISHING,),
        Input.HALF_CLOSE: (State.FINISHING,),
        Input.END_WITH_PEER: (
            State.LEAVING,
            Action.SEND_END,
            Action.CLOSE,
            Action.START_LINGER,
        ),
        Input.END_WITH_PRODUCER: (State.SILENT, Action.START_LINGER),
        Input.CUT: _CUT_BOTH,
        **_SENDING,
    },
    State.FINISHING: {
        Input.PRODUCED: _FINISH,
        Input.END_WITH_PRODUCER: (State.SILENT, Action.START_LINGER),
        Input.LINGERED: (State.SILENT, Action.START_LINGER),
        Input.CUT: _CUT_BOTH,
        **_SENDING,
    },
    State.SILENT: {
        Input.PRODUCED: _FINISH,
        Input.WROTE: (State.FINISHING, Action.START_LINGER),
        # Without our end of stream: the producer was not done, and the peer sees its stream cut.
        Input.LINGERED: (State.LEAVING, *_LEAVE),
        Input.CUT: _CUT_BOTH,
        **_SENDING,
    },
    State.BOTH_ENDED: {
        Input.WRITTEN: (State.BOTH_ENDED, Action.START_LINGER),
        Input.LINGERED: _CLOSE_SOCKET,
        **_SENT,
    },
    State.LEAVING: {**_SENT, Input.LINGERED: _ABORT, Input.LIMIT: _ABORT},
    State.ABORTED: {Input.GONE: _LOSE},
    State.LOST: {},
}


@define
class Closing(Generic[Reason]):
    """One connection's way to its end.

    :param done: the reason of an orderly end.
    """

    done: Reason
    state: State = State.OPEN
    #: What the application is told in the end; None as long as the connection is read.
    reason: Reason | None = None

    def happened(self, what: Input, reason: Reason | None = None) -> tuple[Action, ...]:
        """Take an event, and return the actions that it asks for, in this order.

        :param reason: why, where it matters: of LIMIT, FAULT and GONE.
        """
        row = TABLE[self.state].get(what)
        if row is None:
            return ()
        self.state = row[0]
        if self.state is State.LOST:
            self.reason = self.reason or reason
        elif self.state in (State.LEAVING, State.ABORTED):
            self.reason = reason or self.reason or self.done
        return row[1:]
