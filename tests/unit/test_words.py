"""The words of docstrings and messages are those of the field."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mutauth_twisted"

_QUESTION = re.compile(r"(?:What|Whatever|Who|Whoever|Whom|Whose|Whether|How)\b")
#: Words of our own, and the field's for them.
_WORDS = {
    r"half-open exchange|exchange of tokens": "handshake",
    r"(?<!service-)(?:un)?proven": "authenticated",
    r"prov(?:es?|ed) (?:itself|themselves|who|no)": "authenticates",
    r"judg(?:e[sd]?|ing|e?ments?)": "verify",
    r"admit(?:s|ted)?|lets? (?:\w+ )?in": "allow, authorize",
    r"ke(?:eps?|pt) (?:\w+ )?out": "deny",
    r"g(?:ive|ives|iven|ave) back": "release",
    r"mend(?:s|ed|ing)?": "fix",
    r"of another make": "third-party",
    r"(?:peer|client|service)s? of ours": "mutauth peer",
    r"SPNs?(?: that)? stands? on": "registered on",
    r"takes? no more": "no longer accepts",
    r"that (?:is|are) none(?! of)": "invalid",
    r"(?<!there )is no (?:\w+ )?(?:name|number|SPN|SID|DN|group|file|token)": "is not a",
    r"right again": "passes again",
}
_PRIVATE = re.compile("|".join(rf"\b(?:{each})\b" for each in _WORDS), re.IGNORECASE)
#: Words about persons, in what is shown to people.
_PERSONS = re.compile(r"\b(?:no|some|any|every)body\b", re.IGNORECASE)

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


#: What is written beside the package.
BESIDE = ("tests", "fuzz", "interop", "benchmarks", "examples", "demo", "docs")


def modules(*folders: Path) -> Iterator[tuple[str, ast.Module]]:
    """Parse every module in some folders."""
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def strings(tree: ast.AST) -> Iterator[tuple[bool, str]]:
    """Every string of a module, and whether it is a docstring."""
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, _DOCUMENTED) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield id(node) in documented, node.value


class WordTests(SynchronousTestCase):
    """The package's text, read from its source."""

    def test_openings(self) -> None:
        """A docstring opens with a noun phrase or a verb, never with a question word."""
        seen = 0
        for name, tree in modules(PACKAGE, *(ROOT / folder for folder in BESIDE)):
            for node in ast.walk(tree):
                if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
                    seen += 1
                    where = getattr(node, "name", "the module")
                    self.assertIsNone(_QUESTION.match(text), f"{name}: {where}: {text[:60]}")
        self.assertGreater(seen, 4000)

    def test_vocabulary(self) -> None:
        """Docstrings and messages use the field's terms; messages do not speak of machines as of
        persons.
        """
        self.assertIsNotNone(_PRIVATE.search("the keys are mended"))
        seen = 0
        for name, tree in modules(PACKAGE):
            for documents, text in strings(tree):
                seen += 1
                folded = " ".join(text.split())
                self.assertIsNone(_PRIVATE.search(folded), f"{name}: {folded}")
                if not documents:
                    self.assertIsNone(_PERSONS.search(folded), f"{name}: {folded}")
        self.assertGreater(seen, 3000)
