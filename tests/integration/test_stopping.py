"""Stopping a real service, in the worst moments."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread

from mutauth_twisted.directory.scp import read_scp
from mutauth_twisted.errors import DirectoryRefused
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.service.exitcode import CUT
from tests.integration.commands import STOPPED, WAIT, CommandTestCase, Ended, Running
from tests.integration.directory_case import DirectoryTestCase


class Controller:
    """An address of the domain controller's that passes everything on, until it accepts and never
    answers.

    :param address: where it listens, and where the controller's port 389 is.
    """

    def __init__(self, address: str, *, hung: bool = False) -> None:
        self._listener = socket.create_server((address, 0))
        self._address = address
        self.port = self._listener.getsockname()[1]
        self._hung = threading.Event()
        #: Whether anything was asked that will never be answered.
        self.ignored = threading.Event()
        self._ends: list[socket.socket] = [self._listener]
        if hung:
            self._hung.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def hang(self) -> None:
        """Answer nothing any more."""
        self._hung.set()

    def close(self) -> None:
        """Break all connections."""
        for each in self._ends:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._address, 389))
                self._ends += [client, server]
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if self._hung.is_set():
                        self.ignored.set()
                    else:
                        (server if ready is client else client).sendall(data)


class StoppingTests(CommandTestCase):
    """Signals to a service, while its domain controller is silent and while it is not."""

    @contextlib.contextmanager
    def controller(self, *, hung: bool = False) -> Iterator[tuple[Controller, tuple[str, ...]]]:
        """A domain controller that can hang, and the options that lead to it."""
        name = f"dc1.{self.lab.realm.lower()}"
        controller = Controller(self.lab.address_of(name), hung=hung)
        try:
            yield (
                controller,
                ("--directory", f"ldap://{name}:{controller.port}", "--check-interval", "0.2"),
            )
        finally:
            controller.close()

    def start(
        self, *options: str, prefix: tuple[str, ...] = (), stdin: int | None = None
    ) -> subprocess.Popen[str]:
        """A service whose start is not waited for."""
        words, stderr = self.service_words(*options), subprocess.STDOUT
        process = self.begin("twistd", *words, prefix=prefix, stderr=stderr, stdin=stdin)
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.kill()
        process.communicate()

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        give_up_at = time.monotonic() + WAIT
        while not condition():
            self.assertLess(time.monotonic(), give_up_at, what)
            time.sleep(0.02)

    def accepts(self, port: int) -> bool:
        try:
            socket.create_connection((self.lab.address_of(self.host), port), 5).close()
        except ConnectionRefusedError:
            return False
        return True

    def health(self, service: Running) -> int:
        """The code of a service's status page."""
        line = next(line for line in service.lines if "status on" in line)
        with socket.create_connection(("127.0.0.1", int(line.rpartition(":")[2])), WAIT) as page:
            page.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return int(page.makefile("rb").readline().split()[1])

    def fixed(self, service: Running) -> str:
        """The endpoint of a service, which is not looked up."""
        name = (
            f"{self.service_class}/{self.host}/CN={self.service_class},CN=srv1,"
            f"CN=Computers,{self.lab.base_dn}"
        )
        return f"mutauth:tcp\\:{self.lab.address_of(self.host)}\\:{service.port}:spn={name}"

    @contextlib.contextmanager
    def client(self) -> Iterator[subprocess.Popen[bytes]]:
        """A client with a session, which ends it when its standard input is closed."""
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": False}
        client = self.begin("mutauth", "connect", self.endpoint, **pipes)
        with client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(b"hello\n")
            client.stdin.flush()
            self.assertEqual(client.stdout.readline(), b"hello\n")
            yield client

    def stopping(self, service: Running) -> None:
        """Have a service stop that has sessions: its address is withdrawn, it listens no more, and
        is not ready from the signal on.
        """
        service.process.send_signal(signal.SIGTERM)
        self.read_until(service, "SCP withdrawn")
        self.wait_for(lambda: not self.accepts(service.port), "it still takes clients")
        for _ in range(10):
            self.assertEqual(self.health(service), 503)

    def test_drained(self) -> None:
        """Sessions go on until they end by themselves; then the exit code is 0."""
        self.assertEqual(self.install().code, 0)
        words = ("--status", "tcp:0:interface=127.0.0.1", "--drain-timeout", "60")
        with self.service(*words) as service, self.client() as client:
            self.stopping(service)
            for number in range(3):
                line = f"still here {number}\n".encode()
                client.stdin.write(line)  # type: ignore[union-attr]
                client.stdin.flush()  # type: ignore[union-attr]
                self.assertEqual(client.stdout.readline(), line)  # type: ignore[union-attr]
            self.assertIsNone(service.process.poll())
            client.communicate(timeout=WAIT)
            self.assertEqual((client.returncode, service.stop()), (0, 0), service.log)
            self.assert_clean(service.log)

    def test_cut(self) -> None:
        """A session that does not end is cut when time is up, which the client notices, and the
        exit code tells.
        """
        self.assertEqual(self.install().code, 0)
        words = ("--status", "tcp:0:interface=127.0.0.1", "--drain-timeout", "1")
        with self.service(*words) as service, self.client() as client:
            self.stopping(service)
            self.assertEqual(service.stop(), CUT, service.log)
            self.assertNotEqual(client.wait(WAIT), 0)
            line = f"connections of {self.service_class}: 1 had not ended within 1 s"
            self.assertIn(f"[connections-cut] {line}", service.log)
            self.assert_clean(service.log)

    def assert_clean(self, log: str) -> None:
        for word in ("Traceback", "internal error", "Unhandled"):
            self.assertNotIn(word, log)

    def test_silent_at_start(self) -> None:
        """A service that waits for its domain controller to start with stops at once, and has
        nothing to take back.
        """
        self.assertEqual(self.install().code, 0)
        with self.controller(hung=True) as (controller, options):
            process = self.start(*options)
            self.assertTrue(controller.ignored.wait(WAIT))
            process.send_signal(signal.SIGTERM)
            log, _ = process.communicate(timeout=STOPPED)
            self.assertEqual(process.returncode, 0, log)
            self.assert_clean(log)
            self.assertNotIn("serving", log)

    def test_silent_during_a_check(self) -> None:
        """The address is withdrawn first, for so long clients are served, and it is not ready any
        more; the end comes in time, and the exit code says what was left.
        """
        self.assertEqual(self.install().code, 0)
        status = ("--status", "tcp:0:interface=127.0.0.1")
        with self.controller() as (controller, options), self.service(*options, *status) as service:
            self.assertEqual(self.health(service), 200)
            controller.hang()
            self.assertTrue(controller.ignored.wait(WAIT))
            service.process.send_signal(signal.SIGTERM)
            self.wait_for(lambda: self.health(service) == 503, "it is ready")
            # Whoever has looked before the withdrawal is on the way, and finds it.
            self.assertEqual(self.mutauth("connect", self.fixed(service), given="hello").code, 0)
            self.wait_for(lambda: not self.accepts(service.port), "it still takes clients")
            log = service.log + service.process.communicate(timeout=STOPPED)[0]
            self.assertEqual(service.process.returncode, 3, log)
            self.assertIn(
                "what the directory says of it may be stale: the directory did not answer within 5 "
                "s",
                log,
            )
            self.assert_clean(log)

    def test_nothing_after_the_withdrawal(self) -> None:
        """A service that looks at the directory all the time, and publishes, leaves nothing there
        when it stops.
        """
        self.assertEqual(self.install().code, 0)
        with self.service("--check-interval", "0.05") as service:
            time.sleep(0.5)  # many looks
            self.assertEqual(service.stop(), 0)
            self.assertIn("SCP withdrawn", service.log)
            self.assert_clean(service.log)
        found = self.mutauth("scp", "find", self.service_class, "--json", *self.directory[:2])
        (point,) = json.loads(found.output)
        self.assertIsNone(point["binding"], found)

    def test_hangup(self) -> None:
        """SIGHUP stops nothing; also where it was ignored at the start."""
        self.assertEqual(self.install().code, 0)
        for prefix in ((), ("nohup",)):
            process = self.start(prefix=prefix)
            with self._running(process, "serving") as kept:
                process.send_signal(signal.SIGHUP)
                self.assertEqual(self.talk().output, "hello\n")
                self.assertEqual(kept.stop(), 0)
                self.assertEqual("reload (SIGHUP)" in kept.log, not prefix)
                self.assert_clean(kept.log)

    def test_closed_terminal(self) -> None:
        """A service loses its terminal and stops in order."""
        self.assertEqual(self.install().code, 0)
        terminal, its_end = os.openpty()
        process = self.start(prefix=("setsid", "--ctty"), stdin=its_end)
        os.close(its_end)
        with self._running(process, "serving") as service:
            os.close(terminal)
            service.lines.append(process.communicate(timeout=STOPPED)[0])
            self.assertEqual(process.returncode, 0)
            self.assertIn("SCP withdrawn", service.log)
            self.assert_clean(service.log)

    def talk(self) -> Ended:
        return self.mutauth("connect", self.endpoint, given="hello\n")

    def test_takes_over(self) -> None:
        """One that found another instance on its SCP is there soon after that one has ended, long
        before its next check.
        """
        self.assertEqual(self.install().code, 0)
        for options in ((), ("--check-interval", "0")):
            with self.service() as first, self.service(*options) as second:
                self.assertIn("where another instance runs", second.log)
                first.stop()
                self.assertIn("SCP withdrawn", first.log)
                self.read_until(second, "SCP updated" if options else "published again")
                self.assertEqual(self.talk().output, "hello\n")
                self.assertEqual(second.stop(), 0)
                self.assertIn("SCP withdrawn", second.log)

    def read_until(self, running: Running, words: str) -> None:
        assert running.process.stdout is not None
        killer = threading.Timer(WAIT, running.process.kill)
        killer.start()
        try:
            for line in running.process.stdout:
                running.lines.append(line)
                if words in line:
                    return
        finally:
            killer.cancel()
        raise self.failureException(f"it ended: {running.log}")


