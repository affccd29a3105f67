"""The protocol on Twisted's connections: protocols, factories, endpoints."""
