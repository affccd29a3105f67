"""Names in the documents, all of which are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass

import mutauth_twisted
from docs import floors
from mutauth_twisted.codes import CODES
from tests.documents import OPTIONS, documents, examples

PACKAGE = Path(mutauth_twisted.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = documents()
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


def prose(document: str) -> str:
    """A document without its fenced blocks."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def quoted(document: str) -> Iterator[tuple[str, str]]:
    """Text in backticks, and the document it stands in; blocks are no part of it."""
    for words in re.findall(r"`([^`]+)`", prose(document)):
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
            for link in re.findall(r"\]\(([^):#]+)[^):]*\)", prose(document)):
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
            fenced = False
            for number, line in enumerate(
                (ROOT / document).read_text(encoding="utf-8").splitlines(), 1
            ):
                fenced ^= line.lstrip().startswith("```")
                if not fenced and not line.startswith(("|", "    ")):
                    self.assertLessEqual(len(line), WIDTH, f"{document}:{number}")


#: What a command line begins with; a pattern of usage is not one.
_COMMANDS = re.compile(
    r"(?!.*\[OPTIONS\])\s*"
    r"(?:\$ |mutauth (?!client)|(?:twistd|make|python|pip|kinit|klist|samba-tool) )"
)
#: Languages of blocks that no reader runs, and those of Sphinx.
_OTHERS = {"text", "ini", "toml", "yaml", "json", "csharp", "lua", "{toctree}", "{eval-rst}"}


class ExampleTests(SynchronousTestCase):
    """The examples in the documents; `tests/integration/test_documents.py` runs the commands."""

    def test_kinds(self) -> None:
        """Each block says what it is, and if its commands are not run why."""
        seen = 0
        for document in DOCUMENTS:
            for each in examples(document):
                self.assertLessEqual(set(each.options), OPTIONS, each.where)
                if each.language == "console":
                    seen += len(list(each.commands()))
                    reason = each.options.get("not-run", "a reason")
                    self.assertGreater(len(reason.split()), 1, each.where)
                elif each.language == "powershell":
                    self.assertEqual(each.options.get("not-run"), "Windows", each.where)
                elif each.language != "python":
                    self.assertIn(each.language, _OTHERS, each.where)
                    for line in each.text.splitlines():
                        self.assertIsNone(_COMMANDS.match(line), f"{each.where}: {line}")
        self.assertGreater(seen, 50)

    def test_no_commands_elsewhere(self) -> None:
        """No command hides in an indented block, which nobody runs."""
        for document in DOCUMENTS:
            for line in re.findall(r"\n\n(    .*)", prose(document)):
                self.assertIsNone(_COMMANDS.match(line), f"{document}: {line}")

    def test_python(self) -> None:
        """Python in the documents compiles, and what it imports of the package is there."""
        seen = 0
        for document in DOCUMENTS:
            files: set[str] = set()
            for each in examples(document):
                if each.language != "python":
                    continue
                seen += 1
                files.add(each.options.get("file", "").removesuffix(".py"))
                tree = ast.parse(each.text, each.where)
                for node in ast.walk(tree):
                    if isinstance(node, ast.ImportFrom) and node.module not in (None, *files):
                        module = import_module(node.module)
                        for alias in node.names:
                            self.assertTrue(
                                hasattr(module, alias.name),
                                f"{each.where}: {node.module} has no {alias.name}",
                            )
        self.assertGreater(seen, 3)


class ReferenceTests(SynchronousTestCase):
    """The reference against the public API."""

    def test_interfaces(self) -> None:
        """It has by hand what Sphinx does not take from the package: interfaces and constants."""
        text = (ROOT / "docs/reference.md").read_text("utf-8")
        for name in mutauth_twisted.__all__:
            value = getattr(mutauth_twisted, name)
            if isinstance(value, InterfaceClass):
                for each in (name, *value.names()):
                    self.assertIn(f"`{each}", text)
            elif not isinstance(value, type):
                self.assertRegex(text, rf"`{name}[`(]")

    def test_options(self) -> None:
        """Every option that a document names is one."""
        reference = (ROOT / "docs/reference/options.md").read_text("utf-8")
        known = {"help", "pidfile"}.union(*re.findall(r"`(?:--)?([a-z-]+)`|--([a-z-]+)", reference))
        seen = 0
        for document in DOCUMENTS:
            for where, words in quoted(document):
                if words.startswith(("--", "mutauth ", "twistd ")):
                    for name in re.findall(r"(?:^|\s)--([a-z-]+)", words):
                        seen += 1
                        self.assertIn(name, known, f"{where}: {words}")
        self.assertGreater(seen, 50)


class PromiseTests(SynchronousTestCase):
    """The promises of docs/security.md; that what they name is there is checked above."""

    def test_evidence(self) -> None:
        """Each names the code that keeps it and tests that would fail."""
        text = (ROOT / "docs/security.md").read_text("utf-8")
        promises = text.partition("\n## The promises\n")[2].partition("\n## ")[0]
        items = re.split(r"^(\d+)\. \*\*", promises, flags=re.MULTILINE)[1:]
        numbers = [int(number) for number in items[::2]]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assertGreater(len(numbers), 10)
        for number, promise in zip(numbers, items[1::2], strict=True):
            words = re.findall(r"`([^`]+)`", promise)
            self.assertTrue(any(_TEST.fullmatch(each) for each in words), f"{number}: no test")
            self.assertTrue(any(each.endswith(".py") for each in words), f"{number}: no code")


class FloorTests(SynchronousTestCase):
    """The floors in the documents."""

    def test_drawn(self) -> None:
        """They are those that the architecture test holds."""
        remedy = "run make pictures"
        self.assertEqual((ROOT / "docs/floors.svg").read_text("utf-8"), floors.picture(), remedy)
        page = (ROOT / "docs/architecture.md").read_text("utf-8")
        self.assertEqual(page, floors.document(), remedy)

    def test_every_unit(self) -> None:
        """The table has a line for each, which says what it is."""
        for line in floors.table().splitlines():
            self.assertNotRegex(line, r"\|\s*\|$")


class ReliabilityTests(SynchronousTestCase):
    """docs/reliability.md; that the tests it names are there is checked above."""

    def test_rows(self) -> None:
        """Each row ends with a test, or says why there is none."""
        page = (ROOT / "docs/reliability.md").read_text("utf-8")
        rows = re.findall(r"^\|(?! what |---| its )(.*)\|$", page, flags=re.MULTILINE)
        self.assertGreater(len(rows), 60)
        for row in rows:
            *_, reason, last = (cell.strip() for cell in row.split("|"))
            names = re.findall(r"`([^`]+)`", last)
            self.assertTrue(
                any(_TEST.fullmatch(each) or _FILE.fullmatch(each) for each in names)
                or (not last and reason.startswith("not applicable: ")),
                row,
            )

    def test_codes(self) -> None:
        """Codes of bad input are codes."""
        page = (ROOT / "docs/reliability.md").read_text("utf-8")
        section = page.partition("\n## Bad input\n")[2].partition("\n## ")[0]
        codes = re.findall(r"^\|[^|]*\| `([^`]+)` \|", section, flags=re.MULTILINE)
        self.assertGreater(len(codes), 5)
        self.assertEqual(set(codes) - set(CODES), set())
