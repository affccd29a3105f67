"""Tests, fuzzers, benchmarks and demonstrations share the kit, and do not know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.imports_case import imported, within

ROOT = Path(__file__).resolve().parents[2]
#: Each room, with the others that it may use; a room is without the rooms above it here.
ROOMS = {
    "tests.unit": {"tests.cases", "tests.support", "tests"},
    "tests.integration": {"tests.cases", "tests.support", "tests"},
    "tests.cases": set(),
    "tests.support": set(),
    "tests": set(),
    "fuzz": set(),
    "benchmarks": set(),
    "interop": set(),
    "demo": set(),
}
#: It tests what is in another room.
EXCEPTIONS = {"tests.unit.test_fuzz": "fuzz"}
_SMALLEST_NUMBER_OF_MODULES = 150


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module outside of the package: its dotted name, and its tree."""
    for folder in {room.partition(".")[0] for room in ROOMS}:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield (
                ".".join(part for part in parts if part != "__init__"),
                ast.parse(path.read_text("utf-8"), str(path)),
            )


def room_of(dotted: str) -> str | None:
    """The room that a module is in; None: none of these."""
    return next((room for room in ROOMS if within(dotted, room)), None)


def foreign(importer: str, target: str) -> bool:
    """Tell whether a module must not import what it does."""
    room, own = room_of(target), room_of(importer)
    if room is None or within(target, EXCEPTIONS.get(importer, own or "")):
        return False
    assert own is not None, importer
    return room != own and room not in ROOMS[own]


def is_test(target: str) -> bool:
    """Tell whether a module of tests is imported, or something in it."""
    return any(part.startswith("test_") for part in target.split(".")[:-1])


class RoomTests(SynchronousTestCase):
    """The imports of everything outside of the package."""

    def test_rooms_do_not_know_each_other(self) -> None:
        """Modules that two rooms need are in the kit, or among the cases."""
        found = [(name, target) for name, tree in modules() for target in imported(name, tree)]
        wrong = [f"{name} imports {target}" for name, target in found if foreign(name, target)]
        self.assertEqual(wrong, [])
        self.assertGreater(len({name for name, _ in found}), _SMALLEST_NUMBER_OF_MODULES)

    def test_nobody_imports_from_tests(self) -> None:
        """Helpers that two modules of tests need are in a module of its own, ``*_case`` in the same
        room.
        """
        wrong = [
            f"{name} imports {target}"
            for name, tree in modules()
            for target in imported(name, tree)
            if room_of(target) is not None and is_test(target)
        ]
        self.assertEqual(wrong, [])

    def test_exceptions_are_needed(self) -> None:
        """An exception that nobody uses any more is taken out."""
        used = {
            name
            for name, tree in modules()
            for target in imported(name, tree)
            if name in EXCEPTIONS and within(target, EXCEPTIONS[name])
        }
        self.assertEqual(used, set(EXCEPTIONS))

    def test_the_rules(self) -> None:
        """Imports that are forbidden are found."""
        self.assertTrue(foreign("fuzz.seeds", "tests.unit.kerberos.test_pac.pac"))
        self.assertTrue(foreign("tests.integration.test_x", "tests.unit.kerberos_case.Case"))
        self.assertTrue(foreign("tests.unit.test_x", "fuzz.inputs"))
        self.assertTrue(foreign("tests.cases.x", "tests.integration.commands"))
        self.assertTrue(foreign("benchmarks.x", "interop.stage"))
        self.assertFalse(foreign("tests.unit.test_x", "tests.unit.net.transport_case.Case"))
        self.assertFalse(foreign("fuzz.seeds", "mutauth_twisted.testing.pacs.pac"))
        self.assertTrue(is_test("tests.unit.mechanisms.test_kerberos.Case"))
        self.assertFalse(is_test("tests.unit.kerberos_case.Case"))
