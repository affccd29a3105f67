"""Other rules while real sessions are under way."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory

from mutauth_twisted.access import AccessPolicy, AccessRules, Rule, SessionLimits
from mutauth_twisted.access.rules import option_rules
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.groups import find_group
from mutauth_twisted.errors import NotFound, PeerRefused, SessionEnded
from mutauth_twisted.net.server import MutualAuthServerFactory
from mutauth_twisted.protection import Protection
from tests.integration.account_case import AccountCase
from tests.integration.commands import WAIT, CommandTestCase, Running
from tests.integration.handshake_case import LOOPBACK, Application
from tests.integration.maintenance_case import MaintenanceCase


class SessionTests(AccountCase):
    """alice is in echo-users, and bob is not."""

    def bob(self) -> ClientCredentials:
        return ClientCredentials(
            principal=self.lab.principal("bob"), keytab=str(self.lab.keytab("bob"))
        )

    async def serve(self, security: SecurityOptions) -> tuple[MutualAuthServerFactory, int]:
        """A service that allows everyone, and has read no PAC so far; its port."""

        class Served(Factory):
            noisy = False

            def buildProtocol(factory, addr: object) -> Application:  # noqa: N805
                self.servers.append(Application(answer=bytes.upper))
                self._built += 1
                return self.servers[-1]

        factory = MutualAuthServerFactory(
            reactor, Served(), self.keys, AccessPolicy(allow_all=True), security
        )
        self._listens = True
        inner = TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK)
        return factory, self._listening(await inner.listen(factory))

    async def check(self, protection: Protection) -> None:
        security = SecurityOptions(protection=protection)
        factory, port = await self.serve(security)
        alice = await self.connect(port, security=security)
        bob = await self.connect(port, credentials=self.bob(), security=security)
        group = await self.do(lambda session: find_group(session, session, "echo-users"))
        everyone = Rule("allow", "f:1", everyone=True, limits=SessionLimits(session=3600))
        rules = [everyone, Rule("deny", "f:4", groups=(group.sid,))]
        self.assertEqual(await factory.use_policy(AccessPolicy(rules=rules)), 1)
        self.assertIsInstance(await alice.ended, ConnectionDone)
        why: Any = await self.servers[0].ended
        self.assertIsInstance(why, SessionEnded)
        self.assertEqual(why.code, "access-withdrawn")
        self.assertIn("LAB\\alice", why.cause)
        bob.protected.write(b"still here")
        self.assertEqual(await bob.wait_for(10), b"STILL HERE")
        self.servers.pop(0)
        served = self.servers
        self.servers = []
        await self.refused(self.connect(port, security=security), PeerRefused, "its access policy")
        self.servers = served
        await self.close(bob)

    async def test_sealed(self) -> None:
        """A client whose group is denied now loses its session, by the ticket that it came with;
        the other goes on.
        """
        await self.check(Protection.SEAL)

    async def test_inside_tls(self) -> None:
        """The same inside TLS."""
        await self.check(Protection.TLS)


class RulesTests(MaintenanceCase):
    """Rules with groups, looked up while the service runs."""

    async def test_other_rules(self) -> None:
        """Groups of other rules are found, and nothing changes before they are used; where one is
        missing nothing does.
        """
        publisher = await self.started(
            "--spn-check", "off", "--publish", "none", "--allow-group", "echo-users"
        )
        watched = publisher._groups
        others = option_rules(["a@R"], deny_groups=["LAB\\Domain Users"])
        missing = option_rules(allow_groups=["echo-users", "no such group"])
        with self.assertRaises(NotFound):
            await publisher.find_groups(AccessRules(missing))
        self.assertIs(publisher._groups, watched)
        found = await publisher.find_groups(AccessRules(others))
        self.assertIs(publisher._groups, watched)
        publisher.watch_groups(found)
        (_, denial) = found.policy.every_rule
        self.assertEqual((denial.effect, denial.groups[0].rpartition("-")[2]), ("deny", "513"))
        # Those before are not looked for any more.
        looked: Deferred[None] = Deferred()
        self.patch(found, "look", lambda *_: reactor.callFromThread(looked.callback, None) or {})  # type: ignore[attr-defined]
        self.patch(watched, "look", lambda *_: self.fail("it was looked for"))
        await looked


class ReloadTests(CommandTestCase):
    """A service whose policy file changes, and a session of alice in another process."""

    def logged(self, service: Running, words: str) -> None:
        """Wait for a line of the service's log."""
        end = time.monotonic() + WAIT
        while words not in service.log:
            self.assertLess(time.monotonic(), end, service.log)
            time.sleep(0.02)

    def reload(self, service: Running, policy: Path, text: str, words: str) -> None:
        """Replace the file, have it read, and see how that ends."""
        new = policy.with_suffix(".new")
        new.write_text(text)
        new.replace(policy)
        service.process.send_signal(signal.SIGHUP)
        self.logged(service, words)

    def test_live_session(self) -> None:
        """The session goes on through a file that is wrong and one that still allows it, and ends
        by one that does not.
        """
        self.assertEqual(self.install().code, 0)
        policy = Path(self.state) / "policy.toml"
        policy.write_text('[[allow]]\ngroups = ["echo-users"]\n')
        words = tuple(
            word
            for word in self.service_words("--policy", str(policy))
            if word not in ("--allow", "*@LAB.EXAMPLE")
        )
        with self.twistd(words) as service:
            service.read_on()
            pipe = subprocess.PIPE
            session = self.begin("mutauth", "connect", self.endpoint, stdin=pipe)
            self.addCleanup(session.wait)
            self.addCleanup(session.kill)
            assert session.stdin is not None
            assert session.stdout is not None
            assert session.stderr is not None

            def echoes(line: str) -> None:
                session.stdin.write(line)  # type: ignore[union-attr]
                session.stdin.flush()  # type: ignore[union-attr]
                self.assertEqual(session.stdout.readline(), line)  # type: ignore[union-attr]

            echoes("one\n")
            for text, cause in (
                ('[[deny]]\naccounts = "alice@LAB.EXAMPLE"\n', "it is a string"),
                ('[[deny]]\ngroups = ["no such group"]\n[[allow]]\nall = true\n', "no such group"),
            ):
                self.reload(service, policy, text, cause)
                echoes("two\n")
            allowed = '[[allow]]\naccounts = ["*@LAB.EXAMPLE"]\nmax-session = 3000\n'
            self.reload(service, policy, allowed, ") applied")
            echoes("three\n")
            denied = f'{allowed}[[deny]]\ngroups = ["LAB\\\\echo-users"]\n'
            self.reload(service, policy, denied, "[access-withdrawn]")
            self.assertEqual(session.wait(WAIT), 0)
            self.assertIn("the service has ended the session", session.stderr.read())
            for stream in (session.stdin, session.stdout, session.stderr):
                stream.close()
            self.assertIn(
                "the session with alice@LAB.EXAMPLE is over: [access-withdrawn] session: the "
                f"access policy does not allow this principal: denied by {policy}:4 [[deny]] "
                "LAB\\echo-users; its account is LAB\\alice",
                service.log,
            )
            self.assertEqual(service.stop(), 0)
