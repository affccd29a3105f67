"""Kerberos besides the handshake: tickets, keytabs, encryption types, replay cache, PAC."""
