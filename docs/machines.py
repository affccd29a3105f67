"""Draws the state machines from the code, as the files in docs/ that machines.md shows.

Usage: python -m docs.machines, with Graphviz' ``dot`` installed; ``make pictures`` sees to that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mutauth_twisted.core import closing, handshake

HERE = Path(__file__).parent
#: From so many states on, rows that are the same are drawn once.
MANY = 3

#: State, input, the state that follows, and outputs.
Row = tuple[str, str, str, tuple[str, ...]]


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def closing_rows() -> Iterator[Row]:
    """The rows of :data:`mutauth_twisted.core.closing.TABLE`."""
    for state, row in closing.TABLE.items():
        for what, (follows, *actions) in row.items():
            outputs = tuple(_words(action.name) for action in actions)
            yield state.title, _words(what.name), follows.title, outputs


def handshake_rows(machine: Any) -> Iterator[Row]:
    """The rows of a machine made with Automat.

    They are private to it: its own drawing says too much to be read.
    """
    for state, what, follows, outputs in machine.__automat_automaton__.allTransitions():
        names = (each.method.__name__ for each in outputs)
        said = tuple(_words(name) for name in names if name != what and name.isidentifier())
        yield state.name, _words(what), follows.name, said


def draw(rows: Iterable[Row], start: str) -> str:
    """A machine in Graphviz' language, as far as it can be reached.

    :param start: the state it starts in.
    """
    sources: dict[tuple[str, str, tuple[str, ...]], list[str]] = defaultdict(list)
    rows, states, known = sorted(rows), {start}, set[str]()
    while states != known:
        known = set(states)
        states |= {follows for state, _, follows, _ in rows if state in known}
    for state, what, follows, outputs in rows:
        if state not in states:
            continue
        # Staying where one is, without doing anything, is not worth a line.
        if state != follows or outputs:
            sources[what, follows, outputs].append(state)
    lines = [
        'node [shape=box, style=rounded, fontname="sans-serif", fontsize=12]',
        'edge [fontname="sans-serif", fontsize=10]',
        *(
            f"{_quote(state)}{' [penwidth=3]' if state == start else ''}"
            for state in sorted(states)
        ),
    ]
    shared = set()
    for (what, follows, outputs), froms in sources.items():
        label = _quote(what, *(["/ " + ", ".join(outputs)] if outputs else []))
        if len(froms) >= MANY:
            many = _quote(*froms)
            shared.add(f"{many} [shape=box, style=dotted, fontsize=10]")
            froms = [many]
        else:
            froms = [_quote(state) for state in froms]
        lines += [f"{each} -> {_quote(follows)} [label={label}]" for each in froms]
    return "digraph {\n" + "".join(f"  {line}\n" for line in [*lines, *sorted(shared)]) + "}\n"


def _quote(*lines: str) -> str:
    return json.dumps("\n".join(lines))


def draw_handshake(machine: Any) -> str:
    """A machine made with Automat in Graphviz' language."""
    return draw(handshake_rows(machine), machine.__automat_automaton__.initialState.name)


#: The pictures by their names.
PICTURES = {
    "closing": draw(closing_rows(), closing.State.OPEN.title),
    "handshake-initiator": draw_handshake(handshake._initiator_machine),
    "handshake-acceptor": draw_handshake(handshake._acceptor_machine),
}


def main() -> None:
    """Write the pictures, in Graphviz' language and as what everything shows."""
    for name, text in PICTURES.items():
        dot = HERE / f"{name}.dot"
        dot.write_text(text, encoding="utf-8")
        try:
            subprocess.run(["dot", "-Tsvg", f"-o{dot.with_suffix('.svg')}", dot], check=True)  # noqa: S607
        except FileNotFoundError:
            sys.exit("mutauth: dot: is not installed; run make pictures, or install graphviz")


if __name__ == "__main__":
    main()
