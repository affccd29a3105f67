"""Kerberos security contexts over pyspnego (GSSAPI).

The only file that touches private parts of pyspnego, and why:

- pyspnego names every service ``service@host``, so a three-part SPN cannot be
  asked for; and it has python-gssapi defer errors, so that a failed step goes
  unnoticed.  Both are mended by giving its GSSAPIProxy the ``_context`` it would
  have made itself.
- It acquires credentials anew for each context, an acceptor's from the
  process-wide keytab: ``_gssapi_credential`` takes ours.
- It shows neither the lifetime nor the names: they are read from ``_context``.
- It logs whole tokens at debug level: nobody's logging configuration may let
  them out.

``tests/test_context.py`` fails when a release of pyspnego changes any of it.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from copy import copy
from typing import Any, Protocol, cast

import gssapi
import spnego
from attrs import field, frozen
from gssapi.raw import IOV, IOVBufferType, display_name, get_name_attribute, inquire_context, wrap_iov_length
from gssapi.raw.exceptions import OperationUnavailableError
from gssapi.raw.misc import GSSError
from spnego import ContextReq
from spnego.exceptions import SpnegoError
from spnego.iov import BufferType

from mutauth_twisted.core.pac import read_logon
from mutauth_twisted.core.ticket import ticket_label, ticket_name
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    MutualAuthError,
    PeerNotProven,
    PeerRefused,
    RecordError,
)
from mutauth_twisted.gsserrors import Acceptor, explain
from mutauth_twisted.interfaces import PeerIdentity
from mutauth_twisted.policy import Flag, Logon, Protection, flag_names, fold_ascii, split_principal
from mutauth_twisted.spn import SPN
from mutauth_twisted.tickets import tickets_for
from mutauth_twisted.wire import Wrapping

KERBEROS = "kerberos"
_KERBEROS_OID = gssapi.MechType.kerberos
#: RFC 4121 4.1: the token identifier of a KRB-ERROR behind the mechanism's OID.
_KRB_ERROR_HEADER = b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x03\x00"

#: RFC 6680: where MIT puts two parts of a verified PAC.
_LOGON_INFORMATION = b"urn:mspac:logon-info"
_UPN_INFORMATION = b"urn:mspac:upn-dns-info"

# As plain numbers: enum arithmetic takes as long as the rest of the judgement.
_ALL_FLAGS = int(~Flag(0))
_REQUIRED = {protection: int(protection.required_flags) for protection in Protection}


def _keep_quiet(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


# A logger's own filters survive logging.config, and do not depend on levels that others may change.
for _name in list(logging.root.manager.loggerDict):
    if _name.partition(".")[0] == "spnego":
        logging.getLogger(_name).addFilter(_keep_quiet)


@frozen
class Outcome:
    """What one step brought.

    :param token: the token to send; may be empty.
    :param complete: whether the context needs no further token.
    """

    token: bytes = field(repr=False)
    complete: bool


class StepFailed(Exception):
    """A step failed.

    :ivar error: what went wrong, for people.
    :ivar token: an error token for the peer; may be empty.
    """

    def __init__(self, error: MutualAuthError, token: bytes = b"") -> None:
        super().__init__(error)
        self.error = error
        self.token = token


class SecurityContext(Wrapping, Protocol):
    """One side of one exchange, and afterwards its keys."""

    #: Whether the next step may wait for a KDC.
    blocking: bool

    def step(self, token: bytes | None) -> Outcome:
        """Take the peer's token (None: we start).

        :raises StepFailed: whatever goes wrong.
        """

    def judge(self, protection: Protection) -> PeerIdentity:
        """Who the peer is, once the context is complete and has proven all it must.

        :raises PeerNotProven: when a flag or the package is missing, or the peer is another than asked for.
        :raises AuthenticationError: when the session is over already.
        """


def kerberos_name(spn: SPN) -> gssapi.Name:
    """The SPN as a Kerberos principal name; its parts may hold what the text form of a principal must escape."""
    # RFC 1964 2.1.1: '@' starts the realm and '\\' escapes, unless escaped.
    text = str(spn).replace("\\", "\\\\").replace("@", "\\@")
    return gssapi.Name(text, gssapi.NameType.kerberos_principal)


def _native(error: BaseException) -> BaseException:
    """The GSSAPI error inside one of pyspnego's, if there is one."""
    return error.__cause__ if isinstance(error, SpnegoError) and error.__cause__ is not None else error


