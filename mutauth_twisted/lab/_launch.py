"""Start a program whose life is tied to the lab: run by path, never imported.

    python3 _launch.py RECORD PARENT PROGRAM [ARGUMENT...]

RECORD names a file that gets the identity of the process (or ``-``), so that
the program can be recognised later even when its starter was killed in the
very next instant.  PARENT is the process whose death kills the program
(or ``0``: the program outlives its starter).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(record: str, parent: str, *command: str) -> None:
    """Record this process, bind it to its parent, and become the program."""
    # The starter may have blocked the signals it waits for.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if int(parent):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
        # The parent may have died before the call above.
        if os.getppid() != int(parent):
            sys.exit("the starter of this lab is gone")
    if record != "-":
        with open(f"/proc/{os.getpid()}/stat", encoding="utf-8") as stat:
            started = stat.read().rpartition(")")[2].split()[19]
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as boot:
            identity = f"{os.getpid()} {started} {boot.read().strip()}\n"
        with open(record + ".new", "w", encoding="utf-8") as file:
            file.write(identity)
        os.rename(record + ".new", record)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"mutauth: {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


main(*sys.argv[1:])
