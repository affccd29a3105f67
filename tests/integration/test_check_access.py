"""``mutauth check-access``: its verdict is that of a service to which the account connects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from mutauth_twisted.access import AccessPolicy, AccessRules, Logon, Rule, SessionLimits
from mutauth_twisted.admin.accesscheck import logon_by_ticket, logon_in_directory
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.acl import parse_sid
from mutauth_twisted.errors import NotFound, PeerRefused
from mutauth_twisted.ldap.session import Change
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.settings.access import read_policy
from tests.cases.groups import GLOBAL, LOCAL, SECURITY, UNIVERSAL, add_group, remove
from tests.integration.account_case import AccountCase
from tests.integration.commands import CommandTestCase

POLICY = """\
# Members, twice at once, for an hour; no computers, and not bob.
[[allow]]
groups = ["echo-users"]
max-connections-per-principal = 2
max-session = 3600

[[allow]]
accounts = ["*$@LAB.EXAMPLE"]

[[deny]]
accounts = ["srv1@LAB.EXAMPLE"]
"""


class VerdictTests(AccountCase):
    """Users, computers, nested and local groups, and every kind of rule."""

    async def group(self, name: str, kind: int, *members: str) -> tuple[str, str]:
        """A new security group; its DN and its SID."""
        dn = await self.do(lambda session: add_group(session, name, SECURITY | kind, members))
        self.addCleanup(lambda: self.administrator.run(lambda session: remove(session, dn)))
        entry = await self.do(lambda session: session.read(dn, ["objectSid"]))
        return dn, parse_sid(entry.values("objectSid")[0])

    def by_keytab(self, name: str) -> ClientCredentials:
        """One of the lab's accounts."""
        return ClientCredentials(
            principal=f"{name}@{self.lab.realm}",
            keytab=str(self.lab.keytab(name.removesuffix("$").lower())),
        )

    async def asked(self, principal: str) -> tuple[tuple[str, Any], tuple[str, Any]]:
        """Decisions by what the KDC and the directory tell."""
        service, keytab = self.lab.principal("svc-echo"), str(self.lab.keytab("svc-echo"))
        return (
            await deferToThread(logon_by_ticket, principal, service, keytab),
            await self.do(lambda session: logon_in_directory(session, principal)),
        )

    async def test_verdicts(self) -> None:
        """For each account the facts are those of its real ticket, and for each policy the verdict
        is that of the service.
        """
        user = await self.add(self.mallory, f"{self.ghost}@lab.example")
        inner, inner_sid = await self.group(f"in{self.tag}", GLOBAL, user)
        middle, _ = await self.group(f"mid{self.tag}", UNIVERSAL, inner)
        _, local_sid = await self.group(f"loc{self.tag}", LOCAL, middle)
        real = {
            "alice": self.alice,
            "bob": self.by_keytab("bob"),
            "SRV2$": self.by_keytab("SRV2$"),
            self.mallory: self.as_name(self.mallory),
            self.ghost: self.as_name(self.ghost),
        }
        realm, domain = self.lab.realm, self.lab.domain
        told: dict[str, list[tuple[str, Logon]]] = {}
        for name, credentials in real.items():
            identity = await self.allowed(AccessPolicy(allow_all=True), credentials)
            facts = identity.read_logon()
            told[name] = []
            for principal, logon in await self.asked(f"{name}@{realm}"):
                self.assertEqual(principal, identity.principal)
                assert logon is not None
                self.assertEqual(
                    (logon.name, logon.domain, logon.sid, set(logon.groups), logon.deny_only),
                    (facts.name, facts.domain, facts.sid, set(facts.groups), facts.deny_only),
                )
                self.assertEqual(logon.names_in(realm), facts.names_in(realm), name)
                told[name].append((principal, logon))
        policies = (
            AccessPolicy(allow=[f"alice@{realm}", f"{domain}\\bob"]),
            AccessPolicy(allow=[f"{self.mallory}@{realm}"]),
            AccessPolicy(allow=[f"{self.ghost}@{realm}"]),
            AccessPolicy(allow_all=True, deny=[f"{self.ghost}@{realm}", f"srv2@{realm}"]),
            AccessPolicy(allow=["*@*"], deny=[f"{domain}\\mal-*"]),
            AccessPolicy(allow=[f"s*@{realm}", f"b?b@{realm.lower()}"]),
            AccessPolicy(allow=[f"s*$@{realm}"]),
            AccessPolicy(allow_groups=[local_sid]),
            AccessPolicy(allow_groups=["S-1-18-1"], deny_groups=[inner_sid]),
            AccessPolicy(allow_groups=["S-1-18-2"]),
            AccessPolicy(
                rules=[
                    Rule("allow", "f:1", groups=(inner_sid,), limits=SessionLimits(1, 1, 60.0)),
                    Rule("deny", "f:9", (f"alice@{realm}",)),
                ]
            ),
        )
        seen = set()
        for policy in policies:
            for name, credentials in real.items():
                verdicts = [
                    policy.decide(who, lambda logon=logon: logon) for who, logon in told[name]
                ]
                self.assertEqual(verdicts[0].allowed, verdicts[1].allowed, (policy, name))
                seen.add(verdicts[0].allowed)
                if verdicts[0].allowed:
                    await self.allowed(policy, credentials)
                else:
                    await self.kept_out(policy, credentials)
        self.assertEqual(seen, {True, False})

    async def test_no_ticket(self) -> None:
        """An account that is unknown or disabled gets no ticket, which both tell."""
        dn = await self.add(self.mallory)
        disable = Change("replace", "userAccountControl", ("514",))
        await self.do(lambda session: session.modify(dn, [disable]))
        for name, code in ((self.mallory, "account-disabled"), (self.ghost, "account-not-found")):
            service, keytab = self.lab.principal("svc-echo"), str(self.lab.keytab("svc-echo"))
            by_ticket = await self.assertFailure(
                deferToThread(logon_by_ticket, name, service, keytab), NotFound
            )
            with self.assertRaises(NotFound) as by_directory:
                await self.do(lambda session, name=name: logon_in_directory(session, name))
            self.assertIn("it gets no ticket: ", str(by_ticket))
            self.assertEqual(by_directory.exception.code, code)

    async def test_file(self) -> None:
        """A file's rules decide of real tickets: members by a group's name, computers by a
        wildcard.
        """
        path = Path(self.mktemp()).absolute()
        path.write_text(POLICY)
        sids = {"echo-users": await self.sid_of("echo-users")}
        policy = AccessPolicy.of(
            AccessRules(read_policy(str(path))), lambda effect, name: (sids[name],)
        )
        await self.allowed(policy, self.alice)
        await self.allowed(policy, self.by_keytab("SRV2$"))
        await self.kept_out(policy, self.by_keytab("bob"))
        await self.kept_out(policy, self.by_keytab("SRV1$"))

    async def sid_of(self, name: str) -> str:
        """The SID of a group."""

        def find(session: Any) -> str:
            (entry,) = session.search(session.domain_dn, f"(sAMAccountName={name})", ["objectSid"])
            return parse_sid(entry.values("objectSid")[0])

        return await self.do(find)

    async def test_group_of_another_domain(self) -> None:
        """A group is its SID: one of the same name elsewhere, whose number is the same, is
        another.
        """
        own = await self.sid_of("echo-users")
        number = own.rpartition("-")[2]
        other = f"S-1-5-21-1-2-3-{number}"
        await self.allowed(AccessPolicy(allow_groups=[own]), self.alice)
        await self.kept_out(AccessPolicy(allow_groups=[other]), self.alice)
        await self.allowed(AccessPolicy(allow_all=True, deny_groups=[other]), self.alice)

    async def test_limits(self) -> None:
        """The limits of a rule are kept for real accounts under each of their names."""
        await self.add(self.mallory, f"{self.ghost}@lab.example")
        limits = SessionLimits(per_principal=1)
        policy = AccessPolicy(rules=[Rule("allow", "f:1", ("*@*",), limits=limits)])
        port = await self.listen(policy=policy)
        mallory = await self.connect(port, credentials=self.as_name(self.mallory))
        alice = await self.connect(port)
        self.servers, before = [], self.servers
        for name, *options in ((self.mallory,), (self.ghost,)):
            who = self.as_name(name, *options)
            await self.refused(self.connect(port, credentials=who), PeerRefused)
        # Without a PAC it would be an account of its own under each name.
        for name in (self.mallory, self.ghost):
            who = self.as_name(name, "--no-request-pac")
            await self.refused(
                self.connect(port, credentials=who), PeerRefused, "its access policy"
            )
        self.servers = before
        for client in (mallory, alice):
            client.protected.loseConnection()
            await client.ended

    async def test_own_limit(self) -> None:
        """A service's own limit holds where it allows everybody: without a PAC an account would
        have another name, and another session, for each way of writing it.
        """
        await self.add(self.mallory, f"{self.ghost}@lab.example")
        limits = Limits(per_principal=1)
        port = await self.listen(policy=AccessPolicy(allow_all=True), limits=limits)
        spelled = ((self.mallory,), (f"{self.mallory}@{self.lab.domain}", "-E"), (self.ghost,))
        self.servers, before = [], self.servers
        for name, *options in (*spelled, (f"{self.mallory} ",)):
            who = self.as_name(name, "--no-request-pac", *options)
            await self.refused(
                self.connect(port, credentials=who), PeerRefused, "its access policy"
            )
        self.servers = before
        first = await self.connect(port, credentials=self.as_name(self.mallory))
        self.servers, before = [], self.servers
        for name, *options in spelled:
            who = self.as_name(name, *options)
            await self.refused(self.connect(port, credentials=who), PeerRefused)
        self.servers = before
        first.protected.loseConnection()
        await first.ended


