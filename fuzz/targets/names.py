"""Names that others choose: SPNs, DNs and principals."""

from __future__ import annotations

import re
from typing import Any
from unicodedata import category

from ldap3.operation.search import parse_filter

from fuzz.inputs import Choices
from mutauth_twisted.access import AccessPolicy, Logon
from mutauth_twisted.errors import UsageError
from mutauth_twisted.ldap.dn import (
    child_dn,
    common_name,
    domain_of,
    is_dn,
    parent_of,
    parse_guid,
    same_dn,
)
from mutauth_twisted.ldap.filter import equals, matches
from mutauth_twisted.names import fold_ascii, split_principal
from mutauth_twisted.spn import SPN, crack_spn, make_spn
from mutauth_twisted.text import printable

_DOMAIN = "DC=test,DC=example"
_REALM = "TEST.EXAMPLE"
_ADMINS = "S-1-5-21-1-2-3-1104"


def one_line(error: Exception) -> None:
    """An error is one line that a terminal only shows."""
    text = str(error)
    assert text and not any(category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in text), (
        f"{text!r}"
    )


def check_spn(data: bytes) -> None:
    """A name that is written as it was read, or a UsageError."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        spn = SPN.parse(text)
    except UsageError as error:
        one_line(error)
        _refused(text)
        return
    assert str(spn) == text, "it is written in another way"
    again = SPN.parse(str(spn))
    assert again == spn and hash(again) == hash(spn)
    parts = (spn.service_class, spn.host, spn.service_name, spn.instance)
    assert (again.service_class, again.host, again.service_name, again.instance) == parts
    assert spn.port is None or 0 < spn.port < 65536
    assert (spn.service_name is not None) is (text.count("/") == 2)
    try:
        cracked = crack_spn(text)
    except UsageError as error:
        one_line(error)
        assert spn.port is None and spn.instance is not None, "it was refused without a reason"
        return
    assert cracked.instance_name == spn.host and cracked.service_name == (
        spn.service_name or spn.host
    )
    if spn.instance not in (None, str(spn.port)):
        return  # 09000 is the port 9000, and another name
    try:
        name, instance = (spn.service_name, spn.host) if spn.service_name else (spn.host, None)
        made = make_spn(spn.service_class, name, instance, cracked.port)
    except UsageError as error:
        one_line(error)
        return
    assert made == spn, "it is composed in another way"


def _refused(text: str) -> None:
    try:
        crack_spn(text)
    except UsageError:
        return
    raise AssertionError("one function takes what another refuses")


def _asserted(text: str) -> list[bytes]:
    """The values between the wildcards of the one assertion that a filter consists of, as ldap3
    reads it.
    """
    root: Any = parse_filter(text, None, True, None, None, False)
    (only,) = root.elements
    assert not only.elements and only.assertion["attr"] == "cn", f"{text} asks for something else"
    values = [only.assertion.get("value"), only.assertion.get("initial")]
    values += [*only.assertion.get("any", ()), only.assertion.get("final")]
    return [
        re.sub(rb"\\([0-9a-fA-F]{2})", lambda match: bytes.fromhex(match[1].decode()), each)
        for each in values
        if each
    ]


def check_dn(data: bytes) -> None:
    """Any name stays one value in a DN and in a filter."""
    text = data.decode("utf-8", "replace")
    is_dn(text)
    domain_of(text)
    common_name(text)
    assert same_dn(text, text)
    if (guid := parse_guid(text)) is not None:
        assert str(guid) in text.lower()
    if not text:
        return
    child = child_dn(text, _DOMAIN)
    assert is_dn(child), f"{child!r} is not a DN"
    assert parent_of(child) == _DOMAIN, f"{child!r} is below something else"
    assert domain_of(child) == "test.example", f"{child!r} is in another domain"
    assert common_name(child) == text, f"{child!r} has another name"
    for value in (text, data):
        raw = value.encode() if isinstance(value, str) else value
        assert _asserted(equals("cn", value)) == [raw], "the filter asks for something else"
    pieces = [piece.encode() for piece in text.split("*") if piece]
    assert _asserted(matches("cn", text)) == pieces, "the pattern asks for something else"


def check_policy(data: bytes) -> None:
    """A client comes in as the account that its PAC tells, and a denial finds that account in any
    disguise.
    """
    choices = Choices(data)
    has_pac, sid = choices.flag(), f"S-1-5-21-1-2-3-{choices.number(2)}"
    principal, account, upn = choices.text(), choices.text(), choices.text()
    logon = Logon(account, "TEST", "S-1-5-21-1-2-3-1", (sid,), upn=upn or None) if has_pac else None
    shown = printable(principal)
    assert shown == printable(shown) and "\n" not in shown
    name, realm = split_principal(principal)

    def permits(**rules: Any) -> bool:
        return AccessPolicy(**rules).permits(principal, lambda: logon)

    is_member = bool(name) and fold_ascii(realm) == "test.example"
    is_alice = is_member and has_pac and fold_ascii(account) == "alice"
    is_admin = has_pac and bool(account and name and realm) and sid == _ADMINS
    assert not permits() and permits(allow_all=True)
    assert permits(allow=[f"*@{_REALM}"]) == is_member, f"{principal!r}: membership is mistaken"
    assert permits(allow=[f"alice@{_REALM}"]) == is_alice, (
        f"{principal!r}, account {account!r}: alice is mistaken"
    )
    assert permits(allow_groups=[_ADMINS]) == is_admin, f"{principal!r}: a group is mistaken"
    for rules in (
        {"allow_all": True},
        {"allow": ["*@*", f"alice@{_REALM}"], "allow_groups": [_ADMINS]},
    ):
        assert not permits(deny=["*@*"], **rules), "a denial of everybody allows a client"
        if realm == _REALM:
            assert not permits(deny=[f"*@{_REALM}"], **rules), (
                "a denial of a realm allowed a member"
            )
        if is_alice or (is_member and fold_ascii(name) == "alice"):
            assert not permits(deny=[f"alice@{_REALM}"], **rules), (
                "a denial did not find its account"
            )
        if not has_pac or sid == _ADMINS:
            assert not permits(deny_groups=[_ADMINS], **rules), "a denied group came in"
