"""One service from its start to its orderly stop."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IProtocolFactory
from twisted.python.failure import Failure

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.context import Keys
from mutauth_twisted.credentials import exposed
from mutauth_twisted.errors import DirectoryError, MutualAuthError, UsageError
from mutauth_twisted.findings import Finding
from mutauth_twisted.kerberos.keytab import keytab_file
from mutauth_twisted.log import Log
from mutauth_twisted.net.plain import listen_on
from mutauth_twisted.net.protocol import describe
from mutauth_twisted.net.server import MutualAuthServerFactory
from mutauth_twisted.net.tls import Layer
from mutauth_twisted.service.exitcode import CUT, end_with
from mutauth_twisted.service.publisher import GRACE, Publisher
from mutauth_twisted.service.status import Status, StatusFactory
from mutauth_twisted.settings.service import Settings
from mutauth_twisted.signals import expect_no_more, stop_on_hangup

#: How long a stopping service waits for the directory, in seconds.
WITHDRAWAL = 5.0


class MutualAuthService(Service):
    """Checks the directory, listens, publishes; and takes it all back.

    A service that may not start stops the reactor, and the process ends with
    the error's exit code.

    :param reactor: Twisted's reactor.
    :param settings: the service.
    :param keys: its keys.
    :param publisher: its view of the directory; None: it publishes and checks nothing.
    :param factory: the application's factory.
    :param tls: its TLS, where it has a certificate of its own.
    """

    _log = Log()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        keys: Keys,
        publisher: Publisher | None,
        factory: IProtocolFactory,
        tls: Layer | None = None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._publisher = publisher
        own = publisher.principal if publisher is not None else None
        self._factory = MutualAuthServerFactory(
            reactor, factory, keys, settings.policy, settings.security, settings.limits, tls, own
        )
        self._key_files = _key_files(settings)
        self._ports: list[Any] = []
        self._status_ports: list[Any] = []
        self._starting: Deferred[None] | None = None

    def startService(self) -> None:
        """Start; see IService."""
        super().startService()
        stop_on_hangup(self._reactor)  # until there is something to reload
        # Not before: a signal that comes earlier would end the process at once.
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if self.running:
            starting = self._starting = Deferred.fromCoroutine(self._start())
            starting.addErrback(self._refuse)

    async def _start(self) -> None:
        if self._publisher is not None:
            await self._publisher.check(self._use)
        if not self.running:  # stopped in the meantime
            return
        for listen in self._settings.listen:
            port = await listen_on(self._reactor, listen, self._factory)
            if not self.running:
                await port.stopListening()
                return
            self._ports.append(port)
        if self._publisher is not None:
            port = self._tcp_port() if self._settings.publish else None
            await self._publisher.publish(port, self._own(), lambda: self._factory.own_seen)
        if not self.running:
            return
        if self._settings.status is not None:
            page = await listen_on(
                self._reactor, self._settings.status, StatusFactory(self._reactor, self.status)
            )
            self._status_ports.append(page)
            self._log.info("status on {where}", where=describe(page.getHost()))
        for port in self._ports:
            self._log.info(
                "serving {name} on {where}",
                name=self._settings.service.service_class,
                where=describe(port.getHost()),
            )

    def status(self) -> Status:
        """How the service is now."""
        fault, slots = self._factory.fault, self._factory.slots
        wrong = self._publisher.wrong if self._publisher is not None else ()
        return Status(
            self._settings.service.service_class,
            tuple(describe(port.getHost()) for port in self._ports) if self.running else (),
            handshakes=slots.handshakes,
            waiting=slots.waiting,
            sessions=slots.sessions,
            wrong=(*wrong, *((fault,) if fault is not None else ()), *slots.shortages),
            warnings=tuple(filter(None, (exposed(*file) for file in self._key_files))),
        )

    def _use(self, policy: AccessPolicy) -> None:
        self._factory.policy = policy

    def _own(self) -> set[tuple[str, int]]:
        """Where we listen, as far as it is TCP."""
        hosts = (port.getHost() for port in self._ports)
        return {
            (host.host, host.port) for host in hosts if isinstance(host, (IPv4Address, IPv6Address))
        }

    def _tcp_port(self) -> int:
        """The port to publish: the first one's."""
        port = getattr(self._ports[0].getHost(), "port", None)
        if port is None:
            listen = f"--listen {self._settings.listen[0]}"
            raise UsageError(
                listen,
                "it has no TCP port to publish",
                "add --publish none, or listen on TCP first",
            )
        return int(port)

    def _refuse(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if isinstance(failure.value, MutualAuthError):
            self._log.critical(
                "{name} does not start: {error}",
                name=self._settings.service.service_class,
                error=failure.value,
            )
            end_with(failure.value.exit_code, self._reactor)
        else:
            self._log.failure("internal error at start", failure)
            end_with(1, self._reactor)
        self._reactor.stop()

    def stopService(self) -> Deferred[None]:
        """Withdraw, stop listening, and let the connections end; see IService."""
        super().stopService()
        expect_no_more(
            self._reactor, lambda name: self._log.info("{name} again: stopping already", name=name)
        )
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """New clients are sent elsewhere first; those who are on their way are served still."""
        end_with(0, self._reactor)
        if stale := await self._stale():
            text = "{name}: what the directory says of it may be stale: {stale}"
            self._log.error(text, name=self._settings.service.service_class, stale=stale)
            end_with(DirectoryError.exit_code, self._reactor)
        for port in self._ports:
            await port.stopListening()
        if left := await self._factory.drain(self._settings.drain_timeout):
            self._log.warn("{finding}", finding=_cut(left, self._settings.drain_timeout))
            end_with(CUT, self._reactor)
        for port in self._status_ports:
            await port.stopListening()

    async def _stale(self) -> str:
        """Withdraw the address; tell why that failed."""
        withdrawing = Deferred.fromCoroutine(self._withdraw())
        try:
            await withdrawing.addTimeout(WITHDRAWAL, self._reactor)
        except TimeoutError:
            return f"the directory did not answer within {WITHDRAWAL:g} s"
        except MutualAuthError as error:
            return str(error)
        except Exception:
            self._log.failure("internal error while the address was withdrawn")
            return "internal error"
        return ""

    async def _withdraw(self) -> None:
        if self._starting is not None and not self._starting.called:
            # Not cancelled at once: what a thread is about to publish could not be withdrawn before
            # it is there.
            await self._starting.addTimeout(GRACE, self._reactor)
        if self._publisher is not None:
            await self._publisher.withdraw()


def _key_files(settings: Settings) -> list[tuple[str, str]]:
    """The files with the service's keys, each behind what it is."""
    files = []
    if "keytab" in settings.package_options:
        files.append(("keytab", keytab_file(settings.keytab)))
    if settings.tls_files is not None:
        certificate, key = settings.tls_files
        files.append(("TLS key", key or certificate))
    return files


def _cut(count: int, seconds: float) -> Finding:
    cause = f"{count} had not ended within {seconds:g} s, and were cut"
    return Finding("connections-cut", "connections", cause, "raise drain-timeout")
