"""Findings, their codes, and what keeps the table of codes true."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mutauth_twisted
from mutauth_twisted.codes import CODES
from mutauth_twisted.errors import DirectoryRefused, MutualAuthError, NotFound, StreamCut
from mutauth_twisted.findings import Command, Finding, either
from mutauth_twisted.log import Log

PACKAGE = Path(mutauth_twisted.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
MISSING = Finding("spn-missing", "SPN a/b", "it is not there", Command("mutauth", "x y"))


class FindingTests(SynchronousTestCase):
    """The value."""

    def test_line(self) -> None:
        """Object, cause and next step on one line; the code stands in front where it is shown."""
        self.assertEqual(str(MISSING), "SPN a/b: it is not there; run mutauth 'x y'")
        self.assertEqual(MISSING.coded, f"[spn-missing] {MISSING}")
        self.assertEqual(str(Finding("not-found", "a", "b")), "a: b")
        self.assertEqual(str(Finding("not-found", "a\n\x1bb", "c" * 9000)).count("\n"), 0)

    def test_commands(self) -> None:
        """A remedy of several commands keeps each of them whole, whatever is in it."""
        hostile = Command("mutauth", "CN=a; rm -rf / from b,DC=x")
        self.assertEqual(shlex.split(str(hostile)), list(hostile.words))
        remedy = ("an administrator runs ", *either((hostile, Command("b"))), ", and waits")
        finding = Finding("spn-missing", "a", "b", remedy)
        self.assertEqual(str(finding), f"a: b; an administrator runs {hostile} and b, and waits")
        self.assertEqual(finding.as_json()["commands"], [list(hostile.words), ["b"]])

    def test_json(self) -> None:
        """Programs get the parts."""
        self.assertEqual(
            json.loads(json.dumps(MISSING.as_json())),
            {
                "code": "spn-missing",
                "severity": "error",
                "subject": "SPN a/b",
                "cause": "it is not there",
                "remedy": "run mutauth 'x y'",
                "commands": [["mutauth", "x y"]],
            },
        )

    def test_severity(self) -> None:
        """The code's own, unless it stops nothing here."""
        self.assertEqual(MISSING.severity, CODES["spn-missing"].severity)
        self.assertEqual(Finding("spn-missing", "a", "b", severity="warning").severity, "warning")

    def test_errors(self) -> None:
        """An error carries one, under its class's code or a more specific one."""
        error = NotFound("a", "b", MISSING.remedy)
        self.assertEqual((error.code, str(error)), ("not-found", str(error.finding)))
        error.left_behind = ("SPN x/y",)
        self.assertEqual(error.coded, "[not-found] a: b; left behind: SPN x/y; run mutauth 'x y'")
        refused = DirectoryRefused("a", "b", code="no-right", result=50)
        self.assertEqual((refused.finding.code, refused.result), ("no-right", 50))
        self.assertEqual(StreamCut("a", "b").code, "stream-cut")

    def test_log(self) -> None:
        """The log shows the code of an error or finding in an event, wherever it stands."""
        lines: list[str] = []
        log = Log(namespace="x", observer=lambda event: lines.append(event["log_format"]))
        log.error("{name}: {error}", name="echo", error=NotFound("a", "b"))
        log.warn("no longer: {finding}", finding=MISSING)
        self.assertEqual(lines, ["echo: [not-found] a: b", f"no longer: [spn-missing] {MISSING}"])


def trees() -> Iterator[tuple[str, ast.AST]]:
    """Every module but the table itself."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name != "codes.py":
            yield name, ast.parse(path.read_text("utf-8"))


def own_code(node: ast.ClassDef) -> str | None:
    """The code that a class of errors gives itself."""
    for statement in node.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == "code":
            return str(ast.literal_eval(statement.value))  # type: ignore[attr-defined]
    return None


def coded_classes() -> dict[str, bool]:
    """The classes of errors by name, and whether each has a code, maybe from the one above it."""
    classes = {MutualAuthError.__name__: False}
    definitions = [
        node for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    ]
    before = 0
    while len(classes) > before:
        before = len(classes)
        for node in definitions:
            above = [base.id for base in node.bases if isinstance(base, ast.Name)]
            if node.name not in classes and any(base in classes for base in above):
                has_one = any(classes.get(base, False) for base in above)
                classes[node.name] = own_code(node) is not None or has_one
    return classes


class TableTests(SynchronousTestCase):
    """The table of codes against the sources."""

    def test_every_error_has_a_code(self) -> None:
        """A place that raises an error of a class that stands for many causes gives its code."""
        classes, without, seen = coded_classes(), [], 0
        self.assertGreater(len(classes), 25)
        for name, tree in trees():
            for node in ast.walk(tree):
                called = node.func if isinstance(node, ast.Call) else None
                if isinstance(node, ast.Call) and isinstance(called, ast.Name):
                    if called.id not in classes:
                        continue
                    seen += 1
                    if not (classes[called.id] or any(k.arg == "code" for k in node.keywords)):
                        without.append(f"{name}:{node.lineno} {called.id}")
        self.assertGreater(seen, 300)
        self.assertEqual(without, [])

    def test_every_code_is_known(self) -> None:
        """No module gives a code that the table lacks."""
        unknown = []
        for name, tree in trees():
            for node in ast.walk(tree):
                given: list[ast.expr] = []
                if isinstance(node, ast.Call):
                    given += [each.value for each in node.keywords if each.arg == "code"]
                    if isinstance(node.func, ast.Name) and node.func.id in ("Finding", "Meaning"):
                        given += node.args[:1]
                code = own_code(node) if isinstance(node, ast.ClassDef) else None
                given += [ast.Constant(code)] if code is not None else []
                unknown += [
                    f"{name}: {each.value}"
                    for each in given
                    if isinstance(each, ast.Constant)
                    and isinstance(each.value, str)
                    and each.value not in CODES
                ]
        self.assertEqual(unknown, [])

    def test_every_code_is_used(self) -> None:
        """The table has no code that nothing gives."""
        words = {
            node.value
            for name, tree in trees()
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        self.assertEqual(sorted(set(CODES) - words), [])

    def test_no_sentence_is_read(self) -> None:
        """No module looks for words in an error's or a finding's parts, or takes them apart."""
        parts = {"subject", "cause", "remedy", "remedy_text", "coded"}
        taking = {"startswith", "endswith", "partition", "replace", "split", "removeprefix"}
        found = []
        for name, tree in trees():
            for node in ast.walk(tree):
                read: list[ast.expr] = []
                if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
                    read = node.comparators
                elif isinstance(node, ast.Attribute) and node.attr in taking:
                    read = [node.value]
                found += [
                    f"{name}:{each.lineno}"
                    for each in read
                    if isinstance(each, ast.Attribute) and each.attr in parts
                ]
        self.assertEqual(found, [])

    def test_table(self) -> None:
        """Codes are words with hyphens, in their order; cause and fix are sentences."""
        self.assertEqual(list(CODES), sorted(CODES))
        for name, code in CODES.items():
            self.assertRegex(name, r"\A[a-z]+(-[a-z]+)+\Z")
            for text in (code.cause, code.fix):
                self.assertRegex(text, r"(?s)\A[A-Z`].*\.\Z", name)

    def test_document(self) -> None:
        """The document is what tools/troubleshooting makes of the table."""
        made = subprocess.run(
            [sys.executable, str(ROOT / "tools" / "troubleshooting"), "--print"],
            capture_output=True,
            check=True,
            text=True,
            cwd=ROOT,
        ).stdout
        self.assertEqual((ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), made)
        for name in CODES:
            self.assertIn(f"\n## `{name}`", made)
