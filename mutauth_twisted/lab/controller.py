"""Start and stop the lab's domain controller, and clean up after a killed one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mutauth_twisted.errors import UsageError
from mutauth_twisted.lab import files, state
from mutauth_twisted.lab.files import Controller
from mutauth_twisted.lab.runner import launch
from mutauth_twisted.lab.state import Lab, LabError, ProcessIdentity

#: Stands for an address that is free.
AUTO = "auto"
#: Told of every step as it begins: the text, and the seconds since the start.
Progress = Callable[[str, float], None]

#: What must be there, and the Debian package it comes with.
_REQUIRED = (
    ("/usr/sbin/samba", "samba"),
    ("/usr/bin/kinit", "krb5-user"),
    ("/usr/bin/openssl", "openssl"),
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
_JOIN = Path(__file__).with_name("_join.py")
#: By which DNS names the controllers are found, with the port of each.
_CONTROLLER_RECORDS = {
    "_ldap._tcp.dc._msdcs": 389,
    "_ldap._tcp": 389,
    "_gc._tcp": 3268,
    "_kerberos._tcp": 88,
    "_kerberos._udp": 88,
}


def _silent(text: str, elapsed: float) -> None:
    """The progress of those who do not want to know."""


def up(
    directory: str | os.PathLike[str] | None = None,
    address: str | None = None,
    *,
    second_dc: bool = False,
    realm: str = state.REALM,
    progress: Progress = _silent,
    owned: bool = False,
) -> Lab:
    """Start a lab and return it; one that runs already is returned as it is.

    :param directory: where everything is kept (MUTAUTH_LAB, else /run/mutauth-lab).
    :param address: the DC's loopback address (127.0.0.10), or ``auto`` for one that is free; the
        hosts get addresses with the same first three octets.
    :param second_dc: whether to join a second domain controller, whose
        address ends in 11.
    :param realm: its realm, whose first label is the domain's NetBIOS name.
    :param owned: whether the domain controller dies with the calling thread;
        otherwise it goes on until :func:`down`.
    :raises LabError: no root, a package or a port is missing, the DC did not start, or there is a
        lab that is stopped.
    :raises UsageError: *address* is not a loopback address, or the directory's path is too long.
    """
    where, report = _place(directory), _reporter(progress)
    _require_loopback(address)
    _require_short(where)
    _require_root()
    with _locked(where, report, create=True), contextlib.ExitStack() as reserved:
        if (running_lab := state.find(where)) is not None:
            return _usable(running_lab, address, second_dc, report)
        if state.find_stopped(where) is not None:
            start, down = (state.command(word, where) for word in ("start", "down"))
            remedy = f"`{start}` starts it again, `{down}` removes it"
            raise LabError(f"lab {where}", "there is one already, and it is stopped", remedy)
        try:
            _require_packages()
            _clear(where)
            if address == AUTO:
                address = reserved.enter_context(_free_address())
            lab = Lab(
                where,
                address or state.DEFAULT_ADDRESS,
                realm,
                realm.partition(".")[0],
                f"{state.DC_NAME}.{realm.lower()}",
                second_dc,
            )
            for controller in files.controllers(lab):
                require_free_ports(controller.address)
            _start(lab, report, owned)
        except BaseException:
            # Half a lab is of no use, whatever ended its start.
            _remove(where)
            raise
        _tell_ready(lab, report)
        return lab


def start(directory: str | os.PathLike[str] | None = None, *, progress: Progress = _silent) -> Lab:
    """Start a lab again that was stopped: the same domain, accounts and keys, at its own address.

    One that runs already is returned as it is.

    :raises LabError: there is no lab, its address is taken, or the DC did not start; the lab stays
        as it is.
    """
    where, report = _place(directory), _reporter(progress)
    _require_root()
    with _locked(where, report, create=False):
        if (running_lab := state.find(where)) is not None:
            return _usable(running_lab, None, second_dc=False, report=report)
        lab = state.find_stopped(where)
        if lab is None:
            remedy = f"make one with `{state.command('up', where)}`"
            raise LabError(f"lab {where}", "there is none", remedy)
        _require_packages()
        for controller in files.controllers(lab):
            require_free_ports(controller.address)
        try:
            _start_controllers(lab, report)
        except BaseException:
            _stop_controllers(where)
            raise
        _tell_ready(lab, report)
        return lab


def stop(directory: str | os.PathLike[str] | None = None, *, progress: Progress = _silent) -> bool:
    """Stop a lab's domain controllers and keep everything for :func:`start`; False when none ran.

    :raises LabError: the directory is not a lab's, the lab ends with a running ``mutauth lab run``,
        or a DC does not stop.
    """
    where, report = _place(directory), _reporter(progress)
    if not where.exists():
        return False
    _require_root()
    with _locked(where, report, create=False):
        lab = state.find(where)
        if lab is None:
            return False
        if state.owner_file(where).exists():
            raise _ends_with_its_owner(lab)
        report("stopping the domain controller")
        _stop_controllers(where)
        return True


def _place(directory: str | os.PathLike[str] | None) -> Path:
    return state.default_directory() if directory is None else Path(directory).absolute()


def _reporter(progress: Progress) -> Callable[[str], None]:
    begun = time.monotonic()
    return lambda text: progress(text, time.monotonic() - begun)


def _tell_ready(lab: Lab, report: Callable[[str], None]) -> None:
    hosts = ", ".join(f"{name} is {address}" for name, address in lab.hosts.items())
    report(f"ready: {lab.realm} at {lab.nameserver}, everything below {lab.directory}")
    report(f"hosts: {hosts}")


def down(directory: str | os.PathLike[str] | None = None, *, progress: Progress = _silent) -> bool:
    """Stop a lab and remove its directory; False when there was none.

    :raises LabError: the directory is not a lab's, or the DC does not stop.
    """
    where, report = _place(directory), _reporter(progress)
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
    where = _place(directory)
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


def _usable(lab: Lab, address: str | None, second_dc: bool, report: Callable[[str], None]) -> Lab:
    if address not in (None, AUTO, lab.nameserver):
        raise LabError(
            f"lab {lab.directory}",
            f"already running at {lab.nameserver}",
            "take it down first, or name another directory with --dir",
        )
    if second_dc and not lab.second_dc:
        raise LabError(
            f"lab {lab.directory}",
            "already running with one domain controller",
            "take it down first, or name another directory with --dir",
        )
    owner = ProcessIdentity.read(state.owner_file(lab.directory))
    inside = os.environ.get(state.ENVIRONMENT_VARIABLE) == str(lab.directory)
    if owner is not None and owner.alive() and owner.pid != os.getpid() and not inside:
        raise _ends_with_its_owner(lab)
    report(f"already up: {lab.realm} at {lab.nameserver}, everything below {lab.directory}")
    return lab


def _ends_with_its_owner(lab: Lab) -> LabError:
    owner = ProcessIdentity.read(state.owner_file(lab.directory))
    process = f" (process {owner.pid})" if owner is not None else ""
    cause = f"belongs to a running `mutauth lab run`{process} and ends with it"
    remedy = "wait for it, or give --dir and --address for a lab of your own"
    return LabError(f"lab {lab.directory}", cause, remedy)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise LabError(
            "the lab",
            "needs root (ports below 1024, Samba's provisioning)",
            "run it as root, or with sudo",
        )


def _require_short(directory: Path) -> None:
    if len(os.fsencode(directory)) > _LONGEST_DIRECTORY:
        raise UsageError(
            str(directory),
            f"too long a path for Samba's sockets (more than {_LONGEST_DIRECTORY} bytes)",
            "give a shorter --dir, such as one below /run",
        )


def _require_loopback(address: str | None) -> None:
    if address in (None, AUTO):
        return
    assert address is not None
    try:
        value = ipaddress.IPv4Address(address)
    except ValueError:
        value = None
    if value is None or not value.is_loopback:
        raise UsageError(
            address,
            "not an IPv4 loopback address",
            "give one of 127.0.0.0/8 such as 127.0.0.10, or auto",
        )
    taken = {*state.HOST_OCTETS.values(), state.SECOND_DC_OCTET}
    if int(address.rpartition(".")[2]) in taken | {0, 255}:
        raise UsageError(
            address, "its last octet is taken by a host of the lab", "choose e.g. 10 as last octet"
        )


def _require_packages() -> None:
    missing = [
        package for pattern, package in _REQUIRED if not any(Path("/").glob(pattern.lstrip("/")))
    ]
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


@contextlib.contextmanager
def _free_address() -> Iterator[str]:
    """The first address that nobody uses, and no other lab that looks for one is about to use.

    :raises LabError: when there is none.
    """
    for third in range(256):
        address = f"127.0.{third}.10"
        second = f"127.0.{third}.{state.SECOND_DC_OCTET}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
            try:
                claim.bind(f"\0mutauth-lab {address}")
                require_free_ports(address)
                require_free_ports(second)
            except (OSError, LabError):
                continue
            yield address
            return
    raise LabError("--address auto", "no address of 127.0.N.10 is free", "take a lab down")


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
                raise LabError(
                    str(directory), "its parent directory does not exist", "create it"
                ) from error
            yield False
            return
        except OSError as error:
            raise LabError(
                str(directory), f"cannot be used ({error.strerror})", "give another --dir"
            ) from error
        try:
            state.require_own(directory, os.fstat(handle))
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


def _stop_controllers(directory: Path) -> None:
    for record in (state.second_identity_file(directory), state.identity_file(directory)):
        process = ProcessIdentity.read(record)
        if process is not None:
            _stop(process)


def _clear(directory: Path) -> None:
    """Stop what runs from this directory and empty it, but for the marker."""
    _stop_controllers(directory)
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
    raise LabError(
        f"process {process.pid}", "the domain controller does not stop", "stop it by hand"
    )


def _start(lab: Lab, report: Callable[[str], None], owned: bool) -> None:
    if owned:
        me = ProcessIdentity.of(os.getpid())
        assert me is not None
        me.write(state.owner_file(lab.directory))
    files.lay_out(lab)
    report(f"making the directory of {lab.realm} (users, computers, keys, DNS)")
    _provision(lab)
    for controller in files.controllers(lab):
        if controller.name == state.SECOND_DC_NAME:
            report(f"joining the second domain controller {lab.host(controller.name)}")
            _join(lab, controller)
        report(
            f"starting the domain controller {lab.host(controller.name)} at {controller.address}"
        )
        _start_controller(lab, controller, owned)
    _get_tickets(lab, report)
    state.save(lab)


def _start_controllers(lab: Lab, report: Callable[[str], None]) -> None:
    """Start what has been made before."""
    for controller in files.controllers(lab):
        host = lab.host(controller.name)
        report(f"starting the domain controller {host} at {controller.address}")
        _start_controller(lab, controller, owned=False)
    _get_tickets(lab, report)


def _get_tickets(lab: Lab, report: Callable[[str], None]) -> None:
    report("getting tickets")
    for name in state.ACCOUNTS:
        _get_ticket(lab, name)


def _provision(lab: Lab) -> None:
    controller = files.first_controller(lab)
    plan = {
        "smb_conf": str(controller.smb_conf),
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
        "srv_records": _srv_records(lab),
    }
    _run_script(
        lab,
        controller,
        _PROVISION,
        plan,
        lab.directory / "log" / "provision.log",
        "Samba's provisioning",
    )


def _srv_records(lab: Lab) -> dict[str, list[tuple[str, int, int, int]]]:
    """The targets of each SRV record, with the host's full name."""
    targets = {
        name: [(lab.host(host), port, priority, weight) for host, port, priority, weight in targets]
        for name, targets in state.SRV_RECORDS.items()
    }
    if lab.second_dc:
        second = lab.host(state.SECOND_DC_NAME)
        targets |= {name: [(second, port, 0, 100)] for name, port in _CONTROLLER_RECORDS.items()}
    return targets


