"""Established connections without a network, for tests of what uses them."""

from __future__ import annotations

from collections.abc import Iterable

from mutauth_twisted.core.connection import Connection, Established, Event
from mutauth_twisted.core.context import SecurityContext, StepFailed
from mutauth_twisted.core.handshake import Failed, Send, Step
from mutauth_twisted.core.options import SecurityOptions


def events(connection: Connection) -> Iterable[Event]:
    """All that a connection has to say now, its steps taken at once."""
    while (event := connection.next_event()) is not None:
        if not isinstance(event, Step):
            yield event
            continue
        try:
            outcome = connection.step(event.token)
        except StepFailed as failed:
            connection.step_failed(failed.error, failed.token)
        else:
            connection.stepped(outcome)


def established(
    client: SecurityContext, service: SecurityContext, security: SecurityOptions = SecurityOptions()
) -> tuple[tuple[Connection, Established], tuple[Connection, Established]]:
    """A client's connection and its service's, each with what it is established with.

    The client has sent its opening.

    :raises MutualAuthError: why the handshake failed.
    """
    sides = [
        Connection(security, initiator=initiator, peer=peer)
        for initiator, peer in ((True, "service"), (False, "client"))
    ]
    found: dict[Connection, Established] = {}
    for connection, context in zip(sides, (client, service), strict=True):
        connection.begin(context)
    while len(found) < len(sides):
        moved = False
        for connection, other in (sides, sides[::-1]):
            for event in events(connection):
                moved = True
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Established):
                    found[connection] = event
                    other.receive(event.opening)
                elif isinstance(event, Send):
                    other.receive(event.data)
        assert moved, "neither side has anything to say"
    one, two = sides
    return (one, found[one]), (two, found[two])
