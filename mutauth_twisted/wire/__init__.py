"""Wire formats: bytes to frames and back.

A wire is a module's :class:`Wire` value.  It makes frames out of tokens and
records, and a :class:`Reader` for each connection that finds them again in
whatever chunks the network delivers.  Nothing here does I/O or knows what a
token means.
"""

from mutauth_twisted.wire._base import Fault, FrameError, Reader, Token, Wire, Wrapping
from mutauth_twisted.wire.nns import NNS
from mutauth_twisted.wire.winsock import WINSOCK

#: The wires by the name that options and endpoint strings use.
WIRES: dict[str, Wire] = {NNS.name: NNS, WINSOCK.name: WINSOCK}

__all__ = ["NNS", "WINSOCK", "WIRES", "Fault", "FrameError", "Reader", "Token", "Wire", "Wrapping"]
