"""Every refusal of Kerberos that is met in practice, from a real KDC: what the client says, and
what the service does.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path

import gssapi
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.spns import find_account, remove_spns
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    PeerNotAuthenticated,
    PeerRefused,
    ProtocolViolation,
    ToldByTicket,
)
from mutauth_twisted.mechanisms import KERBEROS, NEGOTIATE
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing import forge
from mutauth_twisted.testing.forge import set_clock
from tests.integration.commands import CommandTestCase, Ended
from tests.integration.kerberos_case import (
    AES128,
    AES128_ONLY,
    DISABLED,
    NORMAL,
    Account,
    KerberosTestCase,
    keytab,
)
from tests.integration.nns_peer import SPNEGO, NNSPeer

OTHER_KEY = (
    PeerRefused,
    (
        "the service refused the ticket: the ticket was made for another key",
        "new tickets with kinit",
        "keytab is old",
    ),
)
SMARTCARD_REQUIRED = 0x40000
#: accountExpires, in units of 100 ns since 1601: some day in 2019.
LONG_AGO = 132_000_000_000_000_000


class ErrorTestCase(KerberosTestCase):
    """A service whose account, and clients whose tickets, can be made to fail."""

    async def _register(self) -> None:
        await super()._register()
        self.port = await self.listen(self.service_keys())

    async def client_fails(
        self,
        kind: type[MutualAuthError],
        *words: str,
        spn: SPN | None = None,
        credentials: ClientCredentials | None = None,
    ) -> None:
        """The client finds out by itself, and the service hears nothing of it."""
        await self.both(self.port, (kind, words), None, spn, credentials)

    async def service_refuses(
        self,
        client: tuple[type[MutualAuthError], tuple[str, ...]],
        kind: type[MutualAuthError],
        *words: str,
        spn: SPN | None = None,
        credentials: ClientCredentials | None = None,
        port: int = 0,
    ) -> None:
        """The service refuses, and tells the client as much as a code says."""
        await self.both(port or self.port, client, (kind, words), spn, credentials)

    def configure(self, *lines: str, kdc: str | None = None) -> None:
        """Give new contexts of this process a krb5.conf with further settings, and another KDC."""
        path = self.here / "krb5.conf"
        text = self.lab.krb5_conf.read_text().replace(
            "[libdefaults]", "\n    ".join(("[libdefaults]", *lines))
        )
        if kdc is not None:
            text = text.replace(f"kdc = {self.lab.nameserver}", kdc)
        path.write_text(text)
        os.environ["KRB5_CONFIG"] = str(path)

    def configure_as_before(self) -> None:
        """Use the lab's krb5.conf again."""
        os.environ["KRB5_CONFIG"] = str(self.lab.krb5_conf)


