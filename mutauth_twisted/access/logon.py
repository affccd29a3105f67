"""Facts about an authenticated client's account."""

from __future__ import annotations

from attrs import frozen

from mutauth_twisted.names import escape_name, fold_ascii


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
        return tuple(map(escape_name, names))


def no_logon() -> Logon | None:
    """Logon of a client whose ticket has no PAC: none."""
    return None
