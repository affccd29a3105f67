"""Configuration of Sphinx for these pages: ``make docs``."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

from sphinx.application import Sphinx

_setup = ConfigParser()
_setup.read(Path(__file__).resolve().parents[1] / "setup.cfg", encoding="utf-8")

project = _setup["metadata"]["name"]
author = _setup["metadata"]["author"]
copyright = author
release = version = _setup["metadata"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
# The pages can be read in the repository as well: plain Markdown, and links to files.
myst_heading_anchors = 3
exclude_patterns = ["*.py", "*.dot"]

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autoclass_content = "class"
# The reference is about what the package exports; what its docstrings name besides is private, or
# another project's.
nitpick_ignore_regex = [("py:.*", ".*")]


def _outside(app: object, name: str, source: list[str]) -> None:
    """Name files that are not below docs/ instead of linking to them."""
    source[0] = re.sub(r"\[([^\]]+)\]\(\.\./([^)]+)\)", r"\1 (`\2`)", source[0])


def setup(app: Sphinx) -> None:
    app.connect("source-read", _outside)
