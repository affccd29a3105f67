"""Real backends learn from the gateway who their clients are, and nobody else can tell them."""

from __future__ import annotations

import socket
import urllib.request
from functools import cache
from pathlib import Path

from interop.backends import HAProxy, IdentPostgreSQL, Listener, MariaDB
from interop.programs import Result, run
from interop.stage import HOST, WAIT, StageTestCase, stage


@cache
def postgresql() -> IdentPostgreSQL:
    return IdentPostgreSQL(stage())


class IdentTests(StageTestCase):
    """An unmodified PostgreSQL asks by RFC 1413 who is there; no client has a password."""

    def setUp(self) -> None:
        self.server = postgresql()

    def log_in(self, port: int, role: str) -> Result:
        """The result of a login with psql under a role."""
        words = ("-X", "-A", "-t", "-h", HOST, "-p", str(port), "-U", role)
        return run("psql", *words, "-c", "SELECT current_user", "postgres", PGGSSENCMODE="disable")

    def check_refused(self, result: Result, role: str) -> None:
        """The server, and not the gateway, has refused the role."""
        self.assertEqual(result.code, 2)
        self.assertIn(f'Ident authentication failed for user "{role}"', result.errors)

    def test_own_role(self) -> None:
        """Alice becomes her role."""
        result = self.log_in(self.server.entrance_of("alice"), "alice")
        self.assertEqual((result.code, result.output, result.errors), (0, b"alice\n", ""))

    def test_other_roles(self) -> None:
        """Neither she nor bob becomes another's; bob has no role of his own."""
        for user, role in (("alice", "carol"), ("alice", "postgres"), ("bob", "alice")):
            self.check_refused(self.log_in(self.server.entrance_of(user), role), role)
        result = self.log_in(self.server.entrance_of("bob"), "bob")
        self.assertIn('role "bob" does not exist', result.errors)

    def test_other_realm(self) -> None:
        """The alice of another realm is authenticated and allowed by the gateway, and is not our
        alice.
        """
        lab = stage().other_lab
        service_class = self.server.service_class
        words = ("--nameserver", lab.nameserver)
        spn = f"{service_class}/{stage().host}"
        stage().run("spn", "add", "svc-echo", spn, *words, lab=lab)
        start = self.server.service.mark
        result = self.log_in(self.server.entrance_of("alice", lab=lab), "alice")
        self.check_refused(result, "alice")
        self.server.service.program.wait_for("authenticated as alice@OTHER.EXAMPLE", start)

    def test_past_the_gateway(self) -> None:
        """A program of this machine that connects from the gateway's address is nobody, also while
        a client is connected from there.
        """
        with self.server.log_in(self.server.entrance_of("alice"), "alice") as client:
            self.assertEqual(client.recv(9), b"R\0\0\0\x08\0\0\0\0", "it is not logged in")
            start = self.server.service.mark
            with self.server.log_in(self.server.port, "alice", self.server.address) as direct:
                answer = direct.recv(4096)
        self.assertIn(b'Ident authentication failed for user "alice"', answer)
        self.server.service.program.wait_for("which is no client's", start)

    def test_as_long_as_the_session(self) -> None:
        """The gateway says who is there as long as the server has the session, and to no other
        address.
        """
        with self.server.log_in(self.server.entrance_of("alice"), "alice") as client:
            self.assertEqual(client.recv(9), b"R\0\0\0\x08\0\0\0\0", "it is not logged in")
            (port,) = self.server.client_ports("alice")
            told = f"{port} , {self.server.port} : USERID : UNIX : alice@LAB.EXAMPLE\r\n"
            self.assertEqual(self.server.ask(port, HOST), told)
            for source in ("127.0.0.2", self.server.address):
                self.assertIn("ERROR : NO-USER", self.server.ask(port, source))
        for _ in range(1000):  # both have to notice
            if "ERROR : NO-USER" in self.server.ask(port, HOST):
                break
        else:
            self.fail("the answer outlives its session")

    def test_from_elsewhere(self) -> None:
        """No rule of the server is about any other address."""
        with self.server.log_in(self.server.port, "alice", HOST) as direct:
            self.assertIn(b"no pg_hba.conf entry", direct.recv(4096))


@cache
def haproxy() -> HAProxy:
    return HAProxy(stage())


class HAProxyTests(StageTestCase):
    """HAProxy reads the client's address and the connection's name."""

    def setUp(self) -> None:
        self.server = haproxy()

    def test_told(self) -> None:
        """It sees what the gateway's audit trail has of the same connection."""
        with urllib.request.urlopen(
            f"http://{HOST}:{self.server.known_entrance}/", timeout=WAIT
        ) as answer:
            told = answer.read().decode().split()
        *_, opened = self.server.opened()
        client, service = opened["client"], opened["server"]
        self.assertEqual(client["address"], self.server.client_address)
        self.assertEqual(
            told,
            [
                client["address"],
                str(client["port"]),
                service["address"],
                str(service["port"]),
                opened["connection"],
            ],
        )


@cache
def mariadb() -> MariaDB:
    return MariaDB(stage())


