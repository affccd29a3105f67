"""One schema behind every front-end: the same values, and the same words for the same mistake."""

from __future__ import annotations

import io
import sys
import tomllib
from typing import Any
from unittest import mock

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.endpoints import strings
from mutauth_twisted.errors import UsageError
from mutauth_twisted.mechanisms import MECHANISMS
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.settings.read import Values
from mutauth_twisted.settings.schema import (
    ABOUT_GROUPS,
    ABOUT_SERVICE,
    ALIASES,
    FOR_ALL_PACKAGES,
    LIMITS,
    NEEDS,
    SECTIONS,
    UNAUTHENTICATED,
    Where,
    options,
)
from mutauth_twisted.settings.service import Settings, settings_of
from mutauth_twisted.settings.toml import TOML
from mutauth_twisted.settings.twistd import TWISTD, Options

MINIMAL = """
service-class = "echoSvc"
host = "srv1.example.com"
echo = true
allow = ["*@EXAMPLE.COM"]
"""
COMMAND_LINE = [
    "--service-class=echoSvc",
    "--host=srv1.example.com",
    "--echo",
    "--allow=*@EXAMPLE.COM",
]


def from_toml(text: str) -> Settings:
    """The service of a table."""
    return settings_of(tomllib.loads(MINIMAL + text))


def from_command_line(*words: str) -> Settings:
    """The service of a command line."""
    parsed = Options()
    parsed.parseOptions([*COMMAND_LINE, *words])
    return parsed.settings.services[0]


class SchemaTests(SynchronousTestCase):
    """The table itself."""

    def test_one_row_for_each_name(self) -> None:
        """No front-end's form has two rows of one name."""
        for where in Where:
            rows = [row for (_, taken), rows in SECTIONS.items() if taken & where for row in rows]
            self.assertEqual(len(rows), len({row.name for row in rows}), where)

    def test_rules_name_options(self) -> None:
        """A rule about an option that is not there would never apply."""
        every = options(~Where(0)).keys()
        named = {*ALIASES.values(), *LIMITS, *NEEDS, *UNAUTHENTICATED, *ABOUT_GROUPS}
        named.update(
            *ABOUT_SERVICE.values(),
            *FOR_ALL_PACKAGES.values(),
            (other for other, _ in NEEDS.values()),
        )
        for package in MECHANISMS.values():
            named |= package.client_options | package.service_options
        self.assertLessEqual(named, every)
        self.assertTrue(every.isdisjoint(ALIASES))

    def test_help(self) -> None:
        """Every option says in a sentence what it is for."""
        for _, rows in SECTIONS.items():
            for row in rows:
                self.assertRegex(row.text, r"^[A-Z`].*\.$")


