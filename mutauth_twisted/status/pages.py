"""The pages of a status port, by path; made from snapshots of the services."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from itertools import chain
from typing import Any, Final

from mutauth_twisted.status import metrics, page
from mutauth_twisted.status.http import Page, Response
from mutauth_twisted.status.snapshot import Snapshot
from mutauth_twisted.text import printable

#: Gives how all services are now.
Look = Callable[[], tuple[Snapshot, ...]]
JSON: Final = "application/json"
#: Figures of a service in ``/health``, by their names there.
_COUNTS: Final = {
    "handshakes": "handshakes_in_progress",
    "waiting": "connections_waiting",
    "sessions": "sessions",
}


#: Seconds for which a page that takes long to make is shown again: whoever asks without end gets
#: no more of the reactor's time than that of one page.
KEPT: Final = 1.0
#: How many times as long as it takes to look at the services they are not looked at again: probes
#: get a twentieth of the reactor's time at most, and hear at once that a service stops.
PAUSE: Final = 19.0


def _kept(make: Callable[[], Response], now: Callable[[], float]) -> Callable[[], Response]:
    """Make a response that is made anew after :data:`KEPT` seconds only."""
    made: list[tuple[float, Response]] = []

    def response() -> Response:
        # A clock that is set back makes it anew, too.
        if not made or not 0 <= now() - made[0][0] < KEPT:
            made[:] = [(now(), make())]
        return made[0][1]

    return response


def bounded(look: Look, timer: Callable[[], float] = time.perf_counter) -> Look:
    """The same, which looks again only when that takes :data:`PAUSE` times less than has passed.

    :param timer: gives seconds from any moment on.
    """
    seen: list[tuple[float, tuple[Snapshot, ...]]] = []

    def looked() -> tuple[Snapshot, ...]:
        began = timer()
        if not seen or began >= seen[0][0]:
            found = look()
            ended = timer()
            seen[:] = [(ended + PAUSE * (ended - began), found)]
        return seen[0][1]

    return looked


def pages(
    look: Look,
    host: str,
    now: Callable[[], float] = time.time,
    workers: Callable[[], Mapping[str, int]] = dict,
) -> Mapping[str, Page]:
    """Make the pages.

    :param look: gives how all services are now.
    :param host: the machine's name.
    :param now: gives seconds since 1970.
    :param workers: gives the process ids of the workers, by their names.
    """

    look = bounded(look)

    def drawn() -> Response:
        return Response(page.page(look(), host, now()), page.CONTENT_TYPE, headers=page.HEADERS)

    def counted() -> Response:
        return Response(metrics.exposition(look(), workers()), metrics.CONTENT_TYPE)

    picture, figures = _kept(drawn, now), _kept(counted, now)

    def people(accept: str) -> Response:
        if "text/html" in accept:
            return picture()
        return Response("".join(map(_as_text, look())), headers={"Vary": "Accept"})

    def ready(_: str) -> Response:
        services = look()
        return Response(_as_lines(services), code=_code(services))

    def health(_: str) -> Response:
        services = look()
        return Response(json.dumps(_as_json(services)), JSON, _code(services))

    return {
        "/": people,
        # The reactor turns: nobody else would answer.
        "/healthz": lambda _: Response("ok\n"),
        "/readyz": ready,
        "/health": health,
        "/metrics": lambda _: figures(),
    }


def _is_ready(services: tuple[Snapshot, ...]) -> bool:
    # One that leaves a process which goes on is nobody's business any more.
    staying = [each for each in services if not each.stopping]
    return bool(staying) and all(each.ready for each in staying)


def _code(services: tuple[Snapshot, ...]) -> HTTPStatus:
    return HTTPStatus.OK if _is_ready(services) else HTTPStatus.SERVICE_UNAVAILABLE


def _as_lines(services: tuple[Snapshot, ...]) -> str:
    """A line for each service, and one for each of its faults."""
    lines = ["ready" if _is_ready(services) else "NOT ready"]
    for each in services:
        state = "stopping" if each.stopping else "serving" if each.serving else "not serving"
        lines.append(f"{each.service}: {state}")
        lines += (f"{each.service}: {finding.coded}" for finding in each.wrong)
    return _text(lines)


def _as_text(service: Snapshot) -> str:
    counts = {name: int(service.number(key)) for name, key in _COUNTS.items()}
    return _text(
        [
            f"{service.service}: {'healthy' if service.ready else 'NOT healthy'}",
            f"serving on {', '.join(service.serving) or 'nothing'}",
            f"{counts['sessions']} session(s), {counts['handshakes']} handshake(s) under way, "
            f"{counts['waiting']} connection(s) waiting",
            *(f"wrong: {finding.coded}" for finding in service.wrong),
            *(f"warning: {finding.coded}" for finding in service.warnings),
        ]
    )


def _text(lines: list[str]) -> str:
    return "".join(f"{printable(line)}\n" for line in lines)


def _as_json(services: tuple[Snapshot, ...]) -> dict[str, Any]:
    """Everything together, and each service by itself."""
    each = [_one_as_json(service) for service in services]
    lists = {
        name: list(chain.from_iterable(one[name] for one in each))
        for name in ("serving", "wrong", "warnings")
    }
    return {
        "healthy": _is_ready(services),
        "service": ", ".join(one["service"] for one in each),
        **{name: sum(one[name] for one in each) for name in _COUNTS},
        **lists,
        "services": each,
    }


def _one_as_json(service: Snapshot) -> dict[str, Any]:
    return {
        "service": service.service,
        "healthy": service.ready,
        "stopping": service.stopping,
        "serving": list(service.serving),
        **{name: int(service.number(key)) for name, key in _COUNTS.items()},
        "wrong": [finding.as_json() for finding in service.wrong],
        "warnings": [finding.as_json() for finding in service.warnings],
    }
