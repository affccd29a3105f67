"""The directory over LDAPS, with the lab's own authority."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.location import Selection, locate
from mutauth_twisted.errors import (
    DirectoryUnreachable,
    UsageError,
)
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.session import Change
from tests.integration.directory_case import DirectoryTestCase


class TLSTests(DirectoryTestCase):
    """LDAPS, with the lab's own authority."""

    def secured(self, *hosts: str, ca_file: str | None = None, user: str = "alice") -> Directory:
        return self.directory(
            servers=[f"ldaps://{host}" for host in hosts],
            ca_file=ca_file or str(self.lab.ca_file),
            credentials=ClientCredentials(ccache=self.lab.ccache(user)),
        )

    async def test_search_and_write(self) -> None:
        """Everything works inside TLS, on a domain controller and on a global catalog."""
        found = await self.install()
        await self.publish(found)
        directory = self.secured(self.lab.dc_host, user="administrator")
        (instance,) = await locate(directory, Selection(self.service_class))
        self.assertEqual((instance.guid, instance.port), (found.guid, 9000))
        change = [Change("replace", "description", ("over TLS",))]
        await directory.run(lambda session: session.modify(found.guid, change))
        whole = await directory.run(
            lambda session: sum(
                1 for _ in session.search("", "(objectClass=*)", ["*"], page_size=5000)
            ),
            global_catalog=True,
        )
        self.assertGreater(whole, 2000)

    async def test_name_not_in_the_certificate(self) -> None:
        """A certificate of the right authority is no good for another name."""
        line = await self.failure_of(
            self.secured(self.lab.realm.lower()).run(lambda session: None), DirectoryUnreachable
        )
        self.assertIn("its certificate is not for this name", line)

    async def test_another_authority(self) -> None:
        """A certificate that another authority signed is refused."""
        other = self.lab.directory / "tls" / "dc1.pem"
        line = await self.failure_of(
            self.secured(self.lab.dc_host, ca_file=str(other)).run(lambda session: None),
            DirectoryUnreachable,
        )
        self.assertIn("its certificate is not one of CA file", line)

    async def test_no_tls_there(self) -> None:
        """A port that speaks plain LDAP is not spoken to."""
        line = await self.failure_of(
            self.secured(f"{self.lab.dc_host}:389").run(lambda session: None), DirectoryUnreachable
        )
        self.assertIn(self.lab.dc_host, line)

    def test_what_has_to_be_said(self) -> None:
        """TLS without an authority, an authority without TLS, and a file that is invalid."""
        junk = Path(self.mktemp())
        junk.write_text("junk")
        for servers, ca_file, words in (
            (["ldaps://dc1.lab.example"], None, "no certificate authority is named"),
            (["ldap://dc1.lab.example"], str(self.lab.ca_file), "no directory server uses TLS"),
            (["ldaps://dc1.lab.example"], str(junk), "no certificates in PEM form"),
            (["ldaps://dc1.lab.example"], "/nowhere/ca.pem", "no such file"),
        ):
            error = self.assertRaises(UsageError, self.directory, servers=servers, ca_file=ca_file)
            self.assertIn(words, str(error))

    def test_through_the_strings(self) -> None:
        """An endpoint string takes the authority as ca=."""
        text = f"mutauth:scp=x:directory=ldaps\\://{self.lab.dc_host}:ca={self.lab.ca_file}"
        clientFromString(reactor, text)
        self.assertRaises(UsageError, clientFromString, reactor, text.partition(":ca=")[0])
