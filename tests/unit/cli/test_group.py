"""Common behaviour of all sub-commands: one line for an error, its exit code, and an orderly
interrupt.
"""

from __future__ import annotations

import json
from typing import Any

import click
from click.testing import CliRunner, Result
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.cli.group import OneLineGroup
from mutauth_twisted.cli.output import json_option
from mutauth_twisted.cli.reactor import _Run
from mutauth_twisted.errors import AuthenticationError, NetworkError, NotFound, UsageError


@click.group(cls=OneLineGroup)
def group() -> None:
    """For tests."""


@group.command()
@click.option("--kind", required=True)
def fail(kind: str) -> None:
    """End in one of the foreseeable ways."""
    errors: dict[str, Any] = {
        "usage": UsageError("thing", "it cannot be", "do otherwise"),
        "none": NotFound("thing", "it is not there"),
        "network": NetworkError("thing", "it broke\nin two lines"),
        "refused": AuthenticationError("thing", "the clocks differ", code="clock-skew"),
        "interrupt": KeyboardInterrupt(),
    }
    if kind in errors:
        raise errors[kind]


@group.command("json")
@json_option
def fail_for_programs() -> None:
    """End in an error."""
    raise NotFound("thing", "it is not there")


class OneLineTests(SynchronousTestCase):
    """Errors for people, codes for programs."""

    def run_group(self, *words: str) -> Result:
        return CliRunner().invoke(group, words)

    def test_errors(self) -> None:
        """Each foreseeable end is one line and its own code."""
        for kind, code, line in (
            ("usage", 2, "mutauth: [invalid-option] thing: it cannot be; do otherwise\n"),
            ("none", 1, "mutauth: [not-found] thing: it is not there\n"),
            ("network", 3, "mutauth: [network-failed] thing: it broke in two lines\n"),
            ("refused", 4, "mutauth: [clock-skew] thing: the clocks differ\n"),
            ("interrupt", 130, "mutauth: interrupted\n"),
        ):
            ended = self.run_group("fail", "--kind", kind)
            self.assertEqual((ended.exit_code, ended.stderr.lstrip("\n")), (code, line))
        self.assertEqual(self.run_group("fail", "--kind", "").exit_code, 0)

    def test_errors_for_programs(self) -> None:
        """With --json each of them is one object on standard error, and nothing is on the other."""
        for words, code, expected in (
            (("json", "--json"), 1, ("not-found", "thing", "it is not there")),
            (("json", "--json", "--bogus"), 2, ("invalid-option", "group json", "No such option")),
        ):
            ended = self.run_group(*words)
            self.assertEqual((ended.exit_code, ended.stdout), (code, ""))
            (line,) = ended.stderr.splitlines()
            told = json.loads(line)
            self.assertEqual(
                (told["code"], told["subject"], told["exit_code"]), (*expected[:2], code)
            )
            self.assertTrue(told["cause"].startswith(expected[2]), told)
        ended = self.run_group("json")
        self.assertEqual(ended.stderr, "mutauth: [not-found] thing: it is not there\n")

    def test_wrong_usage(self) -> None:
        """Mistakes that click itself refuses are one line as well, which says where the help is."""
        for words, word in (
            (("fail", "--bogus"), "--bogus"),
            (("fail",), "--kind"),
            (("bogus",), "bogus"),
        ):
            ended = self.run_group(*words)
            self.assertEqual((ended.exit_code, ended.stderr.count("\n")), (2, 1))
            self.assertIn(word, ended.stderr)
            self.assertIn("--help", ended.stderr)

    def test_a_bug_stays_a_bug(self) -> None:
        """An error that nobody foresaw is not made into a line."""

        @group.command()
        def broken() -> None:
            raise ZeroDivisionError

        self.assertIsInstance(self.run_group("broken").exception, ZeroDivisionError)


class _Reactor:
    """Counts its stops."""

    def __init__(self) -> None:
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1


class InterruptTests(SynchronousTestCase):
    """A coroutine for which the reactor runs, and Ctrl-C."""

    def begin(self, to_the_end: bool) -> tuple[_Run, _Reactor, Deferred[Any]]:
        waiting: Deferred[Any] = Deferred()

        async def main(reactor: Any) -> Any:
            return await waiting

        reactor = _Reactor()
        run = _Run(reactor, main, to_the_end)
        run.begin()
        return run, reactor, waiting

    def test_result(self) -> None:
        """Its end stops the reactor once; stopping then waits for nothing."""
        run, reactor, waiting = self.begin(False)
        waiting.callback("done")
        self.assertEqual((run.outcome, reactor.stops), ("done", 1))
        self.assertIsNone(run.interrupt())

    def test_interrupted(self) -> None:
        """A command that only reads is cancelled, and its outcome is the interrupt."""
        run, reactor, waiting = self.begin(False)
        self.assertNoResult(waiting)
        stopped = run.interrupt()
        assert stopped is not None
        self.assertIsNone(self.successResultOf(stopped))
        assert isinstance(run.outcome, Failure)
        self.assertTrue(run.outcome.check(KeyboardInterrupt))
        self.assertEqual(reactor.stops, 0)

    def test_what_writes_is_finished(self) -> None:
        """A command that changes the directory goes on to its end, and the reactor waits for it."""
        run, reactor, waiting = self.begin(True)
        stopped = run.interrupt()
        assert stopped is not None
        self.assertNoResult(stopped)
        waiting.callback("installed")
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual((run.outcome, reactor.stops), ("installed", 0))
