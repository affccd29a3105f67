"""Groups by name: what an administrator calls them, and the SIDs that tickets have for them."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from mutauth_twisted.access.sids import check_group_sid
from mutauth_twisted.directory.accounts import only_one
from mutauth_twisted.directory.acl import parse_sid
from mutauth_twisted.errors import NotFound, UsageError
from mutauth_twisted.ldap.dn import domain_of, is_dn
from mutauth_twisted.ldap.filter import all_of, any_of, equals
from mutauth_twisted.ldap.session import Entry, LdapSession

_ATTRIBUTES: Final = ("sAMAccountName", "objectSid", "objectClass", "groupType")
# MS-ADTS 2.2.12: what groupType says.
_DOMAIN_LOCAL: Final = 0x00000004
_SECURITY: Final = 0x80000000
# MS-ADTS 2.2.10: a crossRef of a domain, FLAG_CR_NTDS_DOMAIN, found by bit (MS-ADTS 3.1.1.3.4.4.1).
_IS_DOMAIN: Final = "(systemFlags:1.2.840.113556.1.4.803:=2)"
_KINDS: Final = {"computer": "a computer", "user": "a user", "contact": "a contact"}


@frozen
class Group:
    """A group that tickets name.

    :param asked: what it was called.
    :param dn: where it is.
    :param sid: its SID as text.
    """

    asked: str
    dn: str
    sid: str


def find_group(session: LdapSession, catalog: LdapSession, name: str) -> Group:
    """Find a security group of the forest; blocks.

    :param session: a domain controller of the service's own domain.
    :param catalog: a global catalog, for groups of other domains.
    :param name: ``name`` (sAMAccountName, in the service's own domain and
        nowhere else), ``DOMAIN\\name``, ``name@dns.domain``, or a DN.
    :raises NotFound: when there is no such group or domain.
    :raises UsageError: when it is not a group, or one that no ticket for the
        service will ever name.
    """
    subject = f"group {name}"
    entry = _by_dn(session, catalog, name) if is_dn(name) else _by_name(session, catalog, name)
    _check_kind(entry, subject)
    sid = parse_sid(entry.values("objectSid")[0])
    check_group_sid(sid, subject)
    group_type = int(entry.text("groupType") or 0)
    if not group_type & _SECURITY:
        cause = f"it is a distribution group ({entry.dn}), which no ticket names"
        raise UsageError(
            subject, cause, "make it a security group, or take another one", code="group-unusable"
        )
    if group_type & _DOMAIN_LOCAL and domain_of(entry.dn) != domain_of(session.domain_dn):
        cause = (
            f"it is local to {domain_of(entry.dn)}, and tickets for services of other domains do "
            "not name it"
        )
        raise UsageError(subject, cause, "take a global or universal group", code="group-unusable")
    return Group(name, entry.dn, sid)


def _check_kind(entry: Entry, subject: str) -> None:
    classes = entry.texts("objectClass")
    if "group" in classes and entry.values("objectSid"):
        return
    kind = next((words for known, words in _KINDS.items() if known in classes), "not a group")
    option = (
        "give its name with --allow or --deny"
        if kind in ("a computer", "a user")
        else "name a security group"
    )
    raise UsageError(subject, f"it is {kind} ({entry.dn})", option, code="group-unusable")


def _in_domain(session: LdapSession, catalog: LdapSession, base: str) -> LdapSession:
    """Return the session to ask about a domain: our own domain controller has the latest state of
    its own.
    """
    return session if domain_of(base) == domain_of(session.domain_dn) else catalog


def _by_dn(session: LdapSession, catalog: LdapSession, dn: str) -> Entry:
    try:
        return _in_domain(session, catalog, dn).read(dn, _ATTRIBUTES)
    except NotFound as error:
        raise NotFound(
            f"group {dn}",
            "the directory has no such object",
            "check the DN",
            code="group-not-found",
        ) from error


def _by_name(session: LdapSession, catalog: LdapSession, name: str) -> Entry:
    prefix, backslash, local = name.partition("\\")
    if backslash:
        base = _find_domain(session, name, equals("nETBIOSName", prefix))
        return _find(session, catalog, base, name, local)
    local, at, suffix = name.rpartition("@")
    if at:
        base = _find_domain(
            session, name, any_of(equals("dnsRoot", suffix), equals("nETBIOSName", suffix))
        )
        return _find(session, catalog, base, name, local)
    return _find(session, catalog, session.domain_dn, name, name)


def _find_domain(session: LdapSession, name: str, wanted: str) -> str:
    """The DN of one of the forest's domains."""
    partitions = f"CN=Partitions,{session.root_dse.text('configurationNamingContext')}"
    found = list(
        session.search(
            partitions, all_of("(objectClass=crossRef)", _IS_DOMAIN, wanted), ("nCName",)
        )
    )
    if len(found) == 1 and (dn := found[0].text("nCName")):
        return dn
    if name.partition("\\")[0].casefold() in ("builtin", "nt authority"):
        cause = "tickets do not name the groups that every machine has of its own"
        raise UsageError(
            f"group {name}",
            cause,
            "take a group of the domain, with the same members",
            code="group-unusable",
        )
    every = session.search(
        partitions, all_of("(objectClass=crossRef)", _IS_DOMAIN), ("nETBIOSName",)
    )
    known = ", ".join(sorted(text for entry in every for text in entry.texts("nETBIOSName")))
    raise NotFound(
        f"group {name}",
        "the forest has no such domain",
        f"its domains: {known}",
        code="group-not-found",
    )


def _find(session: LdapSession, catalog: LdapSession, base: str, name: str, local: str) -> Entry:
    where = domain_of(base)
    wanted = equals("sAMAccountName", local)
    found = list(_in_domain(session, catalog, base).search(base, wanted, _ATTRIBUTES))
    # What a domain controller of the root domain finds below its DN may be of a domain below it.
    found = [entry for entry in found if domain_of(entry.dn) == where]
    if (entry := only_one(f"group {name}", "objects", found)) is not None:
        return entry
    others = [
        entry.dn for entry in catalog.search("", all_of("(objectClass=group)", wanted), _ATTRIBUTES)
    ]
    elsewhere = [f"{local}@{domain_of(dn)}" for dn in others if domain_of(dn) != where]
    remedy = (
        f"did you mean {' or '.join(elsewhere)}?"
        if elsewhere
        else "check its name (sAMAccountName), or give its DN"
    )
    raise NotFound(f"group {name}", f"{where} has no such group", remedy, code="group-not-found")
