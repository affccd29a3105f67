"""Cost of a stranger to a service at worst: CPU and log, for one message and in a flood.

    python benchmarks/strangers.py [--rounds N] [--connections N] [--flood SECONDS]

Each of the worst first messages of ``mutauth_twisted/testing/hostile.py`` is sent on so many
connections, one after the other, and compared with a connection to a plain
Twisted server that says as much.  Then many connections at once send
the one that was the most work, as fast as the service takes them.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import threading
import time
from pathlib import Path

from measure import ACCOUNT, Figure, Server, conclude, realm, servers

from mutauth_twisted.log import LimitedLog
from mutauth_twisted.testing.hostile import worst_messages


def send(port: int, message: bytes) -> None:
    """Be a stranger who says this and waits for the end."""
    with socket.create_connection(("127.0.0.1", port), 5) as stranger:
        try:
            stranger.sendall(message)
            while stranger.recv(65536):
                pass
        except OSError:  # the service may reset what it did not read
            pass


def cost(server: Server, message: bytes, count: int) -> float:
    """The server's CPU seconds for one such stranger."""
    before = server.clock()
    for _ in range(count):
        send(server.port, message)
    return (server.clock() - before) / count


def in_full(server: Server, log: Path, messages: dict[str, bytes]) -> dict[str, int]:
    """The bytes of the log that one stranger with each message causes, whose line is not left
    out.
    """
    logged = {}
    for number, (what, message) in enumerate(messages.items()):
        if number % LimitedLog.LINES_OF_ONE == 0:
            time.sleep(LimitedLog.INTERVAL)
        before = log.stat().st_size
        send(server.port, message)
        time.sleep(0.1)
        logged[what] = log.stat().st_size - before
    return logged


def flood(
    server: Server, log: Path, message: bytes, seconds: float
) -> tuple[int, float, float, float]:
    """Strangers for so many seconds: how many, CPU seconds for each, lines and bytes of the log in
    a second.
    """
    counts = [0] * 4
    end = time.monotonic() + seconds

    def work(place: int) -> None:
        while time.monotonic() < end:
            send(server.port, message)
            counts[place] += 1

    before, size, lines = (
        server.clock(),
        log.stat().st_size,
        log.read_text(errors="replace").count("\n"),
    )
    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = server.clock() - before
    time.sleep(LimitedLog.INTERVAL)  # the last summary counts as well
    written = log.read_text(errors="replace").count("\n") - lines
    return (
        sum(counts),
        spent / sum(counts),
        written / seconds,
        (log.stat().st_size - size) / seconds,
    )


def main(rounds: int, count: int, seconds: float) -> None:
    with realm() as (made, directory), servers(made, directory, "seal") as running:
        server, log = running["seal"], directory / "seal.log"
        made.keytab(ACCOUNT)
        figures: dict[str, list[float]] = {}
        messages = worst_messages()
        for number in range(rounds + 1):
            for what, message in messages.items():
                seen = cost(server, message, count)
                if number:
                    figures.setdefault(what, []).append(seen)
        medians = {what: statistics.median(each) for what, each in figures.items()}
        worst = max(medians, key=lambda what: medians[what])
        for what, each in sorted(medians.items(), key=lambda pair: -pair[1]):
            print(f"{what:>34}  {1e3 * each:6.2f} ms of the server's CPU")
        logged = in_full(server, log, messages)
        longest = max(logged, key=lambda what: logged[what])
        time.sleep(LimitedLog.INTERVAL)
        strangers, spent, lines, size = flood(server, log, messages[worst], seconds)
        many = strangers / seconds
        print(
            f"flood: {many:.0f} strangers a second, {1e3 * spent:.2f} ms for each, {size:.0f} "
            "bytes of log a second"
        )
    conclude(
        Figure(f"ms of CPU for the worst message ({worst})", 1e3 * medians[worst], 1.0),
        Figure(f"KB of log for the worst message ({longest})", logged[longest] / 1000, 2.0),
        Figure("lines of log a second in a flood", lines, 4.0),
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--connections", type=int, default=40)
    options.add_argument("--flood", type=float, default=20.0)
    given = options.parse_args()
    main(given.rounds, given.connections, given.flood)
