"""The words of docstrings and messages are those of the field."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mutauth_twisted

PACKAGE = Path(mutauth_twisted.__file__).parent

_QUESTION = re.compile(r"(?:What|Who|Whom|Whose|Whether)\b")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Parse every module of the package, the lab and the test kit too."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text(encoding="utf-8"))


class WordTests(SynchronousTestCase):
    """The package's text, read from its source."""

    def test_openings(self) -> None:
        """A docstring opens with a noun phrase or a verb, never with a question word."""
        seen = 0
        for name, tree in modules():
            for node in ast.walk(tree):
                if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
                    seen += 1
                    where = getattr(node, "name", "the module")
                    self.assertIsNone(_QUESTION.match(text), f"{name}: {where}: {text[:60]}")
        self.assertGreater(seen, 1000)
