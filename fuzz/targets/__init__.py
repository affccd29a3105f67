"""Targets of the fuzzer: each checks, for one input, what must hold for any.

A target returns when all is well and raises when something is not; whatever
escapes it is a finding.  It keeps nothing from one input to the next that
could change what the next one does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module

from attrs import frozen

Check = Callable[[bytes], None]


@frozen
class Target:
    """One target as it is listed.

    :param module: the module in this package that has it.
    :param check: the function's name there; it takes an input, or, when the
        target is ``prepared``, nothing, and gives a context manager of such a function.
    :param longest: inputs are made up to this length, in bytes.
    """

    module: str
    check: str
    longest: int = 512
    prepared: bool = False

    def open(self) -> AbstractContextManager[Check]:
        """The target's check, for the time of a ``with`` block."""
        found = getattr(import_module(f"{__name__}.{self.module}"), self.check)
        return found() if self.prepared else nullcontext(found)


TARGETS: dict[str, Target] = {
    "wire-nns": Target("wires", "check_nns", 2048),
    "wire-winsock": Target("wires", "check_winsock", 2048),
    "stream": Target("streams", "check"),
    "handshake": Target("handshake", "check"),
    "connection": Target("connection", "check", 1024),
    "driver": Target("driver", "check", 1024),
    "records": Target("connection", "check_records", 1024),
    "acceptor": Target("kerberos", "acceptor", 2048, prepared=True),
    "initiator": Target("kerberos", "initiator", 1024, prepared=True),
    "sealing": Target("kerberos", "sealing", prepared=True),
    "ldap": Target("ldap", "check", 1024),
    "ticket": Target("tokens", "check_ticket", 2048),
    "confirmation": Target("tokens", "check_confirmation"),
    "pac": Target("tokens", "check_pac", 2048),
    "spn": Target("names", "check_spn"),
    "dn": Target("names", "check_dn"),
    "policy": Target("names", "check_policy"),
    "policy-file": Target("files", "check_policy_file"),
    "binding": Target("entries", "check_binding"),
    "scp": Target("entries", "check_scp"),
    "rnr": Target("entries", "check_rnr", 1200),
    "guid-cache": Target("entries", "guid_cache", prepared=True),
    "proxy-header": Target("headers", "check", 1024),
    "status": Target("requests", "check", 1024),
    "dns": Target("answers", "check", 1024),
}