class ClockTests(ErrorTestCase):
    """Clocks that differ, and tickets out of their time."""

    async def test_clock_skew(self) -> None:
        """A clock that is an hour off: the KDC says so, or the service does, to which five minutes
        are no matter.
        """
        credentials = self.fresh()
        set_clock(credentials.ccache or "", 3600)
        await self.client_fails(
            AuthenticationError, "the clocks of both sides differ", "NTP", credentials=credentials
        )
        credentials = self.fresh()
        await self.served(self.port, credentials=credentials)
        set_clock(credentials.ccache or "", 3600)
        told = (
            PeerRefused,
            ("the service refused the ticket: the clocks of both sides differ", "NTP"),
        )
        await self.service_refuses(
            told,
            AuthenticationError,
            "the clocks of both sides differ",
            "NTP",
            credentials=credentials,
        )
        set_clock(credentials.ccache or "", -3600)
        await self.client_fails(
            AuthenticationError, "the ticket is not valid yet", "NTP", credentials=credentials
        )
        set_clock(credentials.ccache or "", 200)
        await self.served(self.port, credentials=credentials)

    def forged(
        self, begin: int, end: int, *, account: str = "svc", key: bytes | None = None
    ) -> ClientCredentials:
        """A ticket made with the service's real key for a time from now in seconds, in a cache that
        tells another.
        """
        directory = self.here / os.urandom(4).hex()
        directory.mkdir()
        realm = forge.Realm(str(directory), self.lab.realm)
        realm.set_key(account, key or self.account.key().value)
        ccache = realm.ccache("alice", str(self.spn), account, lifetime=end, age=-begin)
        path = Path(ccache.removeprefix("FILE:"))
        content = path.read_bytes()
        # Behind the session key: authtime, starttime, endtime, renew_till; a wrong clock would show
        # them all shifted.
        at = content.index(struct.pack(">H", forge.AES256)) + 2
        at += 4 + struct.unpack_from(">I", content, at)[0]
        times = struct.unpack_from(">IIII", content, at)
        shift = (begin + end) // 2
        shifted = struct.pack(">IIII", *(each - shift if each else 0 for each in times))
        path.write_bytes(content[:at] + shifted + content[at + 16 :])
        return ClientCredentials(ccache=ccache)

    async def test_out_of_time(self) -> None:
        """A ticket that has ended, or not begun, for the service only; a few minutes of its
        beginning are no matter.
        """
        await self.served(self.port, credentials=self.forged(-3600, 3600))
        await self.served(self.port, credentials=self.forged(100, 3600))
        told = (
            PeerRefused,
            ("the service refused the ticket: the Kerberos ticket has expired", "kinit"),
        )
        expired = self.forged(-7200, -3600)
        await self.service_refuses(
            told, PeerNotAuthenticated, "its ticket has expired", "clock", credentials=expired
        )
        told = (PeerRefused, ("it did not accept the ticket",))
        ended = self.forged(-7200, -100)
        await self.service_refuses(
            told, PeerNotAuthenticated, "its ticket has expired", "clock", credentials=ended
        )
        told = (PeerRefused, ("the service refused the ticket: the ticket is not valid yet", "NTP"))
        early = self.forged(3600, 7200)
        await self.service_refuses(
            told, AuthenticationError, "the ticket is not valid yet", "NTP", credentials=early
        )

    async def test_expired(self) -> None:
        """A ticket for the KDC that has ended is the client's to renew."""
        user = await self.create("user")
        credentials = await self.kinit(user, self.here / "short", "-l", "5s")
        await self.client_fails(CredentialError, "expired", "kinit", credentials=credentials)

    async def test_replay(self) -> None:
        """A request that comes twice is refused the second time."""
        token = self.token()
        await self.answered(token)
        self.servers.clear()
        heard = await self.answered(token)
        self.assertIs(type(heard), PeerNotAuthenticated)
        self.assertIn("seen before (replay)", str(heard))

    async def test_both_packages(self) -> None:
        """Inside SPNEGO each failure is told as it is without it, to both sides, whichever comes
        first.
        """
        keys, security = (
            self.service_keys(package=NEGOTIATE),
            SecurityOptions(package=NEGOTIATE),
        )
        self.port = await self.listen(keys, security=security)
        skewed = self.fresh()
        await self.served(self.port, credentials=skewed)
        set_clock(skewed.ccache or "", 3600)
        self.put(self.file, self.account.key(), evolve(self.account, version=1).key())
        for credentials, client, (kind, *words) in (
            (
                skewed,
                "the clocks of both sides differ",
                (AuthenticationError, "the clocks of both sides differ"),
            ),
            (
                self.forged(-60, 3600, key=os.urandom(32)),
                "the ticket was made for another key",
                (PeerNotAuthenticated, "made for another key", str(self.spn), str(self.file)),
            ),
            (
                self.forged(-7200, -3600),
                "the Kerberos ticket has expired",
                (PeerNotAuthenticated, "its ticket has expired"),
            ),
        ):
            told = (PeerRefused, (f"the service refused the ticket: {client}",))
            for package in (NEGOTIATE, KERBEROS, NEGOTIATE):
                service, security = (kind, tuple(words)), SecurityOptions(package=package)
                await self.both(
                    self.port, told, service, credentials=credentials, security=security
                )
        for mechanism in (SPNEGO, gssapi.MechType.kerberos, SPNEGO):
            token = self.token(mechanism)
            await self.answered(token)
            self.servers.clear()
            heard = await self.answered(token)
            self.assertIs(type(heard), PeerNotAuthenticated)
            self.assertIn("seen before (replay)", str(heard))

    def token(self, mechanism: gssapi.OID = gssapi.MechType.kerberos) -> bytes:
        """A client's first token."""
        return (
            forge.third_party_initiator(
                self.spn, self.fresh().ccache or "", mechanism=mechanism
            ).step()
            or b""
        )

    async def answered(self, token: bytes) -> MutualAuthError | None:
        """Send a first token and leave; what the service says of it, and nothing of that to the
        client.
        """
        self.heard.clear()

        def talk() -> bytes:
            peer = NNSPeer(socket.create_connection(("127.0.0.1", self.port), 10))
            try:
                peer.send_frame(0x16, token)
                kind, answer = peer.read_frame()
                return answer if kind != 0x14 else b""
            finally:
                peer.close()

        answer = await deferToThread(talk)
        for secret in (str(self.file), str(self.here), "keytab", "version"):
            self.assertNotIn(secret.encode(), answer)
        return self.heard[-1] if self.heard else None

    async def test_other_tokens(self) -> None:
        """Bytes that are no Kerberos are the client's fault, in words about it and not about
        tickets of ours.
        """
        good = self.token()
        spnego = bytes.fromhex(
            "602806062b0601050502a01e301ca01a3018060a2b06010401823702021e060a2b06010401823702020a"
        )
        for token, words in (
            (b"", "this service takes Kerberos' own only"),
            (spnego, "this service takes Kerberos' own only"),
            (b"NTLMSSP\0\1\0\0\0" + bytes(32), "this service takes Kerberos' own only"),
            (os.urandom(40), "its token cannot be read"),
            (good[:60], "its token cannot be read"),
        ):
            heard = await self.answered(token)
            self.assertIs(type(heard), ProtocolViolation, words)
            self.assertIn(words, str(heard))
            self.assertTrue(heard and heard.remedy)
        heard = await self.answered(good[:-4] + bytes(4))
        self.assertIs(type(heard), PeerNotAuthenticated)
        self.assertIn("its request does not fit its ticket", str(heard))

    async def test_replay_cache(self) -> None:
        """A service that cannot write its replay cache says so, with the file; the client hears of
        no path.
        """
        for where in ("/nonexistent/rcache", str(self.file)):
            token = self.token()
            self.set_environment(KRB5RCACHEDIR=where)
            heard = await self.answered(token)
            os.environ["KRB5RCACHEDIR"] = str(self.lab.directory / "rcache")
            self.assertIs(type(heard), CredentialError)
            self.assertIn("cannot note which requests it has seen", str(heard))
            self.assertIn(where, str(heard))


