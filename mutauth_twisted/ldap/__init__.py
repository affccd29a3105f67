"""LDAP connections that are sealed, to domain controllers that are authenticated."""
