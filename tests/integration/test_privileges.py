"""A service that is started as root and becomes another user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from tests.integration.commands import WAIT, CommandTestCase, Running

USER = "nobody"


def _is_open_to_all(path: str) -> bool:
    return all(each.stat().st_mode & 0o001 for each in Path(path).resolve().parents)


class UserTests(CommandTestCase):
    """``--user``, with keys that this user may read, and with keys that only root may."""

    def setUp(self) -> None:
        super().setUp()
        self.account = pwd.getpwnam(USER)
        os.chown(self.state, self.account.pw_uid, self.account.pw_gid)
        # The lab's own files are root's.
        self.kerberos = Path(self.state, "krb5.conf")
        self.kerberos.write_bytes(Path(self.lab.environment("alice")["KRB5_CONFIG"]).read_bytes())
        self.keytab = Path(self.state, "service.keytab")
        self.keytab.write_bytes(self.lab.keytab("svc-echo").read_bytes())
        self.assertEqual(self.install().code, 0)

    def program(self, name: str) -> list[str]:  # type: ignore[override]
        """Words that start a command: by an interpreter that this user may run."""
        words = CommandTestCase.program(name)
        if name != "twistd" or _is_open_to_all(sys.executable):
            return words
        return [f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}", *words[1:]]

    def environment(self, user: str, **changes: str) -> dict[str, str]:
        usual = super().environment(user, **changes)
        usual.pop("KRB5RCACHEDIR")  # the state directory is this user's own
        libraries = sysconfig.get_path("purelib")
        path = os.pathsep.join((usual["PYTHONPATH"], libraries))
        return {**usual, "PYTHONPATH": path, "KRB5_CONFIG": str(self.kerberos)}

    def words(self, *more: str) -> tuple[str, ...]:
        return ("--user", USER, "--keytab", str(self.keytab), *more)

    def status_of(self, pid: int) -> dict[str, list[str]]:
        """The lines of /proc/PID/status (proc(5))."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}

    def assert_powerless(self, pid: int) -> None:
        """No part of the process is root, or has a group or a capability that it had as root."""
        status = self.status_of(pid)
        self.assertEqual(status["Uid"], [str(self.account.pw_uid)] * 4)
        self.assertEqual(status["Gid"], [str(self.account.pw_gid)] * 4)
        theirs = os.getgrouplist(USER, self.account.pw_gid)
        self.assertLessEqual(set(map(int, status["Groups"])), set(theirs))
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[name][0], 16), 0, name)

    def talk(self) -> str:
        return self.mutauth("connect", self.endpoint, given="hello\n").output

    def page(self, service: Running) -> str:
        line = next(line for line in service.lines if "status on" in line)
        with socket.create_connection(("127.0.0.1", int(line.rpartition(":")[2])), 10) as page:
            page.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: page.recv(4096), b"")).decode()

    def test_readable(self) -> None:
        """A port below 1024 is bound, and nothing of root is left; a keytab that the user may read
        is read again when it is replaced.
        """
        os.chown(self.keytab, 0, self.account.pw_gid)
        self.keytab.chmod(0o440)
        port = next(number for number in range(1023, 600, -1) if self.is_free(number))
        listen = f"tcp:{port}:interface={self.lab.address_of(self.host)}"
        with self.service(*self.words("--listen", listen)) as service:
            self.assertEqual(service.port, port)
            self.assert_powerless(service.process.pid)
            self.assertEqual(self.talk(), "hello\n")
            content = self.keytab.read_bytes()
            self.keytab.write_bytes(b"\5\2")
            self.assertEqual(self.talk(), "")
            self.keytab.write_bytes(content)
            self.assertEqual(self.talk(), "hello\n")
            self.assertEqual(service.stop(), 0)
        self.assertNotIn("keys-copied", service.log)

    def test_ident_port(self) -> None:
        """The port of ident is bound, too, and questions are answered there."""
        self.keytab.chmod(0o400)
        address = f"{self.lab.nameserver.rpartition('.')[0]}.114"
        words = ("--forward", "tcp:127.0.0.1:9", "--ident-address", address)
        with self.service(*self.words(*words)) as service:
            self.assert_powerless(service.process.pid)
            with socket.create_connection((address, 113), 10) as question:
                question.sendall(b"40000, 9\r\n")
                answer = b"".join(iter(lambda: question.recv(4096), b""))
            self.assertEqual(answer, b"40000 , 9 : ERROR : NO-USER\r\n")
            refused = self.start_refused(*self.words(*words, "--publish", "none"))
            self.refused(refused, 3, "Address already in use")
            self.assertEqual(service.stop(), 0)

    def is_free(self, port: int) -> bool:
        with socket.socket() as attempt:
            try:
                attempt.bind((self.lab.address_of(self.host), port))
            except OSError:
                return False
        return True

    def test_only_root(self) -> None:
        """A keytab that only root may read works as it was at the start, which the log and the
        status tell; so they do when another one has come to its place.
        """
        self.keytab.chmod(0o400)
        status = ("--status", "tcp:0:interface=127.0.0.1")
        with self.service(*self.words(*status)) as service:
            self.assert_powerless(service.process.pid)
            self.assertIn(f"[keys-copied] key file {self.keytab}: it was read at", service.log)
            self.assertEqual(self.talk(), "hello\n")
            self.assertIn("it was read at the start, as this user may not", self.page(service))
            other = self.keytab.with_suffix(".new")
            shutil.copy(self.keytab, other)
            other.rename(self.keytab)
            until = time.monotonic() + WAIT
            while "it has been replaced since it was read" not in (page := self.page(service)):
                self.assertLess(time.monotonic(), until, page)
            self.assertEqual(self.talk(), "hello\n")
            self.assertEqual(service.stop(), 0)

    def test_workers_reload(self) -> None:
        """Workers go on with the copy of a keytab that only root may read when a policy changes."""
        self.keytab.chmod(0o400)
        # Root reads it first, which does so where root alone may replace it.
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        directory.chmod(0o755)
        policy = directory / "policy.toml"
        policy.write_text('[[allow]]\naccounts = ["alice@*"]\n')
        words = self.words("--policy", str(policy), "--workers", "2", "--allow", "nobody@*")
        with self.service(*words) as service:
            service.read_on()
            self.assertEqual(self.talk(), "hello\n")
            for times, name, reply in ((1, "bob", ""), (2, "alice", "hello\n")):
                policy.write_text(f'[[allow]]\naccounts = ["{name}@*"]\n')
                service.process.send_signal(signal.SIGHUP)
                give_up_at = time.monotonic() + WAIT
                while service.log.count("applied: changed") < times:
                    self.assertLess(time.monotonic(), give_up_at, service.log)
                    time.sleep(0.02)
                self.assertEqual(self.talk(), reply)
            self.assertNotIn("worker-failed", service.log)
            self.assertEqual(service.stop(), 0, service.log)

    def test_refused(self) -> None:
        """Users that do not exist, root, and a process that is not root are refused in a line."""
        for user, code, cause in (
            ("no-such-user", 2, "there is no such user"),
            (f"{USER}:no-such-group", 2, "there is no such group"),
            ("root", 2, "it is root"),
        ):
            self.refused(self.start_refused("--user", user), code, cause)
        done = subprocess.run(
            [
                "setpriv",
                "--reuid=mail",
                "--regid=mail",
                "--clear-groups",
                *self.program("twistd"),
                *self.service_words("--user", USER),
            ],
            capture_output=True,
            text=True,
            env=self.environment("alice"),
            cwd="/",
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 2, done)
        self.assertIn("only root can become another user", done.stderr)

    def test_twistd_s_own(self) -> None:
        """twistd's own option, which comes too late, is refused and leads to ours."""
        words = [*self.program("twistd"), "--uid", USER, *self.service_words()]
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            env=self.environment("alice"),
            cwd=self.state,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 2, done)
        self.assertIn("give --user NAME[:GROUP] after mutauth", done.stderr)
