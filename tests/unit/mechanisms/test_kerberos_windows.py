"""The context of a client on Windows, over the same API of pyspnego's: real Kerberos by GSSAPI,
NTLM, and stand-ins.

SSPI itself is on Windows only, and nothing here has met it.
"""

from __future__ import annotations

import base64
import logging
import math
import subprocess
import sys
from typing import Any
from unittest import mock

import spnego
from spnego import ContextReq, NegotiateOptions
from spnego.exceptions import NativeError, SpnegoError
from spnego.iov import BufferType, IOVResBuffer
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted import windows
from mutauth_twisted.core.channelbinding import TLS_EXPORTER, TLS_SERVER_END_POINT, ChannelBinding
from mutauth_twisted.core.confirmation import Confirmed, Confirming
from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.core.mechanism import Mechanism
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.endpoints.strings import client_endpoint, server_endpoint
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    PeerNotAuthenticated,
    RecordError,
    UsageError,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.mechanisms import KERBEROS, NEGOTIATE, NTLM
from mutauth_twisted.mechanisms import kerberos_windows as module
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.mechanisms.kerberos_windows import SspiInitiator
from mutauth_twisted.mechanisms.ntlm import NtlmCredentials
from mutauth_twisted.mechanisms.pyspnego import keep_quiet
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.forge import make_realm, set_environment
from mutauth_twisted.wire import NNS, WINSOCK

SEAL, SIGN, TLS = Protection.SEAL, Protection.SIGN, Protection.TLS
BY_HOST = SPN.parse("echoSvc/srv1.test.example")
BY_DN = SPN("echoSvc", "srv1.test.example", "CN=echoSvc,CN=SRV1,DC=test,DC=example", "9000")
CHANNEL = ChannelBinding(TLS_EXPORTER, bytes(32))


class Case(SynchronousTestCase):
    """A service ``svc-echo`` with an SPN; alice's ticket for it is in the process's own cache, as
    in a logon session.
    """

    def setUp(self) -> None:
        self.realm = make_realm(self)
        set_environment(self, {"KRB5CCNAME": self.realm.ccache("alice", str(BY_HOST), "svc-echo")})
        self.keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")), None, NEGOTIATE)

    def established(
        self,
        protection: Protection = SEAL,
        package: Mechanism = KERBEROS,
        channel: ChannelBinding | None = None,
    ) -> tuple[SspiInitiator, Any]:
        client, server = (
            SspiInitiator(BY_HOST, protection, package, channel),
            self.keys.acceptor("client", channel),
        )
        outcome = client.step(None)
        self.assertTrue(client.blocking)
        while not outcome.complete:
            outcome = client.step(server.step(outcome.token).token)
        return client, server


