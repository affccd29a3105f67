"""Security mechanism: what is known of it by its name, and how its code is found.

The code is loaded when a context, keys or credentials are first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from attrs import frozen

from mutauth_twisted import windows
from mutauth_twisted.core.channelbinding import ChannelBinding
from mutauth_twisted.core.context import Keys, SecurityContext
from mutauth_twisted.credentials import Credentials
from mutauth_twisted.errors import UsageError
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN

#: Makes an initiator's context; takes the peer's name for errors, and the TLS channel to bind to.
NewContext = Callable[[str, ChannelBinding | None], SecurityContext]


class Implementation(Protocol):
    """Module of one mechanism, or of several that share their credentials."""

    CLIENT_CREDENTIALS: type[Credentials]
    SERVICE_CREDENTIALS: type[Credentials]

    def initiators(
        self, package: Mechanism, spn: SPN | None, credentials: Any, protection: Protection
    ) -> NewContext:
        """See :meth:`Mechanism.initiators`; the credentials are of ``CLIENT_CREDENTIALS``."""

    def acceptor_keys(
        self, package: Mechanism, credentials: Any, service_class: str | None
    ) -> Keys:
        """See :meth:`Mechanism.acceptor_keys`; the credentials are of ``SERVICE_CREDENTIALS``."""


@frozen(eq=False)
class Mechanism:
    """One choice of the option ``package``.

    :param name: the option's value.
    :param summary: a phrase on it, for the option's help.
    :param module: the :class:`Implementation`, a module's dotted name.
    :param refusal: cause and remedy when a service refuses a client's tokens.  The service may as
        well have been unable to read them: two mechanisms have no common language to say so in.
    :param client_options: names of the options that make a client's credentials.
    :param service_options: those that make a service's.
    :param required: which of these have to be given, and the help of each: no other mechanism has
        them.
    :param windows_module: the implementation on Windows; empty: the same.
    :param authenticates_service: whether the client knows afterwards which service it has.
    :param identifies_groups: whether the service learns the client's groups.
    """

    name: str
    summary: str
    module: str
    refusal: tuple[str, str]
    client_options: frozenset[str] = frozenset()
    service_options: frozenset[str] = frozenset()
    required: Mapping[str, str] = {}
    windows_module: str = ""
    authenticates_service: bool = True
    identifies_groups: bool = True

    @property
    def _implementation(self) -> Implementation:
        name = (windows.WINDOWS and self.windows_module) or self.module
        return cast(Implementation, import_module(name))

    def client_credentials(self, options: Mapping[str, Any]) -> Credentials:
        """A client's credentials.

        :param options: values of the :attr:`client_options` that were given.
        """
        return self._implementation.CLIENT_CREDENTIALS.from_options(options)

    def service_credentials(self, options: Mapping[str, Any]) -> Credentials:
        """A service's credentials.

        :param options: values of the :attr:`service_options` that were given.
        """
        windows.refuse_on_windows("a service")
        return self._implementation.SERVICE_CREDENTIALS.from_options(options)

    def initiators(
        self, spn: SPN | None, credentials: Credentials, protection: Protection
    ) -> NewContext:
        """The maker of a client's contexts.

        :param spn: the service; None where the mechanism does not authenticate it.
        :param protection: what is to be agreed on.
        :raises UsageError: for credentials that the mechanism or this platform cannot use.
        """
        implementation = self._implementation
        self._check(credentials, implementation.CLIENT_CREDENTIALS)
        return implementation.initiators(self, spn, credentials, protection)

    def acceptor_keys(self, credentials: Credentials, service_class: str | None = None) -> Keys:
        """A service's keys, which make its contexts.

        :param service_class: first part of the SPN that a client's ticket has to name; None: any.
            Without meaning where the service is not authenticated.
        :raises CredentialError: when the credentials cannot be used.
        :raises UsageError: when they are another mechanism's, or on Windows.
        """
        windows.refuse_on_windows("a service")
        implementation = self._implementation
        self._check(credentials, implementation.SERVICE_CREDENTIALS)
        return implementation.acceptor_keys(self, credentials, service_class)

    def _check(self, credentials: Credentials, kind: type[Credentials]) -> None:
        if not isinstance(credentials, kind):
            raise UsageError(
                f"package {self.name}",
                f"it cannot use {type(credentials).__name__}",
                f"give it {kind.__name__}, or name the package that they belong to",
            )


#: Kerberos' own tokens (RFC 4121): what both sides speak by default.
KERBEROS = Mechanism(
    "kerberos",
    "Kerberos' own tokens",
    "mutauth_twisted.mechanisms.kerberos",
    (
        "it did not accept the ticket, or its package is another",
        "the service's log says why",
    ),
    client_options=frozenset({"principal", "ccache", "keytab"}),
    service_options=frozenset({"principal", "keytab", "state-dir", "accept-replays"}),
    windows_module="mutauth_twisted.mechanisms.kerberos_windows",
)
