"""Pictures of the status page, for docs/monitoring.md.

Usage: python -m interop.screenshots

What is on them is made up; the page, its server and the browser are the real ones.
"""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread

from interop.browser import Browser
from mutauth_twisted.findings import Command, Finding
from mutauth_twisted.status.history import MINUTES, Minute
from mutauth_twisted.status.http import StatusFactory
from mutauth_twisted.status.metrics import METRICS
from mutauth_twisted.status.pages import KEPT, pages
from mutauth_twisted.status.snapshot import Refusal, Session, Snapshot

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
NOW: Final = 1_795_347_780.0
_GUID: Final = "9f2b6c1e-7a35-4d0c-8e41-5c0d6f2a91b7"
_DN: Final = "CN=shop,CN=SRV1,CN=Computers,DC=example,DC=com"
reactor: Any = _reactor


def _latencies() -> list[float]:
    histogram = METRICS["handshake_duration_seconds"].empty()
    for at, count in ((1, 310), (2, 2240), (3, 402), (4, 31), (6, 2)):
        histogram[at] = count
    histogram[-1] = 55.4
    return histogram


def _sessions(rand: random.Random) -> tuple[Session, ...]:
    names = ("alice", "carol", "svc-report", "SRV7$", "dave", "erin", "svc-backup")
    return tuple(
        Session(
            f"5f1c0e9ad2b4-{number:x}",
            f"{name}@EXAMPLE.COM",
            f"10.20.{number}.{rand.randrange(2, 250)}:{rand.randrange(32768, 61000)}",
            NOW - 37 * number**3.1,
            rand.randrange(10**5, 10**8),
            rand.randrange(10**6, 10**9),
            "seal",
        )
        for number, name in enumerate(names, 1)
    )


def _refusals() -> tuple[Refusal, ...]:
    denied = Finding(
        "access-denied",
        "mallory@EXAMPLE.COM",
        "the access policy does not allow this principal: no rule allows it",
        "add --allow mallory@EXAMPLE.COM if it should",
    )
    stale = Finding(
        "ticket-wrong-key",
        "10.20.9.14:50112",
        "its ticket is for version 3 of the keys of svc-shop, and the keytab has 4",
        "have the client get a new ticket: log on again, or kinit",
    )
    return (
        Refusal("5f1c0e9ad2b4-8", "mallory@EXAMPLE.COM", "10.20.3.77:41890", NOW - 192, denied),
        Refusal("5f1c0e9ad2b4-9", "", "10.20.9.14:50112", NOW - 2710, stale),
    )


def sample() -> Snapshot:
    """A service that has had a good hour."""
    rand = random.Random(7)
    first = int(NOW // 60) - MINUTES + 1
    history = tuple(
        Minute(
            first + at,
            allowed=round(26 + 14 * math.sin(at / 7) + rand.uniform(-4, 4)),
            refused=rand.choice((0, 0, 0, 0, 1, 0, 2)) + (9 if at == 41 else 0),
            sessions=round(128 + 24 * math.sin(at / 11 - 1)),
        )
        for at in range(MINUTES)
    )
    values = {
        "sessions": 7,
        "sessions_limit": 10000,
        "handshakes_in_progress": 1,
        "handshakes_limit": 256,
        "handshakes_total": {"allowed": 2985, "access-denied": 31, "ticket-wrong-key": 12},
        "handshake_duration_seconds": _latencies(),
        "received_bytes_total": 8_412_345_678,
        "sent_bytes_total": 92_812_345_678,
        "directory_check_timestamp_seconds": NOW - 143,
        "keytab_modified_timestamp_seconds": NOW - 41 * 86400,
        "ticket_end_timestamp_seconds": NOW + 5.2 * 3600,
    }
    facts = (
        ("SCP", _DN),
        ("Published address", "srv1.example.com 9000"),
        ("SPN", f"shop/srv1.example.com/{_GUID}"),
        ("SPN", f"shop/srv1.example.com/{_DN}"),
        ("Account", "CN=svc-shop,CN=Users,DC=example,DC=com"),
        ("Keytab", "/etc/mutauth/shop.keytab"),
        ("Key version", "4"),
    )
    return Snapshot(
        "shop",
        ("10.20.0.5:9000",),
        values,
        facts=facts,
        sessions=_sessions(rand),
        refusals=_refusals(),
        history=history,
    )


def unwell(service: Snapshot) -> Snapshot:
    """The same with a fault and a warning."""
    spn = f"shop/srv1.example.com/{_GUID}"
    words = ("--service-class", "shop", "--host", "srv1.example.com", "--account", "svc-shop")
    missing = Finding(
        "spn-missing",
        f"SPN {spn}",
        "it is not on account svc-shop, under which the service runs",
        ("as an administrator, run ", Command("mutauth", "install", *words)),
    )
    readable = Finding(
        "keys-exposed",
        "keytab /etc/mutauth/shop.keytab",
        "every account of this machine can read it",
        ("run ", Command("chmod", "o=", "/etc/mutauth/shop.keytab")),
    )
    return evolve(service, wrong=(missing,), warnings=(readable,))


def _draw(address: str, show: list[Snapshot]) -> None:
    good = show[0]
    with Browser() as browser:
        browser.look(wide=1100, high=1000)
        browser.open(address)
        browser.picture(DOCS / "status.png", whole=False)
        show[0] = unwell(good)
        browser.look(wide=390, high=844, scheme="dark")
        browser.open(address)
        browser.picture(DOCS / "status-phone.png", whole=False)


def main() -> None:
    """Draw the pictures."""
    show = [sample()]
    # The page is kept for a while: each look is a later one.
    moments = itertools.count(NOW, KEPT)
    shown = pages(lambda: tuple(show), "srv1.example.com", lambda: next(moments))
    factory = StatusFactory(reactor, shown)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    address = f"http://127.0.0.1:{port.getHost().port}/"
    failures: list[Any] = []
    drawing = deferToThread(_draw, address, show)
    drawing.addErrback(failures.append).addCallback(lambda _: reactor.stop())
    reactor.run()
    for failure in failures:
        failure.raiseException()


if __name__ == "__main__":
    main()
