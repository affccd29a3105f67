"""Reading what a module imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def imported(name: str, tree: ast.Module) -> Iterator[str]:
    """The dotted names a module imports, wherever in it that happens."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(
                    f"{name}: line {node.lineno}: relative imports are not used here"
                )
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(dotted: str, parent: str) -> bool:
    """Tell whether a dotted name is *parent* or below it."""
    return dotted == parent or dotted.startswith(parent + ".")
