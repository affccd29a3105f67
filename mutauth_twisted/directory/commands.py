"""The commands that errors tell an administrator to run, to be copied into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

DEFAULT_SPN_FORMS = ("guid", "dn")


def install_command(
    service_class: str,
    host: str,
    account: str,
    *,
    spn_forms: Sequence[str] = DEFAULT_SPN_FORMS,
    scp_name: str | None = None,
    scp_parent: str | None = None,
    reach: Sequence[str] = (),
) -> str:
    """The command with which an administrator puts a service right.

    :param reach: the options that say how to reach the directory, if any.
    """
    words = [
        "mutauth",
        "install",
        "--service-class",
        service_class,
        "--host",
        host,
        "--account",
        account,
    ]
    if tuple(spn_forms) != DEFAULT_SPN_FORMS:
        words += ["--spn-form", ",".join(spn_forms)]
    return shlex.join([*words, *_place(service_class, scp_name, scp_parent), *reach])


def uninstall_command(
    service_class: str,
    host: str,
    *,
    spn_forms: Sequence[str] = DEFAULT_SPN_FORMS,
    scp_name: str | None = None,
    scp_parent: str | None = None,
    reach: Sequence[str] = (),
) -> str:
    """The command with which an administrator removes a service."""
    words = ["mutauth", "uninstall", "--service-class", service_class, "--host", host]
    if tuple(spn_forms) != DEFAULT_SPN_FORMS:
        words += ["--spn-form", ",".join(spn_forms)]
    return shlex.join([*words, *_place(service_class, scp_name, scp_parent), *reach])


def _place(service_class: str, scp_name: str | None, scp_parent: str | None) -> list[str]:
    words = ["--scp-name", scp_name] if scp_name is not None and scp_name != service_class else []
    return words + (["--scp-parent", scp_parent] if scp_parent is not None else [])
