"""Events of one service as lines of JSON; docs/audit.md has the schema."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.error import ConnectionLost as NetworkLost
from twisted.internet.interfaces import IAddress

from mutauth_twisted.audit.sinks import LONGEST, Sink
from mutauth_twisted.errors import MutualAuthError, ServiceFull, SessionEnded
from mutauth_twisted.findings import Finding
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.log import LimitedLog, Log
from mutauth_twisted.net.events import ConnectionObserver, ConnectionRecord
from mutauth_twisted.net.limits import network_of
from mutauth_twisted.text import short_name

#: The schema's version: it changes when a field goes or means something else, and not when one is
#: added.
VERSION: Final = 1
#: Events in full of connections that are not authenticated, in :data:`LimitedLog.INTERVAL`.
STRANGERS: Final = 1000
#: The same for one network.
STRANGERS_OF_ONE: Final = 200
_LONGEST_TEXT: Final = 500


def _now(seconds: float | None = None) -> str:
    moment = datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}Z"


def _address(address: IAddress | None) -> dict[str, object]:
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is not None:
        return {"address": str(host), "port": port}
    name = getattr(address, "name", None)
    return {"path": short_name(name)} if name else {}


def _client(identity: PeerIdentity) -> dict[str, object]:
    """Facts about a client, each verified, but for those under ``unverified``."""
    found: dict[str, object] = {"principal": short_name(identity.principal)}
    try:
        logon = identity.read_logon()
    except MutualAuthError:  # the access policy, which needs it, refuses the client for it
        logon = None
    if logon is not None:
        found["account"] = short_name(logon.account)
        if logon.sid is not None:
            found["sid"] = logon.sid
    found["package"] = identity.package
    found["protection"] = identity.protection.value
    if identity.claimed_spn:
        found["unverified"] = {"spn": short_name(identity.claimed_spn)}
    return found


def _end(error: BaseException | None) -> dict[str, object]:
    """End of a connection: the code of a finding, or one of a session's own ends."""
    if isinstance(error, MutualAuthError):
        found = error.finding
        return {"code": found.code, "cause": str(found)[:_LONGEST_TEXT]}
    if error is None or isinstance(error, ConnectionDone):
        return {"code": "closed"}
    if isinstance(error, ConnectionAborted):
        return {"code": "aborted"}
    if isinstance(error, NetworkLost):
        return {"code": "connection-lost"}
    return {"code": "application-failed", "cause": type(error).__name__}


def _rule(record: ConnectionRecord) -> dict[str, object]:
    """The access rule that decided about the client; nothing where none did."""
    decision = record.decision
    return {"rule": decision.rule[:_LONGEST_TEXT]} if decision and decision.rule else {}


def _rendered(event: Mapping[str, object]) -> bytes:
    """The line of an event.

    :raises ValueError: when it is too long, or has what UTF-8 cannot encode.
    """
    line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    if len(line) > LONGEST:
        raise ValueError(f"a line of {len(line)} bytes, and {LONGEST} are the most")
    return line


