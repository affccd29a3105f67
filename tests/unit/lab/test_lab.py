"""The lab without a lab: its state, its safeguards and its messages."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted import lab
from mutauth_twisted.errors import UsageError
from mutauth_twisted.lab import Lab, LabError, controller, runner, state
from mutauth_twisted.lab.state import ProcessIdentity


class LabDirectoryCase(SynchronousTestCase):
    """A directory of this test's own, and a process that passes for a DC."""

    def directory(self) -> Path:
        # Samba's sockets do not allow for the long names trial gives.
        path = Path(tempfile.mkdtemp(prefix="mutauth-lab-"))
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def no_directory(self) -> Path:
        return self.directory() / "lab"

    def sleeper(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sleep", "600"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def make_lab(self, process: subprocess.Popen[bytes], address: str = "127.0.9.10") -> Lab:
        """The files of a lab whose domain controller is *process*."""
        made = Lab(directory=self.directory(), nameserver=address)
        state.marker(made.directory).touch()
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        identity.write(state.identity_file(made.directory))
        state.save(made)
        return made

    def as_root(self) -> None:
        self.patch(os, "geteuid", lambda: 0)


class ProcessIdentityTests(LabDirectoryCase):
    """A process is told apart from a later one with its number."""

    def test_alive(self) -> None:
        """A running process is alive, and not any more when it has ended."""
        process = self.sleeper()
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        self.assertTrue(identity.alive())
        process.kill()
        process.wait()
        self.assertFalse(identity.alive())

    def test_zombie(self) -> None:
        """A process that has ended and was not waited for is not alive."""
        process = self.sleeper()
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self.assertFalse(identity.alive())

    def test_number_taken_over(self) -> None:
        """Another start time, or another boot, is another process."""
        identity = ProcessIdentity.of(os.getpid())
        assert identity is not None
        self.assertFalse(ProcessIdentity(identity.pid, identity.started - 1, identity.boot).alive())
        self.assertFalse(ProcessIdentity(identity.pid, identity.started, "another boot").alive())

    def test_written_and_read(self) -> None:
        """A record holds the identity; a damaged or missing one holds none."""
        path = self.directory() / "record"
        self.assertIsNone(ProcessIdentity.read(path))
        identity = ProcessIdentity(1, 2, "boot")
        identity.write(path)
        self.assertEqual(ProcessIdentity.read(path), identity)
        path.write_text("12 no")
        self.assertIsNone(ProcessIdentity.read(path))


class LabTests(LabDirectoryCase):
    """Facts that a lab tells about itself."""

    def test_addresses(self) -> None:
        """The hosts' addresses share the first three octets of the DC's."""
        made = Lab(directory=Path("/lab"), nameserver="127.0.77.10")
        self.assertEqual(made.address_of("srv1.lab.example"), "127.0.77.21")
        self.assertEqual(made.address_of("ROGUE"), "127.0.77.66")
        self.assertEqual(made.address_of(made.dc_host), "127.0.77.10")
        self.assertRaises(LabError, made.address_of, "srv9")
        self.assertRaises(LabError, made.address_of, "dc2")
        two = Lab(directory=Path("/lab"), nameserver="127.0.77.10", second_dc=True)
        self.assertEqual(two.address_of("dc2.lab.example"), "127.0.77.11")

    def test_names(self) -> None:
        """Accounts are named without the computers' dollar sign."""
        made = Lab(directory=Path("/lab"))
        self.assertEqual(made.principal("srv1"), "SRV1$@LAB.EXAMPLE")
        self.assertEqual(made.principal("alice"), "alice@LAB.EXAMPLE")
        self.assertEqual(made.keytab("SRV1$"), Path("/lab/keytabs/srv1.keytab"))
        self.assertEqual(made.ccache("alice"), "FILE:/lab/ccaches/alice")
        self.assertEqual(made.base_dn, "DC=lab,DC=example")
        self.assertRaises(LabError, made.keytab, "../../etc/shadow")

    def test_loaded_while_it_runs(self) -> None:
        """A lab is found as long as its domain controller lives."""
        process = self.sleeper()
        made = self.make_lab(process)
        self.assertEqual(Lab.load(made.directory), made)
        process.kill()
        process.wait()
        error = self.assertRaises(LabError, Lab.load, made.directory)
        self.assertIn(
            f"not running; start it with `mutauth lab start --dir {made.directory}`", str(error)
        )
        self.patch(os, "environ", {"MUTAUTH_LAB": str(made.directory)})
        self.assertIn(
            "not running; start it with `mutauth lab start`",
            str(self.assertRaises(LabError, Lab.load)),
        )

    def test_current(self) -> None:
        """The environment names the current lab."""
        made = self.make_lab(self.sleeper())
        self.patch(os, "environ", {**os.environ, **made.environment("bob")})
        self.assertEqual(Lab.current(), made)
        self.assertEqual(os.environ["KRB5CCNAME"], made.ccache("bob"))

    def test_no_current(self) -> None:
        """Without the variable, one line says how to get a lab."""
        self.patch(os, "environ", {})
        error = self.assertRaises(LabError, Lab.current)
        self.assertEqual(
            str(error),
            "MUTAUTH_LAB: not set, so there is no lab; run the program under `mutauth lab run --`",
        )

    def test_damaged_state(self) -> None:
        """A state file that cannot be read is named."""
        made = self.make_lab(self.sleeper())
        for text in ("{", "[]", "{}", '{"version": 2}', '{"version": 1, "unknown": 0}'):
            (made.directory / "lab.json").write_text(text)
            error = self.assertRaises(LabError, Lab.load, made.directory)
            self.assertIn("lab.json: damaged", str(error))


class SafeguardTests(LabDirectoryCase):
    """The lab touches nothing that is not its own."""

    def test_foreign_directory(self) -> None:
        """A directory with other content is neither used nor removed."""
        self.as_root()
        directory = self.directory()
        (directory / "thesis.tex").touch()
        for action in (lab.up, lab.down):
            error = self.assertRaises(LabError, action, directory)
            self.assertIn("exists and is not a lab", str(error))
        self.assertTrue((directory / "thesis.tex").exists())

    def test_symbolic_link(self) -> None:
        """A link is not followed to what would be emptied."""
        self.as_root()
        link = self.directory() / "link"
        link.symlink_to(self.directory())
        self.assertRaises(LabError, lab.up, link)

    def test_somebody_elses_directory(self) -> None:
        """A directory that another user made, or may write into, names processes we must not stop;
        nothing of it counts.
        """
        for spoil in (
            lambda made: self.patch(os, "getuid", lambda: made.directory.stat().st_uid + 1),
            lambda made: made.directory.chmod(0o777),
        ):
            process = self.sleeper()
            made = self.make_lab(process)
            spoil(made)
            self.as_root()
            for use in (controller.down, controller.up, Lab.load):
                self.assertRaises(LabError, use, made.directory)  # type: ignore[arg-type]
            self.assertIsNone(process.poll())

    def test_down_without_lab(self) -> None:
        """There may be nothing to take down."""
        self.assertFalse(lab.down(self.no_directory()))

    def test_down(self) -> None:
        """The domain controller is stopped and everything removed."""
        self.as_root()
        process = self.sleeper()
        made = self.make_lab(process)
        self.assertTrue(lab.down(made.directory))
        self.assertFalse(made.directory.exists())
        self.assertFalse(Path(f"/proc/{process.pid}").exists())

    def test_down_spares_a_stranger(self) -> None:
        """A process that took over the number of a dead DC lives on."""
        self.as_root()
        process = self.sleeper()
        made = self.make_lab(process)
        ProcessIdentity(process.pid, 1, "an earlier boot").write(
            state.identity_file(made.directory)
        )
        self.assertTrue(lab.down(made.directory))
        self.assertIsNone(process.poll())
        self.assertFalse(made.directory.exists())

    def test_up_twice(self) -> None:
        """A lab that runs is returned as it is, and says so."""
        self.as_root()
        made = self.make_lab(self.sleeper())
        steps: list[str] = []
        again = lab.up(made.directory, progress=lambda text, elapsed: steps.append(text))
        self.assertEqual(again, made)
        self.assertEqual(len(steps), 1)
        self.assertIn("already up", steps[0])

    def test_up_elsewhere(self) -> None:
        """A lab that runs is not moved to another address."""
        self.as_root()
        made = self.make_lab(self.sleeper())
        error = self.assertRaises(LabError, lab.up, made.directory, "127.0.8.10")
        self.assertIn("already running at 127.0.9.10", str(error))

    def test_one_controller_where_two_are_wanted(self) -> None:
        """A running lab does not get a second domain controller."""
        self.as_root()
        made = self.make_lab(self.sleeper())
        error = self.assertRaises(LabError, lab.up, made.directory, second_dc=True)
        self.assertIn("already running with one domain controller", str(error))

    def test_somebody_elses_run(self) -> None:
        """A lab that ends with another's command is not joined, but from inside it."""
        self.as_root()
        made = self.make_lab(self.sleeper())
        owner = ProcessIdentity.of(self.sleeper().pid)
        assert owner is not None
        owner.write(state.owner_file(made.directory))
        self.patch(os, "environ", {})
        error = self.assertRaises(LabError, lab.up, made.directory)
        self.assertIn(f"(process {owner.pid}) and ends with it", str(error))
        os.environ["MUTAUTH_LAB"] = str(made.directory)
        self.assertEqual(lab.up(made.directory), made)

    def test_ports_taken(self) -> None:
        """A port that somebody uses is named, with the next step."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            self.patch(controller, "_TCP_PORTS", (port,))
            self.patch(controller, "_UDP_PORTS", ())
            error = self.assertRaises(LabError, controller.require_free_ports, "127.0.0.1")
        self.assertEqual(
            str(error),
            f"TCP port {port} at 127.0.0.1: in use by another program; "
            "see which with `ss -lntup src 127.0.0.1`, or choose another --address",
        )

    def test_address(self) -> None:
        """Only loopback addresses that leave the hosts theirs are taken."""
        for address in ("192.0.2.10", "::1", "dc1", "", "127.0.0.21", "127.0.0.0", "127.0.0.255"):
            self.assertRaises(UsageError, lab.up, self.no_directory(), address)

    def test_long_path(self) -> None:
        """A path Samba's sockets cannot have is refused before anything is made."""
        error = self.assertRaises(UsageError, lab.up, "/run/" + "long" * 20)
        self.assertIn("give a shorter --dir", str(error))

    def test_not_root(self) -> None:
        """Without root one line says so, and nothing was made."""
        self.patch(os, "geteuid", lambda: 1000)
        directory = self.no_directory()
        error = self.assertRaises(LabError, lab.up, directory)
        self.assertEqual(error.exit_code, 3)
        self.assertIn("needs root", str(error))
        self.assertFalse(directory.exists())

    def test_missing_packages(self) -> None:
        """Packages that are missing are named the way apt knows them, each once."""
        self.as_root()
        required = (
            ("/no/such/a", "samba"),
            ("/no/such/*.so", "krb5-user"),
            ("/no/such/b", "samba"),
        )
        self.patch(controller, "_REQUIRED", required)
        directory = self.no_directory()
        error = self.assertRaises(LabError, lab.up, directory)
        self.assertEqual(
            str(error),
            "the lab: Debian packages are missing: samba krb5-user; "
            "install them with `apt-get install --no-install-recommends samba krb5-user`",
        )
        self.assertFalse(directory.exists())

    def test_half_a_lab_is_removed(self) -> None:
        """A start that fails leaves nothing."""
        self.as_root()
        self.patch(controller, "_REQUIRED", ())
        self.patch(controller, "require_free_ports", lambda address: None)
        self.patch(controller, "_provision", lambda made: 1 / 0)
        directory = self.no_directory()
        self.assertRaises(ZeroDivisionError, lab.up, directory)
        self.assertFalse(directory.exists())

    def test_the_logs_last_word(self) -> None:
        """An error quotes the last line that says something."""
        log = self.directory() / "log"
        log.write_text(
            "first\nldb: Unable to open\n[2026/01/01 10:00:00,  0] ../main.c:1(main)\n\n"
        )
        self.assertEqual(controller._last_line(log), "ldb: Unable to open")
        log.write_text("")
        self.assertEqual(controller._last_line(log), "its log is empty")


class RunCommandTests(SynchronousTestCase):
    """A program in the lab is run like one outside of it."""

    def test_exit_code(self) -> None:
        """The program's exit code is passed on, a signal as 128 and its number."""
        self.assertEqual(runner.run_command(["sh", "-c", "exit 7"], {}), 7)
        self.assertEqual(
            runner.run_command(["sh", "-c", "kill -KILL $$"], {}), 128 + signal.SIGKILL
        )

    def test_environment(self) -> None:
        """The lab's variables are added, the machine's Kerberos is left out."""
        self.patch(os, "environ", {**os.environ, "KRB5_KTNAME": "/etc/krb5.keytab", "KEPT": "yes"})
        script = 'test "$A" = b && test "$KEPT" = yes && test -z "${KRB5_KTNAME+x}"'
        self.assertEqual(runner.run_command(["sh", "-c", script], {"A": "b"}), 0)

    def test_no_such_program(self) -> None:
        """A program that is not there ends as it does in a shell."""
        self.assertEqual(runner.run_command(["/no/such/program"], {}), 127)

    def test_signals_are_passed_on(self) -> None:
        """SIGTERM reaches the program, which may end as it likes."""
        script = "trap 'exit 9' TERM; kill -TERM $PPID; while :; do sleep 0.05; done"
        code = (
            "import sys; from mutauth_twisted.lab import run_command; "
            f"sys.exit(run_command(['sh', '-c', {script!r}], {{}}))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], env=_path_to_the_package(), timeout=30
        )
        self.assertEqual(result.returncode, 9)

    def test_dies_with_its_starter(self) -> None:
        """When the starter is killed, so is the program."""
        code = (
            "from mutauth_twisted.lab import run_command; run_command(['sh', '-c', 'echo $$; exec "
            "sleep 600'], {})"
        )
        starter = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env=_path_to_the_package()
        )
        assert starter.stdout is not None
        with starter.stdout as output:
            pid = int(output.readline())
            identity = ProcessIdentity.of(pid)
            starter.kill()
            starter.wait()
            # The end of the output is the end of the last process that had it.
            self.assertEqual(output.read(), b"")
        assert identity is not None
        deadline = time.monotonic() + 5  # its files are closed a moment before it is dead
        while identity.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(identity.alive())


def _path_to_the_package() -> dict[str, str]:
    root = str(Path(lab.__file__).parent.parent.parent)
    return {**os.environ, "PYTHONPATH": root}
