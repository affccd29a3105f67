"""The page for people: one document of HTML, with its style, its script and its graph in it.

What clients and the directory wrote is escaped by twisted.web.template.  The content security
policy allows this style and this script, by their hashes, and nothing else from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from itertools import accumulate
from typing import Any, Final

from twisted.python.failure import Failure
from twisted.web.template import Tag, flattenString, tags

from mutauth_twisted.findings import Command, Finding
from mutauth_twisted.status.history import Minute
from mutauth_twisted.status.metrics import METRICS
from mutauth_twisted.status.snapshot import Refusal, Session, Snapshot
from mutauth_twisted.text import one_line, printable

CONTENT_TYPE: Final = "text/html; charset=utf-8"
_STYLE: Final = files(__package__).joinpath("page.css").read_text("utf-8")
_SCRIPT: Final = files(__package__).joinpath("page.js").read_text("utf-8")
#: Seconds between renewals where there is no script.
_RENEWAL: Final = 10


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_POLICY: Final = {
    "default-src": "'none'",
    "style-src": _hash(_STYLE),
    "script-src": _hash(_SCRIPT),
    "connect-src": "'self'",
    "img-src": "data:",  # the icon
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
}


def page(services: tuple[Snapshot, ...], host: str, now: float) -> str:
    """Return the page.

    :param services: what is shown.
    :param host: the machine's name.
    :param now: seconds since 1970.
    """
    state, color = _state(services)
    title = f"{state}: {', '.join(each.service for each in services)}"
    icon = (
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E"
        f"%3Ccircle cx='4' cy='4' r='4' fill='%23{color}'/%3E%3C/svg%3E"
    )
    head = _html(tags.title(printable(title)), tags.link(id="icon", rel="icon", href=icon))
    body = _html(
        tags.header(
            tags.h1("mutauth ", tags.small("on ", printable(host))),
            tags.span(
                state,
                id="state",
                role="status",
                class_=f"pill {'good' if _is_good(services) else 'bad'}",
            ),
            tags.p("as of ", _clock(now), id="fresh", class_="fresh"),
            tags.label(
                tags.input(
                    id="filter",
                    type="search",
                    placeholder="Find an account or address below",
                    autocomplete="off",
                    **{"aria-label": "Find an account or address"},
                ),
                class_="tools",
                hidden="",
            ),
        ),
        Tag("main")(*(_service(number, each, now) for number, each in enumerate(services))),
        tags.footer(
            tags.p(
                "For programs: ",
                *_between(" · ", (tags.a(path, href=path) for path in _FOR_PROGRAMS)),
            )
        ),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{head}\n<style>{_STYLE}</style>\n"
        f'<noscript><meta http-equiv="refresh" content="{_RENEWAL}"></noscript>\n'
        f"</head>\n<body>\n{body}\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


_FOR_PROGRAMS: Final = ("/healthz", "/readyz", "/health", "/metrics")


def _html(*parts: Any) -> str:
    """Flatten what needs nothing that is still to come."""
    found: list[bytes | Failure] = []
    flattenString(None, parts).addBoth(found.append)
    (made,) = found
    if isinstance(made, Failure):
        made.raiseException()
    assert isinstance(made, bytes)
    return made.decode()


def _between(separator: str, parts: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for part in parts:
        found += [separator, part] if found else [part]
    return found


def _is_good(services: Iterable[Snapshot]) -> bool:
    return all(each.ready for each in services)


def _state(services: tuple[Snapshot, ...]) -> tuple[str, str]:
    """The word for all services together, and the colour of the icon."""
    if _is_good(services):
        return "Ready", "0a9b6b"
    return ("Stopping" if any(each.stopping for each in services) else "Not ready"), "d13b34"


# --- Words ------------------------------------------------------------------------------------


def _instant(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _clock(at: float) -> Tag:
    instant = _instant(at)
    return tags.time(f"{instant:%H:%M:%S} UTC", datetime=instant.isoformat(timespec="seconds"))


def _moment(at: float, now: float) -> Tag:
    instant = _instant(at)
    day = "" if instant.date() == _instant(now).date() else f"{instant:%Y-%m-%d} "
    return tags.time(
        f"{day}{instant:%H:%M:%S}",
        datetime=instant.isoformat(timespec="seconds"),
        title=f"{instant:%Y-%m-%d %H:%M:%S} UTC",
    )


def span(seconds: float) -> str:
    """Say how long something takes, in its two largest units."""
    whole = max(0, int(seconds))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[Any] = []
    for name, size in units:
        if whole >= size or (parts and len(parts) < 2):
            parts.append(f"{whole // size} {name}")
            whole %= size
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 ")) or "0 s"


def size(count: float) -> str:
    """Say how many bytes, with three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.3g} TiB" if count < 1000 else f"{count:,.0f} TiB"


