"""Imports go down only, and foreign libraries stay where they are converted."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mutauth_twisted
from tests.unit.imports_case import imported, within

PACKAGE = "mutauth_twisted"
ROOT = Path(mutauth_twisted.__file__).parent

#: From the ground up. A unit imports from lower floors and from itself, never
#: from its neighbours: net and directory do not know each other.
FLOORS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {"text", "files", "signals", "codes"},
            {"findings"},
            {"errors"},
            {"log"},
            {"names", "protection", "windows"},
            {"spn", "access"},
            {"identity", "credentials", "threads"},
            {"interfaces", "wire", "dns"},
            {"core", "kerberos"},
            {"mechanisms", "ldap"},
            {"net", "directory"},
            {"audit", "gateway"},
            {"settings", "status"},
            {"endpoints"},
            {"admin", "service"},
            {"cli"},
        ),
    )
)

#: A room of its own: needs the errors, and only the command uses it.
LAB = "lab"

#: The test kit: it may use everything, and nothing of the package uses it.
TESTING = "testing"

#: The only places that may import a library, as modules or whole units.
RESERVED: dict[str, frozenset[str]] = {
    "spnego": frozenset({"mechanisms"}),
    "gssapi": frozenset({"kerberos", "mechanisms.kerberos", "ldap.sealing"}),
    "krb5": frozenset({"kerberos", "mechanisms.kerberos"}),
    "ldap3": frozenset({"ldap"}),
    "winacl": frozenset({"directory"}),
    "click": frozenset({"cli"}),
    "prometheus_client": frozenset({"status.metrics"}),
    "samba": frozenset({"lab._provision", "lab._join"}),
    "ldb": frozenset({"lab._provision", "lab._join"}),
}

#: What a unit may not import although nobody reserved it.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "wire": ("twisted", "zope"),
    "core": ("twisted", "zope"),
}


#: Imports all of some sub-packages in an interpreter that has no Twisted, and tells what was
#: loaded.  Automat takes zope.interface where it is there, and does without it as well.
_WITHOUT_TWISTED = f"""
import importlib, pkgutil, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("twisted", "zope"):
            raise ModuleNotFoundError(f"there is no {{name}}", name=name)
sys.meta_path.insert(0, Missing())
for unit in sys.argv[1:]:
    package = importlib.import_module("{PACKAGE}." + unit)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(*sys.modules)
"""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package: its dotted name below it, and its tree."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        yield name, ast.parse(path.read_text("utf-8"), str(path))


def unit(dotted: str) -> str:
    """The module or sub-package right below the package: ``wire`` for ``wire.nns``."""
    return dotted.partition(".")[0]


def floor(name: str) -> int:
    """The floor of a unit."""
    for number, units in enumerate(FLOORS):
        if name in units:
            return number
    raise AssertionError(f"{PACKAGE}.{name} has no floor: give it one in FLOORS")


def allowed(importer: str, target: str) -> bool:
    """Tell whether the unit *importer* may import the unit *target* of this package."""
    if importer in (target, TESTING):
        return True
    if target == TESTING:
        return False
    if importer == LAB:
        return target in ("errors", "findings", "text")
    if target == LAB:
        return importer == "cli"
    return floor(target) < floor(importer)


class ArchitectureTests(SynchronousTestCase):
    """The house of the design, read from the sources."""

    def test_imports_go_down_only(self) -> None:
        """A module imports from lower floors of the package, or from its own unit."""
        wrong = []
        for name, tree in modules():
            for target in imported(name, tree):
                if not within(target, PACKAGE):
                    continue
                below = target.removeprefix(PACKAGE).removeprefix(".")
                if not below or (name and not allowed(unit(name), unit(below))):
                    wrong.append(f"{name} imports {target}")
        self.assertEqual(wrong, [])

    def test_every_module_has_a_floor(self) -> None:
        """A new module is given its place before it is used."""
        for name, _ in modules():
            if name and unit(name) not in (LAB, TESTING):
                floor(unit(name))

    def test_foreign_libraries_stay_at_their_border(self) -> None:
        """A library whose errors have to be converted is imported in few places."""
        wrong = []
        for name, tree in modules():
            if unit(name) == TESTING:
                continue
            for target in imported(name, tree):
                places = RESERVED.get(unit(target))
                if places is not None and not any(within(name, place) for place in places):
                    wrong.append(f"{name} imports {target}")
        self.assertEqual(wrong, [])

    def test_protocol_without_twisted(self) -> None:
        """Every module of core/ and wire/ can be imported where there is no Twisted."""
        done = subprocess.run(
            [sys.executable, "-c", _WITHOUT_TWISTED, *FORBIDDEN],
            check=False,
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        found = done.stdout.split()
        for name in (f"{PACKAGE}.core.connection", f"{PACKAGE}.wire.nns"):
            self.assertIn(name, found)
        foreign = [each for each in found if unit(each) in ("twisted", "zope")]
        self.assertEqual(foreign, [])

    def test_lower_floors_stay_free_of_the_reactor(self) -> None:
        """Frames and connections know nothing of Twisted's reactor."""
        wrong = []
        for name, tree in modules():
            for target in imported(name, tree):
                if any(within(target, foreign) for foreign in FORBIDDEN.get(unit(name), ())):
                    wrong.append(f"{name} imports {target}")
        self.assertEqual(wrong, [])

    def test_one_way_into_the_log(self) -> None:
        """Nobody makes a logger but the module whose logger escapes what it is given."""
        loggers = ("twisted.logger.Logger", "twisted.python.log")
        wrong = [
            f"{name} imports {target}"
            for name, tree in modules()
            if name != "log"
            for target in imported(name, tree)
            if any(within(target, logger) for logger in loggers)
        ]
        self.assertEqual(wrong, [])

    def test_the_lab_needs_the_standard_library_only(self) -> None:
        """The lab starts without any of the package's dependencies of its own."""
        ours = {*sys.stdlib_module_names, PACKAGE, "samba", "ldb"}
        wrong = [
            f"{name} imports {target}"
            for name, tree in modules()
            if unit(name) == LAB
            for target in imported(name, tree)
            if unit(target) not in ours
        ]
        self.assertEqual(wrong, [])
