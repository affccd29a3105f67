"""A forest and its domains, as an authenticated domain controller of it names them."""

from __future__ import annotations

from attrs import frozen

from mutauth_twisted.errors import DirectoryError
from mutauth_twisted.ldap.controllers import Role
from mutauth_twisted.ldap.dn import domain_of
from mutauth_twisted.ldap.filter import all_of
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.names import is_host_name

# MS-ADTS 2.2.10: a crossRef of a domain, FLAG_CR_NTDS_DOMAIN, found by bit (MS-ADTS 3.1.1.3.4.4.1).
_DOMAINS = all_of("(objectClass=crossRef)", "(systemFlags:1.2.840.113556.1.4.803:=2)")


@frozen
class Forest:
    """A forest as one of its authenticated domain controllers describes it.

    :ivar name: the DNS name of its root domain.
    :ivar domains: the DNS names of all its domains.
    """

    name: str
    domains: frozenset[str]

    def catalog_role(self, host: str, own: str) -> Role:
        """The role of a global catalog, which may be of any domain of the forest.

        :param own: our own domain, whose KDC is asked where the host's name does not tell its
            domain.
        """
        suffixes = [domain for domain in self.domains if host.lower().endswith("." + domain)]
        realm = max(suffixes, key=len, default=own).upper()
        return Role("GC", self.name, realm, frozenset(domain.upper() for domain in self.domains))


def read_forest(session: LdapSession) -> Forest:
    """Ask an authenticated domain controller which forest it is of; blocks.

    :raises DirectoryError: when its answer is not usable.
    """
    name = domain_of(session.forest_dn)
    base = f"CN=Partitions,{session.root_dse.text('configurationNamingContext')}"
    found = session.search(base, _DOMAINS, ("nCName",), scope="one")
    domains = {domain_of(entry.text("nCName") or "") for entry in found} | {
        domain_of(session.domain_dn)
    }
    if not is_host_name(name):
        raise DirectoryError(
            f"domain controller {session.server}",
            "it does not name its forest",
            "ask another one",
            code="directory-refused",
        )
    return Forest(name, frozenset(filter(is_host_name, domains)))
