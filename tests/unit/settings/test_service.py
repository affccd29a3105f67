"""The options of ``twistd mutauth``: defaults that are safe, and mistakes in one line."""

from __future__ import annotations

import io
import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.directory.guidcache import DEFAULT_STATE_DIR
from mutauth_twisted.mechanisms import NEGOTIATE, NTLM
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.protection import Protection
from mutauth_twisted.service.publisher import Publisher
from mutauth_twisted.settings.service import Settings
from mutauth_twisted.settings.twistd import Options

MINIMAL = (
    "--service-class",
    "echoSvc",
    "--host",
    "srv1.example.com",
    "--echo",
    "--allow",
    "*@EXAMPLE.COM",
)


class OptionsTests(SynchronousTestCase):
    """Command lines."""

    def settings(self, *words: str) -> Settings:
        options = Options()
        options.parseOptions(words)
        return options.settings.services[0]

    def refused(self, *words: str) -> str:
        """The line with which a command line ends the process."""
        errors = io.StringIO()
        with mock.patch.object(sys, "stderr", errors):
            self.assertEqual(self.assertRaises(SystemExit, self.settings, *words).code, 2)
        line = errors.getvalue()
        self.assertTrue(line.startswith("mutauth: ") and line.count("\n") == 1, line)
        return line

    def test_defaults(self) -> None:
        """Options that are not given are safe: sealed, checked, published, any port, bounded."""
        settings = self.settings(*MINIMAL)
        self.assertEqual(
            (settings.listen, settings.publish, settings.spn_check), (("tcp:0",), True, "refuse")
        )
        self.assertEqual(
            (settings.service.spn_forms, settings.priority, settings.weight),
            (("guid", "dn"), 0, 100),
        )
        self.assertIs(settings.security.protection, Protection.SEAL)
        self.assertEqual((settings.security.wire.name, settings.security.timeout), ("nns", 10.0))
        self.assertIs(settings.security.package, NEGOTIATE)
        self.assertEqual(settings.policy, AccessPolicy(("*@EXAMPLE.COM",)))

    def test_tls(self) -> None:
        """TLS needs no certificate; one that is given goes with TLS only."""
        settings = self.settings(*MINIMAL, "--protection=tls", "--package=negotiate")
        self.assertEqual(
            (settings.security.protection, settings.security.package),
            (Protection.TLS, NEGOTIATE),
        )
        self.assertIsNone(settings.tls_files)
        given = self.settings(*MINIMAL, "--protection=tls", "--tls-cert=/a.pem", "--tls-key=/b.pem")
        self.assertEqual(given.tls_files, ("/a.pem", "/b.pem"))
        self.assertIn(
            "--tls-cert: it means nothing without --protection tls",
            self.refused(*MINIMAL, "--tls-cert=/a.pem"),
        )
        self.assertIn(
            "--tls-key: it means nothing without --tls-cert",
            self.refused(*MINIMAL, "--protection=tls", "--tls-key=/b.pem"),
        )
        self.assertIn(
            "use kerberos or negotiate or ntlm-service-unproven",
            self.refused(*MINIMAL, "--package=ntlm"),
        )

    def test_ntlm(self) -> None:
        """The package that does not authenticate the service needs its users, and everything that
        would promise a proof said off.
        """
        package, users = "--package=ntlm-service-unproven", "--ntlm-users=/etc/users"
        off = ("--publish=none", "--spn-check=off")
        settings = self.settings(*MINIMAL, package, users, *off)
        self.assertEqual(
            (settings.package_options, settings.security.package),
            ({"ntlm-users": "/etc/users"}, NTLM),
        )
        self.assertFalse(Publisher.is_needed(settings))
        self.assertEqual(
            self.settings(*MINIMAL, "--keytab=/k", "--accept-replays").package_options,
            {"keytab": "/k", "state-dir": str(DEFAULT_STATE_DIR), "accept-replays": True},
        )
        for words, text in (
            ((package, *off), "--ntlm-users: it is missing"),
            ((users,), "--ntlm-users: it means nothing without --package ntlm-service-unproven"),
            ((users, "--package=negotiate"), "--ntlm-users: it means nothing"),
            ((package, users), "add --publish none"),
            ((package, users, "--publish=rnr", "--spn-check=off"), "add --publish none"),
            ((package, users, "--publish=none"), "add --spn-check off"),
            (
                (package, users, *off, "--protection=tls"),
                "package ntlm-service-unproven: it cannot be bound to TLS",
            ),
            ((package, users, *off, "--keytab=/k"), "--keytab: it means nothing"),
            ((package, users, *off, "--account=svc"), "--account: --package ntlm-service"),
            (
                (package, users, *off, "--allow-group=S-1-5-21-1-2-3-4"),
                "--allow-group: --package ntlm-service-unproven does not",
            ),
            ((package, users, *off, "--deny-group=guests"), "does not tell a client's groups"),
        ):
            self.assertIn(text, self.refused(*MINIMAL, *words))

    def test_limits(self) -> None:
        """Every limit has an option, and a value when it is not given."""
        self.assertEqual(self.settings(*MINIMAL).limits, Limits())
        words = (
            "--max-handshakes=9",
            "--max-handshakes-per-address=3",
            "--max-connections=7",
            "--idle-timeout=60",
        )
        settings = self.settings(*MINIMAL, *words, "--max-session=3600")
        self.assertEqual(settings.limits, Limits(9, 3, 7, 60.0, 3600.0))
        self.assertIn("--idle-timeout 0", self.refused(*MINIMAL, "--idle-timeout=0"))

    def test_an_rnr_service(self) -> None:
        """--publish rnr means the SPN with the RnR service's DN, and goes with no other form."""
        settings = self.settings(*MINIMAL, "--publish=rnr", "--rnr-name=echo")
        self.assertEqual(
            (settings.publish, settings.entry, settings.service.rnr_name), (True, "rnr", "echo")
        )
        self.assertEqual(settings.service.spn_forms, ("rnr",))
        unpublished = self.settings(*MINIMAL, "--publish=none", "--spn-form=rnr")
        self.assertEqual((unpublished.publish, unpublished.entry), (False, "rnr"))
        self.assertEqual(self.settings(*MINIMAL).entry, "scp")
        for words in (
            ("--publish=rnr", "--spn-form=guid"),
            ("--publish=scp", "--spn-form=rnr"),
            ("--spn-form=guid,rnr",),
        ):
            self.assertIn("--spn-form", self.refused(*MINIMAL, *words))

    def test_check_interval(self) -> None:
        """Five minutes, or whatever is said; 0 is never."""
        for words, seconds in (
            ((), 300.0),
            (("--check-interval=0",), 0.0),
            (("--check-interval=86400",), 86400.0),
        ):
            self.assertEqual(self.settings(*MINIMAL, *words).check_interval, seconds)
        for wrong in ("-1", "86401", "nan", "soon"):
            self.assertIn("--check-interval", self.refused(*MINIMAL, f"--check-interval={wrong}"))

    def test_groups(self) -> None:
        """Groups alone say who is allowed, by SID or by a name that the directory is asked for
        later.
        """
        first, second = "S-1-5-21-1-2-3-1104", "s-1-5-21-1-2-3-1105"
        settings = self.settings(
            *MINIMAL[:5],
            "--allow-group",
            first,
            "--allow-group",
            second,
            "--deny-group",
            "S-1-18-2",
        )
        self.assertEqual(
            settings.policy,
            AccessPolicy(allow_groups=(first, second.upper()), deny_groups=("S-1-18-2",)),
        )
        self.assertEqual(settings.rules.names(), ())
        words = ("--allow-group", "Domain Users", "--deny-group", "LAB\\x", "--deny-group", second)
        settings = self.settings(*MINIMAL[:5], *words)
        names = settings.rules.names
        self.assertEqual((names("allow"), names("deny")), (("Domain Users",), ("LAB\\x",)))
        # Until the directory has told the groups.
        self.assertEqual(settings.policy, AccessPolicy())
        sids = {"Domain Users": (first,), "LAB\\x": ("S-1-18-1", "S-1-18-3")}
        self.assertEqual(
            AccessPolicy.of(settings.rules, lambda effect, name: sids[name]),
            AccessPolicy(allow_groups=(first,), deny_groups=("S-1-18-1", "S-1-18-3", second)),
        )

    def test_groups_refused(self) -> None:
        """Groups that no ticket names, and no rule at all, are refused; a denial alone allows no
        client.
        """
        for sid in ("S-1-5-32-544", "S-1-1-0", "S-1-5-11"):
            for option in ("--allow-group", "--deny-group"):
                self.assertIn(
                    f"group {sid}: no ticket names it", self.refused(*MINIMAL, option, sid)
                )
        self.assertIn(
            "--allow-group: it names no group", self.refused(*MINIMAL, "--allow-group", " ")
        )
        self.assertIn(
            "the access policy allows no client", self.refused(*MINIMAL[:5], "--deny-group", "x")
        )

    def test_repeatable(self) -> None:
        """Listening places, patterns and domain controllers may be given several times."""
        more = (
            "--listen",
            "tcp:1",
            "--listen",
            "tcp:2",
            "--allow",
            "a@B",
            "--deny",
            "c@D",
            "--directory",
            "ldap://dc",
        )
        settings = self.settings(*MINIMAL, *more)
        self.assertEqual(
            (settings.listen, settings.directory.servers), (("tcp:1", "tcp:2"), ("ldap://dc",))
        )
        self.assertEqual(settings.policy, AccessPolicy(("*@EXAMPLE.COM", "a@B"), ("c@D",)))

    def test_accounts(self) -> None:
        """A name as the log has it is taken; with a realm behind it the line has the right
        spelling.
        """
        settings = self.settings(*MINIMAL, "--deny", "LAB\\bob", "--allow", "LAB\\al*")
        self.assertEqual(
            settings.policy, AccessPolicy(("*@EXAMPLE.COM", "LAB\\al*"), ("LAB\\bob",))
        )
        for option in ("--deny", "--allow"):
            for realm in ("LAB.EXAMPLE", "*"):
                line = self.refused(*MINIMAL, option, f"LAB\\bob@{realm}")
                self.assertIn(
                    f"write bob@{realm}, or LAB\\bob with the domain's NetBIOS name", line
                )

    def test_nothing_is_shared_between_two(self) -> None:
        """Two services in one process do not see each other's options."""
        self.settings(*MINIMAL, "--listen", "tcp:1")
        self.assertEqual(self.settings(*MINIMAL).listen, ("tcp:0",))

    def test_who_may_in_must_be_said(self) -> None:
        """Without an allow there is no service."""
        self.assertIn("--allow-all", self.refused(*MINIMAL[:5]))
        self.assertIn("--allow-all", self.refused(*MINIMAL[:5], "--deny", "a@B"))

    def test_one_thing_to_serve(self) -> None:
        """Nothing, or two things, cannot be served."""
        self.assertIn("exactly one", self.refused(*MINIMAL[:4], *MINIMAL[5:]))
        self.assertIn("exactly one", self.refused(*MINIMAL, "--forward", "tcp:localhost:1"))

    def test_headers_of_anybody(self) -> None:
        """Twisted's own endpoint for PROXY headers is refused: clients would choose their address,
        in the log, the audit trail, and what a backend is told.
        """
        line = self.refused(*MINIMAL, "--listen", "haproxy:tcp:9000")
        self.assertIn("it believes PROXY headers of any sender", line)
        self.assertIn("use tcp:9000 and proxy-from", line)

    def test_told_to_the_backend(self) -> None:
        """Identity for a backend needs a backend; ident a loopback address of its own."""
        forward = (*MINIMAL[:4], *MINIMAL[5:], "--forward", "tcp:127.0.0.1:5432")
        plain = self.settings(*forward)
        told = (plain.proxy_protocol, plain.proxy_groups, plain.ident_address)
        self.assertEqual(told, (False, False, None))
        words = ("--proxy-protocol", "--proxy-protocol-groups", "--ident-address", "127.0.0.5")
        full = self.settings(*forward, *words)
        told = (full.proxy_protocol, full.proxy_groups, full.ident_address)
        self.assertEqual(told, (True, True, ("127.0.0.5", 113)))
        port = self.settings(*forward, "--ident-address", "127.1.2.3:1113")
        self.assertEqual(port.ident_address, ("127.1.2.3", 1113))
        passed = self.settings(*forward, "--ident-address", "127.0.0.5:ident")
        self.assertEqual(passed.ident_address, ("127.0.0.5", "ident"))
        for given, cause in (
            ((*MINIMAL, "--proxy-protocol"), "it means nothing without --forward"),
            ((*forward, "--proxy-protocol-groups"), "it means nothing without --proxy-protocol"),
            ((*MINIMAL, "--ident-address", "127.0.0.5"), "it means nothing without --forward"),
            ((*forward, "--ident-address", "10.0.0.5"), "it is not a loopback address"),
            ((*forward, "--ident-address", "localhost"), "it is not a loopback address"),
            ((*forward, "--ident-address", "127.0.0.5.example.com"), "it is not a loopback"),
            ((*forward, "--ident-address", "::1"), "it is not a loopback address"),
            ((*forward, "--ident-address", "127.0.0.1"), "every program of this machine"),
            ((*forward, "--ident-address", "127.0.0.5:"), "it is neither a port nor the name"),
            ((*forward, "--ident-address", "127.0.0.5:0"), "it is neither a port nor the name"),
            ((*forward, "--ident-address", "127.0.0.5:65536"), "it is neither a port nor the name"),
            ((*forward, "--ident-address", "127.0.0.5:a=b:c"), "it is neither a port nor the name"),
            (
                (*forward[:-1], "unix:/run/pg", "--ident-address", "127.0.0.5"),
                "only a tcp: backend can ask who is there",
            ),
        ):
            self.assertIn(cause, self.refused(*given), given)

    def test_mistakes(self) -> None:
        """Each is one line that names the option."""
        for words in (
            ("--bogus",),
            ("--priority", "-1"),
            ("--weight", "65536"),
            ("--weight", "²"),
            ("--handshake-timeout", "nan"),
            ("--handshake-timeout", "0"),
            ("--publish", "ldap"),
            ("--spn-check", "maybe"),
            ("--spn-form", ","),
            ("--spn-form", "upn"),
            ("--wire", "x"),
            ("--protection", "none"),
        ):
            self.assertIn(words[0], self.refused(*MINIMAL, *words))
        self.assertIn("--service-class", self.refused(*MINIMAL[2:]))
        self.assertIn("positional", self.refused(*MINIMAL, "positional"))