class AccountTests(ErrorTestCase):
    """Clients' accounts that may not, when they ask for their first ticket and when they ask for
    the service's.
    """

    async def _register(self) -> None:
        await super()._register()
        self.user = await self.create("user")
        self.ticket = await self.kinit(self.user, self.here / "ticket")

    async def refused_by_kdc(
        self,
        first: tuple[str, ...] | None,
        later: tuple[str, ...] | None,
        account: Account | None = None,
        kind: type[MutualAuthError] = CredentialError,
    ) -> None:
        """Both kinds of request, with the words in each refusal, the later one of this kind; None:
        this KDC grants it.
        """
        copy = self.here / os.urandom(4).hex()
        shutil.copy(self.here / "ticket", copy)
        for words, expected, credentials in (
            (first, CredentialError, self.client_keytab(account or self.user)),
            (later, kind, ClientCredentials(ccache=f"FILE:{copy}")),
        ):
            if words is None:
                self.assertEqual(
                    await self.served(self.port, credentials=credentials), self.user.principal
                )
            else:
                await self.client_fails(expected, *words, credentials=credentials)

    async def test_disabled(self) -> None:
        """A disabled account; when it has a ticket, the KDC calls it policy."""
        await self.refused_by_kdc(None, None)
        await self.change(self.user, userAccountControl=DISABLED)
        policy = ("the KDC's policy forbids it", "may be disabled", "administrator")
        await self.refused_by_kdc(
            ("disabled, locked, expired", "administrator"), policy, kind=KDCRefused
        )

    async def test_expired_account(self) -> None:
        """An account whose time is over."""
        await self.change(self.user, accountExpires=LONG_AGO)
        await self.refused_by_kdc(
            ("disabled, locked, expired", "administrator"),
            ("the account has expired", "administrator"),
        )

    async def test_expired_password(self) -> None:
        """A password that must be changed."""
        await self.change(self.user, pwdLastSet=0)
        await self.refused_by_kdc(
            ("the password has expired", "kpasswd"), ("the password has expired", "kpasswd")
        )

    async def test_logon_hours(self) -> None:
        """An account that may not log on at this hour."""
        await self.change(self.user, logonHours=bytes(21))
        await self.refused_by_kdc(("outside its hours", "administrator"), None)

    async def test_locked(self) -> None:
        """An account that was locked after a wrong password, which is told first."""
        await self.lock_after(self.user, 1)
        locked = ("disabled, locked, expired", "administrator")
        wrong = evolve(self.user, password="wrong")
        await self.refused_by_kdc(
            ("refused the key or password", "export the keytab"), locked, wrong
        )
        await self.refused_by_kdc(locked, locked)

    async def test_changed_password(self) -> None:
        """A keytab of before the password was changed."""
        await self.new_password(self.user)
        await self.refused_by_kdc(("refused the key or password", "export the keytab again"), None)

    async def test_smart_card(self) -> None:
        """An account that needs a smart card has no password that a keytab could hold."""
        await self.change(self.user, userAccountControl=NORMAL | SMARTCARD_REQUIRED)
        await self.refused_by_kdc(("refused the key or password", "export the keytab again"), None)

    async def test_deleted(self) -> None:
        """An account that is gone, and one of the same name instead of it."""
        await self.do(lambda session: session.delete(self.user.dn))
        unknown = ("the KDC does not know the principal", "check its name and realm")
        await self.refused_by_kdc(unknown, unknown)
        await self.recreate(self.user)
        again = await self.kinit(self.user, self.here / "again")
        await self.served(self.port, credentials=again)
        copy = ClientCredentials(ccache=f"FILE:{self.here / 'ticket'}")
        await self.client_fails(
            CredentialError, "the KDC no longer accepts the ticket", "kinit", credentials=copy
        )


