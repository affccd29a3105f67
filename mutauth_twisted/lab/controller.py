"""Start and stop the lab's domain controller, and clean up after a killed one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mutauth_twisted.errors import UsageError
from mutauth_twisted.lab import state
from mutauth_twisted.lab.runner import launch
from mutauth_twisted.lab.state import Lab, LabError, ProcessIdentity

#: Told of every step as it begins: the text, and the seconds since the start.
Progress = Callable[[str, float], None]

#: What must be there, and the Debian package it comes with.
_REQUIRED = (
    ("/usr/sbin/samba", "samba"),
    ("/usr/bin/kinit", "krb5-user"),
    ("/usr/bin/python3", "python3"),
    ("/usr/lib/python3/dist-packages/samba/samdb.py", "python3-samba"),
    ("/usr/lib/python3/dist-packages/samba/dckeytab.*.so", "python3-samba"),
    ("/usr/share/samba/setup/provision.ldif", "samba-ad-provision"),
    ("/usr/lib/*/samba/ldb/samldb.so", "samba-dsdb-modules"),
)

_TCP_PORTS = (53, 88, 135, 389, 464, 636, 3268, 3269)
_UDP_PORTS = (53, 88, 389, 464)
#: Answering on all of these, the DC is ready.
_READY_PORTS = (53, 88, 389, 464, 3268)
#: Samba's sockets lie up to 36 bytes deeper, and their paths end at 107 (unix(7)).
_LONGEST_DIRECTORY = 70
_START_SECONDS = 40.0
_STOP_SECONDS = 5.0

_PROVISION = Path(__file__).with_name("_provision.py")


def _silent(text: str, elapsed: float) -> None:
    """The progress of those who do not want to know."""


def up(
    directory: str | os.PathLike[str] | None = None,
    address: str | None = None,
    *,
    progress: Progress = _silent,
    owned: bool = False,
) -> Lab:
    """Start a lab and return it; one that runs already is returned as it is.

    :param directory: where everything is kept (MUTAUTH_LAB, else /run/mutauth-lab).
    :param address: the DC's loopback address (127.0.0.10); the hosts get
        addresses with the same first three octets.
    :param owned: whether the domain controller dies with the calling thread;
        otherwise it goes on until :func:`down`.
    :raises LabError: no root, a package or a port is missing, or the DC did not start.
    :raises UsageError: *address* is not a loopback address, or the directory's path is too long.
    """
    where = state.default_directory() if directory is None else Path(directory).absolute()
    begun = time.monotonic()

    def report(text: str) -> None:
        progress(text, time.monotonic() - begun)

    _require_loopback(address)
    _require_short(where)
    _require_root()
    with _locked(where, report, create=True):
        running_lab = state.find(where)
        if running_lab is not None:
            return _usable(running_lab, address, report)
        lab = Lab(directory=where, nameserver=address or state.DEFAULT_ADDRESS)
        try:
            _require_packages()
            _clear(where)
            require_free_ports(lab.nameserver)
            _start(lab, report, owned)
        except BaseException:
            # Half a lab is of no use to anybody, whatever ended its start.
            _remove(where)
            raise
        report(f"ready: {lab.realm} at {lab.nameserver}, everything below {where}")
        return lab


def down(directory: str | os.PathLike[str] | None = None, *, progress: Progress = _silent) -> bool:
    """Stop a lab and remove its directory; False when there was none.

    :raises LabError: the directory is not a lab's, or the DC does not stop.
    """
    where = state.default_directory() if directory is None else Path(directory).absolute()
    begun = time.monotonic()

    def report(text: str) -> None:
        progress(text, time.monotonic() - begun)

    if not where.exists():
        return False
    _require_root()
    with _locked(where, report, create=False) as found:
        if found:
            report("stopping the domain controller")
            _remove(where)
    return found


@contextlib.contextmanager
def running(
    directory: str | os.PathLike[str] | None = None,
    address: str | None = None,
    *,
    progress: Progress = _silent,
) -> Iterator[Lab]:
    """A lab for the time of a ``with`` block.

    One that runs already is used and left alone; otherwise a new one is taken
    down at the end, and dies with this process whatever ends it.
    """
    where = state.default_directory() if directory is None else Path(directory).absolute()
    existing = state.find(where)
    if existing is not None:
        yield up(where, address, progress=progress)
        return
    lab = up(where, address, progress=progress, owned=True)
    try:
        yield lab
    finally:
        # In silence: the last word is the program's.
        down(where)


def _usable(lab: Lab, address: str | None, report: Callable[[str], None]) -> Lab:
    if address is not None and address != lab.nameserver:
        raise LabError(
            f"lab {lab.directory}",
            f"already running at {lab.nameserver}",
            "take it down first, or name another directory with --dir",
        )
    owner = ProcessIdentity.read(state.owner_file(lab.directory))
    inside = os.environ.get(state.ENVIRONMENT_VARIABLE) == str(lab.directory)
    if owner is not None and owner.alive() and owner.pid != os.getpid() and not inside:
        raise LabError(
            f"lab {lab.directory}",
            f"belongs to a running `mutauth lab run` (process {owner.pid}) and ends with it",
            "wait for it, or give --dir and --address for a lab of your own",
        )
    report(f"already up: {lab.realm} at {lab.nameserver}, everything below {lab.directory}")
    return lab


def _require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab", "needs root (ports below 1024, Samba's provisioning)", "run it as root, or with sudo")


def _require_short(directory: Path) -> None:
    if len(os.fsencode(directory)) > _LONGEST_DIRECTORY:
        raise UsageError(
            str(directory),
            f"too long a path for Samba's sockets (more than {_LONGEST_DIRECTORY} bytes)",
            "give a shorter --dir, such as one below /run",
        )


def _require_loopback(address: str | None) -> None:
    if address is None:
        return
    try:
        value = ipaddress.IPv4Address(address)
    except ValueError:
        value = None
    if value is None or not value.is_loopback:
        raise UsageError(address, "not an IPv4 loopback address", "give one of 127.0.0.0/8 such as 127.0.0.10")
    taken = set(state.HOST_OCTETS.values())
    if int(address.rpartition(".")[2]) in taken | {0, 255}:
        raise UsageError(address, "its last octet is taken by a host of the lab", "choose e.g. 10 as last octet")


def _require_packages() -> None:
    missing = [package for pattern, package in _REQUIRED if not any(Path("/").glob(pattern.lstrip("/")))]
    if missing:
        names = " ".join(dict.fromkeys(missing))
        raise LabError(
            "the lab",
            f"Debian packages are missing: {names}",
            f"install them with `apt-get install --no-install-recommends {names}`",
        )


def require_free_ports(address: str) -> None:
    """Raise LabError when a port of the DC is taken at *address*."""
    for kind, ports in ((socket.SOCK_STREAM, _TCP_PORTS), (socket.SOCK_DGRAM, _UDP_PORTS)):
        for port in ports:
            with socket.socket(socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    # As Samba does: connections in TIME_WAIT are no obstacle.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except OSError as error:
                    raise _port_error(address, port, kind, error) from error


def _port_error(address: str, port: int, kind: socket.SocketKind, error: OSError) -> LabError:
    name = "TCP" if kind == socket.SOCK_STREAM else "UDP"
    cause = "in use by another program" if error.errno == errno.EADDRINUSE else str(error.strerror)
    return LabError(
        f"{name} port {port} at {address}",
        cause,
        f"see which with `ss -lntup src {address}`, or choose another --address",
    )


@contextlib.contextmanager
def _locked(directory: Path, report: Callable[[str], None], *, create: bool) -> Iterator[bool]:
    """Hold the lab's directory for oneself; yields whether it exists.

    :raises LabError: it is not a lab's.
    """
    while True:
        try:
            if create:
                directory.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            if create:
                raise LabError(str(directory), "its parent directory does not exist", "create it") from error
            yield False
            return
        except OSError as error:
            raise LabError(str(directory), f"cannot be used ({error.strerror})", "give another --dir") from error
        try:
            _lock(handle, directory, report)
            # The last holder may have removed the directory we waited for.
            try:
                current = os.stat(directory).st_ino == os.fstat(handle).st_ino
            except FileNotFoundError:
                current = False
            if not current:
                continue
            _claim(directory, create)
            yield True
            return
        finally:
            os.close(handle)


def _lock(handle: int, directory: Path, report: Callable[[str], None]) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        report(f"waiting for another `mutauth lab` at work in {directory}")
        fcntl.flock(handle, fcntl.LOCK_EX)


def _claim(directory: Path, create: bool) -> None:
    mark = state.marker(directory)
    if mark.exists():
        return
    if any(directory.iterdir()) or not create:
        raise LabError(str(directory), "exists and is not a lab", "give another --dir")
    directory.chmod(0o700)
    mark.write_text("A throw-away directory; `mutauth lab down` removes it.\n", "utf-8")


def _remove(directory: Path) -> None:
    _clear(directory)
    state.marker(directory).unlink(missing_ok=True)
    directory.rmdir()


def _clear(directory: Path) -> None:
    """Stop what runs from this directory and empty it, but for the marker."""
    process = ProcessIdentity.read(state.identity_file(directory))
    if process is not None:
        _stop(process)
    # The state goes first: a removal cut short must not look like a lab.
    (directory / "lab.json").unlink(missing_ok=True)
    for entry in directory.iterdir():
        if entry == state.marker(directory):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _stop(process: ProcessIdentity) -> None:
    """End exactly this process, whose number may meanwhile be another's."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # The handle pins the process, so what is compared is what gets the signal.
        if not process.alive():
            return
        for signum in (signal.SIGTERM, signal.SIGKILL):
            try:
                signal.pidfd_send_signal(handle, signum)
            except ProcessLookupError:
                return
            if select.select([handle], [], [], _STOP_SECONDS)[0]:
                return
    finally:
        os.close(handle)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
    raise LabError(f"process {process.pid}", "the domain controller does not stop", "stop it by hand")


