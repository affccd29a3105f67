"""The endpoint strings: what they make, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any
from unittest import mock
from uuid import UUID

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted import mechanisms
from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.directory.location import Selection
from mutauth_twisted.dns import Resolver
from mutauth_twisted.endpoints import strings
from mutauth_twisted.endpoints.located import LocatedEndpoint
from mutauth_twisted.endpoints.parsers import MutualAuthClientParser, MutualAuthServerParser
from mutauth_twisted.errors import CredentialError, UsageError
from mutauth_twisted.mechanisms import kerberos
from mutauth_twisted.mechanisms.ntlm import NtlmCredentials
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.net.server import (
    MutualAuthServerEndpoint,
    MutualAuthServerFactory,
)
from mutauth_twisted.protection import Protection
from mutauth_twisted.settings.schema import Where, options
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.fakes import FakeContext, captured_log
from mutauth_twisted.wire import NNS, WINSOCK
from tests.support.users import users_file

NTLM = "package=ntlm-service-unproven:ntlm-users=/etc/users"


class ClientStringTests(SynchronousTestCase):
    """``mutauth:...`` for clients."""

    def parse(self, text: str) -> Any:
        """Through Twisted itself, which finds the parser by its plugin."""
        return clientFromString(MemoryReactorClock(), text)

    def test_located(self) -> None:
        """scp= makes an endpoint that searches; a DN's commas and equals signs need no escape."""
        dn = "CN=echoSvc,CN=SRV1,CN=Computers,DC=lab,DC=example"
        with mock.patch.object(strings, "LocatedEndpoint", wraps=LocatedEndpoint) as made:
            self.parse(
                f"mutauth:scp={dn}:class=echoSvc:base=DC=lab,DC=example:hosts=*.lab.example:spn-form=guid"
                ":principal=alice@LAB.EXAMPLE:ccache=FILE\\:/tmp/cc:timeout=2.5:protection=sign:wire=nns"
            )
        selection, credentials = made.call_args.args[2:]
        self.assertEqual(
            (
                selection.selector,
                selection.service_class,
                selection.base,
                selection.spn_form,
                selection.hosts,
            ),
            (dn, "echoSvc", "DC=lab,DC=example", "guid", "*.lab.example"),
        )
        self.assertEqual(
            (credentials.principal, credentials.ccache), ("alice@LAB.EXAMPLE", "FILE:/tmp/cc")
        )
        security = SecurityOptions(NNS, Protection.SIGN, 2.5)
        self.assertEqual(
            made.call_args.kwargs,
            {"security": security, "wire": "nns", "authority": None, "keep": 60.0},
        )

    def test_cache(self) -> None:
        """Time for which an answer is kept; 0 is nothing, and no negative time."""
        for text, seconds in (("cache=0", 0.0), ("cache=2.5", 2.5), ("cache=3600", 3600.0)):
            for service in ("scp=a", "keyword=a:class=b", "rnr=a"):
                with mock.patch.object(strings, "LocatedEndpoint", wraps=LocatedEndpoint) as made:
                    self.parse(f"mutauth:{service}:{text}")
                self.assertEqual(made.call_args.kwargs["keep"], seconds)
        for text in ("cache=-1", "cache=3601", "cache=nan", "cache=", "cache=a"):
            self.assertIn(
                "it is out of range",
                str(self.assertRaises(UsageError, self.parse, f"mutauth:scp=a:{text}")),
            )

    def test_keyword(self) -> None:
        """keyword= takes any text, a GUID or a DN too, with the class that has to be found."""
        for keyword in ("c1b2a390-0000-4000-8000-000000000001", "CN=a,DC=b", "two words!"):
            with mock.patch.object(strings, "LocatedEndpoint", wraps=LocatedEndpoint) as made:
                self.parse(
                    f"mutauth:keyword={keyword}:class=echoSvc:hosts=*.lab.example:spn-form=host"
                )
            selection = made.call_args.args[2]
            self.assertEqual(
                (selection.kind, selection.selector, selection.guid), ("keyword", keyword, None)
            )
            self.assertEqual((selection.by_keyword, selection.wanted_class), (True, "echoSvc"))

    def test_the_class_that_is_wanted(self) -> None:
        """By keyword the keyword itself, unless class= says otherwise; by DN and GUID the object's
        own.
        """
        guid, dn = "c1b2a390-0000-4000-8000-000000000001", "CN=a,DC=b"
        for selector, given, wanted in (
            ("echoSvc", None, "echoSvc"),
            ("other", "echoSvc", "echoSvc"),
            (guid, None, None),
            (f"{{{guid}}}", None, None),
            (dn, None, None),
            (dn, "echoSvc", "echoSvc"),
        ):
            selection = Selection(selector, given)
            self.assertEqual(
                (selection.wanted_class, selection.by_keyword),
                (wanted, selector in ("echoSvc", "other")),
            )

    def test_hosts(self) -> None:
        """The case of A to Z does not count; what Unicode folds together is another host."""
        for pattern in ("SRV1.lab.example", "srv1.*", "[s]rv1.Lab.Example"):
            selection = Selection("echoSvc", hosts=pattern)
            self.assertTrue(selection.wants("Srv1.lab.example"))
            self.assertFalse(selection.wants("\u017frv1.lab.example"))
        self.assertFalse(Selection("echoSvc", hosts="kiosk.*").wants("\u212aiosk.lab.example"))
        self.assertFalse(Selection("echoSvc", hosts="cross.*").wants("cro\u00df.lab.example"))

    def test_rnr(self) -> None:
        """rnr= makes an endpoint that looks for an RnR service."""
        with mock.patch.object(strings, "LocatedEndpoint", wraps=LocatedEndpoint) as made:
            self.parse("mutauth:rnr=echo:class=echoSvc:hosts=*.lab.example")
        selection = made.call_args.args[2]
        self.assertEqual(
            (selection.kind, selection.selector, selection.service_class, selection.hosts),
            ("rnr", "echo", "echoSvc", "*.lab.example"),
        )

    def test_direct(self) -> None:
        """An escaped inner endpoint and an SPN, whose own colon is escaped as well."""
        with mock.patch.object(
            strings, "MutualAuthClientEndpoint", wraps=MutualAuthClientEndpoint
        ) as made:
            self.parse("mutauth:tcp\\:srv1.example.com\\:9000:spn=echoSvc/srv1.example.com\\:9000")
        self.assertEqual(str(made.call_args.args[2]), "echoSvc/srv1.example.com:9000")
        self.assertEqual(made.call_args.args[4], SecurityOptions())

    def test_refused(self) -> None:
        """An impossible value is a UsageError, hence a ValueError, that names it."""
        for text, word in (
            ("mutauth:", "spn"),
            ("mutauth:tcp\\:a\\:1", "spn"),
            ("mutauth:tcp:a:1:spn=a/b", "not escaped"),
            ("mutauth:tcp\\:a\\:1:spn=a", "SPN"),
            ("mutauth:tcp\\:a\\:1:spn=a/b:class=x", "class"),
            ("mutauth:tcp\\:a\\:1:scp=a", "scp"),
            ("mutauth:scp=a:bogus=1", "bogus"),
            ("mutauth:keyword=a", "add class=CLASS, the first part of its SPN"),
            ("mutauth:keyword=a:scp=a:class=b", "keyword keyword"),
            ("mutauth:scp=Foo, Bar", "name the class: keyword=Foo, Bar:class=CLASS"),
            (
                "mutauth:scp=*",
                "neither a DN of a domain, nor an objectGUID, nor a valid service class",
            ),
            ("mutauth:scp=a:class=*", "service class '*': it is not a valid service class"),
            ("mutauth:scp=a:spn-form=host", "name the hosts to be believed with hosts"),
            (
                "mutauth:scp=a:base=DC=lab,DC=example:spn-form=host",
                "name the hosts to be believed with hosts",
            ),
            ("mutauth:keyword=a:class=b:spn-form=host", "name the hosts to be believed with hosts"),
            (
                "mutauth:scp=CN\\=a,DC\\=b:class=c:spn-form=host",
                "name the hosts to be believed with hosts",
            ),
            (
                f"mutauth:scp={UUID(int=7)}:class=c:spn-form=host",
                "name the hosts to be believed with hosts",
            ),
            ("mutauth:scp=a:hosts=\u017frv1.*:spn-form=host", "host names are ASCII"),
            ("mutauth:rnr=a:spn-form=guid", "spn-form"),
            ("mutauth:rnr=a:base=DC=x", "base"),
            ("mutauth:rnr=a:scp=b", "rnr"),
            ("mutauth:tcp\\:a\\:1:rnr=a", "rnr= finds the endpoint by itself"),
            ("mutauth:scp=a:directory=ldaps\\://dc.example", "ca=FILE"),
            ("mutauth:scp=a:timeout=0", "timeout"),
            ("mutauth:scp=a:timeout=nan", "timeout"),
            ("mutauth:scp=a:timeout=inf", "timeout"),
            ("mutauth:scp=a:protection=plain", "plain"),
            (
                "mutauth:scp=a:package=ntlm",
                "package=ntlm: there is no such choice; use kerberos or negotiate",
            ),
            (
                "mutauth:scp=a:tls-ca=/a.pem",
                "keyword tls-ca: it means nothing without protection=tls; add protection=tls",
            ),
            (
                "mutauth:scp=a:protection=tls:tls-name=b",
                "keyword tls-name: it means nothing without tls-ca",
            ),
            (
                "mutauth:tcp\\:a\\:1:spn=a/b:tls-ca=/a.pem",
                "it means nothing without protection=tls",
            ),
            ("mutauth:scp=a:nameserver=localhost", "localhost"),
            ("mutauth:tcp\\:a\\:1:spn=a/b:nameserver=localhost", "localhost"),
            ("mutauth:unix\\:/a:spn=a/b:nameserver=192.0.2.1", "it goes with tcp:HOST:PORT only"),
        ):
            error = self.assertRaises(UsageError, self.parse, text)
            self.assertIsInstance(error, ValueError)
            self.assertIn(word, str(error))

    def test_nameserver(self) -> None:
        """With nameserver= the host of an inner endpoint is asked for there, and nowhere else."""
        for rest in ("spn=a/b", NTLM):
            reactor = MemoryReactorClock()
            # Whose first step asks nobody.
            self.patch(kerberos, "KerberosInitiator", lambda *_: FakeContext(initiator=True))
            with mock.patch.object(strings, "Resolver", wraps=Resolver) as made:
                endpoint = clientFromString(
                    reactor, f"mutauth:tcp\\:srv1\\:9000:{rest}:nameserver=192.0.2.53"
                )
            self.assertEqual(made.call_args.args, (reactor, "192.0.2.53"))
            connecting: Any = endpoint.connect(Factory.forProtocol(Protocol))
            self.assertEqual({call[1] for call in reactor.tcpClients}, {53})
            connecting.cancel()
            self.failureResultOf(connecting)

    def test_nameserver_of_the_environment(self) -> None:
        """It is for what has a host to look up, and no other endpoint is refused for it."""
        self.patch(os, "environ", {**os.environ, "MUTAUTH_NAMESERVER": "192.0.2.53"})
        for inner, asked in (
            ("tcp\\:srv1\\:9000", True),
            ("tcp\\:192.0.2.1\\:9000\\:bindAddress\\=192.0.2.2", False),
            ("unix\\:/a", False),
        ):
            with mock.patch.object(strings, "Resolver", wraps=Resolver) as made:
                clientFromString(MemoryReactorClock(), f"mutauth:{inner}:spn=a/b")
            self.assertEqual(made.called, asked, inner)

    def test_every_keyword_is_known(self) -> None:
        """Keywords that the help of mutauth connect lists are taken somewhere, and no others
        are.
        """
        listed = options(Where.CLIENT).keys()
        for keyword in listed:
            error = self.assertRaises(UsageError, self.parse, f"mutauth:{keyword}=:bogus=1")
            self.assertNotIn(f"keyword {keyword}: there is no such", str(error))
        for kind in (
            "scp=a",
            "keyword=a:class=b",
            "rnr=a",
            "tcp\\:a\\:1:spn=a/b",
            f"tcp\\:a\\:1:{NTLM}",
        ):
            error = self.assertRaises(UsageError, self.parse, f"mutauth:{kind}:bogus=1")
            known = str(error).partition("known: ")[2].split(", ")
            self.assertLessEqual(set(known), listed)
            self.assertGreater(len(known), 5)

    def test_ntlm(self) -> None:
        """The package that does not authenticate the service takes an endpoint, a file of users and
        one of them.
        """
        with mock.patch.object(
            strings, "MutualAuthClientEndpoint", wraps=MutualAuthClientEndpoint
        ) as made:
            self.parse(
                f"mutauth:tcp\\:a\\:1:{NTLM}:principal=alice@LAB:wire=winsock:protection=sign:timeout=3"
            )
        spn, credentials, security, where, tls = made.call_args.args[2:]
        self.assertIsNone(tls)
        self.assertEqual(
            (spn, credentials, where), (None, NtlmCredentials("/etc/users", "alice@LAB"), "tcp:a:1")
        )
        self.assertEqual(security, SecurityOptions(WINSOCK, Protection.SIGN, 3.0, mechanisms.NTLM))

    def test_ntlm_refused(self) -> None:
        """Nothing that would promise a proof goes with it, and its file goes with nothing else."""
        proof = "package=ntlm-service-unproven does not authenticate the service"
        for text, word in (
            (f"mutauth:scp=echo:{NTLM}", f"keyword scp: {proof}"),
            (f"mutauth:rnr=echo:{NTLM}", f"keyword rnr: {proof}"),
            (f"mutauth:tcp\\:a\\:1:spn=a/b:{NTLM}", f"keyword spn: {proof}"),
            (
                f"mutauth:tcp\\:a\\:1:ccache=FILE\\:/c:{NTLM}",
                "it means nothing without package=kerberos or",
            ),
            (f"mutauth:tcp\\:a\\:1:tls-ca=/c.pem:{NTLM}", f"keyword tls-ca: {proof}"),
            (f"mutauth:tcp\\:a\\:1:protection=tls:{NTLM}", "it cannot be bound to TLS"),
            (f"mutauth:tcp\\:a\\:1:bogus=1:{NTLM}", "keyword bogus: there is no such keyword"),
            (f"mutauth:{NTLM}", "it names no endpoint"),
            (
                "mutauth:tcp\\:a\\:1:package=ntlm-service-unproven",
                "keyword ntlm-users: it is missing",
            ),
            (
                "mutauth:tcp\\:a\\:1:spn=a/b:ntlm-users=/u",
                "it means nothing without package=ntlm-service-unproven",
            ),
            (
                "mutauth:scp=a:package=negotiate:ntlm-users=/u",
                "it means nothing without package=ntlm-service-unproven",
            ),
        ):
            self.assertIn(word, str(self.assertRaises(UsageError, self.parse, text)))

    def test_ntlm_is_never_located(self) -> None:
        """Nor without strings: neither a search nor an SPN goes with what proves nothing, nor
        others' credentials.
        """
        security, inner = SecurityOptions(package=mechanisms.NTLM), mock.Mock()
        users, spn = NtlmCredentials("/etc/users"), SPN.parse("a/b")
        selection = Selection("echo")
        self.assertRaises(
            UsageError,
            LocatedEndpoint,
            None,
            mock.Mock(),
            selection,
            ClientCredentials(),
            security=security,
        )
        for asked, credentials, used in (
            (spn, users, security),
            (None, ClientCredentials(), security),
            (None, users, SecurityOptions()),
            (spn, users, SecurityOptions()),
            (None, ClientCredentials(), SecurityOptions(package=mechanisms.NEGOTIATE)),
        ):
            with self.assertRaises(UsageError):
                MutualAuthClientEndpoint(MemoryReactorClock(), inner, asked, credentials, used)

    def test_plugins_are_light(self) -> None:
        """A twistd that serves something else loads neither Kerberos nor LDAP with the plugins."""
        code = (
            "import sys, twisted.plugins.mutauth; print([n for n in ('gssapi', 'spnego', 'ldap3') "
            "if n in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
        )
        self.assertEqual(done.stdout.strip(), "[]")

    def test_prefix(self) -> None:
        """Both parsers are found under one name."""
        self.assertEqual(
            (MutualAuthClientParser.prefix, MutualAuthServerParser.prefix), ("mutauth", "mutauth")
        )


