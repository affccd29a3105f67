"""Draws the floors of the package, as ``floors.svg`` and as the table in architecture.md.

Usage: python -m docs.floors
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

import mutauth_twisted
from tests.unit.test_architecture import FLOORS, LAB, TESTING

HERE = Path(__file__).parent
PACKAGE = Path(mutauth_twisted.__file__).parent
BEGIN, END = "<!-- begin: python -m docs.floors -->\n", "<!-- end -->\n"
_WIDTH, _HEIGHT, _GAP, _LETTER, _PAD = 800, 34, 8, 8, 24


def _box(x: int, y: int, width: int, text: str, fill: str) -> Iterator[str]:
    yield (
        f'<rect x="{x}" y="{y}" width="{width}" height="{_HEIGHT}" rx="4" '
        f'fill="{fill}" stroke="#555"/>'
    )
    yield f'<text x="{x + width // 2}" y="{y + 22}" text-anchor="middle">{escape(text)}</text>'


def picture() -> str:
    """The floors from the top down, and beside them the rooms that stand apart."""
    side = 110
    lines = []
    for row, units in enumerate(reversed(FLOORS)):
        names = sorted(units)
        y = row * (_HEIGHT + _GAP) + 1
        spare = _WIDTH - side - _GAP * len(names) - sum(len(n) * _LETTER + _PAD for n in names)
        x = 1
        for name in names:
            width = len(name) * _LETTER + _PAD + spare // len(names)
            lines += _box(x, y, width, name, "#e8f0fa")
            x += width + _GAP
    for row, name in enumerate((TESTING, LAB)):
        lines += _box(_WIDTH - side, row * (_HEIGHT + _GAP) + 1, side - 2, name, "#f6eedc")
    height = len(FLOORS) * (_HEIGHT + _GAP)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="14">'
    )
    title = "<title>floors of the package: a module imports from lower floors only</title>"
    return "\n".join((head, title, *lines, "</svg>", ""))


def _purpose(unit: str) -> str:
    """The first sentence of a unit's docstring."""
    path = PACKAGE / unit
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("``", "`")


def table() -> str:
    """Each unit and what it is for, from the top down."""
    rows = ["| unit | what it is |", "|---|---|"]
    for units in (*reversed(FLOORS), {TESTING, LAB}):
        for unit in sorted(units):
            name = f"`{unit}/`" if (PACKAGE / unit).is_dir() else f"`{unit}.py`"
            rows.append(f"| {name} | {_purpose(unit)} |")
    return "\n".join(rows) + "\n"


def document() -> str:
    """The page with the table in its place."""
    before, _, rest = (HERE / "architecture.md").read_text("utf-8").partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    (HERE / "floors.svg").write_text(picture(), "utf-8")
    (HERE / "architecture.md").write_text(document(), "utf-8")
