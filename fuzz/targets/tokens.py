"""Parts read of tokens: the name on a ticket, its groups, and an acceptor's confirmation."""

from __future__ import annotations

import re

from fuzz.inputs import Choices, edited
from mutauth_twisted.core.channelbinding import TLS_EXPORTER, ChannelBinding
from mutauth_twisted.core.confirmation import Confirmed, Confirming
from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.kerberos.ap_req import is_spnego, ticket_label
from mutauth_twisted.kerberos.pac import read_logon
from mutauth_twisted.testing.fakes import FakeContext

_SID = re.compile(r"S-1-\d{1,15}(-\d{1,10}){0,16}", re.ASCII)
_SMALLEST_GROUP = 8  # bytes


def check_ticket(token: bytes) -> None:
    """A name that stands in the token, or a ValueError that says why."""
    try:
        label = ticket_label(token)
    except ValueError as error:
        assert str(error), "an error says nothing"
        return
    for part in label.name.split("/"):
        assert "\ufffd" in part or part.encode() in token, "the name is not in the token"
    try:
        ticket_label(token + b"\0")
    except ValueError:
        pass
    else:
        raise AssertionError("something follows the token and is not seen")
    assert isinstance(is_spnego(token), bool)


def check_confirmation(data: bytes) -> None:
    """Only the acceptor's own confirmation of this very channel lets an initiator be complete."""
    choices = Choices(data)
    seen = ChannelBinding(TLS_EXPORTER, bytes(32) if choices.flag() else b"another channel")
    client = Confirmed(
        FakeContext(initiator=True), ChannelBinding(TLS_EXPORTER, bytes(32)), "service"
    )
    genuine = Confirming(FakeContext(initiator=False), seen).step(client.step(None).token).token
    token = choices.rest() if choices.flag() else edited(genuine, choices)
    try:
        outcome = client.step(token)
    except StepFailed as failed:
        assert "\n" not in str(failed.error)
        return
    assert not outcome.complete or (token == genuine and seen.data == bytes(32)), (
        "an unconfirmed channel was taken"
    )


def check_pac(data: bytes) -> None:
    """An account and as many SIDs as there is room for, or a ValueError that says why."""
    choices = Choices(data)
    upn = choices.take(choices.number())
    information = choices.rest()
    try:
        logon = read_logon(information, upn)
    except ValueError as error:
        assert str(error), "an error says nothing"
        return
    sids = (*logon.groups, *logon.deny_only, *filter(None, [logon.sid]))
    assert all(_SID.fullmatch(sid) for sid in sids), f"{sids} are no SIDs"
    assert len(logon.groups) <= len(information) // _SMALLEST_GROUP, (
        "there are more groups than bytes for them"
    )
    assert len(logon.name) + len(logon.domain) <= len(information), (
        "the names are longer than the PAC"
    )
    assert logon.upn is None or logon.upn.encode("utf-16-le") in upn, (
        "the UPN is not in its information"
    )
    assert read_logon(information + b"\xff", upn and upn + b"\xff") == logon, (
        "what follows the PAC changes it"
    )
