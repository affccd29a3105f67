"""Prometheus' form of the figures, read by Prometheus' own parser, and as the document lists it."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import evolve
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.codes import CODES
from mutauth_twisted.status.metrics import METRICS, PREFIX, exposition
from mutauth_twisted.testing.hostile import HOSTILE_NAME
from tests.unit.status.sample import FULL

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "monitoring.md"


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every value, by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class ExpositionTests(SynchronousTestCase):
    """The text."""

    def test_values(self) -> None:
        """Figures have their values, with the service as a label; faults are counted by code."""
        found = samples(exposition((FULL, evolve(FULL, service="other", wrong=()))))
        mine, other = ("service", "echoSvc"), ("service", "other")
        for name, labels, value in (
            ("sessions", {mine}, 2),
            ("sessions", {other}, 2),
            ("handshakes_total", {mine, ("result", "access-denied")}, 1),
            ("problems", {mine, ("code", "spn-missing")}, 1),
            ("warnings", {mine, ("code", "keys-exposed")}, 1),
            ("ready", {mine}, 0),
            ("ready", {other}, 1),
        ):
            self.assertEqual(found[PREFIX + name, frozenset(labels)], value, (name, labels))
        names = {name for name, _ in found}
        self.assertIn(f"{PREFIX}build_info", names)
        self.assertIn("process_resident_memory_bytes", names)

    def test_histogram(self) -> None:
        """Buckets are cumulative, and end with all."""
        figure = METRICS["handshake_duration_seconds"]
        counted = figure.empty()
        for value in (0.005, 0.006, 0.3, 99.0):
            figure.observe(value, counted)
        service = evolve(FULL, values={"handshake_duration_seconds": counted})
        found = {
            dict(labels)["le"]: value
            for (name, labels), value in samples(exposition((service,))).items()
            if name.endswith("duration_seconds_bucket")
        }
        self.assertEqual((found["0.005"], found["0.01"], found["0.25"]), (1, 2, 2))
        self.assertEqual((found["0.5"], found["10.0"], found["+Inf"]), (3, 3, 4))

    def test_hostile_name(self) -> None:
        """A service's name that could forge a line is escaped."""
        name = f'x"}} 1\nforged 2 # {HOSTILE_NAME}'
        found = samples(exposition((evolve(FULL, service=name),)))
        self.assertEqual(found[f"{PREFIX}sessions", frozenset({("service", name)})], 2)
        self.assertNotIn("forged", {metric for metric, _ in found})

    def test_nothing_is_global(self) -> None:
        """The library's global registry has none of it."""
        exposition((FULL,))
        self.assertEqual([each for each in REGISTRY._names_to_collectors if PREFIX in each], [])

    def test_names(self) -> None:
        """Names say what a metric is, as Prometheus would have it."""
        for name, figure in METRICS.items():
            self.assertEqual(figure.kind == "counter", name.endswith("_total"), name)
            self.assertEqual(bool(figure.bounds), figure.kind == "histogram", name)
            self.assertRegex(name, r"\A[a-z]+(_[a-z]+)*\Z")
            self.assertTrue(figure.help.endswith("."), name)
        self.assertTrue({"allowed", "clean"}.isdisjoint(CODES))


class DocumentTests(SynchronousTestCase):
    """docs/monitoring.md."""

    def test_table(self) -> None:
        """It lists every metric, with its kind, its label and its help, in order."""
        text = DOCUMENT.read_text("utf-8")
        rows = re.findall(r"^\| `mutauth_(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
        made = [
            (name, each.kind, f"`{each.label}`" if each.label else "", each.help)
            for name, each in METRICS.items()
        ]
        self.assertEqual(rows, made)

    def test_alerts(self) -> None:
        """The rules name metrics that there are."""
        text = DOCUMENT.read_text("utf-8")
        (rules,) = re.findall(r"```yaml file=mutauth-rules.yml\n(.*?)```", text, re.DOTALL)
        used = set(re.findall(r"\bmutauth_(\w+)", rules))
        self.assertGreater(len(used), 5)
        known = {*METRICS, "build_info"}
        for name in used:
            self.assertIn(re.sub(r"_(?:bucket|count|sum)\Z", "", name), known)
