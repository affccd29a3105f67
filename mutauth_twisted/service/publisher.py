"""The service's own view of the directory: checked at start, published, withdrawn at stop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from twisted.logger import Logger

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory import startup
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.connection import Directory
from mutauth_twisted.directory.guidcache import DEFAULT_STATE_DIR, GuidCache
from mutauth_twisted.directory.scp import withdraw
from mutauth_twisted.dns import Resolver
from mutauth_twisted.service.options import Settings


class Publisher:
    """Keeps one service's connection point true, with the service's own keys.

    :param reactor: Twisted's reactor.
    :param settings: the service.
    :param principal: who runs it, ``account@REALM``; a key of it is in the keytab.
    """

    _log = Logger()

    def __init__(self, reactor: Any, settings: Settings, principal: str) -> None:
        self._settings = settings
        self._account = settings.account or principal
        self._directory = Directory(
            reactor,
            realm=settings.realm,
            servers=settings.servers,
            resolver=Resolver(reactor, settings.nameserver),
            credentials=ClientCredentials(principal=principal, keytab=settings.keytab),
        )
        self._checked: startup.Checked | None = None
        self._published: BindingInformation | None = None

    async def check(self) -> None:
        """Find the connection point, and see that every SPN stands on our account and nowhere else.

        :raises ServiceCheckFailed: when one does not, unless --spn-check says otherwise.
        """
        settings = self._settings
        cached = GuidCache(settings.state_dir).read(settings.service_class, settings.host, settings.scp_name)
        checked = await self._directory.run_with_catalog(
            lambda session, catalog: startup.check(
                session,
                catalog,
                guid=cached.guid if cached else None,
                service_class=settings.service_class,
                host=settings.host,
                account=self._account,
                spn_forms=settings.spn_forms,
                spn_check=settings.spn_check,
                scp_name=settings.scp_name,
                scp_parent=settings.scp_parent,
                reach=_reach(settings),
            )
        )
        how = "by its GUID" if checked.by_guid else "by its place (no GUID is cached)"
        self._log.info("SCP {dn} found {how}", dn=checked.scp.dn, how=how)
        for warning in checked.warnings:
            self._log.warn("{warning}", warning=warning)
        if settings.spn_check != "off" and not checked.warnings:
            spns = ", ".join(map(str, checked.spns))
            self._log.info("{account} holds {spns}, and nobody else does", account=checked.account.name, spns=spns)
        self._checked = checked

    async def publish(self, port: int) -> None:
        """Make the connection point say where the service listens.

        :param port: the TCP port.
        :raises ServiceCheckFailed: when our account may not write it.
        """
        settings, checked = self._settings, self._checked
        if checked is None or not settings.publish:
            return
        binding = BindingInformation(
            port,
            settings.priority,
            settings.weight,
            settings.channel.wire.name,
            settings.channel.protection.value,
            advertised_form(settings.spn_forms, checked.scp.dn),
        )
        # Before it is written: a stop in the middle has to take back what the thread still writes.
        self._published = binding
        changed = await self._directory.run(lambda session: startup.publish(session, checked, settings.host, binding))
        what = ", ".join(changed) or "nothing, all was right"
        self._log.info("SCP updated: {what} ({host}, {binding})", what=what, host=settings.host, binding=binding)

    async def withdraw(self) -> None:
        """Take back the address, unless another instance has published its own since."""
        binding, checked = self._published, self._checked
        if binding is not None and checked is not None:
            self._published = None
            if await self._directory.run(lambda session: withdraw(session, checked.scp.guid, binding)):
                self._log.info("SCP withdrawn: {dn}", dn=checked.scp.dn)
        self._directory.close()


def _reach(settings: Settings) -> list[str]:
    """The options with which ``mutauth install`` on this machine reaches the same directory and state."""
    words = [word for server in settings.servers for word in ("--directory", server)]
    for option, value in (("--realm", settings.realm), ("--nameserver", settings.nameserver)):
        words += [option, value] if value else []
    if settings.state_dir != DEFAULT_STATE_DIR:
        words += ["--state-dir", str(settings.state_dir)]
    return words


def advertised_form(registered: Sequence[str], dn: str) -> str:
    """Which of the registered forms clients are told to ask for.

    The DN, as in Microsoft's sample, when it is one of them; but the GUID when
    the DN holds what not every KDC finds: Samba's looks names up with blanks,
    backslashes and '@' escaped.
    """
    if "dn" in registered and not ("guid" in registered and re.search(r"[\s\\@]", dn)):
        return "dn"
    return registered[0]