class _KerberosContext:
    """What initiator and acceptor share: one GSSAPIProxy with a context of our own in it."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._proxy: Any = None
        self._signature_size: int | None = None
        self.blocking = False

    def _open(self) -> Any:
        """Make the proxy at the first step, where waiting is allowed."""
        raise AssertionError("a subclass opens the proxy")

    def step(self, token: bytes | None) -> Outcome:
        try:
            if self._proxy is None:
                self._proxy = self._open()
                # Errors are raised at once, with the token for the peer, instead of by some later call.
                self._proxy._context.__DEFER_STEP_ERRORS__ = False
            reply = self._proxy.step(token)
            return Outcome(reply or b"", self._proxy.complete)
        except MutualAuthError as error:
            raise StepFailed(error) from error
        except Exception as error:  # a hostile token can raise anything, ValueError included
            native = _native(error)
            raise StepFailed(self._explain(native, token), getattr(native, "token", None) or b"") from error

    def _explain(self, error: BaseException, token: bytes | None) -> MutualAuthError:
        return explain(error, self._subject)

    def _prove(self, protection: Protection, *, initiator_name: bool) -> tuple[str, Flag, float]:
        """The initiator's or else the acceptor's name, the flags, all there, and the end of the ticket."""
        proven: Any
        try:
            proven = inquire_context(self._proxy._context, initiator_name=initiator_name, target_name=not initiator_name)
            if proven.mech != _KERBEROS_OID or not proven.complete:
                raise PeerNotProven(self._subject, "the exchange did not end with Kerberos")
            # GSSAPI hands out the terminating NUL of some names.
            peer = display_name(proven.initiator_name if initiator_name else proven.target_name, False)
            name = peer.name.rstrip(b"\0").decode()
        except (GSSError, UnicodeDecodeError) as error:  # a ticket can end between two steps
            raise explain(error, self._subject) from error
        flags = int(proven.flags) & _ALL_FLAGS
        if missing := _REQUIRED[protection] & ~flags:
            raise PeerNotProven(
                self._subject,
                f"the exchange ended without {flag_names(missing)}",
                "the peer must ask for mutual authentication and for protected messages",
            )
        return name, Flag(flags), time.time() + proven.lifetime

    def wrap(self, data: bytes, *, seal: bool) -> bytes:
        try:
            wrapped = self._proxy.wrap(data, encrypt=seal)
        except SpnegoError as error:
            raise explain(_native(error), self._subject) from error
        if seal and not wrapped.encrypted:
            raise AuthenticationError(self._subject, "the security package did not encrypt")
        return cast(bytes, wrapped.data)

    def unwrap(self, body: bytes) -> tuple[bytes, bool]:
        try:
            result = self._proxy.unwrap(body)
        except Exception as error:  # any bytes can come in here, and raise anything
            raise self._not_next(error) from error
        return result.data, result.encrypted

    def _not_next(self, error: Exception) -> RecordError:
        return RecordError(
            self._subject,
            f"a record is not the peer's next one ({explain(_native(error), self._subject).cause})",
            "look for what stands between both sides",
        )

    @property
    def signature_size(self) -> int:
        if self._signature_size is None:
            # A signature has the size of a wrap token's header without confidentiality (RFC 4121 4.2.6); to make one
            # would take a sequence number.
            sizes = IOV(IOVBufferType.header, b"", std_layout=False)
            wrap_iov_length(self._proxy._context, sizes, False)
            self._signature_size = len(sizes[0].value or b"")
        return self._signature_size

    def wrap_apart(self, data: bytes, *, seal: bool) -> tuple[bytes, bytes]:
        try:
            if not seal:
                return self._proxy.sign(data), data
            wrapped = self._proxy.wrap_iov([BufferType.header, data, BufferType.padding])
        except SpnegoError as error:
            raise explain(_native(error), self._subject) from error
        if not wrapped.encrypted:
            raise AuthenticationError(self._subject, "the security package did not encrypt")
        header, sealed, padding = (buffer.data or b"" for buffer in wrapped.buffers)
        return header, sealed + padding

    def unwrap_apart(self, trailer: bytes, data: bytes, *, seal: bool) -> tuple[bytes, bool]:
        try:
            if not seal:
                self._proxy.verify(data, trailer)
                return data, False
            result = self._proxy.unwrap_iov([(BufferType.header, trailer), data, BufferType.data])
        except Exception as error:  # as above
            raise self._not_next(error) from error
        return result.buffers[1].data or b"", result.encrypted


class KerberosInitiator(_KerberosContext):
    """A client's context for one SPN.

    :param spn: the SPN the service must prove to have the key of.
    :param credentials: where the client's ticket comes from.
    :param protection: what is to be agreed on.
    """

    def __init__(self, spn: SPN, credentials: ClientCredentials, protection: Protection) -> None:
        super().__init__(str(spn))
        self._spn = spn
        self._source = tickets_for(credentials)
        self._cache = ""
        self._protection = protection
        self.blocking = True

    def _open(self) -> Any:
        name = kerberos_name(self._spn)
        self._cache = self._source.cache
        credential = self._source.acquire()
        request = ContextReq(int(self._protection.required_flags))
        proxy: Any = spnego.client(
            hostname=self._spn.host,
            service=self._spn.service_class,
            context_req=request,
            protocol=KERBEROS,
            _gssapi_credential=credential,
        )
        proxy._context = gssapi.SecurityContext(
            name=name, creds=proxy._credential, usage="initiate", mech=_KERBEROS_OID, flags=int(request)
        )
        return proxy

    def step(self, token: bytes | None) -> Outcome:
        try:
            outcome = super().step(token)
        except StepFailed as failed:
            # What the KDC or the service takes no more must not be kept until it ends.
            if isinstance(failed.error, (CredentialError, PeerRefused)):
                self._source.discard(self._cache)
            raise
        # Only the first step fetches a ticket; what follows is arithmetic.
        self.blocking = False
        return outcome

    def _explain(self, error: BaseException, token: bytes | None) -> MutualAuthError:
        reason = super()._explain(error, token)
        if token is not None and _KRB_ERROR_HEADER in token[:24]:
            return PeerRefused(self._subject, f"the service refused the ticket: {reason.cause}", reason.remedy)
        return reason

    def judge(self, protection: Protection) -> PeerIdentity:
        principal, flags, expires = self._prove(protection, initiator_name=False)
        proven = re.sub(r"\\(.)", r"\1", split_principal(principal)[0])
        if proven.casefold() != str(self._spn).casefold():
            raise PeerNotProven(self._subject, f"the ticket names {proven} instead")
        return PeerIdentity(principal, self._spn, KERBEROS, protection, flags, expires)


class KerberosAcceptor(_KerberosContext):
    """A service's context for one connection; made by :class:`ServiceKeys`."""

    def __init__(self, template: Any, subject: str, service_class: str | None, own: ServiceCredentials) -> None:
        super().__init__(subject)
        self._template = template
        self._own = own
        self._service_class = service_class
        self._claimed: str | None = None
        self._logon: Logon | None = None

    def _open(self) -> Any:
        proxy = copy(self._template)
        proxy._context = gssapi.SecurityContext(creds=proxy._credential, usage="accept")
        return proxy

    def step(self, token: bytes | None) -> Outcome:
        outcome = super().step(token)
        if self._claimed is None and token is not None:
            with suppress(ValueError):  # GSSAPI has understood it, which is what counts
                self._claimed = ticket_name(token)
        return outcome

    def _explain(self, error: BaseException, token: bytes | None) -> MutualAuthError:
        label = None
        with suppress(ValueError):  # then it is no AP-REQ, which the error says already
            label = ticket_label(token or b"")
        return explain(error, self._subject, Acceptor(self._own.keytab, label, self._own.principal))

    def judge(self, protection: Protection) -> PeerIdentity:
        principal, flags, expires = self._prove(protection, initiator_name=True)
        self._check_class()
        return PeerIdentity(
            principal, None, KERBEROS, protection, flags, expires, self._claimed, read_logon=self.read_logon
        )

    def _check_class(self) -> None:
        wanted, claimed = self._service_class, self._claimed or "no service"
        if wanted is not None and fold_ascii(claimed.partition("/")[0]) != fold_ascii(wanted):
            raise PeerNotProven(
                self._subject, f"its ticket is for {claimed}, not for {wanted}", "connect it to the service that it means"
            )

    def read_logon(self) -> Logon | None:
        """See :attr:`PeerIdentity.account`."""
        if self._logon is None:
            self._logon = self._read_logon()
        return self._logon

    def _read_logon(self) -> Logon | None:
        name: Any = inquire_context(self._proxy._context, target_name=False).initiator_name
        logon_information = self._read_pac(name, _LOGON_INFORMATION)
        if not logon_information:
            return None
        try:
            return read_logon(logon_information, self._read_pac(name, _UPN_INFORMATION))
        except ValueError as error:
            cause = f"the PAC of its ticket cannot be read: {error}"
            raise PeerNotProven(self._subject, cause, "let everybody of its realm in, *@REALM, to do without") from error

    def _read_pac(self, name: Any, part: bytes) -> bytes:
        """One part of the verified PAC; empty when there is none."""
        try:
            found = get_name_attribute(name, part)
        except OperationUnavailableError:
            return b""
        except GSSError as error:
            raise explain(error, self._subject) from error
        if not found.authenticated:
            raise PeerNotProven(self._subject, "the PAC of its ticket is not vouched for", "check the domain controllers")
        return b"".join(found.values)


