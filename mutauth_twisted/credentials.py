"""Where a client's and a service's keys come from: values only."""

from __future__ import annotations

import os

from attrs import field, frozen
from attrs.converters import optional


@frozen
class ClientCredentials:
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


@frozen
class ServiceCredentials:
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


def _absolute(path: str) -> str:
    return os.path.abspath(path)


@frozen
class NtlmCredentials:
    """The passwords of NTLM's users: a client's own, or all those whom a service knows.

    :param users: the path of a file in the format of NTLM_USER_FILE, which only
        its owner may read: lines of ``DOMAIN:user:password``, or as in smbpasswd,
        ``DOMAIN\\user:id:LM hash:NT hash:flags:time``.
    :param user: on a client, who of them to be, ``user@DOMAIN``; None: the first.
    """

    users: str = field(converter=_absolute)
    user: str | None = None
