"""Access policy for authenticated clients: patterns of accounts, and groups; values only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from unicodedata import category, normalize

from attrs import field, frozen

from mutauth_twisted.errors import UsageError
from mutauth_twisted.names import fold_ascii, split_principal


def _fold_everything(text: str) -> str:
    return normalize("NFKC", normalize("NFKC", text).casefold())


# A backslash that escapes nothing that a principal's name must escape.
_BARE_BACKSLASH = re.compile(r"(?:[^\\]|\\[\\@/])*\\(?![\\@/])", re.DOTALL)
_WILDCARDS = frozenset("*?[")
_NOT_IN_DOMAIN = frozenset("@/*?[")
_NOT_IN_ACCOUNT = frozenset("@/\\")
_SET = re.compile(r"\[[^\]]*\]")
_SEPARATORS = frozenset(",;")


class SeveralPatterns(UsageError):
    """One pattern with a list in it, which no account would match; a front-end's remedy says how it
    takes several.
    """


@frozen
class _Pattern:
    """A pattern taken apart: ``name@REALM``, or ``DOMAIN\\name`` with an empty realm."""

    text: str
    name: str
    realm: str = ""
    domain: str = ""


@lru_cache(maxsize=1024)
def _parse(text: str) -> _Pattern:
    """Take a pattern apart.

    :raises UsageError: when it is invalid.
    """
    subject = f"pattern '{text}'"
    name, realm = split_principal(text)
    _check_text(subject, text, name, realm)
    domain, backslash, account = text.partition("\\")
    if realm and name:
        if _BARE_BACKSLASH.match(name):
            domain, _, account = name.partition("\\")
            remedy = (
                f"write {account}@{realm}, or {domain}\\{account} with the domain's NetBIOS name"
            )
            raise UsageError(
                subject,
                "it names its account by a domain and by a realm, and would match no account",
                remedy,
            )
        return _Pattern(text, name, realm)
    if backslash and account.startswith("\\"):
        remedy = f"write {domain}\\{account.lstrip(chr(92))}"
        raise UsageError(
            subject, "it names no realm, and a domain with more than one backslash", remedy
        )
    if not _BARE_BACKSLASH.match(text):
        name = name or "*"
        remedy = f"write {name}@REALM, or {name}@* for any, or DOMAIN\\{name}"
        raise UsageError(subject, "it names no realm", remedy)
    bare = domain == domain.strip() and account == account.strip()
    if (
        not (bare and domain and account)
        or _NOT_IN_DOMAIN & set(domain)
        or _NOT_IN_ACCOUNT & set(account)
    ):
        remedy = "write DOMAIN\\name, with wildcards in the name only, or name@REALM"
        raise UsageError(subject, "it is not an account of a domain", remedy)
    return _Pattern(text, account, domain=domain)


def _check_text(subject: str, text: str, name: str, realm: str) -> None:
    """See that a pattern has nothing in it that no account's name or realm has.

    Source: MS-SAMR 3.1.1.6 for a sAMAccountName; a realm's ``@`` is never escaped in a principal.

    :raises UsageError: when it has, and would match no account.
    """
    if any(category(each) in ("Cc", "Zl", "Zp") for each in text):
        cause = "it has a control character or a line break in it, and would match no account"
        raise UsageError(subject, cause, "write it without")
    if "@" in realm or _SEPARATORS & set(_SET.sub("", text)):
        cause = "it looks like several, and would match no account"
        raise SeveralPatterns(subject, cause, "give each one by itself")
    if name != name.strip() or any(map(str.isspace, realm)):
        cause = "it has a blank where no name or realm has one, and would match no account"
        raise UsageError(subject, cause, "write it without, as name@REALM or DOMAIN\\name")


def check_pattern(text: str) -> str:
    """See that a pattern can match an account; return it without blanks around it.

    :raises UsageError: when it cannot, or is invalid.
    """
    return _parse(text.strip()).text


@frozen
class AccountRule:
    """A rule about one account.

    :param option: ``--allow`` or ``--deny``.
    :param pattern: as it was written.
    :param name: the account's sAMAccountName.
    :param home: the realm or the domain that the pattern names.
    """

    option: str
    pattern: str
    name: str
    home: str

    def pattern_for(self, name: str) -> str:
        """The pattern for another account of the same home."""
        is_domain = _parse(self.pattern).domain
        return f"{self.home}\\{name}" if is_domain else f"{_escape(name)}@{self.home}"


def _account_rule(option: str, pattern: str) -> AccountRule | None:
    """The rule, if its pattern has no wildcard."""
    parsed = _parse(pattern)
    if _WILDCARDS & set(pattern):
        return None
    name = parsed.name if parsed.domain else re.sub(r"\\(.)", r"\1", parsed.name)
    return AccountRule(option, pattern, name, parsed.domain or parsed.realm)


def _escape(name: str) -> str:
    """A name as it stands in a principal."""
    return re.sub(r"([\\@/])", r"\\\1", name)


def _check_patterns(instance: object, attribute: object, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        _parse(pattern)


_SID = re.compile(
    r"[Ss]-([0-9]{1,20})-(0[xX][0-9A-Fa-f]{1,20}|[0-9]{1,20})((?:-[0-9]{1,20})*)", re.ASCII
)
# MS-DTYP 2.4.2: the authority has 48 bits, and there are 15 subauthorities of 32 bits at most.
_MOST_AUTHORITY, _MOST_SUBAUTHORITY, _MOST_SUBAUTHORITIES = 2**48 - 1, 2**32 - 1, 15
# MS-DTYP 2.4.2.4: what a machine adds to a session of its own accord (everyone, network, the groups
# of BUILTIN).
_LOCAL_SID = re.compile(r"S-1-(?:[0-3]-.*|5-(?:[1-8]|1[0-4]|1[7-9]|20)|5-(?:5|32|64)-.*|16-.*)")


def is_sid(text: str) -> bool:
    """Tell whether a text is meant as a SID, which does not say that it is a valid one."""
    return _SID.fullmatch(text.strip()) is not None


def parse_sid(text: str) -> str:
    """A SID in the one form in which a PAC's are compared: small numbers without zeros in front,
    decimal throughout.

    Source: MS-DTYP 2.4.2.1, whose texts have an authority of more than 32 bits
    in hexadecimal.

    :raises UsageError: when it is not a valid SID, or none that can be.
    """
    match = _SID.fullmatch(text.strip())
    subauthorities = (
        [int(part) for part in match.group(3).split("-")[1:]] if match is not None else []
    )
    if match is None or int(match.group(1)) != 1 or not subauthorities:
        raise UsageError(
            f"group {text!r}", "it is not a SID", "give its objectSid, such as S-1-5-21-1-2-3-1104"
        )
    authority = int(match.group(2), 16 if match.group(2)[:2] in ("0x", "0X") else 10)
    if (
        authority > _MOST_AUTHORITY
        or len(subauthorities) > _MOST_SUBAUTHORITIES
        or max(subauthorities) > _MOST_SUBAUTHORITY
    ):
        cause = "a number in it, or their number, is too large for a SID"
        raise UsageError(
            f"group {text!r}", cause, "give its objectSid, such as S-1-5-21-1-2-3-1104"
        )
    return "-".join(["S-1", str(authority), *map(str, subauthorities)])


def check_group_sid(sid: str, subject: str) -> None:
    """See that a group can be among those of a client's ticket.

    :param subject: how the error names the group.
    :raises UsageError: when no ticket ever names it.
    """
    if _LOCAL_SID.fullmatch(sid):
        cause = (
            "no ticket names it: a machine adds it to its own sessions, and not a domain controller"
        )
        remedy = "take a group of the domain, with the same members"
        raise UsageError(subject, cause, remedy, code="group-unusable")


def _check_sids(instance: object, attribute: object, sids: tuple[str, ...]) -> None:
    for sid in sids:
        check_group_sid(sid, f"group {sid}")


def _as_sids(sids: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(parse_sid, sids))


def _as_tuple(patterns: Iterable[str]) -> tuple[str, ...]:
    return tuple(pattern.strip() for pattern in patterns)


def _about(
    realm: str, patterns: tuple[str, ...], fold: Callable[[str], str]
) -> tuple[_Pattern, ...]:
    """The patterns that can be about an account of a realm: that of an account's domain is not
    known beforehand.
    """
    parsed = map(_parse, patterns)
    return tuple(
        each for each in parsed if each.domain or fnmatchcase(fold(realm), fold(each.realm))
    )


def _fits(name: str, pattern: _Pattern, fold: Callable[[str], str]) -> bool:
    return fnmatchcase(fold(name), fold(pattern.name))


def _denies(name: str, pattern: _Pattern) -> bool:
    """Tell whether a denial finds the name, that of a computer with its ``$`` and without."""
    folded, wanted = _fold_everything(name), _fold_everything(pattern.name)
    return fnmatchcase(folded, wanted) or fnmatchcase(folded.removesuffix("$"), wanted)


@frozen
class Logon:
    """Facts about an account, from the domain controller's PAC in the ticket (MS-PAC 2.5 and 2.10),
    or from NTLM.

    :param name: its sAMAccountName, whichever of its names the client came under.
    :param domain: the NetBIOS name of its domain.
    :param sid: its SID; None: there is none.
    :param groups: the SIDs of its groups that are enabled, and not for denials only.
    :param deny_only: those that only denials may look at.
    :param upn: its userPrincipalName, implied or set; None: unknown.
    :param groups_known: whether the groups are all that there are; if not, none is known.
    """

    name: str
    domain: str
    sid: str | None = None
    groups: tuple[str, ...] = ()
    deny_only: tuple[str, ...] = ()
    upn: str | None = None
    groups_known: bool = True

    @property
    def account(self) -> str:
        """The account, ``DOMAIN\\name``."""
        return f"{self.domain}\\{self.name}"

    @property
    def is_computer(self) -> bool:
        """True for the name of a computer, or of a managed service account."""
        return self.name.endswith("$")

    def names_in(self, realm: str) -> tuple[str, ...]:
        """The names that the account has in its realm, as they stand in a principal: the
        sAMAccountName first.
        """
        names = [self.name]
        prefix, _, suffix = (self.upn or "").rpartition("@")
        if prefix and fold_ascii(suffix) == fold_ascii(realm):
            names.append(prefix)
        return tuple(map(_escape, names))


def _is_for_users(pattern: _Pattern) -> bool:
    """Tell whether a wildcard allowance is for users only: any user may create computers, of any
    name that is free.
    """
    has_wildcard = not _WILDCARDS.isdisjoint(pattern.name)
    return has_wildcard and bool(pattern.name.strip("*")) and not pattern.name.endswith("$")


def _is_allowed(logon: Logon, realm: str, pattern: _Pattern) -> bool:
    """Tell whether an allowance about the realm, or about a domain, covers the account."""
    if logon.is_computer and _is_for_users(pattern):
        return False
    if not pattern.domain:
        return _fits(logon.names_in(realm)[0], pattern, fold_ascii)
    home = realm if "." in pattern.domain else logon.domain
    return fold_ascii(home) == fold_ascii(pattern.domain) and _fits(logon.name, pattern, fold_ascii)


@frozen
class Refusal:
    """Reason why a client is denied, for the service's own log.

    :param cause: which rule denies it, or that none allows it.
    :param remedy: what would allow it.
    """

    cause: str
    remedy: str


def no_logon() -> Logon | None:
    """Logon of a client whose ticket has no PAC: none."""
    return None


@frozen
class AccessPolicy:
    """Access policy of a service for authenticated clients; a denial beats an allowance.

    Patterns are ``name@REALM`` with shell wildcards in either part, and
    ``DOMAIN\\name``, with the domain's NetBIOS name and wildcards in the name: the
    account of that sAMAccountName.  A domain with a dot in it is the realm.  The
    case of A to Z does not count, as in the directory; a denial also finds names
    that only look like the one denied, and the computer ``name$`` by ``name``.

    An allowance with wildcards is for computers only when its name ends in ``$``:
    by default any user may create ten computers, and choose their names.  The
    name ``*`` alone is for every account, computers included.

    The realm is the ticket's.  The name on a ticket is one that the client chose
    among those that its account answers to, some of which may be another
    account's elsewhere; so an allowance is for the account's sAMAccountName, as
    the PAC tells it, and a denial for that, for the UPN's prefix, and for the
    name on the ticket.  A client decides by itself whether its ticket has a PAC:
    without one only patterns for every account of a realm (``*@REALM``) allow it,
    and only where no denial is about an account or a group of that realm.

    A domain's NetBIOS name is what the client's own domain controllers say;
    where others' realms are trusted, an allowance should name the realm.

    Groups are SIDs; they allow, and deny, as patterns do.  A denial of a group
    denies clients whose groups are unknown, as with NTLM.

    :ivar group_names: what groups are called in a refusal, by SID.
    :raises UsageError: for a pattern that names neither realm nor domain, or both, or a group that
        is not a SID or in no PAC.
    """

    allow: tuple[str, ...] = field(default=(), converter=_as_tuple, validator=_check_patterns)
    deny: tuple[str, ...] = field(default=(), converter=_as_tuple, validator=_check_patterns)
    allow_all: bool = False
    allow_groups: tuple[str, ...] = field(default=(), converter=_as_sids, validator=_check_sids)
    deny_groups: tuple[str, ...] = field(default=(), converter=_as_sids, validator=_check_sids)

    group_names: Mapping[str, str] = field(factory=dict, eq=False, repr=False)

    @property
    def allows_no_client(self) -> bool:
        """True if the access policy allows no client."""
        return not (self.allow or self.allow_all or self.allow_groups)

    @property
    def account_rules(self) -> tuple[AccountRule, ...]:
        """The rules about one account each."""
        rules = (("--allow", self.allow), ("--deny", self.deny))
        made = (
            _account_rule(option, pattern) for option, patterns in rules for pattern in patterns
        )
        return tuple(rule for rule in made if rule is not None)

    def permits(self, principal: str, read_logon: Callable[[], Logon | None] = no_logon) -> bool:
        """Tell whether the policy allows the principal, for applications that have policies of
        their own; see :meth:`refusal`.
        """
        return self.refusal(principal, read_logon) is None

    def refusal(
        self, principal: str, read_logon: Callable[[], Logon | None] = no_logon
    ) -> Refusal | None:
        """Reason why the principal is denied; None: it is allowed.

        :param read_logon: reads the PAC; called only where it decides.
        """
        if self.allow_all and not self.deny and not self.deny_groups:
            return None
        name, realm = split_principal(principal)
        if not name or not realm:
            return Refusal(
                "it has no name or no realm, so that no rule can be about it",
                "have it come as name@REALM",
            )
        denied = _about(realm, self.deny, _fold_everything)
        for pattern in denied:
            if not pattern.domain and _denies(name, pattern):
                return self._denied(f"--deny {pattern.text}")
        allowed = _about(realm, self.allow, fold_ascii)
        everybody = self.allow_all or any(
            each.realm and not each.name.strip("*") for each in allowed
        )
        if everybody and not denied and not self.deny_groups:
            return None
        if not everybody and not allowed and not self.allow_groups:
            wanted = "one of its groups, if it should have access"
            remedy = f"--allow NAME@{realm}, or --allow-group {wanted}"
            return Refusal(f"no rule allows it: no --allow is about {realm}", remedy)
        logon = read_logon()
        if logon is None or not logon.name:
            return Refusal(
                "its ticket has no PAC, which tells whose it is, and rules about accounts or "
                "groups have to be kept",
                "have the client ask for a ticket with one, or allow and deny whole realms only",
            )
        if self.deny_groups and not logon.groups_known:
            return Refusal(
                "nothing tells its groups, some of which are denied", "deny users instead"
            )
        if rule := self._denial(logon, realm, denied):
            return self._denied(f"{rule}; its account is {logon.account}")
        if (
            everybody
            or any(_is_allowed(logon, realm, pattern) for pattern in allowed)
            or not set(self.allow_groups).isdisjoint(logon.groups)
        ):
            return None
        account = f"{logon.names_in(realm)[0]}@{realm}"
        cause = f"no rule allows it; its account is {account} ({logon.account})"
        if logon.is_computer and any(map(_is_for_users, allowed)):
            cause = f"{cause}, and a wildcard is for computers only in a pattern that ends in $"
        return Refusal(
            cause, "--allow that, or --allow-group one of its groups, if it should have access"
        )

    @staticmethod
    def _denied(rule: str) -> Refusal:
        return Refusal(f"denied by {rule}", "take that back if it should have access")

    def _denial(self, logon: Logon, realm: str, denied: tuple[_Pattern, ...]) -> str | None:
        """The rule that denies an account, as an option; None: there is none."""
        for pattern in denied:
            if pattern.domain:
                # Either may be what was meant, and neither may be missed.
                homes = {_fold_everything(logon.domain), _fold_everything(realm)}
                found = _fold_everything(pattern.domain) in homes and _denies(logon.name, pattern)
            else:
                found = any(_denies(each, pattern) for each in logon.names_in(realm))
            if found:
                return f"--deny {pattern.text}"
        groups = {*logon.groups, *logon.deny_only}
        for sid in self.deny_groups:
            if sid in groups:
                return f"--deny-group {self.group_names.get(sid, sid)}"
        return None
