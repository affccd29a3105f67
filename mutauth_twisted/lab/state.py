"""State of a lab, and how it is found again: its directory, file by file."""

from __future__ import annotations

import json
import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from mutauth_twisted.errors import MutualAuthError

DEFAULT_DIRECTORY = Path("/run/mutauth-lab")
DEFAULT_ADDRESS = "127.0.0.10"

#: Names the lab's directory in the environment of programs that run in it.
ENVIRONMENT_VARIABLE = "MUTAUTH_LAB"

REALM = "LAB.EXAMPLE"
DOMAIN = "LAB"
DNS_DOMAIN = REALM.lower()
DC_NAME = "dc1"
SECOND_DC_NAME = "dc2"

USERS = ("alice", "bob", "svc-echo", "svc-other")
GROUPS = {"echo-users": ("alice",)}
COMPUTERS = ("srv1", "srv2", "rogue")
ACCOUNTS = ("administrator", *USERS, *COMPUTERS)

#: The last octet of each host's address; the first three are the DC's own.
HOST_OCTETS = {"srv1": 21, "srv2": 22, "rogue": 66}
SECOND_DC_OCTET = 11

#: SRV records below the domain: host, port, priority and weight of each target.
SRV_RECORDS = {"_echo._tcp": (("srv1", 9401, 1, 100), ("srv2", 9402, 2, 100))}

_MARKER = ".mutauth-lab"
_STATE = "lab.json"
_IDENTITY = "dc.pid"
_SECOND_IDENTITY = "dc2.pid"
_OWNER = "owner.pid"


