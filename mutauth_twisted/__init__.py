"""Mutual authentication for any TCP service in an Active Directory, for Twisted."""
