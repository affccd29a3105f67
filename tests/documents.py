"""Reads the documents: which there are, and the examples in them.

An example is a fenced block.  The first word behind its fence is its language; more words say how
it is tested (CONTRIBUTING.md tells writers):

- ``console``: lines that begin with ``$ `` are commands, in the order of the page, in one shell;
  what follows a command is what it prints, with ``...`` for anything;
- ``not-run="REASON"``: it is not run here, and why;
- ``until=WORD``: the block's one command goes on running in the background; WORD is in its output
  as soon as it is ready;
- ``stop``: what runs in the background is stopped first;
- ``as=USER``: with this user's tickets;
- ``exit=CODE``: the exit code of the block's last command;
- ``file=NAME``, of any other language: the block is a file that the page's commands find.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = frozenset({"not-run", "until", "stop", "as", "exit", "file"})
_FENCE = re.compile(r" *```(?P<info>.*)")
PROMPT = "$ "


def documents() -> list[str]:
    """Every document, by its path from the root."""
    found = (
        path
        for pattern in ("*.md", "docs/**/*.md", "fuzz/*.md", "benchmarks/*.md")
        for path in ROOT.glob(pattern)
    )
    return sorted(str(path.relative_to(ROOT)) for path in found)


@frozen
class Example:
    """One fenced block.

    :param where: the document and the line of its fence.
    :param language: empty: none is named.
    :param options: see the module.
    :param text: what is in it.
    """

    where: str
    language: str
    options: dict[str, str]
    text: str

    def commands(self) -> Iterator[Command]:
        """The commands of a ``console`` block."""
        lines = self.text.splitlines()
        while lines:
            line = lines.pop(0)
            if not line.startswith(PROMPT):
                raise AssertionError(f"{self.where}: {line!r} comes before the first command")
            words = [line.removeprefix(PROMPT)]
            while words[-1].endswith("\\"):
                words.append(lines.pop(0))
            printed = []
            while lines and not lines[0].startswith(PROMPT):
                printed.append(lines.pop(0))
            yield Command("\n".join(words), "\n".join(printed))


@frozen
class Command:
    """A command, and what the document says that it prints (empty: nothing is said)."""

    words: str
    printed: str


def examples(document: str) -> Iterator[Example]:
    """The fenced blocks of a document."""
    lines = enumerate((ROOT / document).read_text(encoding="utf-8").splitlines(), 1)
    for number, line in lines:
        if not (fence := _FENCE.fullmatch(line)):
            continue
        indent = len(line) - len(line.lstrip())
        inside = []
        for _, line in lines:
            if line.strip() == "```":
                break
            inside.append(line[indent:])
        language, *words = shlex.split(fence["info"]) or [""]
        options = {}
        for word in words:
            name, _, value = word.partition("=")
            options[name] = value
        yield Example(f"{document}:{number}", language, options, "\n".join(inside))
