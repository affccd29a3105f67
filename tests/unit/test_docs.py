"""What the documents name is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mutauth_twisted

PACKAGE = Path(mutauth_twisted.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md",
    "docs/security.md",
    "docs/interop.md",
    "fuzz/README.md",
    "benchmarks/README.md",
)
WIDTH = 100

#: A file's path, with or without the folders above it.
_FILE = re.compile(r"[\w/]+\.(?:py|md|cfg|toml)")
#: A module of tests, and perhaps a class in it, and a test.
_TEST = re.compile(
    r"((?:unit|integration)\.(?:[a-z]+\.)*test_\w+|cases\.[a-z]+)"
    r"(?:\.(\w*(?:Tests|Cases)))?(?:\.(test_\w+))?"
)
#: More of the last module named.
_MORE = re.compile(r"(\w+(?:Tests|Cases))(?:\.(test_\w+))?")


def quoted(document: str) -> Iterator[tuple[str, str]]:
    """What stands in backticks, and the document it stands in."""
    for words in re.findall(r"`([^`]+)`", (ROOT / document).read_text(encoding="utf-8")):
        yield document, words


class DocumentTests(SynchronousTestCase):
    """The documents against the tree."""

    def test_files(self) -> None:
        """Every file that is named exists: from the root, beside the document, or in the
        package.
        """
        seen = 0
        for document in DOCUMENTS:
            for where, words in quoted(document):
                for name in filter(_FILE.fullmatch, words.split()):
                    seen += 1
                    places = (ROOT, (ROOT / where).parent, PACKAGE)
                    self.assertTrue(
                        any((place / name).is_file() for place in places), f"{where}: {name}"
                    )
        self.assertGreater(seen, 20)

    def test_links(self) -> None:
        """Every link leads to a file."""
        for document in DOCUMENTS:
            path = ROOT / document
            for link in re.findall(r"\]\(([^):]+)\)", path.read_text(encoding="utf-8")):
                self.assertTrue((path.parent / link).exists(), f"{document}: {link}")

    def test_tests(self) -> None:
        """Every test module, class and method that is named exists."""
        seen = 0
        for document in DOCUMENTS:
            module = ""
            for _, words in quoted(document):
                if named := _TEST.fullmatch(words):
                    module, group, test = named.groups()
                elif module and (named := _MORE.fullmatch(words)):
                    group, test = named.groups()
                else:
                    continue
                seen += 1
                self.assert_there(f"{document}: {words}", module, group, test)
        self.assertGreater(seen, 40)

    def assert_there(self, what: str, module: str, group: str | None, test: str | None) -> None:
        """A module of tests has this class, and this test in it; read only, as some modules want a
        reactor.
        """
        path = ROOT / "tests" / f"{module.replace('.', '/')}.py"
        self.assertTrue(path.is_file(), what)
        if group is None:
            return
        classes = [
            each
            for each in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(each, ast.ClassDef)
        ]
        found = [each for each in classes if each.name == group]
        self.assertEqual(len(found), 1, what)
        functions = (
            each
            for each in found[0].body
            if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
        )
        self.assertTrue(test is None or test in {each.name for each in functions}, what)

    def test_width(self) -> None:
        """No line is longer than the code's are, but those of tables and of examples."""
        for document in DOCUMENTS:
            for number, line in enumerate(
                (ROOT / document).read_text(encoding="utf-8").splitlines(), 1
            ):
                if not line.startswith(("|", "    ")):
                    self.assertLessEqual(len(line), WIDTH, f"{document}:{number}")