class HandshakeTests(Case):
    """Results of a handshake with a real service."""

    def test_authenticated(self) -> None:
        """Both packages end with Kerberos; the service is the SPN that was asked for, and the
        client is known to it.
        """
        for package in (KERBEROS, NEGOTIATE):
            client, server = self.established(package=package)
            known = client.verify(SEAL)
            flags = SEAL.requested_flags
            self.assertEqual(
                known, PeerIdentity(str(BY_HOST), BY_HOST, package.name, SEAL, flags, math.inf)
            )
            self.assertEqual(known.realm, "")
            self.assertEqual(server.verify(SEAL).principal, "alice@TEST.EXAMPLE")

    def test_protections(self) -> None:
        """Flags that are asked for are those that the protection requires; both sides see the same
        come of it (MIT seals anyway).
        """
        for protection in (SEAL, SIGN):
            client, server = self.established(protection)
            self.assertEqual(int(client._proxy.context_req), int(protection.requested_flags))
            self.assertIs(
                client.verify(protection).protection, server.verify(protection).protection
            )

    def test_incomplete(self) -> None:
        """Nothing is verified before the service's token, although all the flags are there
        already.
        """
        client = SspiInitiator(BY_HOST, SEAL)
        self.assertRaises(PeerNotAuthenticated, client.verify, SEAL)
        client.step(None)
        self.assertEqual(client._proxy.context_attr & int(Flag.MUTUAL), int(Flag.MUTUAL))
        error = self.assertRaises(PeerNotAuthenticated, client.verify, SEAL)
        self.assertIn("did not end with Kerberos", str(error))

    def test_three_parts(self) -> None:
        """pyspnego composes the very SPN, of three parts and with a port, which is SSPI's target
        name.
        """
        for spn in (BY_HOST, BY_DN):
            self.assertEqual(SspiInitiator(spn, SEAL)._open().spn, str(spn))

    def test_principal_is_escaped(self) -> None:
        """An SPN with an '@' in it claims no realm."""
        client, _ = self.established()
        client._spn = SPN("echoSvc", "srv1.test.example", "CN=a@B,DC=test")
        known = client.verify(SEAL)
        self.assertEqual(
            (known.principal, known.realm), ("echoSvc/srv1.test.example/CN=a\\@B,DC=test", "")
        )

    def test_channel(self) -> None:
        """The ticket is bound to the TLS channel, between peers of this package and with others."""
        client, server = self.established(TLS, channel=CHANNEL)
        self.assertIs(client.verify(TLS).protection, TLS)
        self.assertIn(Flag.CHANNEL_BOUND, server.verify(TLS).flags)
        foreign = ChannelBinding(TLS_SERVER_END_POINT, bytes(32))
        client, server = self.established(TLS, channel=foreign)
        self.assertIs(client.verify(TLS).protection, SEAL)
        self.assertIn(Flag.CHANNEL_BOUND, server.verify(TLS).flags)

    def test_other_channel(self) -> None:
        """Bound to one channel, it is no good on another; and TLS is not verified without one, nor
        the rest with one.
        """
        client = SspiInitiator(BY_HOST, TLS, KERBEROS, CHANNEL)
        server = self.keys.acceptor("client", ChannelBinding(TLS_EXPORTER, bytes(31) + b"\1"))
        self.assertRaises(StepFailed, server.step, client.step(None).token)
        client, _ = self.established(TLS, channel=CHANNEL)
        self.assertRaises(PeerNotAuthenticated, client.verify, SEAL)
        client, _ = self.established(SEAL)
        self.assertRaises(PeerNotAuthenticated, client.verify, TLS)

    def test_confirmation(self) -> None:
        """The service's confirmation of the channel is verified with it."""
        for channel, other in (
            (CHANNEL, CHANNEL),
            (CHANNEL, ChannelBinding(TLS_EXPORTER, bytes(31) + b"\1")),
        ):
            client = Confirmed(SspiInitiator(BY_HOST, TLS, KERBEROS, channel), channel, "service")
            server = Confirming(self.keys.acceptor("client", channel), other)
            answer = server.step(client.step(None).token).token
            if channel is other:
                self.assertTrue(client.step(answer).complete)
                self.assertIs(client.verify(TLS).protection, TLS)
            else:
                failed = self.assertRaises(StepFailed, client.step, answer)
                self.assertIn("has not confirmed", str(failed.error))

    def test_altered_answer(self) -> None:
        """A changed answer of the service is refused in one line."""
        client, server = SspiInitiator(BY_HOST, SEAL), self.keys.acceptor("client")
        answer = bytearray(server.step(client.step(None).token).token)
        answer[-1] ^= 1
        failed = self.assertRaises(StepFailed, client.step, bytes(answer))
        self.assertIs(type(failed.error), PeerNotAuthenticated)
        self.assertEqual((str(failed.error).count("\n"), failed.token), (0, b""))
        self.assertRaises(PeerNotAuthenticated, client.verify, SEAL)

    def test_refused(self) -> None:
        """A service that has another key says so, and is not authenticated."""
        client, server = (
            SspiInitiator(BY_HOST, SEAL),
            ServiceKeys(ServiceCredentials(self.realm.keytab("svc-other"))),
        )
        refusal = self.assertRaises(
            StepFailed, server.acceptor("client").step, client.step(None).token
        ).token
        self.assertTrue(refusal)
        failed = self.assertRaises(StepFailed, client.step, refusal)
        self.assertIs(type(failed.error), PeerNotAuthenticated)
        self.assertIn("the service refused the ticket", str(failed.error))

    def test_debug_logging(self) -> None:
        """With all logging at its most talkative, no token is in it; without the filter it would
        be.
        """
        for filtered in (True, False):
            with self.assertLogs(level=1) as told:
                logging.getLogger("test").debug("something")
                if not filtered:
                    for each in list(logging.getLogger("spnego._gss").filters):
                        logging.getLogger("spnego._gss").removeFilter(each)
                        self.addCleanup(logging.getLogger("spnego._gss").addFilter, each)
                token = SspiInitiator(BY_HOST, SEAL).step(None).token
            self.assertIs(base64.b64encode(token).decode() in "".join(told.output), not filtered)
        for name in ("spnego._sspi", "spnego._negotiate", "spnego._ntlm"):
            self.assertIn(keep_quiet, logging.getLogger(name).filters)


