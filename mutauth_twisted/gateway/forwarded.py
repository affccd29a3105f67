"""The identity of a client as the gateway tells it to a backend, in TLVs of a PROXY header.

docs/identity.md specifies them for implementers.  All that is told comes from the security
context and from the service's own settings; nothing is what a client merely says.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final
from unicodedata import category

from attrs import evolve, frozen
from twisted.internet.interfaces import IAddress

from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.gateway.backend import Introducer, Introduction
from mutauth_twisted.gateway.proxyprotocol import (
    LONGEST,
    UNIQUE_ID,
    InvalidHeader,
    ProxyHeader,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.text import short_name


class Tlv(IntEnum):
    """Types of the TLVs; those from 0xE0 to 0xEF are for applications to define."""

    UNIQUE_ID = UNIQUE_ID
    PRINCIPAL = 0xE0
    ACCOUNT = 0xE1
    SID = 0xE2
    REALM = 0xE3
    MECHANISM = 0xE4
    SPN = 0xE5
    GROUPS = 0xE6


#: Ends the groups where not all of them have room in the header.
CUT: Final = "..."
_OVERHEAD: Final = 3  # of a TLV, in bytes
_CONTROLS: Final = ("Cc", "Zl", "Zp", "Cs")


@frozen
class ForwardedIdentity:
    """A client that a gateway has authenticated.

    :param principal: the name on the client's ticket, ``name@REALM``: one of those that its account
        answers to, of the client's choice.  The account and the SID tell who it is.
    :param realm: the realm that authenticated it.
    :param mechanism: how: ``kerberos``, ``negotiate`` (Kerberos inside SPNEGO), or
        ``ntlm-service-unproven``.
    :param spn: the gateway's own service class and host, ``class/host``.
    :param account: its account, ``DOMAIN\\sAMAccountName``, by the PAC; None: unknown.
    :param sid: that account's SID; None: unknown.
    :param groups: the SIDs of its groups; None: the gateway does not tell them, or does not know
        them.
    :param groups_cut: whether there are more groups than those.
    :param connection_id: the gateway's name of the connection, as in its audit; None: it has none.
    """

    principal: str
    realm: str
    mechanism: str
    spn: str
    account: str | None = None
    sid: str | None = None
    groups: tuple[str, ...] | None = None
    groups_cut: bool = False
    connection_id: str | None = None

    @classmethod
    def of(
        cls,
        identity: PeerIdentity,
        spn: str,
        connection_id: str | None = None,
        *,
        groups: bool = False,
    ) -> ForwardedIdentity:
        """The identity of an authenticated client.

        :param spn: the service's own.
        :param groups: whether its groups are told.
        :raises PeerNotAuthenticated: when the PAC of its ticket cannot be read.
        """
        logon = identity.read_logon()
        known = logon is not None and logon.groups_known
        return cls(
            identity.principal,
            identity.realm,
            identity.package,
            spn,
            logon.account if logon is not None else None,
            logon.sid if logon is not None else None,
            logon.groups if logon is not None and known and groups else None,
            connection_id=connection_id,
        )

    def header(self, source: IAddress | None, destination: IAddress | None) -> ProxyHeader:
        """The header that tells this identity; of the groups, as many as it has room for.

        :param source: the client's address.
        :param destination: the address that it connected to.
        :raises InvalidHeader: when it cannot be told whole and exactly.
        """
        texts = {
            Tlv.UNIQUE_ID: self.connection_id,
            Tlv.PRINCIPAL: self.principal,
            Tlv.ACCOUNT: self.account,
            Tlv.SID: self.sid,
            Tlv.REALM: self.realm,
            Tlv.MECHANISM: self.mechanism,
            Tlv.SPN: self.spn,
        }
        tlvs = [(tlv, _encode(tlv, text)) for tlv, text in texts.items() if text is not None]
        header = ProxyHeader(source, destination, tlvs)
        if self.groups is None:
            return header
        room = LONGEST - len(header.encode()) - _OVERHEAD
        value = _encode(Tlv.GROUPS, _fitting(self.groups, self.groups_cut, room))
        return evolve(header, tlvs=[*tlvs, (Tlv.GROUPS, value)])

    @classmethod
    def told(cls, header: ProxyHeader) -> ForwardedIdentity | None:
        """The identity that a header tells; None: it tells none.

        :raises InvalidHeader: when a part of it is missing or not text.
        """
        values = {tlv: value for tlv in Tlv if (value := header.value(tlv)) is not None}
        if not values.keys() - {Tlv.UNIQUE_ID}:
            return None
        texts = {tlv: _decode(tlv, value) for tlv, value in values.items()}
        groups = texts.get(Tlv.GROUPS)
        sids = tuple(groups.split(",")) if groups else ()
        cut = sids[-1:] == (CUT,)
        return cls(
            _needed(texts, Tlv.PRINCIPAL),
            _needed(texts, Tlv.REALM),
            _needed(texts, Tlv.MECHANISM),
            _needed(texts, Tlv.SPN),
            account=texts.get(Tlv.ACCOUNT),
            sid=texts.get(Tlv.SID),
            groups=None if groups is None else sids[: len(sids) - cut],
            groups_cut=cut,
            connection_id=texts.get(Tlv.UNIQUE_ID),
        )


def _needed(texts: Mapping[Tlv, str], tlv: Tlv) -> str:
    if tlv not in texts:
        raise InvalidHeader(f"it tells an identity without its {tlv.name.lower()}")
    return texts[tlv]


def _check(tlv: Tlv, text: str) -> None:
    if any(category(each) in _CONTROLS for each in text):
        raise InvalidHeader(f"the {tlv.name.lower()} has a control character in it")


def _encode(tlv: Tlv, text: str) -> bytes:
    _check(tlv, text)
    return text.encode()


def _decode(tlv: Tlv, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise InvalidHeader(f"the {tlv.name.lower()} is not UTF-8") from None
    _check(tlv, text)
    return text


def _fitting(groups: tuple[str, ...], cut: bool, room: int) -> str:
    """As many groups as there is room for, and behind them a mark where these are not all."""
    text = ",".join((*groups, CUT) if cut else groups)
    if len(text) <= room:
        return text
    kept = text[: max(room - len(CUT), 0)].rpartition(",")[0]
    marked = f"{kept},{CUT}" if kept else CUT
    if len(marked) > room:
        raise InvalidHeader("there is no room for the groups")
    return marked


def identity_not_forwardable(principal: str, cause: str) -> MutualAuthError:
    """The error of a client whose identity cannot be told to the backend."""
    return MutualAuthError(
        short_name(principal),
        f"the backend cannot be told who this is: {cause}",
        "rename the account, or do not forward its identity",
        code="identity-not-forwardable",
    )


class _Header(Introduction):
    """A header, which the backend gets before anything else."""

    def __init__(self, header: bytes) -> None:
        self._header = header

    def connected(self, backend: Any) -> bytes:
        """See :class:`Introduction`."""
        return self._header


def proxy_introducer(spn: str, *, groups: bool = False) -> Introducer:
    """Make what tells a backend of each client by a PROXY header.

    A client that it cannot tell exactly is refused before the backend is dialled.

    :param spn: the service's own, ``class/host``.
    :param groups: whether to tell the client's groups.
    """

    def introduce(client: Any) -> Introduction:
        identity: PeerIdentity = client.peer_identity
        told = ForwardedIdentity.of(identity, spn, client.connection_id, groups=groups)
        try:
            return _Header(told.header(client.getPeer(), client.getHost()).encode())
        except InvalidHeader as error:
            raise identity_not_forwardable(identity.principal, str(error)) from error

    return introduce
