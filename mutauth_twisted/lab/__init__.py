"""A throw-away Active Directory on loopback, for demonstrations and tests.

A real Samba domain controller with users, computers, keytabs and tickets, everything below one
directory; see :func:`up`, :func:`stop`, :func:`start`, :func:`down`, :func:`running` and
:class:`Lab`.  :func:`serving` runs a service in it.  Nothing of the machine's own configuration is
read or changed.  Needs root and Samba's packages; imports nothing else of this package but its
errors.
"""

from mutauth_twisted.lab.controller import down, running, start, stop, up
from mutauth_twisted.lab.runner import run_command
from mutauth_twisted.lab.serving import Service, serving
from mutauth_twisted.lab.state import Lab, LabError, default_directory

__all__ = [
    "Lab",
    "LabError",
    "Service",
    "default_directory",
    "down",
    "run_command",
    "running",
    "serving",
    "start",
    "stop",
    "up",
]
