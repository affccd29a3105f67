"""Wireshark's own dissector reads what passes between ours and third-party peers as MS-NNS."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from signal import SIGINT

from attrs import frozen

from interop.peers import PEERS, Heimdal, Java, Peer, Variant
from interop.peers.base import package_version
from interop.programs import PLAIN, as_user, run
from interop.relay import DOWN, UP, Passage, Relay
from interop.scenarios import read
from interop.stage import HOST, WAIT, Backend, Program, StageTestCase, stage

#: tshark refuses scripts when it is root.
READER = "nobody"
#: tshark 4.0 reports the length of a record again for each of its segments: these fit into one.
SIZES = (1, 8_000)


def version() -> str:
    """The version of tshark that is installed."""
    return package_version("tshark")


class Capture:
    """Packets that pass a port of loopback, from now on."""

    def __init__(self, port: int) -> None:
        # dumpcap gives up root's rights over other users' directories.
        directory = Path(stage().scratch_of("root"))
        directory.chmod(0o755)
        self._file = directory / "lo.pcapng"
        self._script = directory / "ports.lua"
        self._script.write_text(
            f'DissectorTable.get("tcp.port"):add({port}, Dissector.get("ms-nns"))\n'
        )
        self._script.chmod(0o644)
        words = ("-q", "-i", "lo", "-s", "0", "-f", f"tcp port {port}", "-w", str(self._file))
        self._program: Program = stage().start(("dumpcap", *words), PLAIN, SIGINT)
        self._program.wait_for("File: ")

    def stop(self) -> list[Packet]:
        """Stop when both ends have said that they are done; every packet, decoded."""
        deadline = time.monotonic() + WAIT
        packets = self._decode()
        while sum(packet.end for packet in packets) < 2:
            packets = self._decode()
            if time.monotonic() > deadline:
                raise RuntimeError("no end was captured")
        self._program.stop(SIGINT)
        return packets

    def _decode(self) -> list[Packet]:
        """Packets in the file by now."""
        self._file.chmod(0o644)
        fields = [word for name in FIELDS for word in ("-e", name)]
        command = (
            "tshark",
            "-r",
            str(self._file),
            "-X",
            f"lua_script:{self._script}",
            "-T",
            "fields",
            *fields,
        )
        result = run(*as_user(READER), *command, HOME="/nonexistent")
        if "cut short" in result.errors:
            return []
        if result.code or result.errors:
            raise RuntimeError(f"tshark: exit code {result.code}: {result.errors}")
        return [Packet.read(line) for line in result.output.decode("utf-8", "replace").splitlines()]


FIELDS = (
    *("tcp.dstport", "tcp.flags.fin", "frame.protocols", "_ws.expert.severity", "_ws.col.Info"),
    *("ms-nns.message_id", "ms-nns.auth_payload_size", "ms-nns.payload_size"),
)
#: PI_ERROR (epan/proto.h).
EXPERT_ERROR = 0x00800000


def numbers(text: str) -> list[int]:
    """The values of a field that may stand several times in a packet."""
    return [int(value, 0) for value in text.split(",") if value]


@frozen
class Packet:
    """A packet as tshark sees it.

    :ivar port: where it goes.
    :ivar end: whether it ends its side's stream.
    :ivar fault: what tshark finds wrong with it; empty: nothing.
    :ivar frames: kind and size of the handshake's frames in it.
    :ivar records: sizes of its records.
    """

    port: int
    end: bool
    fault: str
    frames: list[tuple[int, int]]
    records: list[int]

    @classmethod
    def read(cls, line: str) -> Packet:
        """A line of ``tshark -T fields``."""
        port, end, protocols, severities, info, kinds, sizes, records = line.split("\t")
        wrong = "_ws.malformed" in protocols or any(
            each >= EXPERT_ERROR for each in numbers(severities)
        )
        wrong = wrong or "Unknown" in info or "bug" in info
        frames = list(zip(numbers(kinds), numbers(sizes), strict=True))
        return cls(int(port), end in ("1", "True"), info if wrong else "", frames, numbers(records))


class CaptureTests(StageTestCase):
    """A handshake and records, decoded."""

    def talk(
        self, entrance: int, backend: Backend, port: int, relay: Relay
    ) -> tuple[list[Packet], Passage]:
        """One conversation under a capture."""
        relay.pieces = None
        backend.drain()
        capture = Capture(port)
        near = socket.create_connection((HOST, entrance), WAIT)
        self.addCleanup(near.close)
        far = backend.accept(near)
        self.addCleanup(far.close)
        for size in SIZES:
            near.sendall(bytes(size))
            self.assertEqual(read(far, size), bytes(size))
            far.sendall(bytes(size))
            self.assertEqual(read(near, size), bytes(size))
        near.shutdown(socket.SHUT_WR)
        self.assertEqual(far.recv(1), b"")
        far.shutdown(socket.SHUT_WR)
        self.assertEqual(near.recv(1), b"")
        return capture.stop(), relay.passages[-1]

    def check(self, packets: list[Packet], passage: Passage, port: int) -> None:
        """tshark found the same frames and records as passed, and nothing malformed."""
        self.assertEqual([packet.fault for packet in packets if packet.fault], [])
        for direction in (UP, DOWN):
            mine = [packet for packet in packets if (packet.port == port) == (direction == UP)]
            reader = passage.readers[direction]
            self.assertEqual([frame for packet in mine for frame in packet.frames], reader.frames)
            self.assertEqual(
                [record for packet in mine for record in packet.records], reader.records
            )
            self.assertEqual(len(reader.records), len(SIZES))

    def check_client(self, peer: Peer, variant: Variant) -> None:
        """A client of the peer's, and our service."""
        relay = stage().service_relay
        port = stage().main_service.port
        self.check(
            *self.talk(stage().client(peer, variant).port, stage().backend, port, relay), port
        )

    def check_server(self, peer: Peer, package: str) -> None:
        """A mutauth client, and the peer's server."""
        server = stage().server(peer, peer.servers[0])
        relay = stage().peer_relay
        relay.target = (HOST, server.port)
        connector = stage().connector(
            stage().endpoint(stage().three_part.ours, f"package={package}")
        )
        self.check(
            *self.talk(connector.port, stage().server_backend, server.port, relay), server.port
        )

    def test_kerberos_service(self) -> None:
        """Our service and a client with bare Kerberos."""
        peer = next(peer for peer in PEERS if isinstance(peer, Java))
        self.check_client(peer, peer.clients[0])

    def test_spnego_service(self) -> None:
        """Our service and a client with SPNEGO."""
        peer = next(peer for peer in PEERS if isinstance(peer, Heimdal))
        self.check_client(peer, peer.clients[2])

    def test_kerberos_client(self) -> None:
        """Our client with bare Kerberos."""
        self.check_server(next(peer for peer in PEERS if isinstance(peer, Heimdal)), "kerberos")

    def test_spnego_client(self) -> None:
        """Our client with SPNEGO."""
        self.check_server(next(peer for peer in PEERS if isinstance(peer, Java)), "negotiate")
