"""The pictures of the state machines are of the machines as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from docs import machines

ROOT = Path(__file__).resolve().parents[2]


class PictureTests(SynchronousTestCase):
    """The pictures of the state machines against the code."""

    def test_drawn_from_the_code(self) -> None:
        """Every picture is of the machine as it is; `make pictures` renews them."""
        for name, text in machines.PICTURES.items():
            drawn = (ROOT / "docs" / f"{name}.dot").read_text(encoding="utf-8")
            self.assertEqual(drawn, text, f"docs/{name}.dot: is of other code; run make pictures")

    def test_shown(self) -> None:
        """A picture says all that was drawn, and nothing else, and the document shows it."""
        shown = (ROOT / "docs/machines.md").read_text(encoding="utf-8")
        for name, text in machines.PICTURES.items():
            self.assertIn(f"]({name}.svg)", shown)
            words: list[str] = []
            for line in text.splitlines():
                if said := re.search(r'label=(".*")]', line) or re.match(r'  (".*?")(?! ->)', line):
                    words += json.loads(said[1]).split("\n")
            svg = ElementTree.parse(ROOT / "docs" / f"{name}.svg")
            texts = [element.text or "" for element in svg.iter("{http://www.w3.org/2000/svg}text")]
            self.assertEqual(sorted(texts), sorted(words), f"docs/{name}.svg: run make pictures")