class CommandTests(CommandTestCase):
    """The command itself."""

    def setUp(self) -> None:
        super().setUp()
        self.policy = Path(self.state) / "policy.toml"
        self.policy.write_text(POLICY)
        self.where = ("--nameserver", self.lab.nameserver)

    def check(self, *words: str, **how: str) -> Any:
        return self.mutauth("check-access", *words, *self.where, **how)

    def test_by_directory(self) -> None:
        """A user with a ticket asks the directory, with the rules of options and file together."""
        allowed = self.check("alice", "--policy", str(self.policy))
        self.assertEqual((allowed.code, allowed.errors), (0, ""), allowed)
        self.assertEqual(
            allowed.output,
            f"alice@LAB.EXAMPLE (LAB\\alice) is allowed by {self.policy}:2 [[allow]] echo-users\n"
            "limits: max-connections-per-principal 2, max-session 3600\n",
        )
        denied = self.check("alice", "--policy", str(self.policy), "--deny", "LAB\\al*")
        self.assertEqual(denied.code, 1)
        self.assertIn(
            "alice@LAB.EXAMPLE (LAB\\alice) is denied: denied by --deny LAB\\al*", denied.output
        )
        denied = self.check("bob", "--policy", str(self.policy))
        self.assertEqual(denied.code, 1)
        self.assertIn("no rule allows it", denied.output)
        allowed = self.check("bob", "--policy", str(self.policy), "--group", "echo-users")
        self.assertEqual(allowed.code, 0, allowed)

    def test_by_the_kdc(self) -> None:
        """With the service's keytab its KDC is asked, and no ticket of one's own is needed; a
        program is told all.
        """
        add = ("spn", "add", "svc-echo", f"{self.service_class}/{self.host}", *self.where)
        self.assertEqual(self.mutauth(*add, user="administrator").code, 0)
        self.addCleanup(self.mutauth, "spn", "delete", *add[2:], user="administrator")
        keytab = ("--keytab", str(self.lab.keytab("svc-echo")))
        none = {"KRB5CCNAME": f"FILE:{self.state}/none"}
        allowed = self.check("alice", "--json", "--policy", str(self.policy), *keytab, **none)
        self.assertEqual(allowed.code, 0, allowed)
        told = json.loads(allowed.output)
        self.assertEqual(
            (told["allowed"], told["rule"], told["account"]),
            (True, f"{self.policy}:2 [[allow]] echo-users", "LAB\\alice"),
        )
        limits = {"max-connections-per-principal": 2, "max-session": 3600}
        self.assertEqual(told["limits"], limits)
        self.assertEqual(told["limited_by"], [{"rule": f"{self.policy}:2 [[allow]]", **limits}])
        denied = self.check("srv1$", "--json", "--policy", str(self.policy), *keytab, **none)
        self.assertEqual(denied.code, 1, denied)
        self.assertEqual(
            json.loads(denied.output)["rule"], f"{self.policy}:10 [[deny]] srv1@LAB.EXAMPLE"
        )
        nobody = self.check("nobody", "--allow-all", *keytab, **none)
        self.assertEqual(nobody.code, 1, nobody)
        self.assertIn("nobody is denied: it gets no ticket: ", nobody.output)

    def test_no_such_group(self) -> None:
        """A group that is not there is an error, as at the service's start."""
        self.refused(self.check("alice", "--allow-group", "no such"), 1, "group no such: lab.exam")

    def test_config(self) -> None:
        """With a configuration file the rules, the keytab and the directory are the service's."""
        self.assertEqual(self.install().code, 0)
        config = Path(self.state) / "mutauth.toml"
        config.write_text(
            f"""
            [defaults]
            service-class = "{self.service_class}"
            host = "{self.host}"
            keytab = "{self.lab.keytab("svc-echo")}"
            nameserver = "{self.lab.nameserver}"
            publish = "none"
            echo = true

            [service.one]
            policy = "{self.policy}"

            [service.two]
            allow = ["bob@LAB.EXAMPLE"]
            """
        )
        none = {"KRB5CCNAME": f"FILE:{self.state}/none"}
        for service, user, code in (
            ("one", "alice", 0),
            ("two", "alice", 1),
        ):
            words = (user, "--config", str(config), "--service", service)
            checked = self.mutauth("check-access", *words, **none)
            self.assertEqual(checked.code, code, checked)
        words = ("alice", "--config", str(config))
        self.refused(self.mutauth("check-access", *words, **none), 2, "give --service, one of one")
        words = (*words, "--service", "one", "--deny", "a@B")
        told = "--deny: the rules are those of --config"
        self.refused(self.mutauth("check-access", *words, **none), 2, told)

    def test_service(self) -> None:
        """A service with the file decides as the command does, and does not start with a file that
        is wrong.
        """
        self.assertEqual(self.install().code, 0)
        words = tuple(
            word
            for word in self.service_words("--policy", str(self.policy))
            if word not in ("--allow", "*@LAB.EXAMPLE")
        )
        with self.twistd(words) as service:
            for user, code in (("bob", 4), ("srv2", 0), ("srv1", 4)):
                connected = self.mutauth("connect", self.endpoint, given="hi\n", user=user)
                self.assertEqual(connected.code, code, connected)
                name = f"{user}$" if user.startswith("srv") else user
                checked = self.check(name, "--policy", str(self.policy))
                self.assertEqual(checked.code, int(code > 0), checked)
            self.assertIn("group echo-users is CN=echo-users", service.log)
        self.policy.write_text("[[alow]]")
        ended = self.command("twistd", *words)
        self.refused(
            ended, 2, f"{self.policy}:1: key alow: there is no such key here; did you mean"
        )
