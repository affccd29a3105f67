"""One service from its start to its orderly stop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from itertools import chain
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory

from mutauth_twisted.access import AccessPolicy, AccessRules
from mutauth_twisted.audit.trail import AuditTrail
from mutauth_twisted.core.context import Keys
from mutauth_twisted.errors import MutualAuthError, UsageError
from mutauth_twisted.findings import Finding
from mutauth_twisted.gateway.backend import GatewayFactory
from mutauth_twisted.gateway.balancer import BalancedFactory, Balancers
from mutauth_twisted.gateway.health import Health
from mutauth_twisted.gateway.ident import IdentFactory
from mutauth_twisted.log import Log
from mutauth_twisted.net.events import ConnectionObserver
from mutauth_twisted.net.listening import Place, Places
from mutauth_twisted.net.protocol import describe
from mutauth_twisted.net.server import MutualAuthServerFactory
from mutauth_twisted.net.tally import Tally
from mutauth_twisted.net.tls import Layer
from mutauth_twisted.service.groups import NamedGroups
from mutauth_twisted.service.keyfiles import KeyFiles
from mutauth_twisted.service.publisher import GRACE, Publisher, tell_nobody
from mutauth_twisted.settings.service import Settings
from mutauth_twisted.status.counting import Counting, sessions
from mutauth_twisted.status.metrics import Value
from mutauth_twisted.status.snapshot import Snapshot

#: How long a stopping service waits for the directory, in seconds.
WITHDRAWAL = 5.0


@frozen
class Stopped:
    """End of a service.

    :param cut: how many connections did not end by themselves.
    :param stale: whether the directory may still have its address.
    """

    cut: int
    stale: bool


class MutualAuthService:
    """Checks the directory, listens, publishes; and takes it all back.

    :param reactor: Twisted's reactor.
    :param settings: the service.
    :param keys: its keys.
    :param publisher: its view of the directory; None: it publishes and checks nothing.
    :param factory: the application's factory.
    :param tls: its TLS, where it has a certificate of its own.
    :param trail: its audit trail; None: it has none.
    :param ident: answers a backend's ident queries, if it does.
    :param places: those of its endpoints that are bound already.
    :param own: the principal of its own account, if others may be found under it.
    :param probes: whether it probes its backend where the settings say so; another process does
        otherwise.
    :ivar name: how it is called.
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
        trail: AuditTrail | None = None,
        ident: IdentFactory | None = None,
        places: Places | None = None,
        own: str | None = None,
        *,
        probes: bool = True,
    ) -> None:
        self.name = settings.name
        self._trail = trail
        self._ident = ident
        self._ident_port: Any = None
        self._reactor = reactor
        self.settings = settings
        self._publisher = publisher
        self._factory = MutualAuthServerFactory(
            reactor, factory, keys, settings.policy, settings.security, settings.limits, tls, own
        )
        if trail is not None:
            self._factory.observers.add(trail)
            if publisher is not None:
                publisher.told = trail.write
        self._counting = Counting(reactor)
        self._factory.observers.add(self._counting)
        self._probes = probes
        self._backend = factory.backend if isinstance(factory, GatewayFactory) else None
        self._health = self._new_health()
        self._key_files = KeyFiles(settings)
        self._places = places or Places(reactor)
        self._ports: list[Any] = []
        self._entrance = self._make_entrance()
        #: Services whose connections this one has taken over, and that drain.
        self._before: list[MutualAuthService] = []
        self._is_published = self._is_stopping = False
        #: Is told when names of groups stand for other groups.
        self.groups_changed: Callable[[], object] = bool
        #: How often other processes have seen a client with our own account.
        self.seen_elsewhere: Callable[[], int] = int
        self._failure: Finding | None = None
        self._step: Deferred[None] | None = None

    def _new_health(self) -> Health | None:
        interval = self.settings.backend_check
        if self._backend is None or not interval or not self._probes:
            return None
        return Health(self._reactor, self._backend, interval, self._backend_is)

    @property
    def failure(self) -> Finding | None:
        """Why it does not run as it is to, in a process that does; what is wrong with the directory
        the watch over it knows better, once it has looked.
        """
        watch = self._publisher.watch if self._publisher is not None else None
        return None if watch is not None and watch.looked else self._failure

    @failure.setter
    def failure(self, finding: Finding) -> None:
        self._failure = finding

    def begin(
        self, step: Callable[[MutualAuthService], Coroutine[Any, Any, None]]
    ) -> Deferred[None]:
        """Take a step of the start, for whose end a stop waits.

        :param step: one of this class's coroutines.
        """
        self._step = Deferred.fromCoroutine(step(self))
        return self._step

    async def check(self) -> None:
        """See that the directory is as it has to be.

        :raises MutualAuthError: when it is not.
        """
        if self._publisher is not None:
            await self._publisher.check(self._use)

    async def prepare_rules(self, rules: AccessRules) -> NamedGroups:
        """Find all that other access rules need, and change nothing yet.

        :return: the argument of :meth:`use_rules`.
        :raises MutualAuthError: when a group is not there, or cannot be looked up.
        """
        if self._publisher is not None:
            return await self._publisher.find_groups(rules)
        if names := rules.names():
            cause = "rules name a group, and this service was started without asking the directory"
            raise UsageError(f"group {names[0]}", cause, "restart the service, or give its SID")
        return NamedGroups(rules)

    async def use_rules(self, prepared: NamedGroups) -> int:
        """Have other access rules decide from now on, and end the sessions that they forbid.

        :return: how many sessions were ended.
        """
        if self._publisher is not None:
            self._publisher.watch_groups(prepared)
        return await self._use_policy(prepared.policy)

    async def _use_policy(self, policy: AccessPolicy) -> int:
        """Decide by another policy, also about the sessions of those that this one succeeds."""
        factories = [each._factory for each in (self, *self._before)]
        return sum([await factory.use_policy(policy) for factory in factories])

    async def succeed(self, before: MutualAuthService) -> None:
        """Decide about the sessions of a service that drains, and show them, as of now."""
        self._before += [before, *before._before]
        before._before = []
        await before._factory.use_policy(self._factory.policy)

    def succeeds(self, before: MutualAuthService) -> bool:
        """Tell whether it has taken over the connections of another one."""
        return before in self._before

    def forget(self, before: MutualAuthService) -> None:
        """A service has drained."""
        self._before = [each for each in self._before if each is not before]

    async def listen(self) -> None:
        """Take connections.

        :raises MutualAuthError: when an endpoint cannot be had.
        """
        if self._ident is not None:
            there = self._places.at(self._ident.endpoint)
            if isinstance(there, IdentFactory):
                self._ident.succeed(there)
            self._ident_port = await self._places.listen(self._ident.endpoint, self._ident)
            self._ident.check(self._ident_port.getHost())
        for listen in self.settings.listen:
            port = await self._places.listen(listen, self._entrance)
            if self._is_stopping:
                await maybeDeferred(port.stopListening)
                return
            self._ports.append(port)

    @property
    def places(self) -> list[Place]:
        """Those where it listens."""
        ident = [self._ident_port] if self._ident_port is not None else []
        return [port.place for port in (*self._ports, *ident)]

    def _make_entrance(self) -> IProtocolFactory:
        """Factory for connections, from balancers too if there are any."""
        settings = self.settings
        if not settings.proxy_from:
            return self._factory
        return BalancedFactory(
            self._reactor,
            self._factory,
            Balancers(settings.proxy_from),
            settings.security.timeout,
            settings.limits.waiting,
            self._factory.refuse,
        )

    async def publish(self) -> None:
        """Publish the address, and watch over it from now on.

        :raises MutualAuthError: when it cannot be published.
        """
        if self._health is not None:
            await self._health.start()
        try:
            await self._publish()
        finally:
            # Whoever knows the address is served.
            self._is_published = True

    async def _publish(self) -> None:
        if self._publisher is not None:
            port = self._tcp_port() if self.settings.publish else None
            await self._publisher.publish(port, self._own(), self._all_seen)

    async def _backend_is(self, up: bool) -> None:
        """The backend is down, or up again: clients go elsewhere meanwhile."""
        if self._publisher is not None:
            await (self._publisher.release() if up else self._publisher.hold())

    def application_for(self, settings: Settings) -> IProtocolFactory | None:
        """The application's factory, if it is the one that other settings ask for; None: it is
        not.
        """
        same = _application(self.settings) == _application(settings)
        same = same and (self._backend is None or self._backend.is_as_read)
        return self._factory.wrapped if same else None

    def groups_for(self, settings: Settings) -> NamedGroups | None:
        """The groups that are known by name, if other settings look for them in the same
        directory; None: they do not.
        """
        same = self.settings.directory == settings.directory
        return self._publisher.groups if same and self._publisher is not None else None

    def ident_for(self, settings: Settings) -> IdentFactory | None:
        """The answers to ident queries at the place that other settings name; None: they are given
        elsewhere, or not at all.
        """
        return self._ident if self.settings.ident_address == settings.ident_address else None

    def discard(self) -> None:
        """Leave nothing behind of a service that was made and is not wanted."""
        if self._trail is not None:
            self._trail.close()

    def tell_reload(self, result: str, finding: Finding | None) -> None:
        """Note in the audit trail how a reload went."""
        if self._trail is not None:
            why = {"code": finding.code, "cause": str(finding)} if finding is not None else {}
            self._trail.write("reloaded", result=result, **why)

    def moved_by(self, settings: Settings) -> list[str]:
        """The options in which other settings differ, if any, that make it another service, with
        ports of its own.
        """
        now = _identity(settings)
        return [name for name, value in _identity(self.settings).items() if now[name] != value]

    async def prepare(self, fresh: MutualAuthService) -> NamedGroups | None:
        """See that this service can become another one, which was made of other settings; nothing
        changes yet.

        :return: the second argument of :meth:`become`.
        :raises MutualAuthError: when the directory is not as the settings want it.
        """
        if _view(self.settings) != _view(fresh.settings):
            await fresh.check()
            return fresh._publisher.groups if fresh._publisher is not None else None
        if self.settings.rules != fresh.settings.rules:
            return await self.prepare_rules(fresh.settings.rules)
        return None

    async def become(self, fresh: MutualAuthService, prepared: NamedGroups | None) -> None:
        """Serve as another service would, which does not listen, on this one's ports; see
        :meth:`moved_by`.

        Connections that are there go on as they began, unless the rules forbid them now.
        """
        before, self.settings = self.settings, fresh.settings
        interval = self.settings.backend_check
        self._key_files = fresh._key_files
        if (before.audit, before.audit_required) != (
            fresh.settings.audit,
            fresh.settings.audit_required,
        ):
            self._trail, fresh._trail = fresh._trail, self._trail
            self._observe(fresh._trail, self._trail)
        if fresh._trail is not None:
            fresh._trail.close()
        self._factory.renew(fresh._factory)
        sees_other = _view(before) != _view(self.settings)
        # Without a view of its own its groups are what it was told; see use_groups().
        if sees_other or self._publisher is None:
            await self._use_policy(fresh._factory.policy)
        elif prepared is not None:
            await self.use_rules(prepared)
        try:
            if sees_other:
                await self._use_publisher(fresh._publisher)
        finally:
            if fresh._backend is not self._backend or before.backend_check != interval:
                await self._use_backend(fresh)

    async def _use_backend(self, fresh: MutualAuthService) -> None:
        before, self._backend, self._health = self._health, fresh._backend, None
        if before is not None:
            await before.stop()
        self._health = self._new_health()
        if self._health is not None:
            await self._health.start()
        is_up = self._health is None or self._health.fault is None
        if before is not None and before.fault is not None and is_up and self._publisher:
            await self._publisher.release()

    async def _use_publisher(self, publisher: Publisher | None) -> None:
        left, self._publisher = self._publisher, publisher
        if left is not None:
            await left.hand_over()
        if publisher is not None:
            publisher.use(self._use)
            if self._trail is not None:
                publisher.told = self._trail.write
            if self._health is not None and self._health.fault is not None:
                await publisher.hold()
            await self._publish()

    def _observe(self, before: AuditTrail | None, now: AuditTrail | None) -> None:
        """Replace the audit trail."""
        if before is not None:
            self._factory.observers.discard(before)
        if now is not None:
            self._factory.observers.add(now)
        if self._publisher is not None:
            self._publisher.told = now.write if now is not None else tell_nobody

    def tell_where(self) -> None:
        """Log where it listens."""
        for port in self._ports:
            self._log.info(
                "serving {name} on {where}", name=self.name, where=describe(port.getHost())
            )
        if self._trail is not None:
            self._trail.write("serving", servers=[describe(port.getHost()) for port in self._ports])
        if self._ident_port is not None:
            where = describe(self._ident_port.getHost())
            self._log.info("{name}: ident queries at {where}", name=self.name, where=where)

    def snapshot(self) -> Snapshot:
        """State of the service now."""
        factory, keys = self._factory, self._key_files
        publisher, trail = self._publisher, self._trail
        is_serving = self._is_published and not self._is_stopping
        live = tuple(chain.from_iterable(each._factory.sessions for each in (self, *self._before)))
        fault = factory.fault
        wrong: list[Finding | None] = [self.failure, fault, *factory.slots.shortages]
        warnings: list[Finding | None] = [*keys.warnings]
        figures: dict[str, Value] = {}
        facts: list[tuple[str, str]] = []
        if (backend := self._backend) is not None:
            facts.append(("Backend", backend.where))
            if self._probes or not self.settings.backend_check:
                down = self._health.fault if self._health is not None else backend.fault
                wrong.append(down)
                figures["backend_up"] = int(down is None)
            figures["backend_connections_total"] = {
                "connected": backend.connected,
                "failed": backend.failed,
            }
        if publisher is not None:
            wrong[:0] = publisher.wrong
            figures |= publisher.figures
            facts += publisher.facts
            if (stale := publisher.key_fault) is not None:
                (wrong if stale.severity == "error" else warnings).append(stale)
        if trail is not None:
            (wrong if self.settings.audit_required else warnings).append(trail.fault)
            figures["audit_lost_events_total"] = trail.lost
        return Snapshot(
            self.name,
            tuple(describe(port.getHost()) for port in self._ports) if is_serving else (),
            values={
                **self._counting.values(live),
                **factory.slots.figures,
                **keys.figures,
                **figures,
            },
            wrong=tuple(filter(None, wrong)),
            warnings=tuple(filter(None, warnings)),
            stopping=self._is_stopping,
            facts=(*facts, *keys.facts),
            sessions=sessions(live),
            refusals=self._counting.refusals(),
            history=self._counting.hour(),
        )

    def _use(self, policy: AccessPolicy) -> None:
        Deferred.fromCoroutine(self._use_policy(policy)).addErrback(
            lambda failure: self._log.failure("internal error while rules were applied", failure)
        )
        self.groups_changed()

    @property
    def group_sids(self) -> Mapping[str, list[str]]:
        """Meaning of the names of groups, as :meth:`use_groups` takes it."""
        return self._publisher.groups.sids if self._publisher is not None else {}

    def use_groups(self, sids: Mapping[str, list[str]]) -> None:
        """Have the names of groups stand for what another process has found."""
        if sids:
            rules = self.settings.rules
            self._use(AccessPolicy.of(rules, lambda effect, name: sids[f"{effect} {name}"]))

    def observe(self, observer: ConnectionObserver) -> None:
        """Tell one more of every connection."""
        self._factory.observers.add(observer)

    def count_together(self, tally: Tally) -> None:
        """Count sessions together with other processes."""
        self._factory.slots.tally = tally

    @property
    def own_seen(self) -> int:
        """Number of times that a client came with our own account."""
        return self._factory.own_seen

    def _all_seen(self) -> int:
        return self._factory.own_seen + self.seen_elsewhere()

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
            listen = f"--listen {self.settings.listen[0]}"
            raise UsageError(
                listen,
                "it has no TCP port to publish",
                "add --publish none, or listen on TCP first",
            )
        return int(port)

    async def stop(self) -> Stopped:
        """Withdraw, stop listening, and let the connections end.

        New clients are sent elsewhere first; those who are on their way are served still.
        """
        stale = await self.leave()
        return await self.drain(stale=stale)

    async def leave(self) -> bool:
        """Withdraw, and stop listening; tell whether the directory may still have the address."""
        self._is_stopping = True
        if stale := await self._stale():
            text = "{name}: what the directory says of it may be stale: {stale}"
            self._log.error(text, name=self.name, stale=stale)
        await self._stop_listening()
        return bool(stale)

    async def _stop_listening(self) -> None:
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)

    async def _answer_no_more(self) -> None:
        port, self._ident_port = self._ident_port, None
        if port is not None:
            await maybeDeferred(port.stopListening)

    async def fail(self, finding: Finding) -> None:
        """Do not run, in a process that does."""
        self.failure = finding
        await self._stop_listening()
        await self._answer_no_more()

    async def drain(self, *, stale: bool = False) -> Stopped:
        """Let the connections end, and then all that serves them."""
        if left := await self._let_end(self.settings.drain_timeout):
            self._log.warn("{finding}", finding=_cut(self.name, left, self.settings.drain_timeout))
        if self._trail is not None:
            self._trail.write("stopped", cut=left)
            self._trail.close()
        # A backend may ask as long as there are connections.
        await self._answer_no_more()
        return Stopped(left, stale)

    async def _let_end(self, seconds: float) -> int:
        """Let the connections end; return how many were cut."""
        began, left = self._reactor.seconds(), 0
        if isinstance(self._entrance, BalancedFactory):
            left = await self._entrance.drain(seconds)
        passed = self._reactor.seconds() - began
        return left + await self._factory.drain(max(0.0, seconds - passed))

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
        if self._step is not None and not self._step.called:
            # Not cancelled at once: what a thread is about to publish could not be withdrawn before
            # it is there.
            await self._step.addTimeout(GRACE, self._reactor)
        if self._health is not None:
            await self._health.stop()
        if self._publisher is not None:
            await self._publisher.withdraw()


