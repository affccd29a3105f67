"""Name of a service, as a value: its SPNs, and its object in the directory."""

from __future__ import annotations

from attrs import evolve, field, frozen

from mutauth_twisted.errors import ServiceCheckFailed, UsageError
from mutauth_twisted.findings import Remedy
from mutauth_twisted.ldap.dn import common_name, parent_of
from mutauth_twisted.names import check_host_name, fold_ascii, is_host_name
from mutauth_twisted.spn import check_service_class, is_service_class

#: The forms of an SPN's third part that a service connection point gives.
SPN_FORMS = ("guid", "dn", "host")
DEFAULT_SPN_FORMS = ("guid", "dn")
#: The one form of an RnR service.
RNR_FORMS = ("rnr",)


def _check_class(service: ServiceName, attribute: object, value: str) -> None:
    check_service_class(value)


def _check_host(service: ServiceName, attribute: object, value: str) -> None:
    check_host_name(value, f"host {value!r}")


def _check_forms(service: ServiceName, attribute: object, value: tuple[str, ...]) -> None:
    remedy = f"use {', '.join(SPN_FORMS)}"
    if not value:
        raise UsageError("--spn-form", "it names no form", remedy)
    for form in value if value != RNR_FORMS else ():
        if form not in SPN_FORMS:
            raise UsageError(f"--spn-form {form}", "there is no such form", remedy)


def is_of_class(found: str | None, wanted: str) -> bool:
    """Tell whether a directory object is of a service class; an object that names no class is not.

    :param found: what the object says.
    """
    return fold_ascii(found or "") == fold_ascii(wanted)


def verify_class(subject: str, found: str | None, wanted: str, remedy: Remedy) -> None:
    """Verify what :func:`is_of_class` tells.

    :param subject: the object, for the error.
    :raises ServiceCheckFailed: when it is of another class.
    """
    if not is_of_class(found, wanted):
        cause = f"it is of service class {found}, not {wanted}"
        raise ServiceCheckFailed(
            subject,
            cause if found else "it names no service class",
            remedy,
            code="service-class-differs",
        )


@frozen
class ServiceName:
    """A service's names: what its SPNs are made of, and where its object is.

    :param service_class: first part of its SPNs.
    :param host: their second part: the host's DNS name.
    :param spn_forms: their third parts: ``guid``, ``dn`` and ``host`` with a service connection
        point (SCP), or ``rnr`` alone.
    :param scp_name: the SCP's common name; None: the service class.
    :param scp_parent: the DN of what the SCP is below; None: the host's computer object.
    :param container: the common name of a container below CN=System that the SCP is in instead:
        the place of a replicated service.
    :param rnr_name: the RnR service's name or DN; None: the service class.
    :raises UsageError: for a part that is not valid, and for what does not go together.
    """

    service_class: str = field(validator=_check_class)
    host: str = field(validator=_check_host)
    spn_forms: tuple[str, ...] = field(default=DEFAULT_SPN_FORMS, validator=_check_forms)
    scp_name: str | None = None
    scp_parent: str | None = None
    container: str | None = None
    rnr_name: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.container is not None and self.scp_parent is not None:
            raise UsageError(
                f"container {self.container}",
                "a parent was given too",
                "use either --container or --scp-parent",
            )

    @classmethod
    def for_remedy(cls, service_class: str | None, host: str | None) -> ServiceName:
        """Name a service as the directory describes it, for a command that fixes it.

        CLASS and HOST stand for the administrator to fill in where the directory has no valid one.
        """
        return cls(
            service_class if service_class and is_service_class(service_class) else "CLASS",
            host if host and is_host_name(host.removesuffix(".")) else "HOST",
        )

    def at(self, dn: str) -> ServiceName:
        """The same service with its service connection point at a DN."""
        return evolve(self, scp_name=common_name(dn), scp_parent=parent_of(dn), container=None)

    @property
    def common_name(self) -> str:
        """The service connection point's common name."""
        return self.scp_name or self.service_class

    def install_words(self, account: str) -> list[str]:
        """The arguments of ``mutauth`` that install the service for an account."""
        return self._words("install", "--account", account)

    def uninstall_words(self) -> list[str]:
        """The arguments of ``mutauth`` that remove the service."""
        return self._words("uninstall")

    def publish_words(
        self, name: str, *, port: object = None, account: str | None = None
    ) -> list[str]:
        """The arguments of ``mutauth`` that publish the service as an RnR service.

        :param name: the RnR service's name or DN.
        :param port: None: the service publishes its address itself.
        :param account: the one to register the SPN on, if any.
        """
        words = ["rnr", "publish", name, *self._parts]
        words += ["--account", account] if account is not None else []
        return words + (["--port", str(port)] if port is not None else [])

    @property
    def _parts(self) -> list[str]:
        return ["--service-class", self.service_class, "--host", self.host]

    def _words(self, command: str, *more: str) -> list[str]:
        words = [command, *self._parts, *more]
        if self.spn_forms != DEFAULT_SPN_FORMS:
            words += ["--spn-form", ",".join(self.spn_forms)]
        if self.common_name != self.service_class:
            words += ["--scp-name", self.common_name]
        for option, value in (("--scp-parent", self.scp_parent), ("--container", self.container)):
            words += [option, value] if value is not None else []
        return words
