"""Output of the commands."""

from __future__ import annotations

import io
import json
import sys
import unicodedata

import click
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.cli import output
from mutauth_twisted.cli.group import OneLineGroup
from mutauth_twisted.directory.done import Done
from mutauth_twisted.directory.spns import Account
from mutauth_twisted.errors import NotFound
from mutauth_twisted.text import printable

ACCOUNT = Account("CN=svc", "svc", "S-1-5-21-1", (), False, None)


def printed(function: object, *arguments: object) -> str:
    """Standard output of a function."""

    @click.command()
    def command() -> None:
        function(*arguments)  # type: ignore[operator]

    return CliRunner().invoke(command, catch_exceptions=False).output


class SafeTests(SynchronousTestCase):
    """Nothing of a name reaches the terminal as a command."""

    def test_table(self) -> None:
        """Escapes, line ends and direction marks show; letters of every script stay."""
        for text, shown in (
            ("plain a/b", "plain a/b"),
            ("Dienst für Åse", "Dienst für Åse"),
            ("\x1b[2J\x9b1m", "\\x1b[2J\\x9b1m"),
            ("a\r\nb\tc\x7f", "a\\r\\nb\\tc\\x7f"),
            ("\u202egnp.exe", "\\u202egnp.exe"),
            ("a\u200bb\u2028c\ufeff", "a\\u200bb\\u2028c\\ufeff"),
            ("\udc80", "\\udc80"),
        ):
            self.assertEqual(printable(text), shown)

    @given(st.text())
    def test_nothing_unprintable_is_left(self, text: str) -> None:
        """Of any text, only visible characters and blanks come out."""
        kinds = {unicodedata.category(each) for each in printable(text)}
        self.assertFalse(kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"})

    def test_every_way_out(self) -> None:
        """Lines, tables, JSON, and the one line of an error."""
        hostile = "\x1b]0;owned\x07\u202e"

        @click.group(cls=OneLineGroup)
        def group() -> None:
            pass

        @group.command()
        def fail() -> None:
            raise NotFound(f"SCP {hostile}", "it is not there")

        texts = [
            printed(output.line, hostile),
            printed(output.note, hostile),
            printed(output.table, ("a", "b"), [(hostile, "x")]),
            printed(output.as_json, {hostile: [hostile]}),
            CliRunner().invoke(group, ["fail"]).output,
        ]
        for text in texts:
            self.assertIn("owned", text)
            self.assertFalse(set("\x1b\x07\u202e") & set(text), text)


class TableTests(SynchronousTestCase):
    """Tables and JSON."""

    def test_columns(self) -> None:
        """Columns line up, wide characters included; no line ends in blanks, none is cut."""
        long = "x" * 300
        self.assertEqual(
            printed(output.table, ("spn", "who"), [("a/b", "you"), ("日本/b", ""), (long, "me")]),
            f"SPN{' ' * 299}WHO\na/b{' ' * 299}you\n日本/b\n{long}  me\n",
        )
        self.assertEqual(printed(output.table, ("spn",), []), "")

    def test_json(self) -> None:
        """A program reads what was meant."""
        value = {"spn": "echo/h/CN=ü\x1b", "none": None, "list": ["a"]}
        self.assertEqual(json.loads(printed(output.as_json, value)), value)


class StepTests(SynchronousTestCase):
    """Changes that are done, step by step."""

    @staticmethod
    def group() -> click.Group:
        @click.group(cls=OneLineGroup)
        def group() -> None:
            pass

        @group.command()
        @output.json_option
        @click.option("--fail", is_flag=True)
        def work(fail: bool) -> None:
            with output.steps() as (report, end):
                report(Done("added", "SPN", "echo/h", ACCOUNT))
                if fail:
                    raise NotFound("SCP x", "it is not there")
                end("it is ready", dn="CN=x")

        return group

    def test_for_people(self) -> None:
        """A line each, and one at the end."""
        ended = CliRunner().invoke(self.group(), ["work"])
        self.assertEqual(ended.stdout, "added SPN echo/h to svc\nit is ready\n")

    def test_for_programs(self) -> None:
        """One value; the steps before an error are in it, and the error is on standard error."""
        step = {"action": "added", "kind": "SPN", "name": "echo/h", "account": "svc", "detail": ""}
        ended = CliRunner().invoke(self.group(), ["work", "--json"])
        self.assertEqual(json.loads(ended.stdout), {"steps": [step], "dn": "CN=x"})
        ended = CliRunner().invoke(self.group(), ["work", "--json", "--fail"])
        self.assertEqual(json.loads(ended.stdout), {"steps": [step]})
        self.assertEqual(json.loads(ended.stderr)["code"], "not-found")
        self.assertEqual(ended.exit_code, 1)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ProgressTests(SynchronousTestCase):
    """The progress bar."""

    def test_on_a_terminal(self) -> None:
        """It shows the counts."""
        terminal = _Terminal()
        self.patch(sys, "stderr", terminal)
        with output.progress_bar("searching") as progress:
            progress(100, 250)
        self.assertIn("100 accounts, 250 SPNs", terminal.getvalue())

    def test_elsewhere(self) -> None:
        """Into a file or a pipe nothing is written."""
        pipe = io.StringIO()
        self.patch(sys, "stderr", pipe)
        with output.progress_bar("searching") as progress:
            progress(100, 250)
        self.assertEqual(pipe.getvalue(), "")
