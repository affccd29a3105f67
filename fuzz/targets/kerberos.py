"""Real GSSAPI contexts, with tickets that nobody but the target can have made.

Inputs are tokens of their own, or say what to change in a genuine one: only
so do they get behind the first check of a key.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory

from fuzz.inputs import Choices, edited
from fuzz.targets import Check
from fuzz.targets.names import one_line
from mutauth_twisted.core.context import Outcome, SecurityContext, StepFailed
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import MutualAuthError, RecordError
from mutauth_twisted.mechanisms.kerberos import KerberosAcceptor, KerberosInitiator, ServiceKeys
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.forge import Realm
from mutauth_twisted.wire import WIRES, FrameError

_SPN = SPN("echoSvc", "srv1.test.example", "CN=echoSvc,CN=SRV1,DC=test,DC=example")
_SEAL = Protection.SEAL
_ALICE = "alice@TEST.EXAMPLE"
#: Kerberos takes a token for some minutes only.
_FRESH_SECONDS = 60.0


class _Parties:
    """alice with a ticket, and the service that it is for."""

    def __init__(self, directory: str) -> None:
        realm = Realm(directory)
        # Genuine tokens come again and again here.
        os.environ.update(realm.environment())
        self._keys = ServiceKeys(ServiceCredentials(realm.keytab("svc-echo"), accept_replays=True))
        self._credentials = ClientCredentials(
            ccache=realm.ccache("alice", str(_SPN), "svc-echo", lifetime=86_400)
        )
        self._request = b""
        self._made = 0.0

    def client(self) -> KerberosInitiator:
        """A client that has said nothing."""
        return KerberosInitiator(_SPN, self._credentials, _SEAL)

    def service(self) -> KerberosAcceptor:
        """A service that has heard nothing."""
        return self._keys.acceptor("client")

    def request(self) -> bytes:
        """A client's first token, as good as new."""
        if time.monotonic() - self._made > _FRESH_SECONDS:
            self._request, self._made = self.client().step(None).token, time.monotonic()
        return self._request

    def established(self) -> tuple[KerberosInitiator, KerberosAcceptor]:
        """Both sides with their contexts complete."""
        client, service = self.client(), self.service()
        client.step(service.step(client.step(None).token).token)
        return client, service


@contextmanager
def parties_of_a_realm() -> Iterator[_Parties]:
    names = ("KRB5_CONFIG", "KRB5CCNAME", "KRB5_KTNAME", "KRB5RCACHEDIR")
    before = {name: os.environ.pop(name, None) for name in names}
    try:
        with TemporaryDirectory() as directory:
            yield _Parties(directory)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _step(context: SecurityContext, token: bytes) -> Outcome | None:
    """Outcome of a step with a hostile token, or None: it failed, as it should, and nothing is
    authenticated.
    """
    try:
        outcome = context.step(token)
    except StepFailed as failed:
        one_line(failed.error)
        assert isinstance(failed.token, bytes)
    else:
        if outcome.complete:
            return outcome
    try:
        context.verify(_SEAL)
    except MutualAuthError as error:
        one_line(error)
        return None
    raise AssertionError("an unfinished context passed its verification")


@contextmanager
def acceptor() -> Iterator[Check]:
    """A service, and a client's first token: whatever is accepted, is alice's."""
    with parties_of_a_realm() as parties:

        def check(data: bytes) -> None:
            choices = Choices(data)
            own = choices.flag()
            token = choices.rest() if own else edited(parties.request(), choices)
            context = parties.service()
            outcome = _step(context, token)
            if outcome is None:
                return
            assert not own, "a token that nobody made was accepted"
            identity = context.verify(_SEAL)
            assert identity.principal == _ALICE, f"{identity.principal} came in with alice's ticket"
            assert identity.flags & _SEAL.required_flags == _SEAL.required_flags
            assert identity.groups == ()
            if token == parties.request():
                assert identity.claimed_spn == str(_SPN)

        yield check


@contextmanager
def initiator() -> Iterator[Check]:
    """A client, and a service's answer: only the service's own is a proof."""
    with parties_of_a_realm() as parties:

        def check(data: bytes) -> None:
            choices = Choices(data)
            own, client = choices.flag(), parties.client()
            request = client.step(None)
            assert not request.complete and not client.blocking
            genuine = parties.service().step(request.token).token
            answer = choices.rest() if own else edited(genuine, choices)
            outcome = _step(client, answer)
            if outcome is None:
                assert own or answer != genuine, "the service's own answer was refused"
                return
            assert not own, "an answer that nobody made was accepted"
            identity = client.verify(_SEAL)
            assert identity.spn == _SPN and not outcome.token

        yield check


@contextmanager
def sealing() -> Iterator[Check]:
    """Records of an established pair, one of them changed on the way: exactly one of the two is
    taken.
    """
    with parties_of_a_realm() as parties:
        pairs = [parties.established()]

        def check(data: bytes) -> None:
            choices = Choices(data)
            wire = tuple(WIRES.values())[choices.below(len(WIRES))]
            seal, downward, plaintext = choices.flag(), choices.flag(), bytes(choices.number())
            client, service = pairs[0]
            sender, receiver = (service, client) if downward else (client, service)
            reader = wire.reader()
            reader.feed(wire.protect(sender, plaintext, seal))
            body = reader.next_record()
            assert body is not None

            def unprotect(record: bytes) -> tuple[bytes, bool]:
                return wire.unprotect(receiver, record, seal)

            changed = edited(body, choices)
            try:
                _compare(unprotect, changed, body, (plaintext, seal))
            except BaseException:
                pairs[0] = parties.established()
                raise

        yield check


def _compare(
    unprotect: Callable[[bytes], tuple[bytes, bool]],
    changed: bytes,
    body: bytes,
    wanted: tuple[bytes, bool],
) -> None:
    taken = False
    with suppress(RecordError, FrameError):
        assert unprotect(changed) == wanted, "a changed record says something else"
        taken = True
    if not taken:
        assert changed != body, "a genuine record was refused"
        assert unprotect(body) == wanted, "a changed record did harm to the next one"
        return
    try:
        unprotect(body)
    except RecordError as error:
        one_line(error)
        return
    raise AssertionError("a record was taken twice")