class RecordTests(Case):
    """Records, to and from a service that is GSSAPI's."""

    def test_both_ways(self) -> None:
        """On each wire what one side protects the other reads, and knows whether it was sealed."""
        for protection, wire in ((SEAL, NNS), (SEAL, WINSOCK), (SIGN, NNS), (SIGN, WINSOCK)):
            seal = protection is SEAL
            client, server = self.established(protection)
            for data in (b"", b"hello", bytes(5000)):
                for sender, receiver in ((client, server), (server, client)):
                    reader = wire.reader()
                    reader.feed(wire.protect(sender, data, seal))
                    body = reader.next_record()
                    assert body is not None
                    self.assertEqual(wire.unprotect(receiver, body, seal), (data, seal))
                    self.assertIs(data in body if data == b"hello" else not seal, not seal)

    def test_signature_size(self) -> None:
        """It is worked out right from that of sealed records."""
        for protection in (SEAL, SIGN):
            client, _ = self.established(protection)
            signature, data = client.wrap_apart(b"hello", seal=False)
            self.assertEqual((client.signature_size, data), (len(signature), b"hello"))

    def test_signed_is_not_sealed(self) -> None:
        """A record that is signed only says so, where sealed ones are expected."""
        client, server = self.established()
        self.assertEqual(client.unwrap(server.wrap(b"hello", seal=False)), (b"hello", False))
        client._proxy = mock.Mock()
        buffers = (
            IOVResBuffer(BufferType.header, b"header"),
            IOVResBuffer(BufferType.data, b"hello"),
        )
        client._proxy.unwrap_iov.return_value = spnego.IOVUnwrapResult(buffers, False, 0)
        self.assertEqual(client.unwrap_apart(b"header", b"hello", seal=True), (b"hello", False))

    def test_wrong(self) -> None:
        """Altered, repeated and made-up records are refused."""
        for apart in (False, True):
            for seal in (False, True):
                client, server = self.established()

                def read(
                    record: tuple[bytes, bytes],
                    client: Any = client,
                    apart: bool = apart,
                    seal: bool = seal,
                ) -> Any:
                    return (
                        client.unwrap_apart(*record, seal=seal)
                        if apart
                        else client.unwrap(record[0])
                    )

                good = (
                    server.wrap_apart(b"hello", seal=seal)
                    if apart
                    else (server.wrap(b"hello", seal=seal), b"")
                )
                altered = good[0][:-1] + bytes((good[0][-1] ^ 1,)), good[1]
                for record in (altered, (b"", b""), (bytes(60), b"hello")):
                    error = self.assertRaises(RecordError, read, record)
                    self.assertIn("record rejected: ", str(error))
                self.assertEqual(read(good), (b"hello", seal))
                self.assertRaises(RecordError, read, good)

    def test_no_session(self) -> None:
        """Without a context nothing is protected, and the errors are this package's."""
        client = SspiInitiator(BY_HOST, SEAL)
        for call in (client.wrap, client.wrap_apart):
            for seal in (False, True):
                self.assertRaises(AuthenticationError, call, b"hello", seal=seal)
        self.assertRaises(AuthenticationError, lambda: client.signature_size)

    def test_unencrypted(self) -> None:
        """Bytes that pyspnego has not encrypted do not go out as sealed."""
        client = SspiInitiator(BY_HOST, SEAL)
        client._proxy = mock.Mock()
        client._proxy.wrap.return_value = spnego.WrapResult(b"hello", False)
        client._proxy.wrap_iov.return_value = spnego.IOVWrapResult((), False)
        self.assertRaises(AuthenticationError, client.wrap, b"hello", seal=True)
        self.assertRaises(AuthenticationError, client.wrap_apart, b"hello", seal=True)


