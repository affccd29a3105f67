"""Unmodified clients and servers through ``mutauth connect --listen`` and ``twistd mutauth
--forward``.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from functools import cache

from interop import programs
from interop.programs import (
    PLAIN,
    KerberosPostgreSQL,
    PostgreSQL,
    Redis,
    Result,
    postgresql_program,
    run,
)
from interop.scenarios import FULL_RECORD, MUCH
from interop.stage import HOST, WAIT, StageTestCase, stage


@cache
def postgresql() -> PostgreSQL:
    return PostgreSQL(stage())


@cache
def kerberos_postgresql() -> KerberosPostgreSQL:
    return KerberosPostgreSQL(stage())


@cache
def redis() -> Redis:
    return Redis(stage())


class PsqlTests(programs.ProgramScenarios):
    """psql, pgbench and PostgreSQL."""

    question = ("-c", "SELECT 1")
    closed = ("server closed the connection unexpectedly", "Connection reset by peer")

    def setUp(self) -> None:
        self.server = postgresql()

    def words(self, port: int | None = None) -> tuple[str, ...]:
        return ("-h", HOST, "-p", str(port or self.server.entrance), "-U", "postgres")

    def psql(self, *words: str, port: int | None = None) -> list[str]:
        return [
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            *self.words(port),
            *words,
            "postgres",
        ]

    def client(self, *words: str, port: int | None = None, given: bytes = b"") -> Result:
        return run(*self.psql(*words, port=port), given=given)

    def query(self, sql: str, *, port: int | None = None) -> str:
        """The one value that a query answers."""
        result = self.client("-f", "-", given=sql.encode(), port=port)
        self.assertEqual((result.code, result.errors), (0, ""))
        return result.output.decode().rstrip("\n")

    def check_works(self, port: int | None = None) -> None:
        self.assertEqual(self.query("SELECT 'x'", port=port), "x")

    def test_one_byte(self) -> None:
        """The smallest answer."""
        self.check_works()

    def test_full_record(self) -> None:
        """A question and an answer of the size of a full record."""
        text = "x" * FULL_RECORD
        self.assertEqual(self.query(f"SELECT '{text}'"), text)

    def test_much(self) -> None:
        """COPY of 5 MiB in and out, in turns, as psql speaks."""
        rows = os.urandom(MUCH // 2).hex()
        data = "".join(rows[at : at + 1024] + "\n" for at in range(0, len(rows), 1024)).encode()
        self.addCleanup(self.query, "DROP TABLE IF EXISTS much")
        self.query("CREATE TABLE much (at serial, line text)")
        result = self.client("-c", r"\copy much (line) from pstdin", given=data)
        self.assertEqual((result.code, result.errors), (0, ""))
        result = self.client("-c", r"\copy (SELECT line FROM much ORDER BY at) to stdout")
        self.assertEqual(hashlib.sha256(result.output).digest(), hashlib.sha256(data).digest())

    def test_many(self) -> None:
        """Eight clients of pgbench at once; none of their 1,600 transactions fails."""
        run(postgresql_program("pgbench"), *self.words(), "-i", "-q", "postgres")
        command = (
            postgresql_program("pgbench"),
            *self.words(),
            "-S",
            "-c",
            "8",
            "-j",
            "2",
            "-t",
            "200",
            "postgres",
        )
        result = run(*command)
        self.assertEqual(result.code, 0, result.errors)
        self.assertIn(
            "number of transactions actually processed: 1600/1600", result.output.decode()
        )
        self.assertIn("number of failed transactions: 0", result.output.decode())

    def busy(self, sql: str) -> tuple[subprocess.Popen[bytes], str]:
        """A psql in the middle of a command, and the process number of its session on the
        server.
        """
        command = self.psql("-c", "SELECT pg_backend_pid()", "-c", sql)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=PLAIN, cwd="/"
        )
        self.addCleanup(process.stdout.close)  # type: ignore[union-attr]
        self.addCleanup(process.stderr.close)  # type: ignore[union-attr]
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        number = process.stdout.readline().decode().strip()  # type: ignore[union-attr]
        self.assertRegex(number, r"^\d+$")
        return process, number

    def test_client_killed(self) -> None:
        """psql is killed in the middle of an answer: its session ends on the server, and the next
        one works.
        """
        process, number = self.busy(
            "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000000)) TO STDOUT"
        )
        process.kill()
        # A forwarder may take up to a minute to give up what nobody takes any more.
        alive = f"SELECT FROM pg_stat_activity WHERE pid = {number}"
        for _ in range(12):
            self.query(
                "DO $$ BEGIN FOR i IN 1..1000 LOOP PERFORM pg_stat_clear_snapshot();"
                f" EXIT WHEN NOT EXISTS ({alive}); PERFORM pg_sleep(0.01); END LOOP; END $$"
            )
            if self.query(f"SELECT EXISTS ({alive})") == "f":
                break
        else:
            self.fail("the session goes on without its client")
        self.check_works()

    def test_server_killed(self) -> None:
        """The server ends a session in the middle of a query: psql hears what the server says
        last.
        """
        process, number = self.busy("SELECT pg_sleep(60)")
        self.assertEqual(self.query(f"SELECT pg_terminate_backend({number})"), "t")
        _, errors = process.communicate(timeout=WAIT)
        self.assertIn(b"terminating connection due to administrator command", errors)
        self.assertNotEqual(process.returncode, 0)
        self.check_works()


class PsqlGSSTests(StageTestCase):
    """psql with a ticket, which encrypts by itself what goes through both ends."""

    def setUp(self) -> None:
        self.server = kerberos_postgresql()

    def encrypted(self, mode: str) -> str:
        """Tell whether the server sees a connection that psql has encrypted, in its words."""
        lab = stage().lab
        where = f"host={stage().host} hostaddr={HOST} port={self.server.entrance} user=postgres"
        sql = "SELECT encrypted FROM pg_stat_gssapi WHERE pid = pg_backend_pid()"
        words = ("psql", "-X", "-A", "-t", "-c", sql, f"{where} dbname=postgres gssencmode={mode}")
        result = run(*words, KRB5_CONFIG=str(lab.krb5_conf), KRB5CCNAME=lab.ccache("alice"))
        self.assertEqual((result.code, result.errors), (0, ""))
        return result.output.decode().strip()

    def test_without(self) -> None:
        """psql leaves it to the gateway."""
        self.assertEqual(self.encrypted("disable"), "f")

    def test_with(self) -> None:
        """psql insists on its own, and tries it first by default: a channel within the channel."""
        for mode in ("require", "prefer"):
            self.assertEqual(self.encrypted(mode), "t")

    def test_without_the_server(self) -> None:
        """psql tries its own where the server has no key, is refused, and goes on without."""
        self.server = postgresql()
        self.assertEqual(self.encrypted("prefer"), "f")


class RedisTests(programs.ProgramScenarios):
    """redis-cli, redis-benchmark and Redis."""

    question = ("PING",)
    closed = ("Error: Server closed the connection", "Error: Connection reset by peer")

    def setUp(self) -> None:
        self.server = redis()

    def words(self, port: int | None = None) -> tuple[str, ...]:
        return ("-h", HOST, "-p", str(port or self.server.entrance))

    def client(self, *words: str, port: int | None = None, given: bytes = b"") -> Result:
        return run("redis-cli", *self.words(port), *words, given=given)

    def ask(self, *words: str, given: bytes = b"", port: int | None = None) -> bytes:
        """The answer to a command."""
        result = self.client(*words, given=given, port=port)
        self.assertEqual((result.code, result.errors), (0, ""))
        return result.output

    def check_works(self, port: int | None = None) -> None:
        self.assertEqual(self.ask("ECHO", "x", port=port), b"x\n")

    def test_one_byte(self) -> None:
        """The smallest answer."""
        self.check_works()

    def test_full_record(self) -> None:
        """A value of the size of a full record, in and out."""
        value = os.urandom(FULL_RECORD // 2).hex().encode()
        self.assertEqual(self.ask("-x", "ECHO", given=value), value + b"\n")

    def test_both_ways_at_once(self) -> None:
        """Commands of 5 MiB are sent while answers of 5 MiB come in, on one connection."""
        value = os.urandom(500).hex().encode()
        command = b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(value), value)
        number = MUCH // len(value) + 1
        self.assertIn(
            f"errors: 0, replies: {number}", self.ask("--pipe", given=command * number).decode()
        )

    def test_many(self) -> None:
        """Fifty clients of redis-benchmark at once."""
        result = run(
            "redis-benchmark", *self.words(), "-c", "50", "-n", "5000", "-t", "set,get", "--csv"
        )
        self.assertEqual(result.code, 0, result.errors)
        self.assertEqual(
            result.errors.replace("WARNING: Could not fetch server CONFIG", "").strip(), ""
        )
        self.assertEqual(len(result.output.splitlines()), 3)

    def subscriber(self) -> subprocess.Popen[bytes]:
        """A redis-cli that waits for what others publish."""
        command = ("redis-cli", *self.words(), "--csv", "SUBSCRIBE", "news")
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=PLAIN, cwd="/", bufsize=0
        )
        self.addCleanup(process.stdout.close)  # type: ignore[union-attr]
        self.addCleanup(process.stderr.close)  # type: ignore[union-attr]
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.read_until(process, b'"subscribe","news",1')
        return process

    def read_until(self, process: subprocess.Popen[bytes], words: bytes) -> None:
        """Read what it writes up to these words."""
        said = b""
        while not said.endswith(words):
            more = process.stdout.read(1)  # type: ignore[union-attr]
            self.assertTrue(more, said)
            said += more

    def test_server_speaks_by_itself(self) -> None:
        """A message that somebody publishes comes to a client that asks nothing."""
        process = self.subscriber()
        self.assertEqual(self.ask("PUBLISH", "news", "x"), b"1\n")
        self.read_until(process, b'"message","news","x"')

    def test_client_killed(self) -> None:
        """redis-cli is killed: the server notices, and the next one works."""
        process = self.subscriber()
        process.kill()
        process.wait()
        for _ in range(1000):
            if self.ask("PUBLISH", "news", "x") == b"0\n":
                break
        else:
            self.fail("the server still has the subscriber")
        self.check_works()

    def test_server_killed(self) -> None:
        """The server is killed: clients hear the end, and those that come later are not kept
        waiting.
        """
        server = Redis(stage())
        command = ("redis-cli", "-h", HOST, "-p", str(server.entrance), "BLPOP", "nothing", "0")
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=PLAIN, cwd="/"
        )
        server.program.stop(signal.SIGKILL)
        said, _ = process.communicate(timeout=WAIT)
        self.assertTrue(any(words in said.decode() for words in self.closed), said)
        self.check_closed(server.entrance)
