"""The pieces of mutauth_twisted that Twisted finds by itself."""

from twisted.application.service import ServiceMaker

from mutauth_twisted.endpoints.parsers import MutualAuthClientParser, MutualAuthServerParser

service = ServiceMaker(
    "mutauth",
    "mutauth_twisted.service.tap",
    "Mutual authentication in Active Directory for a TCP service, found through the directory.",
    "mutauth",
)
client_parser = MutualAuthClientParser()
server_parser = MutualAuthServerParser()
