"""The exchange on Twisted's connections: protocols, factories, endpoints."""
