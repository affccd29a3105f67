"""Records of one side, without the handshake before them."""

from __future__ import annotations

from typing import Any

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Records


def records_on(context: Any, security: SecurityOptions, *, initiator: bool = False) -> Records:
    """Records that a mutauth peer exchanges with another one.

    :param context: an established security context.
    """
    wire = security.wire
    return Records(
        context,
        security.protection,
        wire,
        wire.reader(),
        "peer",
        initiator=initiator,
        mutauth=True,
    )
