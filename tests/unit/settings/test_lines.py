"""Lines of keys in TOML documents."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.settings.lines import KeyLines

DOCUMENT = '''\
# [[no]]
top = "[[a]] # = 1"   # "
text = """
[[no]]
no = 1 \\""" ""
"""
raw = \'\'\'
no = [\'\'\'
list = [   # one
  "x = [",
  [1, 2],
]
  dotted . "k.e y" = { a = 1, b = [ "}", "]" ] }

[[rule]]
name = "a"
[rule.more]
deep = 1
[[ rule ]]   # the second
[[rule."in ner"]]
x = 1
[[rule."in ner"]]
x = 2
["quo\\"ted".'t']
last.one = """"quoted""""'''


class LineTests(SynchronousTestCase):
    """A document with all that can be mistaken for a key."""

    def test_lines(self) -> None:
        """Each key is where it is written, and what is in strings and comments is no key."""
        tomllib.loads(DOCUMENT)
        lines = KeyLines(DOCUMENT)
        for path, line in (
            (("top",), 2),
            (("text",), 3),
            (("raw",), 7),
            (("list",), 9),
            (("dotted", "k.e y"), 13),
            (("rule",), 15),
            (("rule", 0), 15),
            (("rule", 0, "name"), 16),
            (("rule", 0, "more"), 17),
            (("rule", 0, "more", "deep"), 18),
            (("rule", 1), 19),
            (("rule", 1, "in ner", 0, "x"), 21),
            (("rule", 1, "in ner", 1), 22),
            (("rule", 1, "in ner", 1, "x"), 23),
            (('quo"ted', "t"), 24),
            (('quo"ted', "t", "last", "one"), 25),
        ):
            self.assertEqual(lines.line_of(*path), line, path)

    def test_around(self) -> None:
        """A mistake inside of a value is on the line of its key; what is not there, of its
        table.
        """
        lines = KeyLines(DOCUMENT)
        self.assertEqual(lines.line_of("list", 1), 9)
        self.assertEqual(lines.line_of("dotted", "k.e y", "b"), 13)
        self.assertEqual(lines.line_of("rule", 1, "absent"), 19)
        self.assertEqual(lines.line_of("absent"), 1)
        self.assertEqual(KeyLines("").line_of("absent"), 1)

    def test_line_ends(self) -> None:
        """Those of another system are counted once."""
        lines = KeyLines(DOCUMENT.replace("\n", "\r\n"))
        self.assertEqual(lines.line_of('quo"ted', "t", "last", "one"), 25)

    @given(st.data())
    def test_any_document(self, data: Any) -> None:
        """Each key of a document that was written down key by key is found on its line."""
        text, places, in_tables = "", {}, False
        keys = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")))
        words = st.text(st.sampled_from("[]{}=#'\"\\,\n x"))
        for number, key in enumerate(data.draw(st.lists(keys, unique=True, max_size=6))):
            values = data.draw(st.lists(words, max_size=3))
            path: tuple[str | int, ...] = (key,)
            in_tables = in_tables or data.draw(st.booleans())
            if in_tables:
                text += f"[[{_quoted(key)}]] # {data.draw(keys)}\n"
                path = (key, 0, "x")
            written = ",\n".join(map(_quoted, values)) + data.draw(st.sampled_from(("", "\n#]\n")))
            places[path] = text.count("\n") + 1
            text += f"{_quoted(str(path[-1]))} = [{written}]\n"
            text += f"'{number} \"' = '''{data.draw(words).replace(chr(39), '')}'''\n"
        tomllib.loads(text)
        lines = KeyLines(text)
        self.assertEqual({path: lines.line_of(*path) for path in places}, places)


def _quoted(text: str) -> str:
    """A TOML basic string, in one line."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
