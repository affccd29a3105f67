"""Third-party implementations of the protocol, each behind one command line.

A peer is a forwarder, as ``twistd mutauth --forward`` and ``mutauth connect --listen`` are::

    PEER client HOST PORT SPN [WORD...]     plain connections to it go to HOST:PORT, authenticated
    and protected PEER server HOST PORT SPN [WORD...]     protected connections to it go to
    HOST:PORT in plain

It listens on a free port of 127.0.0.1 and reports on standard output, a line each: ``listening
PORT``, and for each connection ``authenticated NAME``, ``refused REASON``, ``empty record``,
``ended`` or ``lost REASON``.  It gets its ticket or keytab from KRB5_CONFIG, KRB5CCNAME and
KRB5_KTNAME; a server ignores SPN.  An end of one side's stream goes on to the other side, and the
other direction stays open.

Adding a peer: a module here with a :class:`~interop.peers.base.Peer`, its source beside it, and a
line below.
"""

from interop.peers.base import Peer, Variant
from interop.peers.dotnet import Dotnet
from interop.peers.heimdal import Heimdal
from interop.peers.java import Java

PEERS: tuple[Peer, ...] = (Dotnet(), Java(), Heimdal())

__all__ = ["PEERS", "Dotnet", "Heimdal", "Java", "Peer", "Variant"]
