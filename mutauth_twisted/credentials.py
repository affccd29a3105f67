"""Sources of a client's and a service's keys; values only."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from attrs.converters import optional

from mutauth_twisted.files import is_readable_by_all
from mutauth_twisted.findings import Command, Finding


def exposed(subject: str, path: str) -> Finding | None:
    """The finding about keys that any account of the machine may read; None: there is none.

    A group may read them: many services have a keytab that root owns.

    :param subject: what the file is.
    """
    if not is_readable_by_all(path):
        return None
    cause = "every account of this machine can read the keys in it, and be this service"
    return Finding("keys-exposed", f"{subject} {path}", cause, Command("chmod", "o=", path))


class Credentials(ABC):
    """Credentials for one side of one mechanism, or of several."""

    __slots__ = ()

    @classmethod
    @abstractmethod
    def from_options(cls, options: Mapping[str, Any]) -> Credentials:
        """Make them of the values of options and endpoint keywords.

        :param options: the values that were given, by the options' names.
        """


@frozen
class ClientCredentials(Credentials):
    """The initiator's credentials.

    With nothing given, the default ticket cache of the process is used, or on
    Windows, where nothing can be given, the logon session.

    :param principal: the principal to be, ``user@REALM``; None: the cache's own.
    :param ccache: a ticket cache, ``FILE:/path`` or a bare path.
    :param keytab: a keytab with the principal's key; the ticket is fetched with
        it and kept in memory.
    """

    principal: str | None = None
    ccache: str | None = None
    keytab: str | None = field(default=None, converter=optional(os.fspath))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ClientCredentials:
        """See :meth:`Credentials.from_options`."""
        return cls(options.get("principal"), options.get("ccache"), options.get("keytab"))


@frozen
class ServiceCredentials(Credentials):
    """The acceptor's keys.

    :param keytab: the keytab's path; None: KRB5_KTNAME, then the system's.
    :param principal: the one principal of the keytab whose keys count,
        ``svc-echo@REALM``; None: every key in it.
    :param state_dir: a directory of the service's own, where its replay cache
        is kept; see :mod:`mutauth_twisted.kerberos.replaycache`.
    :param accept_replays: do without a replay cache: whoever copies a client's
        request opens sessions as that client, in which it can read and write nothing.
    """

    keytab: str | None = field(default=None, converter=optional(os.fspath))
    principal: str | None = None
    state_dir: str | None = field(default=None, converter=optional(os.fspath))
    accept_replays: bool = False

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ServiceCredentials:
        """See :meth:`Credentials.from_options`."""
        keytab, principal = options.get("keytab"), options.get("principal")
        replays = bool(options.get("accept-replays"))
        return cls(keytab, principal, options.get("state-dir"), replays)
