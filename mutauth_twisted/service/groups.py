"""The groups that a service knows by name: found at its start, and looked for again while it
runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mutauth_twisted.access import AccessPolicy, AccessRules
from mutauth_twisted.access.rules import Effect
from mutauth_twisted.directory.groups import Group, find_group
from mutauth_twisted.errors import DirectoryRefused, MutualAuthError, NotFound, UsageError
from mutauth_twisted.findings import Finding
from mutauth_twisted.ldap.session import LdapSession


class NamedGroups:
    """Turns names into the SIDs that tickets have.

    A name is found once.  When it leads to another group later, the members of
    that one are not allowed, as whoever may create a group could have made it;
    but they are denied where the name is on a denial.

    :param rules: those of the service.
    """

    def __init__(self, rules: AccessRules) -> None:
        self._rules = rules
        self._names = rules.names()
        self._found: Mapping[str, Group] = {}
        #: The SIDs that the names of denied groups have had.
        self._denied: dict[str, tuple[str, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._names)

    def know(self, other: NamedGroups) -> None:
        """Have the names that other rules have, too, stand for what they stand for there: whoever
        could create a group of the same name could else wait for the next reload.  A name that is
        denied from now on is not known: members of the group of now have to be denied.
        """
        fresh = set(self._rules.names("deny")) - other._denied.keys()
        known = [name for name in self._names if name in other._found and name not in fresh]
        self._found = {name: other._found[name] for name in known}
        self._denied = {name: sids for name, sids in other._denied.items() if name in known}

    @property
    def missing(self) -> list[str]:
        """Names that are not found yet."""
        return [name for name in self._names if name not in self._found]

    def find(self, session: LdapSession, catalog: LdapSession) -> Mapping[str, Group]:
        """Every missing group by its name; blocks.

        :raises NotFound: when one is not there.
        :raises UsageError: when one can be in no ticket.
        """
        return {name: find_group(session, catalog, name) for name in self.missing}

    def look(
        self, session: LdapSession, catalog: LdapSession
    ) -> Mapping[str, Group | MutualAuthError]:
        """The same, with an error in the place of what is not there, or not to be read; blocks.

        :raises DirectoryUnreachable: so that another domain controller is asked.
        """
        looked: dict[str, Group | MutualAuthError] = {}
        for name in self._names:
            try:
                looked[name] = find_group(session, catalog, name)
            except (NotFound, UsageError) as error:
                looked[name] = error
            except DirectoryRefused as error:
                cause = f"it cannot be read: {error.cause}"
                looked[name] = DirectoryRefused(
                    f"group {name}",
                    cause,
                    error.remedy,
                    result=error.result,
                    code="directory-refused",
                )
        return looked

    def settle(self, found: Mapping[str, Group]) -> None:
        """Take what was found of those that were missing."""
        self._found = {**self._found, **found}
        denied = self._rules.names("deny")
        self._denied = {name: self._denied.get(name) or (self._found[name].sid,) for name in denied}

    def compare(self, looked: Mapping[str, Group | MutualAuthError]) -> list[Finding]:
        """Return the changes since the start."""
        wrong = []
        for name, now in looked.items():
            was = self._found[name]
            if isinstance(now, MutualAuthError):
                cause = f"{now.cause}; at the start it was {was.sid}, which still counts"
                wrong.append(Finding(now.code, now.subject, cause, now.remedy))
            elif now.sid != was.sid:
                cause = f"it is another group now, {now.sid} instead of {was.sid}"
                wrong.append(Finding("group-replaced", f"group {name}", cause, self._remedy(name)))
                if name in self._denied:
                    self._denied[name] = tuple(dict.fromkeys((*self._denied[name], now.sid)))
        return wrong

    def _remedy(self, name: str) -> str:
        if name not in self._rules.names("allow"):
            return "members of either are denied; restart the service if that is right"
        return (
            "its members are not allowed; find out who created it, and restart the service if "
            "the group is the right one"
        )

    @property
    def policy(self) -> AccessPolicy:
        """The service's policy with the groups that were found."""
        return AccessPolicy.of(self._rules, self._sids_of)

    @property
    def sids(self) -> dict[str, list[str]]:
        """Meaning of the names: SIDs by ``allow`` or ``deny``, a blank, and the name."""
        effects: tuple[Effect, ...] = ("allow", "deny")
        return {
            f"{effect} {name}": list(self._sids_of(effect, name))
            for effect in effects
            for name in self._rules.names(effect)
        }

    def _sids_of(self, effect: Effect, name: str) -> Sequence[str]:
        return self._denied[name] if effect == "deny" else (self._found[name].sid,)
