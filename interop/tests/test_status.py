"""The status port, read by Prometheus and shown by Chromium."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import quote

from interop.browser import Browser
from interop.programs import Result, free_port, run
from interop.stage import HOST, WAIT, Backend, Forwarder, StageTestCase, stage

_RULES = re.compile(r"```yaml file=mutauth-rules.yml\n(.*?)```", re.DOTALL)
_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"


class Watched:
    """A service with a status port, which alice may use and bob may not.

    :ivar status: the address of its page.
    :ivar entrance: leads to it as alice.
    """

    def __init__(self) -> None:
        shared = stage()
        self.backend = Backend()
        name = f"watch{shared.service_class}"
        shared.install(name)
        status = ("--status", f"tcp:0:interface={HOST}")
        self.service = shared.service(name, self.backend.port, *status)
        line = self.service.program.wait_for("status on")
        self.status = f"http://{HOST}:{line.rpartition(':')[2].strip()}/"
        endpoint = f"mutauth:scp={name}:nameserver={shared.lab.nameserver}"
        self.entrance: Forwarder = shared.connector(endpoint)
        words = ("connect", endpoint)
        shared.start(
            (sys.executable, "-m", "mutauth_twisted.cli", *words), shared.environment("bob")
        ).wait()

    @contextmanager
    def session(self) -> Iterator[None]:
        """A session of alice's."""
        with (
            socket.create_connection((HOST, self.entrance.port), WAIT) as near,
            self.backend.accept(near),
        ):
            yield

    def get(self, path: str) -> str:
        """Return the body of a page."""
        with urllib.request.urlopen(self.status + path, timeout=WAIT) as answer:
            body: bytes = answer.read()
        return body.decode()


@cache
def watched() -> Watched:
    return Watched()


def promtool(*words: str, given: str = "") -> Result:
    return run("promtool", *words, given=given.encode())


def rules() -> str:
    """The rules of the document."""
    (found,) = _RULES.findall(_DOCUMENT.read_text("utf-8"))
    return str(found)


class PrometheusTests(StageTestCase):
    """promtool and Prometheus itself."""

    def test_metrics(self) -> None:
        """promtool finds nothing to complain of in names, kinds, help texts and values."""
        with watched().session():
            text = watched().get("metrics")
        self.assertIn('mutauth_handshakes_total{result="access-denied"', text)
        result = promtool("check", "metrics", given=text)
        self.assertEqual((result.code, result.output, result.errors), (0, b"", ""))

    def test_promtool_complains(self) -> None:
        """It would say so."""
        result = promtool("check", "metrics", given="# TYPE x_total gauge\nx_total 1\n")
        self.assertNotEqual((result.code, result.errors), (0, ""))

    def test_scraped(self) -> None:
        """Prometheus takes the figures and the rules of the document, and tells that the service is
        ready.
        """
        directory = Path(tempfile.mkdtemp(dir=stage().state))
        directory.chmod(0o711)
        (directory / "mutauth-rules.yml").write_text(rules())
        checked = promtool("check", "rules", str(directory / "mutauth-rules.yml"))
        self.assertEqual(checked.code, 0, checked)
        target = watched().status.removeprefix("http://").rstrip("/")
        (directory / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            "rule_files: [mutauth-rules.yml]\n"
            "scrape_configs:\n"
            f"  - {{job_name: mutauth, static_configs: [{{targets: ['{target}']}}]}}\n"
        )
        port = free_port()
        program = stage().start(
            (
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={HOST}:{port}",
            ),
            os.environ,
        )
        self.addCleanup(program.stop, signal.SIGTERM)
        program.wait_for("Server is ready to receive web requests")
        deadline = time.monotonic() + WAIT
        while not (found := self.query(port, "mutauth_ready")) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.assertEqual([each["value"][1] for each in found], ["1"])
        (up,) = self.query(port, "up")
        self.assertEqual(up["value"][1], "1")
        with urllib.request.urlopen(f"http://{HOST}:{port}/api/v1/rules", timeout=WAIT) as answer:
            (group,) = json.load(answer)["data"]["groups"]
        self.assertEqual(
            {rule["lastError"] for rule in group["rules"] if "lastError" in rule}, set()
        )
        firing = [rule["name"] for rule in group["rules"] if rule.get("state") == "firing"]
        self.assertEqual(firing, [])

    def query(self, port: int, expression: str) -> list[dict[str, list[str]]]:
        """The samples of an expression now."""
        url = f"http://{HOST}:{port}/api/v1/query?query={quote(expression)}"
        with urllib.request.urlopen(url, timeout=WAIT) as answer:
            found: list[dict[str, list[str]]] = json.load(answer)["data"]["result"]
        return found


@cache
def browser() -> Browser:
    return stage().closing.enter_context(Browser())


