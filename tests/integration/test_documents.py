"""Every command of the documents, run as a reader runs it; ``tests/documents.py`` says how they are
written.

Each document has one shell, in a file system in which ``/etc`` and ``/var/lib`` are its own, and in
which the lab's domain controller is the DNS server.  ``example.com`` is the lab's domain there, and
each port of the documents a free one.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import TestCase

from mutauth_twisted.lab import Lab
from tests.documents import ROOT, Example, documents, examples
from tests.integration.support import require_lab

WAIT = 60.0  # only a broken command takes that long
_DONE = "=== done "
_PORTS = re.compile(r"(?<![\d.])(?:9\d{3}|80[08]\d|6[34]\d{2}|54\d{2})(?![\d.])")

#: A private /etc, /var/lib and DNS server, and then the shell itself.
_PREPARE = """
set -e
cp -a /etc "$1/etc"
mount --bind "$1/etc" /etc
mount -t tmpfs tmpfs /var/lib
umount /etc/resolv.conf 2>/dev/null || true
rm -f /etc/resolv.conf
echo "nameserver $2" >/etc/resolv.conf
cp "$3/krb5.conf" /etc/krb5.conf
mkdir -p /etc/mutauth /var/lib/mutauth
cp "$3"/keytabs/svc-echo.keytab /etc/mutauth/echo.keytab
cd "$1/work"
exec bash
"""


class Shell:
    """A reader's shell.

    :param directory: its own; it works in ``work`` there.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.background: dict[int, Path] = {}
        self._installed: list[str] = []
        self._ports: dict[str, str] = {}
        (directory / "work").mkdir()
        (directory / "work" / ".venv").symlink_to(sys.prefix)
        for name in ("demo", "interop", "benchmarks"):
            (directory / "work" / name).symlink_to(ROOT / name)
        # Tickets of its own: those of another document's account are no good here.
        shutil.copytree(lab.directory / "ccaches", directory / "ccaches")
        environment = {
            **os.environ,
            **lab.environment("alice"),
            "KRB5CCNAME": self.tickets("alice"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{directory / 'work'}:{ROOT}",
            "PYTHONUNBUFFERED": "1",
            "SMB_CONF_PATH": str(lab.directory / "samba" / "etc" / "smb.conf"),
            "HOME": str(directory),
            "COLUMNS": "200",
        }
        prepare = ["bash", "-c", _PREPARE, "bash", str(directory), lab.nameserver]
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", *prepare, str(lab.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def tickets(self, user: str) -> str:
        """A user's ticket cache."""
        return f"FILE:{self.directory / 'ccaches' / user}"

    def here(self, text: str) -> str:
        """A command, or what it prints, with the names, addresses and ports of this lab."""
        for there, here in (
            ("DC=example,DC=com", "DC=lab,DC=example"),
            ("example.com", self.lab.realm.lower()),
            ("EXAMPLE.COM", self.lab.realm),
            ("EXAMPLE\\", f"{self.lab.domain}\\"),
            ("127.0.0.10", self.lab.nameserver),
        ):
            text = text.replace(there, here)
        return _PORTS.sub(self._port, text)

    def _port(self, match: re.Match[str]) -> str:
        while match[0] not in self._ports:
            # None of those that the kernel gives to clients: another would have it meanwhile.
            port = random.randrange(20000, 32000)
            with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", port)):
                self._ports[match[0]] = str(port)
        return self._ports[match[0]]

    def run(self, words: str, user: str = "") -> tuple[int, str]:
        """Run a command to its end; its exit code, and all that it printed."""
        if re.match(r"mutauth install\b", words):
            self._installed.append(words)
        if not user:
            return self._say(f"{{ {words}\n}} </dev/null")
        swap = f"own=$KRB5CCNAME KRB5CCNAME={self.tickets(user)}"
        return self._say(
            f"{swap}\n{{ {words}\n}} </dev/null; set -- $?; KRB5CCNAME=$own; (exit $1)"
        )

    def start(self, words: str, sign: str, user: str = "") -> None:
        """Start a command that goes on running; it is ready when *sign* is in its output."""
        log = self.directory / f"{len(self.background)}-{os.urandom(4).hex()}.log"
        log.touch()
        before = f"KRB5CCNAME={self.tickets(user)} " if user else ""
        _, number = self._say(f"{before}{words} </dev/null >{log} 2>&1 &\necho $!; true")
        process = int(number.split()[-1])
        self.background[process] = log
        deadline = time.monotonic() + WAIT
        while sign not in log.read_text("utf-8", "replace"):
            code, _ = self._say(f"kill -0 {process} 2>&1")
            if code or time.monotonic() > deadline:
                raise AssertionError(f"{words}: no {sign!r} in its output:\n{log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop what runs in the background, as a service manager does."""
        for process, log in self.background.items():
            code, said = self._say(f"kill -TERM {process}; wait {process}")
            if code not in (0, 128 + signal.SIGTERM, 128 + signal.SIGINT):
                raise AssertionError(f"it ended with {code}: {said}\n{log.read_text()}")
        self.background.clear()

    def uninstall(self) -> None:
        """Undo what was installed: later tests find the directory as it was."""
        for words in self._installed:
            # From whichever account holds the SPNs: the document may have deleted it.
            undo = re.sub(r"--(keyword|account) \S+", "", words.replace("install", "uninstall", 1))
            code, said = self.run(undo, "administrator")
            if code:
                raise AssertionError(f"{undo}: {said}")

    def _say(self, text: str) -> tuple[int, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f'{text}\necho "{_DONE}$?"\n'.encode())
        self.process.stdin.flush()
        said = b""
        deadline = time.monotonic() + WAIT
        while (end := re.search(rb"%s(\d+)\n\Z" % _DONE.encode(), said)) is None:
            ready, _, _ = select.select(
                [self.process.stdout], [], [], max(0, deadline - time.monotonic())
            )
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not more:
                raise AssertionError(f"{text}: it did not end:\n{said.decode()}")
            said += more
        return int(end[1]), said[: end.start()].decode("utf-8", "replace")

    def close(self) -> None:
        """End it, and all that it has started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


class DocumentTests(TestCase):
    """Each document from its beginning to its end."""

    # One test for each document; see below.

    def read(self, document: str) -> None:
        directory = Path(tempfile.mkdtemp(prefix="mutauth-docs-"))
        self.addCleanup(shutil.rmtree, directory)
        shell = Shell(require_lab(), directory)
        self.addCleanup(shell.close)
        self.addCleanup(shell.uninstall)
        for each in examples(document):
            if "file" in each.options:
                path = directory / "work" / each.options["file"]
                path.write_text(shell.here(each.text) + "\n", "utf-8")
            elif each.language == "console" and "not-run" not in each.options:
                self.follow(shell, each)
        shell.stop()

    def follow(self, shell: Shell, example: Example) -> None:
        """Run one block."""
        if "stop" in example.options:
            shell.stop()
        user = example.options.get("as", "")
        commands = list(example.commands())
        if sign := example.options.get("until"):
            [command] = commands
            shell.start(shell.here(command.words), sign, user)
            return
        for number, command in enumerate(commands, 1):
            code, printed = shell.run(shell.here(command.words), user)
            expected = int(example.options.get("exit", 0)) if number == len(commands) else 0
            what = f"{example.where}: {command.words}\n{printed}"
            for log in shell.background.values():
                what += f"\n--- {log.read_text()}"
            self.assertEqual(code, expected, what)
            if command.printed:
                pattern = re.escape(shell.here(command.printed)).replace(r"\.\.\.", ".*")
                self.assertTrue(re.fullmatch(pattern, printed.rstrip("\n"), re.DOTALL), what)


def _test(document: str) -> Callable[[DocumentTests], None]:
    def test(self: DocumentTests) -> None:
        self.read(document)

    test.__doc__ = f"The commands of {document} do what it says."
    return test


for _document in documents():
    if any(
        each.language == "console" and "not-run" not in each.options for each in examples(_document)
    ):
        _name = re.sub(r"\W", "_", _document.removesuffix(".md")).lower()
        setattr(DocumentTests, f"test_{_name}", _test(_document))