def _identity(settings: Settings) -> dict[str, object]:
    """All that makes a service another one when it changes, by options."""
    service, is_balanced = settings.service, bool(settings.proxy_from)
    return {
        "service-class": service.service_class,
        "host": service.host,
        "spn-form": service.spn_forms,
        "scp-name": service.scp_name,
        "scp-parent": service.scp_parent,
        "rnr-name": service.rnr_name,
        "account": settings.account,
        "publish": (settings.publish, settings.entry),
        "listen": settings.listen,
        "ident-address": settings.ident_address,
        "proxy-from": settings.proxy_from,
        "handshake-timeout": settings.security.timeout if is_balanced else None,
        "max-waiting": settings.limits.waiting if is_balanced else None,
    }


def _application(settings: Settings) -> tuple[object, ...]:
    """All that decides what is served."""
    return (
        *(settings.serve, settings.proxy_protocol, settings.proxy_groups),
        *(settings.backend_timeout, settings.unsafe_backend, settings.half_closed_timeout),
    )


def _view(settings: Settings) -> tuple[object, ...]:
    """All that decides what is looked for in the directory, and what is written there."""
    return (
        *(settings.directory, settings.keytab, settings.state_dir, settings.spn_check),
        *(settings.check_interval, settings.priority, settings.weight),
        *(settings.security.wire, settings.security.protection, Publisher.is_needed(settings)),
    )


def _cut(name: str, count: int, seconds: float) -> Finding:
    cause = f"{count} had not ended within {seconds:g} s, and were cut"
    return Finding("connections-cut", f"connections of {name}", cause, "raise drain-timeout")