class TextTests(SynchronousTestCase):
    """Strings that cannot be sent anywhere."""

    def test_surrogates(self) -> None:
        """Text that is not UTF-8 is refused before anything is looked for."""
        for text in (
            "mutauth:scp=\udcff",
            "mutauth:scp=x:base=CN=\udcff",
            "mutauth:tcp\\:\udcff\\:1:spn=a/b",
        ):
            self.assertIn(
                "is not UTF-8",
                str(self.assertRaises(UsageError, clientFromString, MemoryReactorClock(), text)),
            )
        text = "mutauth:tcp\\:1:allow=\udcff@R"
        self.assertIn(
            "is not UTF-8",
            str(self.assertRaises(UsageError, serverFromString, MemoryReactorClock(), text)),
        )


def keys_made() -> Any:
    """Kerberos keys, of whatever keytab; the patch is what makes them."""
    return mock.patch.object(
        kerberos, "ServiceKeys", return_value=mock.Mock(authenticates_service=True)
    )


def endpoints_made() -> Any:
    """Server endpoints, made as ever; the patch remembers from what."""
    return mock.patch.object(strings, "MutualAuthServerEndpoint", wraps=MutualAuthServerEndpoint)


class ServerStringTests(SynchronousTestCase):
    """``mutauth:...`` for servers."""

    def parse(self, text: str) -> Any:
        return serverFromString(MemoryReactorClock(), text)

    def test_server(self) -> None:
        """The inner endpoint, the keys, the policy and the channel arrive where they belong."""
        with keys_made() as keys, endpoints_made() as made:
            self.parse(
                "mutauth:tcp\\:9000:keytab=/etc/k:principal=svc@X:allow=*@X,bob@Y:deny=eve@X:timeout=3"
            )
        self.assertEqual(
            (keys.call_args.args[0].keytab, keys.call_args.args[0].principal), ("/etc/k", "svc@X")
        )
        self.assertEqual(made.call_args.args[3], AccessPolicy(("*@X", "bob@Y"), ("eve@X",)))
        self.assertEqual(
            made.call_args.args[4], SecurityOptions(timeout=3.0, package=mechanisms.NEGOTIATE)
        )
        self.assertEqual(keys.call_args.args[2], mechanisms.NEGOTIATE)

    def test_inner_endpoints(self) -> None:
        """Text that is not an endpoint, or has no port that there is, is said in one line."""
        with keys_made():
            for inner in ("nonsense\\:1", "tcp\\:abc", "tcp", "tcp\\:99999"):
                error = self.assertRaises(UsageError, self.parse, f"mutauth:{inner}:allow-all=yes")
                self.assertNotIn("\n", str(error))

    def test_accounts(self) -> None:
        """An account of a domain has its backslash doubled, as everywhere in such a string."""
        with keys_made(), endpoints_made() as made:
            self.parse("mutauth:tcp\\:9000:keytab=/etc/k:allow=LAB\\\\*:deny=LAB\\\\bob,eve@X")
        self.assertEqual(made.call_args.args[3], AccessPolicy(("LAB\\*",), ("LAB\\bob", "eve@X")))
        for wrong in ("LAB\\bob", "LAB\\\\bob@X"):
            with self.assertRaisesRegex(UsageError, "write"):
                self.parse(f"mutauth:tcp\\:9000:keytab=/etc/k:allow-all=yes:deny={wrong}")

    def test_limits(self) -> None:
        """Limits are keywords of servers, named as the options are; mistakes are named."""
        words = (
            "max-handshakes=9:max-handshakes-per-address=3:max-connections=7:idle-"
            "timeout=60:max-session=3600"
        )
        with keys_made(), endpoints_made() as made:
            self.parse(f"mutauth:tcp\\:9000:allow-all=yes:{words}")
            self.parse("mutauth:tcp\\:9000:allow-all=yes")
            wrong = "mutauth:tcp\\:1:allow-all=yes:max-connections=many"
            error = self.assertRaises(UsageError, self.parse, wrong)
        self.assertEqual(
            [call.args[5] for call in made.call_args_list],
            [Limits(9, 3, 7, 60.0, 3600.0), Limits()],
        )
        self.assertIn("max-connections=many", str(error))

    def test_groups_and_class(self) -> None:
        """Groups that are allowed, and the class that clients' tickets have to name."""
        with keys_made() as keys, endpoints_made() as made:
            self.parse(
                "mutauth:tcp\\:9000:class=echoSvc:allow-group=S-1-5-21-1-2-3-4,S-1-18-1:deny-group=S-1-18-2"
            )
        self.assertEqual(keys.call_args.args[1], "echoSvc")
        groups = ("S-1-5-21-1-2-3-4", "S-1-18-1")
        self.assertEqual(
            made.call_args.args[3], AccessPolicy(allow_groups=groups, deny_groups=("S-1-18-2",))
        )
        for keyword in ("allow-group", "deny-group"):
            wrong = f"mutauth:tcp\\:9000:allow-all=yes:{keyword}=Domain Users"
            error = str(self.assertRaises(UsageError, self.parse, wrong))
            self.assertIn(
                f"{keyword}=Domain Users: it is not a SID, and an endpoint string asks no",
                error,
            )
        wrong = "mutauth:tcp\\:9000:allow-group=S-1-5-32-544"
        self.assertIn("no ticket names it", str(self.assertRaises(UsageError, self.parse, wrong)))

    def test_ntlm(self) -> None:
        """A service that proves nothing: its users are its keys, and the log says so each time it
        starts to listen.
        """
        users = users_file(self, "LAB:alice:word")
        reactor = MemoryReactorClock()
        text = (
            f"mutauth:tcp\\:9000:package=ntlm-service-unproven:ntlm-users={users}:allow=alice@LAB"
        )
        endpoint = serverFromString(reactor, text)
        with captured_log() as events:
            self.successResultOf(endpoint.listen(Factory()))
            reactor.tcpServers[0][1].doStart()
        (line,) = [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]
        self.assertIn("package ntlm-service-unproven: this service is NOT AUTHENTICATED", str(line))
        self.assertEqual(len(reactor.tcpServers), 1)

    def test_ntlm_refused(self) -> None:
        """Nothing of Kerberos' goes with it, and its file goes with nothing else."""
        for words, text in (
            (f"{NTLM}:keytab=/k", "keyword keytab: it means nothing without"),
            (f"{NTLM}:class=echo", "keyword class: package=ntlm-service-unproven does not"),
            (f"{NTLM}:tls-cert=/c.pem", "keyword tls-cert: package=ntlm-service-unproven does"),
            (f"{NTLM}:allow-group=S-1-5-21-1-2-3-4", "does not tell a client's groups"),
            (f"{NTLM}:deny-group=S-1-5-21-1-2-3-4", "keyword deny-group: package=ntlm"),
            (f"{NTLM}:protection=tls", "it cannot be bound to TLS"),
            ("package=ntlm-service-unproven", "keyword ntlm-users: it is missing"),
            ("ntlm-users=/u", "it means nothing without"),
        ):
            self.assertIn(
                text,
                str(
                    self.assertRaises(
                        UsageError, self.parse, f"mutauth:tcp\\:1:allow-all=yes:{words}"
                    )
                ),
            )
        missing = (
            "mutauth:tcp\\:1:allow-all=yes:package=ntlm-service-unproven:ntlm-users=/"
            "nonexistent/users"
        )
        self.assertIn(
            "/nonexistent/users", str(self.assertRaises(CredentialError, self.parse, missing))
        )

    def test_packages_and_keys_go_together(self) -> None:
        """Users are no keys for Kerberos, and a channel of one package takes no keys of another."""
        users = NtlmCredentials(users_file(self, "LAB:alice:word"))
        ntlm = mechanisms.NTLM
        for package in (mechanisms.KERBEROS, mechanisms.NEGOTIATE):
            self.assertRaises(UsageError, package.acceptor_keys, users)
            security = SecurityOptions(package=package)
            with self.assertRaises(UsageError):
                MutualAuthServerFactory(
                    None, mock.Mock(), ntlm.acceptor_keys(users), AccessPolicy(), security
                )
        self.assertRaises(UsageError, ntlm.acceptor_keys, ServiceCredentials())
        with self.assertRaises(UsageError):
            MutualAuthServerFactory(
                None, mock.Mock(), mock.Mock(), AccessPolicy(), SecurityOptions(package=ntlm)
            )

    def test_no_client_is_allowed_by_default(self) -> None:
        """Without an allow it does not listen, whatever is denied."""
        for text in (
            "mutauth:tcp\\:9000",
            "mutauth:tcp\\:9000:deny=a@X",
        ):
            self.assertIn(
                "the access policy allows no client",
                str(self.assertRaises(UsageError, self.parse, text)),
            )

    def test_refused(self) -> None:
        """Patterns without a realm, choices that are invalid, and a keytab that is not there."""
        self.assertIn(
            "alice@REALM",
            str(self.assertRaises(UsageError, self.parse, "mutauth:tcp\\:1:allow=alice")),
        )
        self.assertIn(
            "maybe",
            str(self.assertRaises(UsageError, self.parse, "mutauth:tcp\\:1:allow-all=maybe")),
        )
        missing = "mutauth:tcp\\:1:allow-all=yes:keytab=/nonexistent/keytab"
        self.assertIn(
            "/nonexistent/keytab", str(self.assertRaises(CredentialError, self.parse, missing))
        )
