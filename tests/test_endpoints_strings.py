"""The endpoint strings: what they make, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from unittest import mock

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.endpoints import strings
from mutauth_twisted.endpoints.located import LocatedEndpoint
from mutauth_twisted.endpoints.parsers import MutualAuthClientParser, MutualAuthServerParser
from mutauth_twisted.errors import CredentialError, UsageError
from mutauth_twisted.net.endpoints import MutualAuthClientEndpoint, MutualAuthServerEndpoint
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.net.protocol import Channel
from mutauth_twisted.policy import AccessPolicy, Protection
from mutauth_twisted.wire import NNS


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
            (selection.selector, selection.service_class, selection.base, selection.spn_form, selection.hosts),
            (dn, "echoSvc", "DC=lab,DC=example", "guid", "*.lab.example"),
        )
        self.assertEqual((credentials.principal, credentials.ccache), ("alice@LAB.EXAMPLE", "FILE:/tmp/cc"))
        channel = Channel(NNS, Protection.SIGN, 2.5)
        self.assertEqual(made.call_args.kwargs, {"channel": channel, "wire": "nns", "authority": None})

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
        with mock.patch.object(strings, "MutualAuthClientEndpoint", wraps=MutualAuthClientEndpoint) as made:
            self.parse("mutauth:tcp\\:srv1.example.com\\:9000:spn=echoSvc/srv1.example.com\\:9000")
        self.assertEqual(str(made.call_args.args[2]), "echoSvc/srv1.example.com:9000")
        self.assertEqual(made.call_args.args[4], Channel())

    def test_refused(self) -> None:
        """Whatever cannot be is a UsageError, hence a ValueError, that names it."""
        for text, word in (
            ("mutauth:", "spn"),
            ("mutauth:tcp\\:a\\:1", "spn"),
            ("mutauth:tcp:a:1:spn=a/b", "not escaped"),
            ("mutauth:tcp\\:a\\:1:spn=a", "SPN"),
            ("mutauth:tcp\\:a\\:1:spn=a/b:class=x", "class"),
            ("mutauth:tcp\\:a\\:1:scp=a", "scp"),
            ("mutauth:scp=a:bogus=1", "bogus"),
            ("mutauth:rnr=a:spn-form=guid", "spn-form"),
            ("mutauth:rnr=a:base=DC=x", "base"),
            ("mutauth:rnr=a:scp=b", "rnr"),
            ("mutauth:tcp\\:a\\:1:rnr=a", "rnr= finds the endpoint by itself"),
            ("mutauth:scp=a:directory=ldaps\\://dc.example", "ca=FILE"),
            ("mutauth:scp=a:timeout=0", "timeout"),
            ("mutauth:scp=a:timeout=nan", "timeout"),
            ("mutauth:scp=a:timeout=inf", "timeout"),
            ("mutauth:scp=a:protection=plain", "plain"),
            ("mutauth:scp=a:package=ntlm", "package=ntlm: there is no such choice; use kerberos or negotiate"),
            ("mutauth:scp=a:tls-ca=/a.pem", "keyword tls-ca: there is no TLS to use it for; add protection=tls"),
            ("mutauth:scp=a:protection=tls:tls-name=b", "keyword tls-name: it means nothing without tls-ca"),
            ("mutauth:tcp\\:a\\:1:spn=a/b:tls-ca=/a.pem", "there is no TLS to use it for"),
            ("mutauth:scp=a:nameserver=localhost", "localhost"),
        ):
            error = self.assertRaises(UsageError, self.parse, text)
            self.assertIsInstance(error, ValueError)
            self.assertIn(word, str(error))

    def test_plugins_are_light(self) -> None:
        """A twistd that serves something else loads neither Kerberos nor LDAP with the plugins."""
        code = "import sys, twisted.plugins.mutauth; print([n for n in ('gssapi', 'spnego', 'ldap3') if n in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        self.assertEqual(done.stdout.strip(), "[]")

    def test_prefix(self) -> None:
        """Both parsers are found under one name."""
        self.assertEqual((MutualAuthClientParser.prefix, MutualAuthServerParser.prefix), ("mutauth", "mutauth"))


class ServerStringTests(SynchronousTestCase):
    """``mutauth:...`` for servers."""

    def parse(self, text: str) -> Any:
        return serverFromString(MemoryReactorClock(), text)

    def test_server(self) -> None:
        """The inner endpoint, the keys, the policy and the channel arrive where they belong."""
        with (
            mock.patch.object(strings, "ServiceKeys") as keys,
            mock.patch.object(strings, "MutualAuthServerEndpoint", wraps=MutualAuthServerEndpoint) as made,
        ):
            self.parse("mutauth:tcp\\:9000:keytab=/etc/k:principal=svc@X:allow=*@X,bob@Y:deny=eve@X:timeout=3")
        self.assertEqual((keys.call_args.args[0].keytab, keys.call_args.args[0].principal), ("/etc/k", "svc@X"))
        self.assertEqual(made.call_args.args[3], AccessPolicy(("*@X", "bob@Y"), ("eve@X",)))
        self.assertEqual(made.call_args.args[4], Channel(timeout=3.0))

    def test_limits(self) -> None:
        """Limits are keywords of servers, named as the options are; mistakes are named."""
        words = "max-handshakes=9:max-handshakes-per-address=3:max-connections=7:idle-timeout=60:max-session=3600"
        with (
            mock.patch.object(strings, "ServiceKeys"),
            mock.patch.object(strings, "MutualAuthServerEndpoint", wraps=MutualAuthServerEndpoint) as made,
        ):
            self.parse(f"mutauth:tcp\\:9000:allow-all=yes:{words}")
            self.parse("mutauth:tcp\\:9000:allow-all=yes")
            wrong = "mutauth:tcp\\:1:allow-all=yes:max-connections=many"
            error = self.assertRaises(UsageError, self.parse, wrong)
        self.assertEqual([call.args[5] for call in made.call_args_list], [Limits(9, 3, 7, 60.0, 3600.0), Limits()])
        self.assertIn("max-connections=many", str(error))

    def test_groups_and_class(self) -> None:
        """Groups that may in, and the class that clients' tickets have to name."""
        with (
            mock.patch.object(strings, "ServiceKeys") as keys,
            mock.patch.object(strings, "MutualAuthServerEndpoint", wraps=MutualAuthServerEndpoint) as made,
        ):
            self.parse("mutauth:tcp\\:9000:class=echoSvc:allow-group=S-1-5-21-1-2-3-4,S-1-18-1:deny-group=S-1-18-2")
        self.assertEqual(keys.call_args.args[1], "echoSvc")
        groups = ("S-1-5-21-1-2-3-4", "S-1-18-1")
        self.assertEqual(made.call_args.args[3], AccessPolicy(allow_groups=groups, deny_groups=("S-1-18-2",)))
        for keyword in ("allow-group", "deny-group"):
            wrong = f"mutauth:tcp\\:9000:allow-all=yes:{keyword}=Domain Users"
            error = str(self.assertRaises(UsageError, self.parse, wrong))
            self.assertIn(f"{keyword}=Domain Users: it is no SID, and an endpoint string asks no directory", error)
        wrong = "mutauth:tcp\\:9000:allow-group=S-1-5-32-544"
        self.assertIn("no ticket names it", str(self.assertRaises(UsageError, self.parse, wrong)))

    def test_nobody_is_let_in_by_default(self) -> None:
        """Without an allow it does not listen, whatever is denied."""
        for text in ("mutauth:tcp\\:9000", "mutauth:tcp\\:9000:deny=a@X", "mutauth:tcp\\:9000:allow=:allow-all=no"):
            self.assertIn("nobody is let in", str(self.assertRaises(UsageError, self.parse, text)))

    def test_refused(self) -> None:
        """Patterns without a realm, choices that are none, and a keytab that is not there."""
        self.assertIn("alice@REALM", str(self.assertRaises(UsageError, self.parse, "mutauth:tcp\\:1:allow=alice")))
        self.assertIn("maybe", str(self.assertRaises(UsageError, self.parse, "mutauth:tcp\\:1:allow-all=maybe")))
        missing = "mutauth:tcp\\:1:allow-all=yes:keytab=/nonexistent/keytab"
        self.assertIn("/nonexistent/keytab", str(self.assertRaises(CredentialError, self.parse, missing)))