class NtlmTests(SynchronousTestCase):
    """NTLM, on which Windows' Negotiate falls back."""

    def client(self, **asked: Any) -> Any:
        options = NegotiateOptions.use_ntlm
        return self._client(
            "LAB\\alice",
            "password",
            context_req=asked["context_req"],
            protocol="ntlm",
            options=options,
        )

    def setUp(self) -> None:
        self._client = spnego.client
        self.patch(module.spnego, "client", self.client)

    def test_no_token_leaves(self) -> None:
        """Not even the first message of NTLM goes out."""
        failed = self.assertRaises(StepFailed, SspiInitiator(BY_HOST, SEAL, NEGOTIATE).step, None)
        self.assertIs(type(failed.error), PeerNotAuthenticated)
        self.assertIn("NTLM would not authenticate", str(failed.error))
        self.assertEqual(failed.token, b"")

    def test_not_verified(self) -> None:
        """A context that is complete and protects records is refused all the same, as it is not
        Kerberos'.
        """
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("LAB:alice:password\n")
        set_environment(self, {"NTLM_USER_FILE": path})
        client = SspiInitiator(BY_HOST, SEAL, NEGOTIATE)
        self.patch(module, "_NTLM_MESSAGE", b"no such thing in it")
        server = spnego.server(protocol="ntlm", options=NegotiateOptions.use_ntlm)
        outcome = client.step(None)
        while not outcome.complete:
            outcome = client.step(server.step(outcome.token))
        server.step(outcome.token)
        self.assertEqual(server.unwrap(client.wrap(b"hello", seal=True)).data, b"hello")
        self.assertEqual(client.unwrap(server.wrap(b"hello").data), (b"hello", True))
        error = self.assertRaises(PeerNotAuthenticated, client.verify, SEAL)
        self.assertIn("did not end with Kerberos", str(error))


