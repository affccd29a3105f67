"""The table in docs/interop.md, made from the tests themselves: ``python -m interop.table`` writes
it there.
"""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from interop.backends import HAProxy, MariaDB
from interop.peers import PEERS
from interop.programs import PostgreSQL, Redis
from interop.scenarios import ClientScenarios, Scenarios, ServerScenarios

DOCUMENT = Path(__file__).parents[1] / "docs" / "interop.md"
BEGIN, END = "<!-- begin: python -m interop.table -->", "<!-- end -->"

#: A column, and the tests of which a class has to have one.
COLUMNS: dict[str, tuple[str, ...]] = {
    "1 byte": ("test_client_speaks_first", "test_one_byte"),
    "service speaks first": ("test_service_speaks_first", "test_server_speaks_by_itself"),
    "64,500 bytes": ("test_full_record",),
    "5 MiB both ways at once": ("test_both_ways_at_once",),
    "records of 1 byte": ("test_records_of_one_byte",),
    "segments of 1 byte": ("test_wire_byte_by_byte", "test_byte_by_byte"),
    "half-close by the client": ("test_client_ends_first",),
    "half-close by the service": ("test_service_ends_first",),
    "peer killed": ("test_peer_killed", "test_client_killed"),
    "wrong SPN": ("test_wrong_spn",),
    "other service class": ("test_other_service_class",),
    "other account's key": ("test_key_of_another_account",),
}
#: What only a mutauth service does, in front of a peer's client.
OURS = ("other service class",)


def versions() -> dict[str, str]:
    """The name and version of everything that is tested with, as installed here."""
    capture = importlib.import_module("interop.tests.test_capture")
    return {
        **{peer.name: peer.version() for peer in PEERS},
        "PostgreSQL": PostgreSQL.version(),
        "Redis": Redis.version(),
        "HAProxy": HAProxy.version(),
        "MariaDB": MariaDB.version(),
        "tshark": capture.version(),
    }


def cells(tested: type) -> list[str]:
    """Coverage of a class of tests, column by column."""
    columns = []
    for column, names in COLUMNS.items():
        covered = any(hasattr(tested, name) for name in names)
        columns.append(
            "yes"
            if covered
            else "n/a"
            if column in OURS and not issubclass(tested, ClientScenarios)
            else "-"
        )
    return columns


def rows() -> Iterator[list[str]]:
    """The rows: who, as what, and the cells."""
    peers: ModuleType = importlib.import_module("interop.tests.test_peers")
    for tested in vars(peers).values():
        if not (isinstance(tested, type) and issubclass(tested, Scenarios)):
            continue
        if issubclass(tested, ClientScenarios):
            yield [tested.peer.name, f"client, {tested.variant.name}", *cells(tested)]
        elif issubclass(tested, ServerScenarios):
            yield [
                tested.peer.name,
                f"service, {tested.variant.name}; our `package={tested.package}`",
                *cells(tested),
            ]
    programs: ModuleType = importlib.import_module("interop.tests.test_programs")
    yield ["PostgreSQL", "psql, pgbench, server", *cells(programs.PsqlTests)]
    yield ["Redis", "redis-cli, redis-benchmark, server", *cells(programs.RedisTests)]


def table(head: list[str], body: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


def generated() -> str:
    """All that stands between the two marks."""
    limits = [
        line
        for peer in PEERS
        for limit in peer.limits
        for line in textwrap.wrap(
            f"- {peer.name}: {limit.sentence}.", 100, subsequent_indent="  ", break_on_hyphens=False
        )
    ]
    lines = [
        *table(["with", "version"], [[name, version] for name, version in versions().items()]),
        "",
        *table(["with", "as", *COLUMNS], list(rows())),
        "",
        "What they cannot do:",
        "",
        *limits,
    ]
    return "\n".join(lines) + "\n"


def parts(text: str) -> tuple[str, str, str]:
    """The document before the first mark, between the two, and from the second on."""
    before, found, rest = text.partition(BEGIN + "\n")
    between, also_found, after = rest.partition(END)
    if not (found and also_found):
        raise ValueError(f"{DOCUMENT}: the marks {BEGIN} and {END} are not there")
    return before + found, between, also_found + after


def main() -> None:
    """Write the table into the document."""
    before, _, after = parts(DOCUMENT.read_text("utf-8"))
    DOCUMENT.write_text(before + generated() + after, "utf-8")


if __name__ == "__main__":
    main()