class KeyTests(ErrorTestCase):
    """Keys and encryption types that do not come together."""

    async def test_unknown_spn(self) -> None:
        """Names that nobody registered, in the domain and beyond it."""
        for host in (self.spn.host, "srv.elsewhere.example"):
            spn = SPN("nobodys", host)
            await self.client_fails(
                KDCRefused, str(spn), "the KDC knows no such service", "mutauth install", spn=spn
            )

    async def test_moved_spn(self) -> None:
        """An SPN on another account, with a key of the same version or a newer one."""
        other = await self.create("other")
        await self.do(
            lambda session: remove_spns(
                session, find_account(session, self.account.name), [self.spn]
            )
        )
        await self.register(other, self.spn)
        named = await self.listen(self.service_keys(principal=self.account.principal))
        for newer in (False, True):
            if newer:
                await self.new_password(other)
            for port in (self.port, named):
                if newer:
                    kind: type[MutualAuthError] = ToldByTicket
                    words = (
                        f"holds {self.account.version}",
                        "export the keytab again",
                        "on another account",
                    )
                else:
                    kind, words = (
                        PeerNotAuthenticated,
                        ("made for another key", "mutauth spn query", "klist -k"),
                    )
                await self.service_refuses(
                    OTHER_KEY, kind, str(self.spn), str(self.file), *words, port=port
                )

    async def test_altered_ticket(self) -> None:
        """A ticket that nobody but the client made."""
        forged = ClockTests.forged(self, -60, 3600, key=os.urandom(32))  # type: ignore[arg-type]
        self.put(self.file, evolve(self.account, version=1).key())
        await self.service_refuses(
            OTHER_KEY,
            PeerNotAuthenticated,
            "made for another key",
            "mutauth spn query",
            credentials=forged,
        )

    async def test_encryption_types(self) -> None:
        """An account that gets AES-128 tickets only, for a service or a client with AES-256 keys
        only.
        """
        await self.change(self.account, msDS_SupportedEncryptionTypes=AES128_ONLY)
        name = "aes128-cts-hmac-sha1-96"
        words = (
            str(self.spn),
            f"is encrypted with {name}, of which {self.file} holds no key",
            "msDS-Supported",
        )
        await self.service_refuses(OTHER_KEY, ToldByTicket, *words)
        self.configure("permitted_enctypes = aes256-cts-hmac-sha1-96")
        await self.client_fails(
            CredentialError, "no encryption type is common", "msDS-Supported", "permitted_enctypes"
        )

    async def test_client_permits_none(self) -> None:
        """A client whose krb5.conf permits nothing that the domain has, with a cache and with a
        keytab.
        """
        for kind in ("camellia256-cts-cmac", "aes256-cts-hmac-sha384-192"):
            self.configure(f"permitted_enctypes = {kind}")
            for credentials in (self.fresh(), self.client_keytab(self.account)):
                words = ("no encryption type is common", "permitted_enctypes")
                await self.client_fails(CredentialError, *words, credentials=credentials)

    async def test_client_keytab_lacks_the_type(self) -> None:
        """A client's keytab without a key of the type that the KDC wants."""
        credentials = self.client_keytab(self.account, self.account.key(AES128))
        words = (f"keytab {credentials.keytab}", "no key of an encryption type", "export all")
        await self.client_fails(CredentialError, *words, credentials=credentials)

    async def test_service_keytab_lacks_the_type(self) -> None:
        """A service's keytab without the type of its tickets."""
        self.put(self.file, self.account.key(AES128))
        words = ("is encrypted with aes256-cts-hmac-sha1-96", str(self.file), "export all")
        await self.service_refuses(OTHER_KEY, ToldByTicket, *words)


