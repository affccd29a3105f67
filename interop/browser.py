"""A headless Chromium, driven over its DevTools protocol through pipes."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

from interop.stage import WAIT

#: Chromium refuses to start as root with its own sandbox, and is shown nothing but our own pages.
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class Browser:
    """A browser with one page.

    Use it as a context manager.

    :ivar problems: what the console, the page or the content security policy complained of.
    :ivar requests: the addresses of everything that the page asked for.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._numbers = itertools.count(1)
        self._events: deque[dict[str, Any]] = deque()
        self._pending = b""
        self._session: str | None = None

    def __enter__(self) -> Browser:
        program = shutil.which("chromium")
        if program is None:
            raise RuntimeError("chromium is not installed: run tools/bootstrap interop")
        self._profile = tempfile.mkdtemp(prefix="mutauth-chromium-")
        # Chromium reads commands from its descriptor 3, and answers on 4.
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        command = [program, *_OPTIONS, f"--user-data-dir={self._profile}", "about:blank"]
        shell = 'exec "$@" 3<&"$MUTAUTH_IN" 4>&"$MUTAUTH_OUT"'
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "bash", "-c", shell, "bash", *command],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "HOME": self._profile,
                "MUTAUTH_IN": str(theirs_in),
                "MUTAUTH_OUT": str(theirs_out),
            },
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session = None
        with contextlib.suppress(OSError, RuntimeError):
            self.call("Browser.close")
        try:
            self._process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    # --- the protocol -----------------------------------------------------------------------------

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have it do something.

        :return: its answer.
        :raises RuntimeError: when it says no, or nothing.
        """
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + WAIT
        while True:
            answer = self._next(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._read], [], [], deadline - time.monotonic())
            if not ready:
                raise RuntimeError("chromium does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("chromium has ended")
            self._pending += data
        message, _, self._pending = self._pending.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what tests ask about."""
        what, told = event.get("method"), event.get("params", {})
        if what == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif what == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(told["exceptionDetails"])[:1000])
        elif what == "Runtime.consoleAPICalled":
            self.problems.append(json.dumps(told["args"])[:1000])
        elif what == "Log.entryAdded":
            self.problems.append(told["entry"]["text"])

    # --- what tests do ----------------------------------------------------------------------------

    def forget(self) -> None:
        """Forget what was complained of and asked for."""
        self.open("about:blank")
        self.problems.clear()
        self.requests.clear()

    def look(self, *, wide: int = 1200, high: int = 900, scheme: str = "light") -> None:
        """Choose the window's size and the colours that the user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=wide,
            height=high,
            deviceScaleFactor=1,
            mobile=wide < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, address: str) -> None:
        """Show a page, and wait until it is complete."""
        self.call("Page.navigate", url=address)
        self.wait_for(f"document.readyState === 'complete' && location.href === {address!r}")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, in JSON's types."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true.

        :raises RuntimeError: when it does not become true.
        """
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            if self.evaluate(f"Boolean({expression})"):
                return
            time.sleep(0.1)
        raise RuntimeError(f"it does not become true: {expression}")

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Save what is seen, as PNG."""
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