def _join(lab: Lab, controller: Controller) -> None:
    """Make the second controller's copy of the directory, from the first one while it runs."""
    plan = {
        "smb_conf": str(controller.smb_conf),
        "realm": lab.realm,
        "server": lab.nameserver,
        "address": controller.address,
        "password": lab.password("administrator"),
    }
    _run_script(lab, controller, _JOIN, plan, lab.directory / "log" / "join.log", "Samba's join")


def _run_script(
    lab: Lab, controller: Controller, script: Path, plan: object, log: Path, what: str
) -> None:
    """Let the system's Python carry out a plan, which holds secrets and so goes through a pipe."""
    with log.open("wb") as output:
        result = subprocess.run(
            launch(["/usr/bin/python3", "-I", str(script)]),
            input=json.dumps(plan).encode(),
            stdout=output,
            stderr=output,
            env=files.environment(lab, controller),
            cwd="/",
            check=False,
        )
    if result.returncode:
        raise LabError(what, f"failed: {_last_line(log)}", "fix the cause and try again")


def _start_controller(lab: Lab, controller: Controller, owned: bool) -> None:
    command = [
        "/usr/sbin/samba",
        "--interactive",
        "--model=single",
        f"--configfile={controller.smb_conf}",
    ]
    with controller.log.open("wb") as output:
        process = subprocess.Popen(
            launch(command, record=controller.record, tied=owned),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=files.environment(lab, controller),
            cwd="/",
            # Out of reach of the terminal's Ctrl-C, and of its end.
            start_new_session=True,
        )
    try:
        _await_ready(controller, process)
    except BaseException:
        # Its record may not be written yet, so nothing else would find it.
        process.kill()
        process.wait()
        raise


def _await_ready(controller: Controller, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    waiting = set(_READY_PORTS)
    while waiting:
        if process.poll() is not None:
            raise LabError(
                f"the domain controller at {controller.address}",
                f"ended at its start: {_last_line(controller.log)}",
                "fix the cause and try again",
            )
        if time.monotonic() > deadline:
            raise LabError(
                f"the domain controller at {controller.address}",
                f"silent on port {min(waiting)} after {_START_SECONDS:.0f} s: "
                f"{_last_line(controller.log)}",
                "try again on a less busy machine",
            )
        waiting = {port for port in waiting if not _answers(controller.address, port)}
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
        env=files.environment(lab, files.first_controller(lab)),
        timeout=_START_SECONDS,
        check=False,
    )
    if result.returncode:
        raise LabError(
            lab.principal(name),
            f"no ticket from the lab's KDC: {result.stderr.strip()}",
            f"see {lab.log}",
        )


def _last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    # Samba puts a header with the time and place before each message.
    said = [line for line in lines if line and not line.startswith(("[", "Copyright"))]
    return said[-1] if said else "its log is empty"