class SetupTests(ErrorTestCase):
    """Realms, KDCs, caches and keytabs that are not as they should be."""

    async def test_kdc_down(self) -> None:
        """No KDC answers, or none is known; with a cache and with a keytab."""
        for kdc, words in (
            ("kdc = 127.0.0.1:1", ("no KDC answers", self.lab.realm, "check the KDC")),
            ("", ("no KDC of the realm is known", self.lab.realm, "krb5.conf")),
        ):
            self.configure(kdc=kdc)
            for credentials in (self.fresh(), self.client_keytab(self.account)):
                await self.client_fails(KDCUnreachable, *words, credentials=credentials)

    async def test_realms(self) -> None:
        """A realm that nobody knows, a principal that the realm does not, and no realm at all."""
        elsewhere = self.client_keytab(evolve(self.account, realm="NOWHERE.EXAMPLE"))
        words = ("no KDC of the realm is known", "NOWHERE.EXAMPLE", "check the realm")
        await self.client_fails(KDCUnreachable, *words, credentials=elsewhere)
        nobody = self.client_keytab(evolve(self.account, name="nobody"))
        words = ("does not know the principal", "nobody@", "check its name")
        await self.client_fails(CredentialError, *words, credentials=nobody)
        path = self.here / "no-realm.conf"
        path.write_text("[libdefaults]\n    dns_lookup_kdc = false\n    dns_lookup_realm = false\n")
        os.environ["KRB5_CONFIG"] = str(path)
        words = ("no realm is known", "default_realm in krb5.conf")
        await self.client_fails(CredentialError, *words, credentials=self.fresh())

    async def test_caches(self) -> None:
        """Caches that are invalid, spoilt, cut, empty, or another's."""
        genuine = Path(self.lab.ccache("alice").removeprefix("FILE:")).read_bytes()
        path = self.here / "cache"
        for content, words in (
            (None, ("there is no Kerberos ticket", "kinit")),
            (b"", ("the ticket cache cannot be used", "kinit")),
            (b"garbage", ("the ticket cache cannot be used", "kinit")),
            (b"\x05\x09", ("the ticket cache cannot be used", "kinit")),
            (genuine[:200], ("there is no Kerberos ticket", "kinit")),
            (b"\x05\x04\0\0", ("there is no Kerberos ticket", "kinit")),
        ):
            if content is not None:
                path.write_bytes(content)
            credentials = ClientCredentials(ccache=f"FILE:{path}")
            await self.client_fails(
                CredentialError, f"ticket cache FILE:{path}: ", *words, credentials=credentials
            )
        for name in ("BOGUS:x", f"FILE:{self.here}"):
            credentials = ClientCredentials(ccache=name)
            await self.client_fails(
                CredentialError, f"ticket cache {name}: ", "cannot be used", credentials=credentials
            )
        other = evolve(self.fresh(), principal=self.lab.principal("bob"))
        await self.client_fails(
            CredentialError, "belongs to another principal", "kinit", credentials=other
        )

    async def test_client_keytabs(self) -> None:
        """A client's keytab that is away, spoilt, empty, cut, or another's."""
        path = self.here / "client.keytab"
        for content, words in (
            (None, "there is no such file; name"),
            (b"", "it holds no keys; export"),
            (b"garbage", "cannot be used (Unsupported key table format version number); name"),
            (keytab([]), "it holds no keys; export"),
            (keytab([self.account.key()])[:30], "it holds no keys; export"),
            (
                keytab([evolve(self.account.key(), principal="x@Y")]),
                "only of x@Y; export the right account's",
            ),
        ):
            if content is not None:
                path.write_bytes(content)
            for principal in (self.account.principal, None):
                if principal or content is None or b"x" not in content:
                    credentials = ClientCredentials(principal=principal, keytab=str(path))
                    await self.client_fails(
                        CredentialError, f"keytab {path}: ", words, credentials=credentials
                    )

    async def test_duplicate_spn(self) -> None:
        """One SPN on two accounts, past the domain controller's own check: to the KDC it is on
        none.
        """
        other = await self.create("other")
        await deferToThread(self.smuggle, other.dn)
        words = (
            str(self.spn),
            "no such service, or finds its name on several accounts",
            "mutauth spn query",
        )
        await self.client_fails(KDCRefused, *words)

    def smuggle(self, dn: str) -> None:
        """Write the SPN into the controller's database file, below all of its checks."""
        database = (
            self.lab.directory / "samba/private/sam.ldb.d" / f"{self.lab.base_dn.upper()}.ldb"
        )
        change = (
            f"dn: {dn}\nchangetype: modify\nadd: servicePrincipalName\nservicePrincipalName: "
            f"{self.spn}\n"
        )
        subprocess.run(
            ["ldbmodify", "-H", str(database)],
            input=change,
            text=True,
            capture_output=True,
            check=True,
        )