class MariaDBTests(StageTestCase):
    """MariaDB decides by the client's address, and shows it."""

    def setUp(self) -> None:
        self.server = mariadb()

    def query(self, port: int, sql: str) -> Result:
        """The answer to a query as alice."""
        words = ("--no-defaults", "--batch", "--skip-column-names", "--skip-ssl")
        return run("mariadb", *words, "-h", HOST, "-P", str(port), "-u", "alice", "-e", sql)

    def test_told(self) -> None:
        """The account of the client's own address is found, and its address shown."""
        sql = "SELECT USER(), CURRENT_USER(), HOST FROM information_schema.PROCESSLIST"
        result = self.query(self.server.known_entrance, sql)
        *_, opened = self.server.opened()
        who = f"alice@{self.server.client_address}"
        host = f"{self.server.client_address}:{opened['client']['port']}"
        self.assertEqual((result.code, result.errors), (0, ""))
        self.assertEqual(result.output.decode().split(), [who, who, host])

    def test_other_address(self) -> None:
        """Without the header, and from another address, alice has no account."""
        for port in (self.server.port, self.server.entrance_of("alice")):
            result = self.query(port, "SELECT 1")
            self.assertEqual(result.code, 1)
            self.assertIn(f"Access denied for user 'alice'@'{HOST}'", result.errors)


@cache
def listener() -> Listener:
    return Listener(stage())


class DissectorTests(StageTestCase):
    """Wireshark's own dissector takes the header apart."""

    def header(self, entrance: int) -> bytes:
        """All that the backend gets of a client that says nothing."""
        server = listener()
        server.backend.drain()
        with (
            socket.create_connection((HOST, entrance), WAIT) as client,
            server.backend.accept(client) as backend,
        ):
            client.shutdown(socket.SHUT_WR)
            data = b""
            while more := backend.recv(4096):
                data += more
        return data

    def dissected(self, data: bytes, *fields: str) -> list[list[str]]:
        """The values of fields, as tshark finds them in a TCP segment."""
        directory = Path(stage().scratch_of("nobody"))
        dump, capture = directory / "dump", directory / "capture"
        lines = (f"{at:06x} {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16))
        dump.write_text("\n".join(lines) + "\n")
        # A port that no other dissector of tshark's claims.
        made = run("text2pcap", "-q", "-T", "40000,55555", str(dump), str(capture))
        self.assertEqual(made.code, 0, made.errors)
        words = [word for field in fields for word in ("-e", field)]
        found = run("tshark", "-r", str(capture), "-T", "fields", "-E", "separator=|", *words)
        self.assertEqual(found.code, 0, found.errors)
        return [field.split(",") for field in found.output.decode().strip().split("|")]

    def test_every_tlv(self) -> None:
        """Types, lengths and values are the client's, by the gateway's audit and Samba's word.

        tshark 4.0 misses a last TLV of less than 14 bytes; ours, the groups, is longer.
        """
        data = self.header(listener().known_entrance)
        kinds, lengths, values, source, port = self.dissected(
            data,
            "proxy.v2.tlv.type",
            "proxy.v2.tlv.length",
            "proxy.v2.tlv.value",
            "proxy.src.ipv4",
            "proxy.srcport",
        )
        *_, opened = listener().opened()
        client = opened["client"]
        self.assertEqual((source, port), ([client["address"]], [str(client["port"])]))
        texts = [bytes.fromhex(value).decode() for value in values]
        self.assertEqual([int(length) for length in lengths], [len(text) for text in texts])
        told = dict(zip([int(kind, 0) for kind in kinds], texts, strict=True))
        account = f"{stage().lab.domain}\\alice"
        sid = samba("user", "show", "alice", "--attributes=objectSid").rpartition(" ")[2]
        group = samba("group", "show", "echo-users", "--attributes=objectSid").rpartition(" ")[2]
        self.assertIn(group, told.pop(0xE6).split(","))
        self.assertEqual(
            told,
            {
                0x05: opened["connection"],
                0xE0: stage().lab.principal("alice"),
                0xE1: account,
                0xE2: sid,
                0xE3: stage().lab.realm,
                0xE4: "kerberos",
                0xE5: f"{listener().service_class}/{stage().host}",
            },
        )

    def test_unix(self) -> None:
        """A client at a UNIX socket has the socket's path for its addresses, and all TLVs."""
        data = self.header(listener().unix_entrance)
        fields = (f"proxy.v2.{name}" for name in ("addr_family_protocol", "dst.unix", "tlv.type"))
        family, path, kinds = self.dissected(data, *fields)
        self.assertEqual(family, ["0x31"])
        self.assertEqual(bytes.fromhex(path[0]).rstrip(b"\0"), str(listener().socket).encode())
        self.assertEqual([int(kind, 0) for kind in kinds], [5, *range(0xE0, 0xE7)])


def samba(*words: str) -> str:
    """Output of samba-tool about the lab, in one line without blanks at its ends."""
    directory = stage().lab.directory / "samba"
    where = ("-s", str(directory / "etc" / "smb.conf"))
    result = run("samba-tool", *words, *where, "-H", str(directory / "private" / "sam.ldb"))
    return " ".join(result.output.decode().split())