class AgreementTests(SynchronousTestCase):
    """The front-ends agree."""

    def test_the_same_service(self) -> None:
        """A command line and a table of TOML describe one service alike."""
        for words, text in (
            ((), ""),
            (("--listen=tcp:1", "--listen=tcp:2"), 'listen = ["tcp:1", "tcp:2"]'),
            (("--spn-form=guid,host",), 'spn-form = ["guid", "host"]'),
            (("--spn-form=guid,host",), 'spn-form = "guid,host"'),
            (("--handshake-timeout=3",), "handshake-timeout = 3"),
            (("--check-interval=0.5", "--priority=7"), "check-interval = 0.5\npriority = 7"),
            (
                ("--max-connections=9", "--idle-timeout=60"),
                "max-connections = 9\nidle-timeout = 60",
            ),
            (("--accept-replays",), "accept-replays = true"),
            ((), "accept-replays = false"),
            (("--deny-group=guests", "--allow-all"), 'deny-group = ["guests"]\nallow-all = true'),
        ):
            self.assertEqual(from_command_line(*words), from_toml(text))

    def refusals(self, given: dict[str, Any]) -> list[str]:
        """Errors of the service's and the server's front-ends, each with its spelling."""
        base = {"service-class": "echoSvc", "host": "h.example.com", "echo": True}
        refused = []
        for front, values in (
            (TWISTD, base | given),
            (TOML, base | given),
            (strings.SERVER, {k: "yes" if v is True else v for k, v in given.items()}),
        ):
            refused.append(str(self.assertRaises(UsageError, Values, front, front.where, values)))
        return refused

    def test_the_same_words(self) -> None:
        """A rule stands once: each front-end has its words, and its own spelling of the options."""
        ntlm = {"package": "ntlm-service-unproven"}
        kerberos = (("package", "kerberos"), " or ", ("package", "negotiate"))
        for given, option, cause, remedy in (
            (
                {"tls-cert": "/c"},
                ("tls-cert",),
                ("it means nothing without ", ("protection", "tls")),
                ("add ", ("protection", "tls"), ", or leave it out"),
            ),
            (
                {"tls-key": "/k"},
                ("tls-key",),
                ("it means nothing without ", ("tls-cert",)),
                ("add ", ("tls-cert",), ", or leave it out"),
            ),
            (
                {"ntlm-users": "/u"},
                ("ntlm-users",),
                ("it means nothing without ", ("package", "ntlm-service-unproven")),
                ("leave it out, or use another package",),
            ),
            (
                {"wire": "pigeon"},
                ("wire", "pigeon"),
                ("there is no such choice",),
                ("use nns or winsock",),
            ),
            (
                {**ntlm, "ntlm-users": "/u", "accept-replays": True},
                ("accept-replays",),
                ("it means nothing without ", *kerberos),
                ("leave it out, or use another package",),
            ),
            (
                {**ntlm, "ntlm-users": "/u", "tls-cert": "/c"},
                ("tls-cert",),
                (("package", "ntlm-service-unproven"), " does not authenticate the service"),
                ("leave it out, or use another package",),
            ),
            (
                ntlm,
                ("ntlm-users",),
                ("it is missing",),
                (
                    "add ",
                    ("ntlm-users", "VALUE"),
                    ": File of DOMAIN:user:password lines, for package ntlm-service-unproven",
                ),
            ),
        ):
            expected = []
            for front in (TWISTD, TOML, strings.SERVER):

                def say(parts: Any, front: Any = front) -> str:
                    spelt = (
                        each if isinstance(each, str) else front.spell(*each) for each in parts
                    )
                    return "".join(spelt)

                subject = front.subject + front.spell(*option)
                expected.append(f"{subject}: {say(cause)}; {say(remedy)}")
            self.assertEqual(self.refusals(given), expected)

    def test_unauthenticated(self) -> None:
        """Options that would promise the directory's word have to be off where the service is not
        authenticated.
        """
        text = 'package = "ntlm-service-unproven"\nntlm-users = "/u"\n'
        error = self.assertRaises(UsageError, from_toml, text)
        self.assertEqual(
            str(error),
            'key package = "ntlm-service-unproven": publish = "scp" needs one that authenticates '
            'the service; add publish = "none"',
        )
        error = self.assertRaises(UsageError, from_toml, text + 'publish = "none"')
        self.assertIn('add spn-check = "off"', str(error))
        off = 'publish = "none"\nspn-check = "off"\n'
        for flags in ("", "accept-replays = false"):
            self.assertEqual(from_toml(text + off + flags), from_toml(text + off))
        elsewhere = from_toml(text + off + 'state-dir = "/s"')
        self.assertEqual(elsewhere.package_options, {"ntlm-users": "/u"})
        settings = from_toml(text + off)
        self.assertEqual(settings.package_options, {"ntlm-users": "/u"})

    def test_patterns_that_match_nobody(self) -> None:
        """A list in one pattern is refused, and each front-end says how it takes several."""
        text = "alice@LAB.EXAMPLE;bob@LAB.EXAMPLE"
        for name in ("allow", "deny"):
            remedies = (
                f"give --{name} once for each",
                f'give each as a string of its own: {name} = ["A", "B"]',
                f"write commas between them: {name}=A,B",
            )
            base = {"service-class": "echoSvc", "host": "h.example.com", "echo": True}
            for front, given, remedy in (
                (TWISTD, {**base, name: [text]}, remedies[0]),
                (TOML, {**base, name: [text]}, remedies[1]),
                (strings.SERVER, {name: text}, remedies[2]),
            ):
                error = self.assertRaises(UsageError, Values, front, front.where, given)
                subject = front.subject + front.spell(name, text)
                cause = "it looks like several, and would match no account"
                self.assertEqual(str(error), f"{subject}: {cause}; {remedy}")
        self.assertRaises(SystemExit, from_command_line, "--deny", "alice@X,bob@X")
        self.assertRaises(UsageError, from_toml, "deny = ['alice@X,bob@X']")

    def test_empty_values(self) -> None:
        """An option with nothing in it is refused, and does not count as not given: that would take
        another keytab or another realm.
        """
        base = {"service-class": "echoSvc", "host": "h.example.com", "echo": True}
        base |= {"allow-all": True}
        for option in options(TWISTD.where).values():
            if option.kind.types != (str,) or option.name in base.keys() - {"host"}:
                continue
            for text in ("", " ", "a\0b", "a\nb", "a\n"):
                value = [text] if option.kind.repeatable else text
                for front in (TWISTD, TOML):
                    given = {**base, option.name: value}
                    error = self.assertRaises(UsageError, Values, front, front.where, given)
                    self.assertIn(option.name, error.subject)
                    given = {**base, option.name: []}
                    if option.kind.repeatable:
                        error = self.assertRaises(UsageError, Values, front, front.where, given)
                        self.assertEqual(error.cause, "it is empty")
        for front in (strings.SERVER, strings.CLIENT):
            for form in (Where.SERVER, Where.DIRECT, Where.SCP, Where.RNR, Where.KEYWORD):
                for name, option in options(form & front.where).items():
                    if option.kind.types == (str,):
                        error = self.assertRaises(UsageError, Values, front, form, {name: ""})
                        self.assertIn(name, error.subject)

    def test_text(self) -> None:
        """Values that no directory, KDC or file system takes are refused in every front-end."""
        for front in (TWISTD, TOML, strings.SERVER):
            for given in ({"keytab": "\udcff"}, {"allow": ["\udcff@R"]}, {"\udcff": "x"}):
                error = self.assertRaises(UsageError, Values, front, front.where, given)
                self.assertEqual(error.cause, "it is not UTF-8")
        nameless: dict[Any, Any] = {1: 2}
        error = self.assertRaises(UsageError, settings_of, nameless)
        self.assertIn("key 1: there is no such key here", str(error))


