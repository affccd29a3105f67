"""Endpoints that find their service in the directory, and the strings that name them."""

from mutauth_twisted.endpoints.located import LocatedEndpoint
from mutauth_twisted.endpoints.strings import MutualAuthClientParser, MutualAuthServerParser

__all__ = ["LocatedEndpoint", "MutualAuthClientParser", "MutualAuthServerParser"]
