"""A stream that was cut, as applications of Twisted know the end of a connection."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost

from mutauth_twisted.errors import StreamCut


class ConnectionCut(StreamCut, ConnectionLost):
    """A StreamCut that is a ConnectionLost as well, which Twisted's applications check for."""

    @classmethod
    def of(cls, cut: StreamCut) -> ConnectionCut:
        """The same error, for an application."""
        return cls(*cut.args)