class AuditTrail(ConnectionObserver):
    """Audit trail of one service.

    A line that the sink does not take is counted, and their number is the first line that it takes
    again.  Where the trail is required no new session begins meanwhile.

    Whoever is not authenticated can make connections at will.  Only so many of them are written,
    and the others are counted in an event ``omitted``; what an authenticated client does is never
    left out.

    :param clock: provides IReactorTime.
    :param sink: where the lines go.
    :param service: the service's class.
    :param destination: the sink's name, for messages.
    :param required: whether clients are refused while events are lost.
    """

    _log = Log()

    def __init__(
        self, clock: Any, sink: Sink, service: str, destination: str, *, required: bool = False
    ) -> None:
        self._clock = clock
        self._sink = sink
        self._service = service
        self._destination = destination
        self._required = required
        #: How many events were lost since the start, and how many since the last that was written.
        self.lost = 0
        self._lost = 0
        self._lost_since = 0.0
        self._cause = ""
        self._strangers = LimitedLog(
            clock,
            self,  # type: ignore[arg-type]  # of a logger it needs warn()
            "events",
            lines=STRANGERS,
            lines_of_one=STRANGERS_OF_ONE,
        )
        # Those whose first line was left out so far, and is due when they are authenticated.
        self._untold: set[ConnectionRecord] = set()

    @property
    def fault(self) -> Finding | None:
        """Finding while events cannot be written; None: they can."""
        if not self._lost:
            return None
        cause = f"{self._cause}; {self._lost} event(s) lost since {_now(self._lost_since)}"
        if self._required:
            cause += ", and new clients are refused"
        return Finding("audit-failing", f"audit {self._destination}", cause, "make it writable")

    def close(self) -> None:
        """Write what was only counted so far, and no more."""
        self._strangers.flush()
        self._sink.close()

    # The lines

    def write(self, event: str, **fields: object) -> bool:
        """Write one event; return True if its line was taken."""
        if self._lost and not self._write_line(
            "lost", {"count": self._lost, "since": _now(self._lost_since)}
        ):
            self._lost += 1
            self.lost += 1
            return False
        if self._lost:
            self._log.info("audit {where}: written again", where=self._destination)
            self._lost = 0
        if self._write_line(event, fields):
            return True
        self._lost, self._lost_since = 1, time.time()
        self.lost += 1
        self._log.error("{fault}", fault=self.fault)
        return False

    def _write_line(self, event: str, fields: Mapping[str, object]) -> bool:
        whole = {
            "version": VERSION,
            "time": _now(),
            "event": event,
            "service": self._service,
            **fields,
        }
        try:
            line = _rendered(whole)
            self._sink.write(line)
        except (OSError, ValueError) as error:
            # Whatever it is, the event is lost, and a trail that is required has to know.
            self._cause = getattr(error, "strerror", None) or str(error)
            return False
        return True

    def warn(self, format: str, **fields: Any) -> None:
        """Write how many events of strangers were left out; :class:`LimitedLog` calls this."""
        self.write("omitted", **{name: fields[name] for name in ("count", "sources", "kinds")})

    def _allows(self, kind: str, record: ConnectionRecord) -> bool:
        return self._strangers.allows(kind, network_of(record.peer))

    def _opened(self, record: ConnectionRecord) -> bool:
        self._untold.discard(record)
        return self.write(
            "opened",
            connection=record.id,
            accepted=_now(record.opened_at),
            client=_address(record.peer),
            server=_address(record.host),
        )

    # The events; see ConnectionObserver

    def opened(self, record: ConnectionRecord) -> None:
        """See :class:`ConnectionObserver`."""
        if self._allows("opened", record):
            self._opened(record)
        else:
            self._untold.add(record)

    def authenticated(self, record: ConnectionRecord) -> None:
        """See :class:`ConnectionObserver`.

        :raises ServiceFull: when the event is lost, and the trail is required.
        """
        identity = record.identity
        assert identity is not None
        if record in self._untold:
            self._opened(record)
        taken = self.write("authenticated", connection=record.id, **_client(identity))
        if self._required and not taken:
            cause = f"the audit trail is required and cannot be written: {self._cause}"
            remedy = f"make {self._destination} writable"
            raise ServiceFull(short_name(identity.principal), cause, remedy, code="audit-failing")

    def established(self, record: ConnectionRecord) -> None:
        """See :class:`ConnectionObserver`."""
        if self.write("allowed", connection=record.id, **_rule(record)) or not self._required:
            return
        if record.session is not None:
            cause = f"the audit trail is required and cannot be written: {self._cause}"
            remedy = "try again later"
            record.session.end_session(SessionEnded("session", cause, remedy, code="audit-failing"))

    def refused(self, record: ConnectionRecord) -> None:
        """See :class:`ConnectionObserver`."""
        end, where = _end(record.error), {}
        if record in self._untold:
            self._untold.discard(record)
            return
        if record.host is None:  # it was never opened
            where["client"] = _address(record.peer)
            if not self._allows(str(end["code"]), record):
                return
        decision = record.decision
        rule = _rule(record) if decision is not None and not decision.allowed else {}
        self.write("refused", connection=record.id, **where, **end, **rule)

    def closed(self, record: ConnectionRecord) -> None:
        """See :class:`ConnectionObserver`."""
        began = record.session_began
        self.write(
            "closed",
            connection=record.id,
            received=record.received,
            sent=record.sent,
            seconds=round(self._clock.seconds() - began, 3) if began is not None else 0,
            **_end(record.error),
        )