class GivenUpTests(DirectoryTestCase):
    """Work in the directory that nobody waits for any more."""

    async def test_writes_nothing(self) -> None:
        """A thread that goes on after its operation was cancelled reads, but changes nothing."""
        found = await self.install()
        begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
        seen: list[str | None] = []
        errors: list[Exception] = []

        def work(session: LdapSession) -> None:
            begun.set()
            go_on.wait(WAIT)
            seen.append(read_scp(session, found.guid).dns_name)
            try:
                session.modify(
                    found.guid, [Change("replace", "serviceBindingInformation", ("4711",))]
                )
            except DirectoryRefused as error:
                errors.append(error)
            ended.set()

        operation = self.do_deferred("svc-echo", work)
        self.assertTrue(await deferToThread(begun.wait, WAIT))
        operation.cancel()
        await self.assertFailure(operation, CancelledError)
        go_on.set()
        self.assertTrue(await deferToThread(ended.wait, WAIT))
        self.assertEqual(len(seen), 1)
        self.assertIn("the operation was given up", str(errors))
        self.assertIsNone(
            (await self.do("alice", lambda session: read_scp(session, found.guid))).binding_text
        )

    def do_deferred(self, user: str, work: Callable[[LdapSession], None]) -> Deferred[None]:
        return self.as_user(user).run(work)
