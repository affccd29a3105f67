"""Dependencies of the package, and those it is tested with."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]
#: Those whose private parts are touched, or whose flags and names decide who is there.
DECISIVE = ("gssapi", "krb5", "ldap3", "pyspnego")


def requirements() -> dict[str, list[Requirement]]:
    """Requirements of setup.cfg, the package itself under the empty name, by the names of its
    extras.
    """
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {
        extra: [
            Requirement(line)
            for line in text.splitlines()
            if line.strip() and not line.startswith("#")
        ]
        for extra, text in texts.items()
    }


def constraints() -> dict[str, Version]:
    """The versions that are installed."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


class DependencyTests(SynchronousTestCase):
    """setup.cfg, constraints.txt and the set-up."""

    def test_agree(self) -> None:
        """Every requirement has its one version in the constraints, which it allows."""
        pinned = constraints()
        for extra, wanted in requirements().items():
            self.assertNotEqual(wanted, [], extra)
            for each in wanted:
                version = pinned.get(canonicalize_name(each.name))
                self.assertIsNotNone(version, f"{each}: run make constraints")
                self.assertTrue(
                    each.specifier.contains(version, prereleases=True),
                    f"{each}: constraints.txt has {version}",
                )

    def test_decisive_ones_are_bounded(self) -> None:
        """A release that nobody has tried is not installed where it decides the authentication."""
        wanted = {canonicalize_name(each.name): each for each in requirements()[""]}
        for name in DECISIVE:
            operators = {specifier.operator for specifier in wanted[name].specifier}
            self.assertEqual(operators, {">=", "<"}, wanted[name])

    def test_the_set_up_uses_them(self) -> None:
        """tools/bootstrap, from which `make demo`, `make test` and CI install, uses them and sees
        changes.
        """
        bootstrap = (ROOT / "tools" / "bootstrap").read_text(encoding="utf-8")
        self.assertIn('export PIP_CONSTRAINT="$PWD/constraints.txt"', bootstrap)
        self.assertRegex(
            bootstrap, re.compile(r"^fingerprint\(\) \{\n    cat constraints\.txt ", re.MULTILINE)
        )
        calls = re.findall(r"^.*\bpip (?:install|wheel|download)\b.*$", bootstrap, re.MULTILINE)
        self.assertEqual(
            [call for call in calls if "--constraint" in call or "PIP_CONSTRAINT=" in call], []
        )
        self.assertGreaterEqual(len(calls), 3)
