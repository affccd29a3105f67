"""Names that the programs beside the package import of it, all of which exist."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("benchmarks", "demo", "docs", "examples", "fuzz", "interop", "tools", "twisted")


class ImportTests(SynchronousTestCase):
    """The sources of each room, read only."""

    def test_names(self) -> None:
        """Each name imported from the package is there, whether or not a test runs the program."""
        seen = 0
        for path in (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.ImportFrom) or node.level:
                    continue
                if (node.module or "").partition(".")[0] != "mutauth_twisted":
                    continue
                module = import_module(str(node.module))
                for alias in node.names:
                    seen += 1
                    if not hasattr(module, alias.name):
                        import_module(f"{node.module}.{alias.name}")
        self.assertGreater(seen, 100)
