"""Verdict of an access policy about one client, and the limits of the session that it gets."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from mutauth_twisted.errors import UsageError


def _positive(instance: object, attribute: Any, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        cause = f"{value} is out of range"
        raise UsageError(f"limit {attribute.name}", cause, "give a number above 0")


@frozen
class SessionLimits:
    """Limits of the sessions of those whom a rule allows; None: no such limit.

    :param connections: sessions at once of all of them together.
    :param per_principal: sessions at once of one account of them.
    :param session: seconds after which such a session ends.
    :raises UsageError: for a limit that is not above 0.
    """

    connections: int | None = field(default=None, validator=_positive)
    per_principal: int | None = field(default=None, validator=_positive)
    session: float | None = field(default=None, validator=_positive)

    def __bool__(self) -> bool:
        return self != NO_LIMITS


NO_LIMITS = SessionLimits()


@frozen
class Grant:
    """A rule with limits, of which a session takes its share.

    :param rule: its source, unlike that of any other rule of its policy.
    :param limits: what they are.
    """

    rule: str
    limits: SessionLimits


@frozen
class Decision:
    """Verdict of an access policy.

    :param allowed: whether the client is allowed.
    :param rule: the rule that decides, as it is written; empty: none does.
    :param cause: why the client is denied, for the service's own log; empty: it is allowed.
    :param remedy: what would allow it.
    :param grants: the rules whose limits its session has to keep, all of them.
    """

    allowed: bool
    rule: str = ""
    cause: str = ""
    remedy: str = ""
    grants: tuple[Grant, ...] = ()

    @property
    def limits(self) -> SessionLimits:
        """The least of each limit."""

        def least(name: str) -> Any:
            values = (getattr(grant.limits, name) for grant in self.grants)
            return min((value for value in values if value is not None), default=None)

        return SessionLimits(least("connections"), least("per_principal"), least("session"))