# --- One service ------------------------------------------------------------------------------


def _service(number: int, service: Snapshot, now: float) -> Tag:
    state, _ = _state((service,))
    kind = "good" if service.ready else "bad"
    where = ", ".join(service.serving)
    name = f"service-{number}"
    return tags.section(
        tags.div(
            tags.h2(printable(service.service), id=name),
            tags.span(state, class_=f"pill {kind}"),
            tags.span(printable(f"on {where}") if where else "not listening", class_="soft"),
            class_="title",
        ),
        _findings(service),
        _tiles(service),
        _hour(service.history),
        _sessions(name, service, now),
        _refusals(name, service, now),
        _facts(name, service, now),
        class_="service",
        **{"aria-labelledby": name},
    )


def _findings(service: Snapshot) -> Any:
    found = [*service.wrong, *service.warnings]
    if not found:
        return ""
    return tags.ul(
        *(_finding(each, "warning" if each in service.warnings else "fault") for each in found),
        class_="findings",
        **{"aria-label": "Findings"},
    )


def _finding(finding: Finding, kind: str) -> Tag:
    return tags.li(
        tags.p(tags.span(kind, class_="kind"), " ", tags.code(finding.code, class_="code")),
        tags.p(
            tags.span(printable(finding.subject), class_="subject"), ": ", printable(finding.cause)
        ),
        _remedy(finding),
        class_=f"finding {kind}",
    )


def _remedy(finding: Finding) -> Any:
    parts = finding.remedy_parts
    if not finding.remedy_text:
        return ""
    return tags.div(
        tags.strong("To fix it: "),
        *(
            tags.code(printable(str(part)), class_="command")
            if isinstance(part, Command)
            else printable(part)
            for part in parts
        ),
        class_="remedy",
    )


def _tile(label: str, figure: str, note: str = "", share: float | None = None) -> Tag:
    parts: list[Tag] = [tags.dd(figure, class_="figure")]
    if note:
        parts.append(tags.dd(note, class_="note"))
    if share is not None:
        text = f"{share:.0%} of the limit"
        gauge = Tag("meter", attributes={"high": "0.9", "value": f"{share:.4f}"})
        parts.append(tags.dd(gauge(text, **{"aria-label": text})))
    return tags.div(tags.dt(label), *parts, class_="tile")


def _limited(service: Snapshot, label: str, name: str, limit: str, note: str = "") -> Tag:
    count, most = service.number(name), service.number(limit)
    notes = ", ".join(filter(None, (f"of {most:,.0f}" if most else "", note)))
    return _tile(label, f"{count:,.0f}", notes, min(1.0, count / most) if most else None)


def _tiles(service: Snapshot) -> Tag:
    waiting = service.number("connections_waiting")
    hour = service.history
    return tags.dl(
        _limited(service, "Sessions", "sessions", "sessions_limit"),
        _limited(
            service,
            "Handshakes",
            "handshakes_in_progress",
            "handshakes_limit",
            f"{waiting:,.0f} wait",
        ),
        _tile("Allowed", f"{sum(each.allowed for each in hour):,}", "in the last hour"),
        _tile("Refused", f"{sum(each.refused for each in hour):,}", "in the last hour"),
        _tile("Handshake time", _most_took(service), "for 95 of 100 clients"),
        _tile("From clients", size(service.number("received_bytes_total")), "since the start"),
        _tile("To clients", size(service.number("sent_bytes_total")), "since the start"),
        class_="tiles",
    )