def _start(lab: Lab, report: Callable[[str], None], owned: bool) -> None:
    if owned:
        me = ProcessIdentity.of(os.getpid())
        assert me is not None
        me.write(state.owner_file(lab.directory))
    _lay_out(lab)
    report(f"making the directory of {lab.realm} (users, computers, keys, DNS)")
    _provision(lab)
    report(f"starting the domain controller {lab.dc_host} at {lab.nameserver}")
    _start_controller(lab, owned)
    report("getting tickets")
    for name in state.ACCOUNTS:
        _get_ticket(lab, name)
    state.save(lab)


def _lay_out(lab: Lab) -> None:
    """Write everything the provisioning and the DC read."""
    for name in ("keytabs", "ccaches", "passwords", "rcache", "log", "samba"):
        (lab.directory / name).mkdir(mode=0o700)
    for name in ("etc", "private", "state", "cache", "lock", "run", "rpc", "sysvol"):
        (lab.directory / "samba" / name).mkdir(mode=0o700)
    for name in state.ACCOUNTS:
        # The prefix satisfies the domain's complexity rule whatever the rest is.
        _write_secret(lab.directory / "passwords" / name, "Aa1-" + secrets.token_urlsafe(24))
    lab.krb5_conf.write_text(_krb5_conf(lab), "utf-8")
    _smb_conf_path(lab).write_text(_smb_conf(lab), "utf-8")