class VerificationTests(SynchronousTestCase):
    """The verification's rules, one by one."""

    def verified(
        self, protection: Protection = SEAL, channel: ChannelBinding | None = None, **shown: Any
    ) -> PeerIdentity:
        client = SspiInitiator(BY_HOST, protection, KERBEROS, channel)
        told = {
            "complete": True,
            "negotiated_protocol": "kerberos",
            "context_attr": ContextReq(0x3E),
        } | shown
        client._proxy = mock.Mock(
            spec_set=["complete", "negotiated_protocol", "context_attr"], **told
        )
        return client.verify(protection)

    def test_good(self) -> None:
        """With everything there it is authenticated, and sealed where the flags say so; what nobody
        asks about is not claimed.
        """
        self.assertEqual(self.verified(context_attr=ContextReq(0xFFF)).flags, SEAL.requested_flags)
        self.assertIs(self.verified(SIGN).protection, SEAL)
        signed = self.verified(SIGN, context_attr=ContextReq(0x2E))
        self.assertEqual((signed.protection, signed.flags), (SIGN, SIGN.requested_flags))

    def test_flags(self) -> None:
        """Each flag that a protection requires is missed, and named."""
        foreign = ChannelBinding(TLS_SERVER_END_POINT, bytes(32))
        for protection, channel, required in (
            (SEAL, None, SEAL.requested_flags),
            (SIGN, None, SIGN.requested_flags),
            (TLS, CHANNEL, TLS.requested_flags),
            (TLS, foreign, SEAL.requested_flags),
        ):
            self.verified(protection, channel, context_attr=ContextReq(int(required)))
            for flag in required:
                with self.assertRaises(PeerNotAuthenticated) as caught:
                    self.verified(protection, channel, context_attr=ContextReq(0x3E & ~flag))
                self.assertIn(f"without {str(flag.name).lower()}", str(caught.exception))

    def test_package(self) -> None:
        """Nothing but Kerberos counts, and nothing before the end."""
        for shown in (
            {"negotiated_protocol": name} for name in ("ntlm", "negotiate", None, "kerberos ")
        ):
            self.assertRaises(PeerNotAuthenticated, self.verified, **shown)
        self.assertRaises(PeerNotAuthenticated, self.verified, complete=False)

    def test_untold(self) -> None:
        """A context that does not answer is not authenticated."""

        class Mute:
            complete = True

            @property
            def negotiated_protocol(self) -> str:
                raise OSError("a handle that is invalid")

        client = SspiInitiator(BY_HOST, SEAL)
        client._proxy = Mute()
        self.assertRaises(AuthenticationError, client.verify, SEAL)


class ErrorTests(SynchronousTestCase):
    """Errors that Windows' codes become."""

    def failing(self, code: int, *, answered: bool) -> MutualAuthError:
        """The error of a step in which Windows answers with a code."""
        native = NativeError("words that nobody has looked over", winerror=code - (1 << 32))
        error = SpnegoError(base_error=native, context_msg="Processing security token")
        proxy = mock.Mock(complete=False)
        proxy.step.side_effect = [b"token", error] if answered else error
        self.patch(module.spnego, "client", lambda **asked: proxy)
        client = SspiInitiator(BY_HOST, SEAL)
        if answered:
            client.step(None)
        failed = self.assertRaises(StepFailed, client.step, b"answer" if answered else None)
        self.assertNotIn("words", str(failed.error))
        self.assertIs(failed.__cause__, error)
        return failed.error

    def test_first_step(self) -> None:
        """Faults of the KDC, the logon session and the clock."""
        for code, kind, text in (
            (0x80090303, KDCRefused, "no account has this SPN"),
            (0x80090311, KDCUnreachable, "no domain controller answers"),
            (0x8009030E, CredentialError, "the logon session: it has no Kerberos tickets"),
            (0x8009030C, CredentialError, "the logon session"),
            (0x80090324, AuthenticationError, "the clocks differ"),
            (0x80090304, AuthenticationError, "error 0x80090304 of Windows"),
        ):
            error = self.failing(code, answered=False)
            self.assertIs(type(error), kind)
            self.assertIn(text, str(error))
        refused = self.failing(0x80090303, answered=False)
        assert isinstance(refused, KDCRefused)
        self.assertTrue(refused.of_service)

    def test_answer(self) -> None:
        """Faults of the service's token; the clocks are nobody's."""
        for code in (0x80090308, 0x80090303, 0x80090322, 0x8009030C):
            error = self.failing(code, answered=True)
            self.assertIs(type(error), PeerNotAuthenticated)
            self.assertIn(f"cannot be taken (0x{code:08X})", str(error))
        self.assertIs(type(self.failing(0x80090324, answered=True)), AuthenticationError)

    def test_nothing_to_say(self) -> None:
        """A step after which there is nothing to send and nothing done is an end, and not a
        wait.
        """
        proxy = mock.Mock(complete=False)
        proxy.step.side_effect = [b"token", None]
        self.patch(module.spnego, "client", lambda **asked: proxy)
        client = SspiInitiator(BY_HOST, SEAL)
        client.step(None)
        failed = self.assertRaises(StepFailed, client.step, b"answer")
        self.assertIs(type(failed.error), PeerNotAuthenticated)

    def test_own_errors(self) -> None:
        """pyspnego's own errors have no code, and are named by their kind."""
        self.patch(module.spnego, "client", mock.Mock(side_effect=ImportError("no sspilib")))
        failed = self.assertRaises(StepFailed, SspiInitiator(BY_HOST, SEAL).step, None)
        self.assertIs(type(failed.error), AuthenticationError)
        self.assertIn("ImportError", str(failed.error))