class TomlTests(SynchronousTestCase):
    """Rules that only a table has: types, and keys that nobody has read before."""

    def refused(self, text: str) -> str:
        return str(self.assertRaises(UsageError, from_toml, text))

    def test_unknown_keys(self) -> None:
        """The nearest known one is named, or all there are."""
        for key, near in (
            ("listn", "listen"),
            ("max_handshakes", "max-handshakes"),
            ("alow-all", "allow-all"),
        ):
            said = self.refused(f"{key} = 1")
            start = f"key {key}: there is no such key here; did you mean {near}?"
            self.assertEqual(said, start)
        self.assertIn("here; known: ", self.refused("zzz = 1"))
        self.assertIn("key class: there is no such key", self.refused('class = "x"'))

    def test_wrong_types(self) -> None:
        """Each with what it is and what it has to be."""
        for text, words in (
            (
                'listen = "tcp:1"',
                'key listen = "tcp:1": it is a string; give it an array of strings',
            ),
            (
                "allow-group = [1]",
                "key allow-group = [1]: it is something else; give it an array of",
            ),
            ("wire = 1", "key wire = 1: it is an integer; give it a string"),
            ("priority = true", "key priority = true: it is a boolean; give it an integer"),
            ("priority = 1.0", "key priority = 1.0: it is a float; give it an integer"),
            ('idle-timeout = "60"', "it is a string; give it an integer or a float"),
            ('allow-all = "yes"', 'key allow-all = "yes": it is a string; give it a boolean'),
            ("keytab = {}", "key keytab = {}: it is a table; give it a string"),
            ("spn-form = 1", "it is an integer; give it a string or an array of strings"),
            ("realm = 2026-11-21", "it is something else; give it a string"),
        ):
            self.assertIn(words, self.refused(text))

    def test_wrong_values(self) -> None:
        """They are shown as they are written."""
        self.assertIn(
            "key weight = 65536: it is out of range; use 0 to", self.refused("weight=65536")
        )
        self.assertIn("key check-interval = -1: it is out", self.refused("check-interval = -1"))
        self.assertIn('key publish = "ldap": there is no', self.refused('publish = "ldap"'))

    def test_required(self) -> None:
        """A service has to have a name, something to serve, and clients."""
        for table, words in (
            ({}, 'key service-class: it is missing; add service-class = "NAME"'),
            (
                {"service-class": "a", "host": "b.c", "echo": True},
                'add allow = ["PATTERN"], or allow-all = true',
            ),
            (
                {"service-class": "a", "host": "b.c", "allow-all": True},
                "key echo: nothing is there to serve; give exactly one of echo, forward, factory",
            ),
        ):
            self.assertIn(words, str(self.assertRaises(UsageError, settings_of, table)))