class ChromiumTests(StageTestCase):
    """The page in a browser."""

    def setUp(self) -> None:
        self.browser = browser()
        self.browser.forget()

    def renew(self) -> None:
        """Have the page renew itself now."""
        self.browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    def test_page(self) -> None:
        """It shows the session and the refusal, fits a phone as well as a wide screen, and asks for
        nothing but itself, without a complaint.
        """
        browser = self.browser
        with watched().session():
            browser.open(watched().status)
            for wide, scheme in (
                (1200, "light"),
                (1200, "dark"),
                (360, "light"),
                (360, "dark"),
            ):
                browser.look(wide=wide, scheme=scheme)
                browser.open(watched().status)
                widths = "[document.documentElement.scrollWidth, innerWidth]"
                content, window = browser.evaluate(widths)
                self.assertLessEqual(content, window)
                self.assertEqual(window, wide)
                shown = browser.evaluate("document.body.innerText")
                for words in ("Ready", "alice@LAB.EXAMPLE", "bob@LAB.EXAMPLE", "access-denied"):
                    self.assertIn(words, shown)
        colors = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        self.assertEqual(colors, "rgb(15, 21, 28)")
        self.assertEqual(browser.problems, [])
        elsewhere = [
            each
            for each in browser.requests
            if not each.startswith((watched().status, "data:", "about:"))
        ]
        self.assertEqual(elsewhere, [])

    def test_renews(self) -> None:
        """It renews itself in place: a new session comes up, and what is folded, searched for and
        selected stays.
        """
        browser = self.browser
        browser.look()
        browser.open(watched().status)
        browser.evaluate("window.same = true")
        browser.evaluate("document.getElementById('service-0-refusals').open = false")
        browser.evaluate("document.getElementById('service-0-facts').open = true")
        browser.evaluate("document.querySelector('#service-0-facts > summary').focus()")
        browser.evaluate(
            "filter.value = 'ALICE'; filter.dispatchEvent(new Event('input')); undefined"
        )
        rows = "[...document.querySelectorAll('#service-0-sessions tbody tr')]"
        browser.wait_for(f"{rows}.length === 0")
        with watched().session():
            browser.wait_for(f"{rows}.length === 1")
            self.assertTrue(browser.evaluate("window.same"))
            self.assertFalse(browser.evaluate(f"{rows}[0].hidden"))
            refused = "document.querySelector('#service-0-refusals tbody tr')"
            self.assertTrue(browser.evaluate(f"{refused}.hidden"))
            opened = (
                "['refusals', 'facts'].map(x => document.getElementById(`service-0-${x}`).open)"
            )
            self.assertEqual(browser.evaluate(opened), [False, True])
            focused = browser.evaluate("document.activeElement.parentElement.id")
            self.assertEqual(focused, "service-0-facts")
            self.assertEqual(browser.evaluate("filter.value"), "ALICE")
            browser.evaluate("document.getElementById('state').textContent = 'Not ready'")
            self.renew()
            browser.wait_for("document.getElementById('state').textContent === 'Ready'")
            # What is selected is left alone, until it is not any more.
            browser.evaluate("getSelection().selectAllChildren(document.querySelector('h2'))")
            asked = len(browser.requests)
            self.renew()
            self.assertEqual(len(browser.requests), asked)
        browser.evaluate("getSelection().empty()")
        self.renew()
        browser.wait_for(f"{rows}.length === 0")
        self.assertEqual(browser.problems, [])

    def test_policy(self) -> None:
        """A browser runs and fetches nothing that the policy does not name, should an element ever
        get in.
        """
        browser = self.browser
        browser.open(watched().status)
        browser.evaluate(
            "document.body.insertAdjacentHTML('beforeend',"
            ' \'<img src="http://127.0.0.1:9/x" onerror="window.ran = 1">'
            '<p style="color: red" id=red>x</p>\'); undefined'
        )
        browser.evaluate(
            "document.body.append(Object.assign(document.createElement('script'),"
            " {textContent: 'window.ran = 2'})); undefined"
        )
        fetched = browser.evaluate("fetch('http://127.0.0.1:9/y').catch(() => 'blocked')")
        self.assertEqual(fetched, "blocked")
        self.assertIsNone(browser.evaluate("window.ran"))
        told = " ".join(browser.problems)
        for directive in ("img-src", "script-src", "style-src", "connect-src"):
            self.assertIn(directive, told)

    def test_gone(self) -> None:
        """A page whose service has gone says so, and keeps what it last knew."""
        shared, name = stage(), f"gone{stage().service_class}"
        bare = ("--publish", "none", "--spn-check", "off", "--status", f"tcp:0:interface={HOST}")
        service = shared.service(name, watched().backend.port, *bare)
        port = service.program.wait_for("status on").rpartition(":")[2].strip()
        browser = self.browser
        browser.open(f"http://{HOST}:{port}/")
        service.program.stop()
        browser.wait_for("document.querySelector('#fresh.lost')")
        self.assertIn("No answer: as of", browser.evaluate("document.body.innerText"))
        self.assertIn(name, browser.evaluate("document.body.innerText"))
