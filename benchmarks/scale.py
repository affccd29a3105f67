"""A day of a large deployment, simulated from the costs of its parts.

    python benchmarks/scale.py [--services N] [--connections N] [--clients N] ... [--costs FILE]

Connections come at random times of a working day, which is the shorter the
higher the peak factor.  Each is of some client, to a service chosen by Zipf's
law: the most popular has a tenth of all.  A client keeps its tickets for ten
hours and what it found for a minute.  The costs are those that ``costs.py``
measures; without --costs, as they were on two cores of a small machine.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

from attrs import frozen

#: What costs.py has printed.
COSTS = {
    "service ticket, KDC CPU s": 0.0038,
    "first ticket, KDC CPU s": 0.0091,
    "service start and stop, directory CPU s": 0.043,
    "check, directory CPU s": 0.0063,
    "search, directory CPU s": 0.0047,
    "connection, gateway CPU s": 0.0015,
    "connection, replay cache bytes": 33,
    "connection, log bytes": 241,
    "connection, audit bytes": 944,
    "session, gateway bytes": 17_000,
}
DAY = 86_400
TICKET = 36_000
#: Clocks may differ by so much (RFC 4120, 1.6); so long a request is remembered, in seconds.
SKEW = 300


@frozen
class Load:
    """Amount of something in a day.

    :ivar total: in the day.
    :ivar peak: in its busiest second.
    """

    total: int
    peak: int

    @classmethod
    def of(cls, seconds: Counter[int]) -> Load:
        """That of the numbers for each second."""
        return cls(seconds.total(), max(seconds.values(), default=0))


@frozen
class Day:
    """Counts of what has happened.

    :ivar sessions: the most at once, of all services.
    :ivar busiest: the connections of the busiest service.
    :ivar busiest_sessions: the most of its sessions at once.
    """

    connections: Load
    service_tickets: Load
    first_tickets: Load
    searches: Load
    sessions: int
    busiest: Load
    busiest_sessions: int


def most_at_once(changes: Counter[int]) -> int:
    """The highest sum on the way through the changes of all seconds."""
    return max(accumulate(changes[second] for second in sorted(changes)), default=0)


def simulate(given: argparse.Namespace) -> Day:
    """Live through a day."""
    source = random.Random(given.seed)
    length = DAY / given.peak_factor
    times = sorted(source.uniform(0, length) for _ in range(given.connections))
    weights = list(accumulate(1 / rank for rank in range(1, given.services + 1)))
    services = source.choices(range(given.services), cum_weights=weights, k=given.connections)
    counts = {name: Counter[int]() for name in ("all", "tgs", "as", "search", "busiest")}
    open_now, open_busiest = Counter[int](), Counter[int]()
    known: dict[int, float] = {}
    tickets: dict[int, float] = {}
    for now, service in zip(times, services, strict=True):
        second, client = int(now), source.randrange(given.clients)
        key = client * given.services + service
        counts["all"][second] += 1
        if now >= tickets.get(-1 - client, 0):
            tickets[-1 - client] = now + TICKET
            counts["as"][second] += 1
        if now >= tickets.get(key, 0):
            tickets[key] = now + TICKET
            counts["tgs"][second] += 1
        if now >= known.get(key, 0):
            known[key] = now + given.cache
            counts["search"][second] += 1
        end = second + 1 + int(source.expovariate(1 / given.session))
        opened = [open_now]
        if service == 0:
            counts["busiest"][second] += 1
            opened.append(open_busiest)
        for each in opened:
            each[second] += 1
            each[end] -= 1
    return Day(
        Load.of(counts["all"]),
        Load.of(counts["tgs"]),
        Load.of(counts["as"]),
        Load.of(counts["search"]),
        most_at_once(open_now),
        Load.of(counts["busiest"]),
        most_at_once(open_busiest),
    )


def rows(given: argparse.Namespace, costs: dict[str, float], day: Day) -> list[tuple[str, ...]]:
    """The table: what, in a day, in the busiest second, and what that takes."""

    def cores(load: float, cost: str) -> str:
        return f"{load * costs[cost]:.2f} cores"

    def size(count: float, cost: str) -> str:
        amount = count * costs[cost]
        unit = next(unit for unit in (30, 20, 10) if amount >= 1 << unit or unit == 10)
        return f"{amount / (1 << unit):.1f} {({30: 'GiB', 20: 'MiB', 10: 'KiB'})[unit]}"

    def line(what: str, load: Load, cost: str, where: str) -> tuple[str, ...]:
        return what, f"{load.total:,}", f"{load.peak:,}", f"{where}: {cores(load.peak, cost)}"

    checks = round(given.services * DAY / given.check_interval)
    check_load = Load(checks, -(-checks // DAY))
    starts = round(given.services * given.restarts)
    storm = given.services * costs["service start and stop, directory CPU s"]
    busiest = day.busiest
    return [
        line("connections", day.connections, "connection, gateway CPU s", "all gateways"),
        line("connections of the busiest service", busiest, "connection, gateway CPU s", "its own"),
        line("first tickets (AS)", day.first_tickets, "first ticket, KDC CPU s", "all KDCs"),
        line("service tickets (TGS)", day.service_tickets, "service ticket, KDC CPU s", "all KDCs"),
        line("searches for a service", day.searches, "search, directory CPU s", "all controllers"),
        line("services that check the directory", check_load, "check, directory CPU s", "the same"),
        (
            "writes of SCPs, at starts and stops",
            f"{2 * starts:,}",
            "",
            "each is replicated to every controller",
        ),
        (
            "all services start at once",
            f"{given.services:,}",
            "",
            f"all controllers: {storm:,.0f} CPU seconds",
        ),
        (
            "sessions at once",
            "",
            f"{day.sessions:,}",
            f"all gateways: {size(day.sessions, 'session, gateway bytes')}",
        ),
        (
            "sessions at once of the busiest service",
            "",
            f"{day.busiest_sessions:,}",
            f"its own: {size(day.busiest_sessions, 'session, gateway bytes')}",
        ),
        (
            "log",
            size(day.connections.total, "connection, log bytes"),
            "",
            f"busiest service: {size(busiest.total, 'connection, log bytes')}",
        ),
        (
            "audit trail",
            size(day.connections.total, "connection, audit bytes"),
            "",
            f"busiest service: {size(busiest.total, 'connection, audit bytes')}",
        ),
        (
            "replay cache of the busiest service",
            "",
            f"{min(busiest.total, busiest.peak * SKEW):,} entries",
            size(min(busiest.total, busiest.peak * SKEW), "connection, replay cache bytes"),
        ),
    ]


def main() -> None:
    """Carry the command line out."""
    options: Any = argparse.ArgumentParser()
    options.add_argument("--services", type=int, default=10_000)
    options.add_argument("--connections", type=int, default=1_000_000, help="in a day")
    options.add_argument("--clients", type=int, default=50_000)
    options.add_argument("--peak-factor", type=float, default=3.0, help="the busy hours' rate")
    options.add_argument("--session", type=float, default=600.0, help="mean seconds of a session")
    options.add_argument("--cache", type=float, default=60.0, help="seconds, as in cache=")
    options.add_argument("--check-interval", type=float, default=300.0, help="seconds")
    options.add_argument("--restarts", type=float, default=0.2, help="of a service in a day")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--costs", type=Path, help="what costs.py has printed")
    given = options.parse_args()
    costs = dict(COSTS)
    if given.costs is not None:
        costs |= json.loads(given.costs.read_text())
    print("| what | in a day | in the busiest second | what it takes |\n|---|---|---|---|")
    for row in rows(given, costs, simulate(given)):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
