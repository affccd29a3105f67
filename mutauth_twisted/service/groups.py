"""The groups that a service knows by name: found at its start, and looked for again while it
runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.directory.groups import Group, find_group
from mutauth_twisted.errors import DirectoryRefused, MutualAuthError, NotFound, UsageError
from mutauth_twisted.findings import Finding
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.settings.service import Settings


class NamedGroups:
    """Turns names into the SIDs that tickets have.

    A name is found once.  When it leads to another group later, the members of
    that one are not allowed, as whoever may create a group could have made it;
    but they are denied where the name is on a denial.

    :param settings: the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._policy = settings.policy
        self._allow = settings.allow_groups
        self._deny = settings.deny_groups
        self._names = tuple(dict.fromkeys((*self._allow, *self._deny)))
        self._found: Mapping[str, Group] = {}
        self._denied: tuple[str, ...] = ()
        self._called: Mapping[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._names)

    def find(self, session: LdapSession, catalog: LdapSession) -> Mapping[str, Group]:
        """Every group by its name; blocks.

        :raises NotFound: when one is not there.
        :raises UsageError: when one can be in no ticket.
        """
        return {name: find_group(session, catalog, name) for name in self._names}

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
        """Take what was found at the start."""
        self._found = found
        self._denied = tuple(found[name].sid for name in self._deny)
        self._called = {group.sid: name for name, group in found.items()}

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
                if name in self._deny:
                    self._denied = tuple(dict.fromkeys((*self._denied, now.sid)))
                    self._called = {**self._called, now.sid: name}
        return wrong

    def _remedy(self, name: str) -> str:
        if name not in self._allow:
            return "members of either are denied; restart the service if that is right"
        return (
            "its members are not allowed; find out who created it, and restart the service if "
            "the group is the right one"
        )

    @property
    def policy(self) -> AccessPolicy:
        """The service's policy with the groups that were found."""
        allowed = (self._found[name].sid for name in self._allow)
        return evolve(
            self._policy,
            allow_groups=(*self._policy.allow_groups, *allowed),
            deny_groups=(*self._policy.deny_groups, *self._denied),
            group_names=self._called,
        )
