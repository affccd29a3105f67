"""The page for people: what it says, and that nothing in it can do anything."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.findings import Command, Finding
from mutauth_twisted.status import page as module
from mutauth_twisted.status.history import Minute
from mutauth_twisted.status.page import HEADERS, page, size, span
from mutauth_twisted.status.snapshot import Refusal, Session, Snapshot
from mutauth_twisted.testing.hostile import HOSTILE, raw_in
from mutauth_twisted.text import short_name
from tests.unit.status.sample import FULL

NOW = 1_800_000_000.0
EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script></style><!--" + HOSTILE
_VOID = frozenset({"meta", "link", "input"})


class Outline(HTMLParser):
    """Elements of a page, and whether each is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


class PageTests(SynchronousTestCase):
    """The document."""

    def outline(self, *services: Snapshot) -> Outline:
        found = Outline(page(services, "srv1", NOW))
        self.assertEqual(found.open, [])
        return found

    def test_shows(self) -> None:
        """The page shows who is there, who was refused and why, what is wrong and what fixes it."""
        found = self.outline(FULL)
        for text in (
            *("Not ready", "spn-missing", "SPN x/y", "as an administrator, run"),
            *("mutauth spn add 'it'\"'\"'s' 'x y'", "chmod o= /k"),
            *("alice@TEST", "192.0.2.1:1", "192.0.2.2:1", "CN=x", "Refused (1)", "Sessions (2)"),
        ):
            self.assertIn(text, found.text)
        self.assertIn("Ready", self.outline(evolve(FULL, wrong=())).text)

    def test_state(self) -> None:
        """The title and the first word say how it is."""
        for service, word in (
            (evolve(FULL, wrong=()), "Ready"),
            (FULL, "Not ready"),
            (evolve(FULL, stopping=True), "Stopping"),
        ):
            text = page((service,), "srv1", NOW)
            self.assertIn(f"<title>{word}: echoSvc</title>", text)
            self.assertRegex(text, rf'id="state"[^>]*>{word}<')

    def test_empty(self) -> None:
        """A service that has just started."""
        text = self.outline(Snapshot("echoSvc", ("127.0.0.1:1",))).text
        self.assertIn("No client is connected.", text)
        self.assertIn("No connection was refused since the start.", text)

    def test_graph(self) -> None:
        """Every minute has its bars, and the whole is told in words too."""
        history = tuple(Minute(at, at, 60 - at, 3) for at in range(60))
        found = self.outline(evolve(FULL, history=history))
        kinds = [attributes.get("class") for tag, attributes in found.found if tag == "rect"]
        self.assertEqual(kinds.count("minute"), 60)
        self.assertEqual((kinds.count("allowed"), kinds.count("refused")), (59, 60))
        self.assertIn("1,770 allowed, 1,830 refused, at most 3 sessions at once", found.text)

    def test_hostile(self) -> None:
        """Words of others stay text: no element, attribute or control character comes of it."""
        finding = Finding("spn-missing", EVIL, EVIL, (EVIL, Command("mutauth", EVIL)))
        name = short_name(EVIL)
        evil = Snapshot(
            EVIL,
            (EVIL,),
            FULL.values,
            (finding,),
            (finding,),
            facts=((EVIL, EVIL),),
            sessions=(Session(name, name, name, NOW, 1, 2, name),),
            refusals=(Refusal(name, name, name, NOW, finding),),
        )
        plain = evolve(
            evil,
            service="x",
            serving=("x",),
            wrong=(Finding("spn-missing", "x", "x", ("x", Command("mutauth", "x"))),),
            warnings=(Finding("spn-missing", "x", "x", ("x", Command("mutauth", "x"))),),
        )
        text = page((evil,), EVIL, NOW)
        self.assertEqual(raw_in(text), [])
        tags = [tag for tag, _ in self.outline(evil).found]
        self.assertEqual(tags, [tag for tag, _ in self.outline(plain).found])
        self.assertEqual((tags.count("script"), tags.count("img")), (1, 0))
        for _, attributes in self.outline(evil).found:
            self.assertEqual([each for each in attributes if each.startswith("on")], [])

    def test_policy(self) -> None:
        """The policy allows the style and the script that are there, and nothing else; no element
        needs more.
        """
        text, policy = page((FULL,), "srv1", NOW), HEADERS["Content-Security-Policy"]
        for tag in ("style", "script"):
            (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            self.assertIn(f"{tag}-src 'sha256-{digest}';", policy)
        self.assertTrue(policy.startswith("default-src 'none'; "))
        self.assertNotIn("unsafe", policy)
        self.assertIn("frame-ancestors 'none'", policy)
        for _, attributes in self.outline(FULL).found:
            self.assertNotIn("style", attributes)
        # Nothing in the style fetches either, as far as a policy would let it.
        self.assertNotRegex(module._STYLE, r"url\(|@import")

    def test_accessible(self) -> None:
        """Every table has a caption and heads, and every field and picture a name."""
        found = self.outline(FULL).found
        tags = [tag for tag, _ in found]
        self.assertEqual(tags.count("table"), tags.count("caption"))
        self.assertEqual((tags.count("main"), tags.count("h1")), (1, 1))
        self.assertEqual(dict(found)["html"], {"lang": "en"})
        for tag, attributes in found:
            if tag == "th":
                self.assertIn(attributes["scope"], ("col", "row"))
            if tag in ("input", "svg", "meter"):
                self.assertTrue(attributes["aria-label"])


class WordTests(SynchronousTestCase):
    """Numbers as people read them."""

    def test_span(self) -> None:
        """The two largest units."""
        for seconds, text in (
            (-5, "0 s"),
            (0.4, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3600, "1 h"),
            (3605, "1 h"),
            (90061, "1 d 1 h"),
            (864000, "10 d"),
        ):
            self.assertEqual(span(seconds), text)

    def test_size(self) -> None:
        """Three digits and a unit."""
        for count, text in (
            (0, "0 B"),
            (999, "999 B"),
            (1024, "1 KiB"),
            (123456789, "118 MiB"),
            (10**13, "9.09 TiB"),
            (10**18, "909,495 TiB"),
        ):
            self.assertEqual(size(count), text)