def _write_secret(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _smb_conf_path(lab: Lab) -> Path:
    return lab.directory / "samba" / "etc" / "smb.conf"


def _krb5_conf(lab: Lab) -> str:
    # TCP first: a dead KDC's refused connection is known at once, a lost datagram after seconds.
    return f"""[libdefaults]
    default_realm = {lab.realm}
    dns_lookup_realm = false
    dns_lookup_kdc = false
    dns_canonicalize_hostname = false
    rdns = false
    udp_preference_limit = 1
    forwardable = true

[realms]
    {lab.realm} = {{
        kdc = {lab.nameserver}
        kpasswd_server = {lab.nameserver}
    }}

[domain_realm]
    .{lab.realm.lower()} = {lab.realm}
    {lab.realm.lower()} = {lab.realm}
"""


def _smb_conf(lab: Lab) -> str:
    base = lab.directory / "samba"
    return f"""[global]
    netbios name = {state.DC_NAME.upper()}
    realm = {lab.realm}
    workgroup = {lab.domain}
    server role = active directory domain controller
    server services = ldap, kdc, dns, cldap, rpc
    interfaces = {lab.nameserver}/8
    bind interfaces only = yes
    private dir = {base}/private
    state directory = {base}/state
    cache directory = {base}/cache
    lock directory = {base}/lock
    pid directory = {base}/run
    ncalrpc dir = {base}/rpc
    binddns dir = {base}/state/bind-dns
    winbindd socket directory = {base}/run/winbindd
    ntp signd socket directory = {base}/run/ntp_signd
    usershare path = {base}/state/usershares
    log file = {base}/run/samba.log
    logging = stdout

[sysvol]
    path = {base}/sysvol
    read only = no

[netlogon]
    path = {base}/sysvol/scripts
    read only = no
"""


def _environment(lab: Lab) -> dict[str, str]:
    """All the lab's own programs get to see: nothing of the machine's configuration."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "TMPDIR": str(lab.directory / "samba" / "run"),
        "SMB_CONF_PATH": str(_smb_conf_path(lab)),
        "KRB5_CONFIG": str(lab.krb5_conf),
    }


def _provision(lab: Lab) -> None:
    plan = {
        "smb_conf": str(_smb_conf_path(lab)),
        "realm": lab.realm,
        "domain": lab.domain,
        "dc_name": state.DC_NAME,
        "dc_host": lab.dc_host,
        "address": lab.nameserver,
        "keytabs": str(lab.directory / "keytabs"),
        "passwords": {name: lab.password(name) for name in state.ACCOUNTS},
        "users": state.USERS,
        "computers": {name: lab.host(name) for name in state.COMPUTERS},
        "groups": state.GROUPS,
        "principals": {name: state.account(name) for name in state.ACCOUNTS},
        "addresses": {lab.host(name): lab.address_of(name) for name in state.HOST_OCTETS},
    }
    log = lab.directory / "log" / "provision.log"
    with log.open("wb") as output:
        result = subprocess.run(
            launch(["/usr/bin/python3", "-I", str(_PROVISION)]),
            input=json.dumps(plan).encode(),
            stdout=output,
            stderr=output,
            env=_environment(lab),
            cwd="/",
            check=False,
        )
    if result.returncode:
        raise LabError("Samba's provisioning", f"failed: {_last_line(log)}", "mend the cause and try again")


def _start_controller(lab: Lab, owned: bool) -> None:
    record = state.identity_file(lab.directory)
    command = ["/usr/sbin/samba", "--interactive", "--model=single", f"--configfile={_smb_conf_path(lab)}"]
    with lab.log.open("wb") as output:
        process = subprocess.Popen(
            launch(command, record=record, tied=owned),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(lab),
            cwd="/",
            # Out of reach of the terminal's Ctrl-C, and of its end.
            start_new_session=True,
        )
    try:
        _await_ready(lab, process)
    except BaseException:
        # Its record may not be written yet, so nobody else would find it.
        process.kill()
        process.wait()
        raise


def _await_ready(lab: Lab, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    waiting = set(_READY_PORTS)
    while waiting:
        if process.poll() is not None:
            raise LabError(
                f"the domain controller at {lab.nameserver}",
                f"ended at its start: {_last_line(lab.log)}",
                "mend the cause and try again",
            )
        if time.monotonic() > deadline:
            raise LabError(
                f"the domain controller at {lab.nameserver}",
                f"silent on port {min(waiting)} after {_START_SECONDS:.0f} s: {_last_line(lab.log)}",
                "try again on a less busy machine",
            )
        waiting = {port for port in waiting if not _answers(lab.nameserver, port)}
        if waiting:
            time.sleep(0.05)


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


def _get_ticket(lab: Lab, name: str) -> None:
    keytab = ["-k", "-t", str(lab.keytab(name))]
    result = subprocess.run(
        launch(["/usr/bin/kinit", "-c", lab.ccache(name), *keytab, lab.principal(name)]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=_environment(lab),
        timeout=_START_SECONDS,
        check=False,
    )
    if result.returncode:
        raise LabError(lab.principal(name), f"no ticket from the lab's KDC: {result.stderr.strip()}", f"see {lab.log}")


def _last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    # Samba puts a header with the time and place before each message.
    said = [line for line in lines if line and not line.startswith(("[", "Copyright"))]
    return said[-1] if said else "its log is empty"