def _most_took(service: Snapshot) -> str:
    """The bound below which 95 of 100 handshakes stayed, from the histogram."""
    name = "handshake_duration_seconds"
    histogram = service.values.get(name)
    if not isinstance(histogram, list) or not (count := sum(histogram[:-1])):
        return "none yet"
    bounds = METRICS[name].bounds
    for bound, below in zip(bounds, accumulate(histogram[:-1]), strict=False):
        if below >= math.ceil(0.95 * count):
            return f"≤ {bound * 1000:g} ms" if bound < 1 else f"≤ {bound:g} s"
    return f"> {bounds[-1]:g} s"


# --- The last hour ----------------------------------------------------------------------------

_WIDE, _HIGH = 12, 100


def _svg(name: str, *children: Any, **attributes: Any) -> Tag:
    texts: dict[Any, Any] = {
        key.rstrip("_").replace("_", "-"): str(value) for key, value in attributes.items()
    }
    return Tag(name, attributes=texts, children=list(children))


def _hour(history: tuple[Minute, ...]) -> Any:
    if not history:
        return ""
    most = max(1, *(each.allowed + each.refused for each in history))
    crowd = max(1, *(each.sessions for each in history))
    wide = _WIDE * len(history)
    points = " ".join(
        f"{(at + 0.5) * _WIDE:g},{_HIGH - each.sessions / crowd * (_HIGH - 4):g}"
        for at, each in enumerate(history)
    )
    told = (
        f"The last hour: {sum(each.allowed for each in history):,} allowed, "
        f"{sum(each.refused for each in history):,} refused, at most {crowd:,} sessions at once."
    )
    graph = _svg(
        "svg",
        _svg("title", told),
        *(_svg("line", x1=0, x2=wide, y1=y, y2=y) for y in (1, _HIGH // 2, _HIGH - 1)),
        *(_bar(at, each, most) for at, each in enumerate(history)),
        _svg("polyline", points=points),
        viewBox=f"0 0 {wide} {_HIGH}",
        preserveAspectRatio="none",
        role="img",
        aria_label=told,
    )
    return tags.div(
        tags.h3("The last hour"),
        graph,
        tags.div(
            tags.span(f"{_instant(history[0].number * 60):%H:%M}"),
            tags.span(f"{_instant(history[-1].number * 60):%H:%M} UTC"),
            class_="axis",
        ),
        tags.div(
            tags.span("allowed", class_="allowed"),
            tags.span("refused", class_="refused"),
            tags.span(f"sessions (at most {crowd:,})", class_="line"),
            tags.span(f"bars: at most {most:,} a minute", class_="soft"),
            class_="legend",
        ),
        class_="hour card",
    )


def _bar(at: int, minute: Minute, most: int) -> Tag:
    parts: list[Tag] = []
    base = float(_HIGH)
    for kind, count in (("allowed", minute.allowed), ("refused", minute.refused)):
        if count:
            high = max(2.0, count / most * (_HIGH - 4))
            base -= high
            bar = {"x": at * _WIDE + 2, "y": f"{base:g}", "width": _WIDE - 4, "height": f"{high:g}"}
            parts.append(_svg("rect", class_=kind, **bar))
    told = (
        f"{_instant(minute.number * 60):%H:%M}: {minute.allowed} allowed, "
        f"{minute.refused} refused, {minute.sessions} sessions"
    )
    whole = _svg("rect", class_="minute", x=at * _WIDE, y=0, width=_WIDE, height=_HIGH)
    return _svg("g", whole, *parts, _svg("title", told))


# --- Tables -----------------------------------------------------------------------------------


def _details(name: str, title: str, content: Any, *, is_open: bool) -> Tag:
    attributes = {"open": ""} if is_open else {}
    return tags.details(tags.summary(title), content, id=name, class_="card", **attributes)


def _table(caption: str, columns: tuple[str, ...], rows: Iterable[Tag], numbers: int = 0) -> Tag:
    heads = [
        tags.th(each, scope="col", **({"class_": "number"} if at >= len(columns) - numbers else {}))
        for at, each in enumerate(columns)
    ]
    return tags.table(tags.caption(caption), tags.thead(tags.tr(*heads)), tags.tbody(*rows))


def _cell(label: str, content: Any, class_: str = "") -> Tag:
    return tags.td(content, **{"data-label": label, **({"class": class_} if class_ else {})})


def _sessions(name: str, service: Snapshot, now: float) -> Tag:
    count, shown = int(service.number("sessions")), len(service.sessions)
    title = f"Sessions ({count:,})"
    if not shown:
        content: Tag = tags.p("No client is connected.", class_="soft")
    else:
        caption = "Latest first." if shown >= count else f"The latest {shown:,} of {count:,}."
        content = _table(
            caption,
            ("Who", "From", "For", "Received", "Sent"),
            (_session(each, now) for each in service.sessions),
            numbers=2,
        )
    return _details(f"{name}-sessions", title, content, is_open=True)


def _session(session: Session, now: float) -> Tag:
    since = tags.time(
        span(now - session.at),
        datetime=_instant(session.at).isoformat(timespec="seconds"),
        title=f"since {_instant(session.at):%Y-%m-%d %H:%M:%S} UTC, connection {session.id}",
    )
    return tags.tr(
        tags.th(session.principal or "not authenticated", scope="row"),
        _cell("From", session.peer),
        _cell("For", since, "span"),
        _cell("Received", size(session.received), "number"),
        _cell("Sent", size(session.sent), "number"),
    )


def _refusals(name: str, service: Snapshot, now: float) -> Tag:
    counted = service.values.get("handshakes_total")
    results = counted if isinstance(counted, Mapping) else {}
    total = sum(number for result, number in results.items() if result != "allowed")
    if not service.refusals:
        content: Tag = tags.p("No connection was refused since the start.", class_="soft")
    else:
        content = _table(
            "The last of each kind, times in UTC.",
            ("When", "Who", "Why"),
            (_refusal(each, now) for each in service.refusals),
        )
    return _details(f"{name}-refusals", f"Refused ({total:,.0f})", content, is_open=True)


def _refusal(refusal: Refusal, now: float) -> Tag:
    return tags.tr(
        _cell("When", _moment(refusal.at, now), "when"),
        _cell(
            "Who", f"{refusal.principal} at {refusal.peer}" if refusal.principal else refusal.peer
        ),
        _cell(
            "Why",
            tags.span(
                tags.code(refusal.finding.code, class_="code"), " ", _reason(refusal.finding)
            ),
        ),
    )


def _reason(finding: Finding) -> str:
    """Cause and remedy; the subject is the client, who stands beside it."""
    return one_line("; ".join(filter(None, (finding.cause, finding.remedy_text))))


def _facts(name: str, service: Snapshot, now: float) -> Any:
    facts: list[tuple[str, Any]] = [
        (printable(label), printable(value)) for label, value in service.facts
    ]
    for label, key in (
        ("Directory checked", "directory_check_timestamp_seconds"),
        ("Keytab changed", "keytab_modified_timestamp_seconds"),
        ("Own ticket ends", "ticket_end_timestamp_seconds"),
    ):
        if key in service.values:
            facts.append((label, _when(service.number(key), now)))
    if not facts:
        return ""
    pairs = [part for label, value in facts for part in (tags.dt(label), tags.dd(value))]
    content = tags.dl(*pairs, class_="facts")
    return _details(f"{name}-facts", "Published, and with which keys", content, is_open=False)


def _when(at: float, now: float) -> Tag:
    text = f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"
    return tags.time(
        text,
        datetime=_instant(at).isoformat(timespec="seconds"),
        title=f"{_instant(at):%Y-%m-%d %H:%M:%S} UTC",
    )
