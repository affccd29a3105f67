"""Steps that were done in the directory, as values, told one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from attrs import frozen

from mutauth_twisted.directory.spns import Account

Action = Literal[
    "created",
    "added",
    "granted",
    "revoked",
    "published",
    "cached",
    "removed",
    "deleted",
    "kept",
    "undone",
    "left behind",
]
_FROM = ("removed", "revoked")


@frozen
class Done:
    """One step; ``str()`` is the line for people.

    :param action: what was done.
    :param kind: the kind of object, such as ``SPN`` or ``SCP``; empty: the name tells.
    :param name: the object: an SPN as it stood, a DN, ...
    :param account: whose SPN or right it is.
    :param detail: what else is to be said of it; ends the line.
    """

    action: Action
    kind: str
    name: str
    account: Account | None = None
    detail: str = ""

    def __str__(self) -> str:
        preposition = "from" if self.action in _FROM else "to"
        account = f" {preposition} {self.account.name}" if self.account else ""
        detail = f" ({self.detail})" if self.detail else ""
        action = f"{self.action} {self.kind}" if self.kind else f"{self.action}:"
        return f"{action} {self.name}{account}{detail}"

    def as_json(self) -> dict[str, Any]:
        """The step for programs, of JSON's types only."""
        return {
            "action": self.action,
            "kind": self.kind,
            "name": self.name,
            "account": self.account.name if self.account else None,
            "detail": self.detail,
        }


#: Is told what is done, step by step, maybe in another thread.
Report = Callable[[Done], object]


def no_report(done: Done) -> None:
    """Nobody is told."""
