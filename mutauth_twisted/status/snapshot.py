"""The state of services at one moment, as values that go through JSON and add up.

A service is served by one process or by several workers: each takes snapshots of its own, one of
them merges them, and every page is made from the result.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Final, TypeVar

from attrs import asdict, evolve, field, frozen

from mutauth_twisted.findings import Finding
from mutauth_twisted.status.history import Minute, add_up
from mutauth_twisted.status.metrics import METRICS, Value

#: The most sessions, and the most refusals, that a snapshot describes one by one.
MOST_SESSIONS: Final = 200
MOST_REFUSALS: Final = 50

Entry = TypeVar("Entry", "Session", "Refusal")


@frozen
class Session:
    """A session that is live.

    :param id: of its connection.
    :param principal: the client; short, without control characters.
    :param peer: its address.
    :param at: when its connection was accepted, seconds since 1970.
    :param received: bytes from the client.
    :param sent: bytes to the client.
    :param protection: what is done to every byte.
    """

    id: str
    principal: str
    peer: str
    at: float
    received: int
    sent: int
    protection: str


@frozen
class Refusal:
    """A connection that became no session.

    :param id: of the connection.
    :param principal: the client where it was authenticated; else empty.
    :param peer: its address.
    :param at: when it was refused, seconds since 1970.
    :param finding: why.
    """

    id: str
    principal: str
    peer: str
    at: float
    finding: Finding


@frozen
class Snapshot:
    """State of one service.

    :param service: its name.
    :param serving: where it listens; none while it starts or stops.
    :param values: figures by the names of :data:`~mutauth_twisted.status.metrics.METRICS`.
    :param wrong: what keeps clients from it.
    :param warnings: what keeps no client from it, and should be put right.
    :param stopping: whether it stops.
    :param facts: what is published and with which keys, as labels and values.
    :param sessions: the latest live sessions, the latest first; at most :data:`MOST_SESSIONS`.
    :param refusals: likewise; at most :data:`MOST_REFUSALS`.
    :param history: the last hour, the latest minute last; empty where nothing counts.
    """

    service: str
    serving: tuple[str, ...] = ()
    values: Mapping[str, Value] = field(factory=dict)
    wrong: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    stopping: bool = False
    facts: tuple[tuple[str, str], ...] = ()
    sessions: tuple[Session, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    history: tuple[Minute, ...] = ()

    @property
    def ready(self) -> bool:
        """Nothing is known to keep a new, authorized client from finding it, authenticating it and
        being served.

        The directory is as it was found at the last check, the keys as they
        are now, the replay cache as clients have found it.
        """
        return bool(self.serving) and not self.wrong and not self.stopping

    @property
    def figures(self) -> Mapping[str, Value]:
        """All figures: the values, and those that follow from the rest."""
        faults = {"problems": self.wrong, "warnings": self.warnings}
        counted = {
            name: Counter(each.code for each in findings) for name, findings in faults.items()
        }
        return {**self.values, **counted, "ready": int(self.ready)}

    @property
    def remains(self) -> Snapshot:
        """The part that outlasts the end of a process: counters never go back."""
        counted = {
            name: value for name, value in self.values.items() if METRICS[name].kind != "gauge"
        }
        return Snapshot(self.service, values=counted, history=self.history)

    @property
    def idle(self) -> Snapshot:
        """The snapshot of a process that takes no connections: its limits are not used."""
        used = {name: value for name, value in self.values.items() if not name.endswith("_limit")}
        return evolve(self, values=used)

    def number(self, name: str) -> float:
        """Return a figure that has one value; 0 where it is not known."""
        value = self.values.get(name, 0)
        return value if isinstance(value, (int, float)) else 0

    def as_json(self) -> dict[str, Any]:
        """The snapshot in JSON's types."""
        data = asdict(self)
        for name in ("wrong", "warnings"):
            data[name] = [finding.as_json() for finding in getattr(self, name)]
        for made, refusal in zip(data["refusals"], self.refusals, strict=True):
            made["finding"] = refusal.finding.as_json()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Snapshot:
        """The snapshot that :meth:`as_json` described.

        :raises TypeError, ValueError, KeyError, AttributeError: for what it did not make.
        """
        made = {name: data[name] for name in ("service", "values", "stopping")}
        return cls(
            **made,
            serving=tuple(data["serving"]),
            wrong=tuple(map(Finding.from_json, data["wrong"])),
            warnings=tuple(map(Finding.from_json, data["warnings"])),
            facts=tuple((label, value) for label, value in data["facts"]),
            sessions=tuple(Session(**each) for each in data["sessions"]),
            refusals=tuple(
                Refusal(**{**each, "finding": Finding.from_json(each["finding"])})
                for each in data["refusals"]
            ),
            history=tuple(Minute(**each) for each in data["history"]),
        )


def merge(snapshots: Iterable[Snapshot]) -> tuple[Snapshot, ...]:
    """Put together what several processes say of the same services.

    A service serves where any of its processes does, and has every fault that any of them has.
    """
    found: dict[str, list[Snapshot]] = {}
    for each in snapshots:
        found.setdefault(each.service, []).append(each)
    return tuple(each[0] if len(each) == 1 else _merged(each) for each in found.values())


def _merged(same: list[Snapshot]) -> Snapshot:
    names = dict.fromkeys(chain.from_iterable(each.values for each in same))
    return Snapshot(
        same[0].service,
        _all(each.serving for each in same),
        {
            name: METRICS[name].together(
                [each.values[name] for each in same if name in each.values]
            )
            for name in names
        },
        _all(each.wrong for each in same),
        _all(each.warnings for each in same),
        any(each.stopping for each in same),
        _all(each.facts for each in same),
        latest(chain.from_iterable(each.sessions for each in same), MOST_SESSIONS),
        latest(chain.from_iterable(each.refusals for each in same), MOST_REFUSALS),
        add_up(each.history for each in same),
    )


Item = TypeVar("Item")


def _all(several: Iterable[Iterable[Item]]) -> tuple[Item, ...]:
    """Everything once, in order."""
    return tuple(dict.fromkeys(chain.from_iterable(several)))


def latest(entries: Iterable[Entry], most: int) -> tuple[Entry, ...]:
    """The latest of some sessions or refusals, the latest first."""
    by_time: Callable[[Entry], float] = lambda entry: entry.at  # noqa: E731
    return tuple(heapq.nlargest(most, entries, by_time))
