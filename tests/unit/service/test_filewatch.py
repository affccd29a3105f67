"""Files that change in every way in which files are written."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.service.filewatch import INTERVAL, FileWatch


class FileWatchTests(SynchronousTestCase):
    """Looks at two files."""

    def setUp(self) -> None:
        self.clock = Clock()
        directory = Path(self.mktemp())
        directory.mkdir()
        self.one, self.two = (directory / name for name in ("one", "two"))
        self.told: list[list[str]] = []
        self.one.write_text("1")
        files = [str(self.one), str(self.two)]
        self.watch = FileWatch(self.clock, lambda: files, self.told.append)
        self.watch.start()

    def look(self, times: int = 1) -> None:
        self.clock.pump([INTERVAL] * times)

    def test_nothing(self) -> None:
        """No news is told, nor what was there at the start; at the end no timer stays."""
        self.look(5)
        self.assertEqual(self.told, [])
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_way(self) -> None:
        """Written in place, replaced, removed, made, and with other rights: each is told once."""

        def replace() -> None:
            other = self.one.with_suffix(".new")
            other.write_text("2")
            other.replace(self.one)

        def link() -> None:
            self.two.unlink()
            self.two.symlink_to(self.one)

        for number, (change, path) in enumerate(
            (
                (lambda: self.one.write_text("11"), self.one),
                (replace, self.one),
                (self.one.unlink, self.one),
                (lambda: self.one.write_text("3"), self.one),
                (lambda: self.one.chmod(0o640), self.one),
                (lambda: self.two.write_text("2"), self.two),
                (link, self.two),
            ),
            1,
        ):
            change()
            self.look(4)
            self.assertEqual(len(self.told), number)
            self.assertEqual(self.told[-1], [str(path)])

    def test_half_written(self) -> None:
        """A file that still changes is left alone until it does not."""
        for number in range(5):
            with self.one.open("a") as file:
                file.write("more")
            os.utime(self.one, ns=(number, number))
            self.look()
            self.assertEqual(self.told, [])
        self.look()
        self.assertEqual(self.told, [[str(self.one)]])

    def test_two_at_once(self) -> None:
        """Both are told together."""
        self.one.write_text("11")
        self.two.write_text("22")
        self.look(2)
        self.assertEqual(self.told, [[str(self.one), str(self.two)]])

    def test_known(self) -> None:
        """A change that was read meanwhile is no news."""
        self.one.write_text("11")
        self.watch.accept()
        self.look(3)
        self.assertEqual(self.told, [])

    def test_there_and_back(self) -> None:
        """A file that is as it was, rights and times included, has not changed."""
        self.two.write_text("2")
        self.look()
        self.two.unlink()
        self.look(3)
        self.assertEqual(self.told, [])