class CommandTests(ErrorTestCase, CommandTestCase):
    """The same in the words and exit codes of ``mutauth connect``."""

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        CommandTestCase.setUp(self)
        return super().setUp()

    async def test_exit_codes(self) -> None:
        """4 for what Kerberos refuses, 3 when no KDC answers; one line each, with what to do."""
        old = self.client_keytab(await self.create("user"))
        (self.here / "no-kdc.conf").write_text(
            self.lab.krb5_conf.read_text().replace(
                f"kdc = {self.lab.nameserver}", "kdc = 127.0.0.1:1"
            )
        )
        unknown = SPN("nobodys", self.spn.host)
        cache = f":ccache={(self.fresh().ccache or '').removeprefix('FILE:')}"
        keytab_of_before = f":principal={old.principal}:keytab={old.keytab}"
        account = await self.do(
            lambda session: find_account(session, (old.principal or "").partition("@")[0])
        )
        await self.new_password(Account(account.name, self.lab.realm, account.dn, ""))
        attempts = (
            (4, unknown, cache, {}, ("the KDC knows no such service", "mutauth install")),
            (
                4,
                self.spn,
                keytab_of_before,
                {},
                ("the KDC refused the key", "export the keytab again"),
            ),
            (
                3,
                unknown,
                cache,
                {"KRB5_CONFIG": str(self.here / "no-kdc.conf")},
                ("no KDC answers", "check the KDC"),
            ),
        )

        def attempt(spn: SPN, who: str, environment: dict[str, str]) -> Ended:
            endpoint = f"mutauth:tcp\\:127.0.0.1\\:{self.port}:spn={spn}{who}"
            return self.mutauth("connect", endpoint, given="hello", **environment)

        running = [
            deferToThread(attempt, spn, who, environment)
            for _, spn, who, environment, _ in attempts
        ]
        for (code, _, _, _, words), waiting in zip(attempts, running, strict=True):
            CommandTestCase.refused(self, await waiting, code, *words)