class ServiceKeys:
    """A service's own keys, from which it makes a context for each connection.

    :param credentials: the keytab and the principal in it.
    :param service_class: first part of the SPN that a client's ticket has to
        name; None: any.  A guard against mix-ups and no proof: clients could
        write another name on a ticket for the same account.
    :raises CredentialError: when the keytab is missing, unreadable, or has no such key.
    """

    def __init__(self, credentials: ServiceCredentials, service_class: str | None = None) -> None:
        self._service_class = service_class
        self._credentials = credentials
        subject = f"keytab {credentials.keytab}" if credentials.keytab else "the default keytab"
        name = None
        if credentials.principal is not None:
            subject = f"{subject}, principal {credentials.principal}"
            name = gssapi.Name(credentials.principal, gssapi.NameType.kerberos_principal)
        store: dict[str | bytes, str | bytes] | None = {"keytab": credentials.keytab} if credentials.keytab else None
        try:
            credential = gssapi.Credentials(name=name, usage="accept", mechs=[_KERBEROS_OID], store=store)
        except GSSError as error:
            raise explain(error, subject) from error
        # Copied for each connection: to make one takes half as long as the exchange.
        self._template: Any = spnego.server(protocol=KERBEROS, _gssapi_credential=credential)

    def acceptor(self, peer: str) -> KerberosAcceptor:
        """A context for one connection; ``peer`` is how errors name it."""
        return KerberosAcceptor(self._template, peer, self._service_class, self._credentials)