class StringTests(SynchronousTestCase):
    """Names that only endpoint strings have: short names."""

    def test_aliases(self) -> None:
        """A short name is the same option, and errors name it as it was written."""
        for name in ("service-class=echoSvc:handshake-timeout=3", "class=echoSvc:timeout=3"):
            with mock.patch.object(strings, "LocatedEndpoint") as made:
                clientFromString(MemoryReactorClock(), f"mutauth:scp=a:{name}")
            self.assertEqual(made.call_args.args[2].service_class, "echoSvc")
            self.assertEqual(made.call_args.kwargs["security"].timeout, 3.0)
        for text, words in (
            ("timeout=0", "keyword timeout=0: it is out of range"),
            ("timeout=1:handshake-timeout=2", "handshake-timeout: timeout means the same"),
            ("tmeout=1", "there is no such keyword here; did you mean timeout?"),
        ):
            error = self.assertRaises(
                UsageError, clientFromString, MemoryReactorClock(), f"mutauth:scp=a:{text}"
            )
            self.assertIn(words, str(error))

    def test_limits(self) -> None:
        """Every limit is a keyword of servers; one that bounds nothing is refused by name."""
        given = {
            "max-handshakes": "3",
            "max-handshakes-per-address": "2",
            "max-waiting": "8",
            "max-waiting-per-address": "7",
            "max-connections-per-principal": "4",
            "max-connections": "5",
            "idle-timeout": "0.5",
            "max-session": "60",
            "keytab": "/etc/k",
        }
        values = Values(strings.SERVER, Where.SERVER, given)
        self.assertEqual(values.limits, Limits(3, 2, 5, 0.5, 60.0, 8, 7, 4))
        for text in (
            "max-handshakes=0",
            "max-handshakes=1.5",
            "max-handshakes=1_0",
            "max-connections=-1",
            "max-connections=1e9",
            "idle-timeout=inf",
            "idle-timeout=nan",
            "max-session=",
        ):
            error = self.assertRaises(
                UsageError, serverFromString, MemoryReactorClock(), f"mutauth:tcp\\:1:{text}"
            )
            self.assertIn(f"keyword {text}: it is out of range", str(error))


class TwistdTests(SynchronousTestCase):
    """Habits of Twisted's users on a command line."""

    def test_help(self) -> None:
        """Every option is in the help, with its choices and its default."""
        output = io.StringIO()
        with mock.patch.object(sys, "stdout", output):
            self.assertRaises(SystemExit, Options().parseOptions, ["--help"])
        text = " ".join(output.getvalue().split())
        for option in options(Where.SERVICE).values():
            self.assertIn(f"--{option.name}", text)
            self.assertIn(option.text.rstrip("."), text)
        for words in ("nns or winsock. [default: nns]", "[default: 10]", "; repeatable."):
            self.assertIn(words, text)

    def test_values_that_are_defaults(self) -> None:
        """An option that is given counts as given, even where it is the default."""
        limits = from_command_line("--max-connections=10000", "--max-session=1").explicit_limits
        self.assertEqual(limits, {"max-connections", "max-session"})
        self.assertEqual(from_command_line("--publish", "scp"), from_command_line())