_CLIENT_ON_WINDOWS = r"""
import sys
for name in ("gssapi", "krb5", "fcntl"):
    sys.modules[name] = None  # importing it raises ImportError
from mutauth_twisted import windows
windows.WINDOWS = True
import mutauth_twisted.net.client
import mutauth_twisted.net.server
from mutauth_twisted.mechanisms.kerberos_windows import SspiInitiator
from mutauth_twisted.endpoints.strings import client_endpoint
from mutauth_twisted.errors import UsageError
endpoint = client_endpoint(None, ("tcp:srv1:9000",), {"spn": "echoSvc/srv1.test.example"})
assert isinstance(endpoint._new_context("srv1", None), SspiInitiator)
from twisted.internet.testing import MemoryReactorClock
keywords = {"spn": "echoSvc/srv1.test.example", "nameserver": "127.0.0.10"}
client_endpoint(MemoryReactorClock(), ("tcp:srv1:9000",), keywords)
try:
    client_endpoint(None, (), {"scp": "echoSvc"})
except UsageError as error:
    print(error)
"""


class PlatformTests(SynchronousTestCase):
    """Which context a client gets where."""

    def chosen(self, credentials: ClientCredentials = ClientCredentials()) -> Any:
        return KERBEROS.initiators(BY_HOST, credentials, SEAL)("peer", None)

    def test_linux(self) -> None:
        """GSSAPI's, elsewhere than on Windows."""
        self.assertIsInstance(
            self.chosen(ClientCredentials(ccache="FILE:/nonexistent")), KerberosInitiator
        )

    def test_windows(self) -> None:
        """On Windows SSPI's, for whoever is logged on and nobody else: an endpoint says so when it
        is made.
        """
        self.patch(windows, "WINDOWS", True)
        self.assertIsInstance(self.chosen(), SspiInitiator)
        for credentials in (
            ClientCredentials(principal="alice@TEST.EXAMPLE"),
            ClientCredentials(ccache="FILE:/tmp/cc"),
            ClientCredentials(keytab="/tmp/keytab"),
        ):
            with self.assertRaises(UsageError) as caught:
                MutualAuthClientEndpoint(MemoryReactorClock(), mock.Mock(), BY_HOST, credentials)
            self.assertIn("the client is who is logged on", str(caught.exception))

    def test_not_offered(self) -> None:
        """On Windows there are no services, and no search in the directory."""
        self.patch(windows, "WINDOWS", True)
        for make in (
            lambda: KERBEROS.acceptor_keys(ServiceCredentials("/tmp/keytab")),
            lambda: NTLM.acceptor_keys(NtlmCredentials("/tmp/users")),
            lambda: server_endpoint(None, ("tcp:9000",), {"allow-all": "yes"}),
            lambda: client_endpoint(None, (), {"scp": "echoSvc"}),
            lambda: client_endpoint(None, (), {"rnr": "echo"}),
        ):
            error = self.assertRaises(UsageError, make)
            self.assertIn("Windows has only clients", str(error))

    def test_without_gssapi(self) -> None:
        """A client with an address works where there is neither GSSAPI nor fcntl, by its string as
        well.
        """
        done = subprocess.run(
            [sys.executable, "-c", _CLIENT_ON_WINDOWS], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("mutauth endpoint keyword scp: Windows has only clients", done.stdout)