class LabError(MutualAuthError):
    """The lab cannot be started, used or stopped."""

    code = "lab-failed"


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, told apart from a later one that got the same number.

    :ivar pid: its number.
    :ivar started: its start time in clock ticks since boot (proc(5), field 22).
    :ivar boot: the boot the start time belongs to.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The identity of the living process *pid*, or None (a zombie is not alive)."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        if fields[0] in "ZX":
            return None
        return cls(pid, int(fields[19]), boot)

    @classmethod
    def read(cls, path: Path) -> ProcessIdentity | None:
        """The identity recorded in *path*, or None without a usable record."""
        try:
            pid, started, boot = path.read_text("utf-8").split()
            return cls(int(pid), int(started), boot)
        except (FileNotFoundError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Record this identity in *path*."""
        path.write_text(f"{self.pid} {self.started} {self.boot}\n", "utf-8")

    def alive(self) -> bool:
        """True if exactly this process still runs."""
        return ProcessIdentity.of(self.pid) == self


@dataclass(frozen=True)
class Lab:
    """A running lab: where everything is.

    :ivar directory: the directory that holds all of it.
    :ivar nameserver: the DC's address; DNS, KDC and LDAP are on their usual ports there.
    :ivar realm: the Kerberos realm, ``LAB.EXAMPLE``.
    :ivar domain: the NetBIOS name of the domain, ``LAB``.
    :ivar dc_host: the DC's FQDN, ``dc1.lab.example``.
    :ivar second_dc: whether there is a second DC, ``dc2.lab.example``, which follows the first.
    """

    directory: Path
    nameserver: str = DEFAULT_ADDRESS
    realm: str = REALM
    domain: str = DOMAIN
    dc_host: str = f"{DC_NAME}.{DNS_DOMAIN}"
    second_dc: bool = False

    @classmethod
    def load(cls, directory: str | os.PathLike[str] | None = None) -> Lab:
        """The running lab in *directory* (:func:`default_directory`).

        :raises LabError: there is none.
        """
        lab = find(default_directory() if directory is None else Path(directory))
        if lab is None:
            where = default_directory() if directory is None else Path(directory)
            word = "up" if find_stopped(where) is None else "start"
            remedy = f"start it with `{command(word, where)}`"
            raise LabError(f"lab {where}", "not running", remedy)
        return lab

    @classmethod
    def made(cls, directory: str | os.PathLike[str] | None = None) -> tuple[Lab, bool]:
        """The lab in *directory* (:func:`default_directory`), stopped or not, and if it runs.

        :raises LabError: there is none.
        """
        where = default_directory() if directory is None else Path(directory)
        stopped = find_stopped(where)
        return (cls.load(where), True) if stopped is None else (stopped, False)

    @classmethod
    def current(cls) -> Lab:
        """The running lab the environment variable MUTAUTH_LAB names.

        :raises LabError: the variable is unset, or its lab does not run.
        """
        directory = os.environ.get(ENVIRONMENT_VARIABLE)
        if not directory:
            raise LabError(
                ENVIRONMENT_VARIABLE,
                "not set, so there is no lab",
                "run the program under `mutauth lab run --`",
            )
        return cls.load(directory)

    @property
    def krb5_conf(self) -> Path:
        """The krb5.conf of the realm, the value for KRB5_CONFIG."""
        return self.directory / "krb5.conf"

    @property
    def ca_file(self) -> Path:
        """The certificate (PEM) of the authority that vouches for every DC's LDAPS certificate."""
        return self.directory / "tls" / "ca.pem"

    @property
    def second_address(self) -> str:
        """The loopback address of the second DC, if there is one; DNS, KDC and LDAP as on the
        first.
        """
        return f"{self.nameserver.rpartition('.')[0]}.{SECOND_DC_OCTET}"

    @property
    def log(self) -> Path:
        """The domain controller's log."""
        return self.directory / "log" / "samba.log"

    @property
    def base_dn(self) -> str:
        """The domain's DN."""
        return ",".join(f"DC={label}" for label in self.realm.lower().split("."))

    def host(self, name: str) -> str:
        """The FQDN of a host: ``srv1`` gives ``srv1.lab.example``."""
        return f"{name}.{self.realm.lower()}"

    def address_of(self, host: str) -> str:
        """The loopback address of *host*, given as FQDN or first label.

        :raises LabError: the lab has no such host.
        """
        name = host.lower().partition(".")[0]
        if name == self.dc_host.partition(".")[0]:
            return self.nameserver
        if name == SECOND_DC_NAME and self.second_dc:
            return self.second_address
        if name not in HOST_OCTETS:
            raise LabError(
                host, "not a host of the lab", f"its hosts: {DC_NAME}, {', '.join(HOST_OCTETS)}"
            )
        return f"{self.nameserver.rpartition('.')[0]}.{HOST_OCTETS[name]}"

    @property
    def hosts(self) -> dict[str, str]:
        """The addresses of the hosts without a domain controller, by FQDN."""
        return {self.host(name): self.address_of(name) for name in HOST_OCTETS}

    def principal(self, name: str) -> str:
        """The principal of an account: ``alice@LAB.EXAMPLE``, ``SRV1$@LAB.EXAMPLE``."""
        return f"{account(_known(name))}@{self.realm}"

    def keytab(self, name: str) -> Path:
        """The keytab with the AES keys of the account *name* (``svc-echo``, ``srv1``)."""
        return self.directory / "keytabs" / f"{_known(name)}.keytab"

    def ccache(self, name: str) -> str:
        """The ticket cache of the account *name*, as ``FILE:...``."""
        return f"FILE:{self.directory / 'ccaches' / _known(name)}"

    def password(self, name: str) -> str:
        """The password of the account *name*; random in every lab."""
        return (self.directory / "passwords" / _known(name)).read_text("utf-8")

    def environment(self, user: str = "alice") -> dict[str, str]:
        """The variables that make a program a member of the domain, logged on as *user*."""
        return {
            "KRB5_CONFIG": str(self.krb5_conf),
            "KRB5CCNAME": self.ccache(user),
            # The default replay cache is a file in /var/tmp that would stay behind.
            "KRB5RCACHEDIR": str(self.directory / "rcache"),
            "MUTAUTH_NAMESERVER": self.nameserver,
            "MUTAUTH_STATE_DIR": str(self.directory / "state"),
            **{f"MUTAUTH_{name.upper()}": self.address_of(name) for name in HOST_OCTETS},
            ENVIRONMENT_VARIABLE: str(self.directory),
        }


def command(word: str, directory: Path) -> str:
    """A sub-command of ``mutauth lab`` for the lab in *directory*, as people type it."""
    option = "" if directory == default_directory() else f" --dir {shlex.quote(str(directory))}"
    return f"mutauth lab {word}{option}"


def account(name: str) -> str:
    """The sAMAccountName of one of the lab's accounts."""
    return (
        f"{name.upper()}$"
        if name in COMPUTERS
        else "Administrator"
        if name == "administrator"
        else name
    )


def _known(name: str) -> str:
    key = name.lower().rstrip("$")
    if key not in ACCOUNTS:
        raise LabError(name, "not an account of the lab", f"its accounts: {', '.join(ACCOUNTS)}")
    return key


def default_directory() -> Path:
    """The directory MUTAUTH_LAB names, else /run/mutauth-lab."""
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_DIRECTORY).absolute()


