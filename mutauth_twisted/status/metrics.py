"""Figures of services: what each is, how those of several processes add up, and Prometheus' form.

The figures of a service are plain values, by the names of :data:`METRICS`.  Counting in them costs
a connection next to nothing, they go through JSON, and no part of them is global to the process, as
the metrics that prometheus-client makes by default are.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import frozen
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import twisted

if TYPE_CHECKING:
    from mutauth_twisted.status.snapshot import Snapshot

#: A number, numbers by the value of a label, or a histogram: the numbers of its buckets, of the one
#: without a bound last, and then the sum of all that was observed.
Value = float | Mapping[str, float] | list[float]
#: What every name begins with.
PREFIX: Final = "mutauth_"
#: The media type (Prometheus' text format 0.0.4).
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@frozen
class Figure:
    """One metric.

    :param kind: as Prometheus names it.
    :param help: one sentence.
    :param label: the name of its label beside ``service``; empty: it has none.  Values are from a
        small fixed set, never from a client.
    :param join: how the values of several processes make one.
    :param bounds: the upper bounds of a histogram's buckets.
    """

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    label: str = ""
    join: Callable[[Iterable[float]], float] = sum
    bounds: tuple[float, ...] = ()

    def together(self, values: list[Any]) -> Value:
        """Make one value of those of several processes."""
        if self.bounds:
            return [sum(each) for each in zip(*values, strict=True)]
        if self.label:
            names = dict.fromkeys(name for each in values for name in each)
            return {name: self.join(each.get(name, 0) for each in values) for name in names}
        return self.join(values)

    def family(self, name: str, values: Mapping[str, Value]) -> Metric:
        """Put it into Prometheus' form.

        :param name: its name in :data:`METRICS`.
        :param values: of each service that has it.
        """
        labels = ["service", *([self.label] if self.label else [])]
        made = _FAMILIES[self.kind](PREFIX + name, self.help, labels=labels)
        for service, value in values.items():
            if isinstance(value, Mapping):
                for label, number in sorted(value.items()):
                    made.add_metric([service, label], number)
            elif isinstance(value, list):
                *counts, total = value
                bounds = (*map(str, self.bounds), "+Inf")
                buckets = list(zip(bounds, accumulate(counts), strict=True))
                made.add_metric([service], buckets, total)
            else:
                made.add_metric([service], value)
        return made  # type: ignore[no-any-return]

    def empty(self) -> list[float]:
        """Make a histogram of nothing."""
        return [0] * (len(self.bounds) + 2)

    def observe(self, value: float, histogram: list[float]) -> None:
        """Count one observation."""
        histogram[bisect_left(self.bounds, value)] += 1
        histogram[-1] += value


_FAMILIES: Final[Mapping[str, Callable[..., Any]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DURATIONS = (1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0)

#: Every metric of a service, without :data:`PREFIX`.
METRICS: Final[Mapping[str, Figure]] = {
    "ready": Figure(
        "gauge",
        "1 if nothing is known to stop new clients, 0 otherwise.",
    ),
    "problems": Figure("gauge", "Known faults that stop clients, by code.", "code"),
    "warnings": Figure("gauge", "Known faults that stop no client, by code.", "code"),
    "connections_total": Figure("counter", "Connections that came in."),
    "handshakes_total": Figure(
        "counter",
        "Handshakes that ended: allowed, or a code of refusal.",
        "result",
    ),
    "handshake_duration_seconds": Figure(
        "histogram",
        "Time from accept to session, waiting included.",
        bounds=_LATENCIES,
    ),
    "handshakes_in_progress": Figure("gauge", "Handshakes under way."),
    "handshakes_limit": Figure("gauge", "Most handshakes at once (max-handshakes)."),
    "connections_waiting": Figure("gauge", "Connections that wait for a handshake slot."),
    "connections_waiting_limit": Figure("gauge", "Most that wait at once (max-waiting)."),
    "sessions": Figure("gauge", "Live sessions."),
    # Workers count their sessions together.
    "sessions_limit": Figure("gauge", "Most sessions at once (max-connections).", join=max),
    "sessions_ended_total": Figure(
        "counter", "Sessions that ended, by result: clean, or a code.", "result"
    ),
    "session_duration_seconds": Figure(
        "histogram", "Duration of the sessions that ended.", bounds=_DURATIONS
    ),
    "received_bytes_total": Figure("counter", "Bytes that clients sent in sessions."),
    "sent_bytes_total": Figure("counter", "Bytes that clients were sent in sessions."),
    "backend_up": Figure(
        "gauge", "1 if nothing is known to be wrong with it, 0 otherwise.", join=min
    ),
    "backend_connections_total": Figure(
        "counter", "Attempts to connect to it: connected, or failed.", "result"
    ),
    "audit_lost_events_total": Figure("counter", "Events that the audit trail lost."),
    "keytab_kvno": Figure("gauge", "Highest version of the service's keys.", join=min),
    "keytab_modified_timestamp_seconds": Figure(
        "gauge", "When the keytab was changed last.", join=min
    ),
    "directory_check_timestamp_seconds": Figure(
        "gauge", "When the directory was checked last.", join=max
    ),
    "directory_check_success": Figure(
        "gauge", "1 if the last check found nothing wrong, 0 otherwise.", join=min
    ),
    "spns_registered": Figure(
        "gauge", "1 if the account alone has every SPN, 0 otherwise.", join=min
    ),
    "published": Figure("gauge", "1 if the directory has our address, 0 otherwise.", join=max),
    "reload_success": Figure(
        "gauge", "1 if the files are in force as they were read last, 0 otherwise.", join=min
    ),
    "reload_timestamp_seconds": Figure("gauge", "When files were read last.", join=min),
    "ticket_end_timestamp_seconds": Figure(
        "gauge", "End of its own ticket for the directory.", join=min
    ),
}


class _Services(Collector):
    """The figures of services, once."""

    def __init__(self, services: tuple[Snapshot, ...]) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """Every metric that a service has a value of; see Collector."""
        figures = {each.service: each.figures for each in self._services}
        for name, figure in METRICS.items():
            values = {who: known[name] for who, known in figures.items() if name in known}
            if values:
                yield figure.family(name, values)
        versions = {
            "version": version("mutauth_twisted"),
            "python": platform.python_version(),
            "twisted": twisted.__version__,
        }
        text = "Always 1; the versions are in the labels."
        build = GaugeMetricFamily(f"{PREFIX}build_info", text, labels=list(versions))
        build.add_metric(list(versions.values()), 1)
        yield build


class _Workers(Collector):
    """Workers' processes: what ProcessCollector tells of this one, of each."""

    def __init__(self, workers: Mapping[str, int]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        """CPU time, memory and descriptors by worker; see Collector."""
        found: dict[str, Metric] = {}
        for worker, pid in self._workers.items():
            one = ProcessCollector(f"{PREFIX}worker", partial(int, pid), registry=None)
            for metric in one.collect():
                same = found.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                for sample in metric.samples:
                    same.add_sample(sample.name, {"worker": worker}, sample.value)
        return found.values()


def exposition(services: tuple[Snapshot, ...], workers: Mapping[str, int] = {}) -> str:
    """Return the figures of services and processes in Prometheus' text format.

    :param workers: the process ids of this process's workers, by their names.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Services(services))
    registry.register(_Workers(workers))
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()