def marker(directory: Path) -> Path:
    """The file that says a directory is a lab and may be removed."""
    return directory / _MARKER


def identity_file(directory: Path) -> Path:
    """The record of the domain controller's process."""
    return directory / _IDENTITY


def second_identity_file(directory: Path) -> Path:
    """The record of the second domain controller's process."""
    return directory / _SECOND_IDENTITY


def owner_file(directory: Path) -> Path:
    """The record of the process that takes the lab down at its end, if any."""
    return directory / _OWNER


def save(lab: Lab) -> None:
    """Write the state of a lab that is ready."""
    fields = {
        "version": 1,
        "realm": lab.realm,
        "domain": lab.domain,
        "nameserver": lab.nameserver,
        "dc_host": lab.dc_host,
        "second_dc": lab.second_dc,
    }
    temporary = lab.directory / (_STATE + ".new")
    temporary.write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
    temporary.replace(lab.directory / _STATE)


def require_own(directory: Path, found: os.stat_result) -> None:
    """Trust nothing that another user could have put there: what is in a lab names processes to
    stop.

    :raises LabError: the directory belongs to another user, or others may write into it.
    """
    if found.st_uid != os.getuid():
        raise LabError(
            f"lab {directory}",
            "it belongs to another user",
            "become that user, or give another --dir",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise LabError(f"lab {directory}", "others may write into it", "give another --dir")


def find(directory: Path) -> Lab | None:
    """The running lab in *directory*, or None.

    :raises LabError: the directory cannot be read or is not ours, or its state is damaged.
    """
    lab = load(directory)
    process = None if lab is None else ProcessIdentity.read(identity_file(directory))
    return lab if process is not None and process.alive() else None


def find_stopped(directory: Path) -> Lab | None:
    """The lab in *directory* whose domain controller does not run, or None.

    A lab that was to end with the process that started it is none: nobody wants it back.

    :raises LabError: as :func:`find`.
    """
    lab = load(directory)
    is_kept = lab is not None and not owner_file(directory).exists()
    return lab if is_kept and find(directory) is None else None


def load(directory: Path) -> Lab | None:
    """The lab in *directory*, whether or not it runs, or None.

    :raises LabError: as :func:`find`.
    """
    try:
        require_own(directory, directory.lstat())
        text = (directory / _STATE).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise LabError(f"lab {directory}", "belongs to root", "become root to use it") from error
    try:
        fields = json.loads(text)
        version = fields.pop("version")
        if version != 1:
            raise ValueError(f"version {version}")
        return Lab(directory=directory.absolute(), **fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(
            str(directory / _STATE), f"damaged ({error})", "remove the lab with `mutauth lab down`"
        ) from error
