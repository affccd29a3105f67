"""RnR services end to end: published by an administrator, served, found, authenticated, removed."""

from __future__ import annotations

import json
import os

from tests.cases.rnr import RnrDirectoryCases
from tests.integration.commands import CommandTestCase
from tests.integration.directory_case import DirectoryTestCase

#: Outside the range of ports that are given out, and other than those of the lab's SRV records.
PORT = 9000 + os.getpid() % 300


class RnrDirectoryTests(RnrDirectoryCases, DirectoryTestCase):
    """The objects, and who may write them."""


class RnrCommandTests(CommandTestCase):
    """The commands, the service and the client."""

    def setUp(self) -> None:
        super().setUp()
        self.rnr_endpoint = f"mutauth:rnr={self.service_class}:nameserver={self.lab.nameserver}"
        self.reach = ("--nameserver", self.lab.nameserver)
        self.addCleanup(
            self.mutauth, "rnr", "remove", self.service_class, *self.reach, user="administrator"
        )

    def publish(self, *options: str, port: int = PORT, user: str = "administrator"):  # type: ignore[no-untyped-def]
        words = (
            "rnr",
            "publish",
            self.service_class,
            *self.common,
            "--port",
            str(port),
            *options,
            *self.reach,
        )
        return self.mutauth(*words, user=user)

    def test_the_whole_procedure(self) -> None:
        """Published with its SPN, served, found by name, authenticated by the SPN with its DN,
        listed, and removed.
        """
        published = self.publish("--account", "svc-echo")
        self.assertEqual(published.code, 0, published)
        for word in ("created RnR service", "created service class", "added SPN"):
            self.assertIn(word, published.output)
        address = self.lab.address_of(self.host)
        listen = ("--listen", f"tcp:{PORT}:interface={address}")
        with self.service("--publish", "rnr", *listen) as service:
            self.assertIn("RnR service updated: nothing, all was right", service.log)
            connected = self.mutauth("connect", "-v", self.rnr_endpoint, given="hello\n")
            self.assertEqual((connected.code, connected.output), (0, "hello\n"), connected)
            authenticated = (
                "authenticated as "
                f"{self.service_class}/{self.host}/CN={self.service_class},CN=WinsockServices,CN=System,"
            )
            self.assertIn(authenticated, connected.errors)
        listed = self.mutauth("rnr", "list", "--json", *self.reach)
        (entry,) = [
            each for each in json.loads(listed.output) if each["name"] == self.service_class
        ]
        # An administrator has published it, so that it stays when the service stops.
        self.assertEqual(entry["addresses"], [{"host": self.host, "binding": str(PORT)}])
        table = self.mutauth("rnr", "list", *self.reach).output
        self.assertIn(f"{self.service_class}  {self.service_class}  {self.host}", table)
        removed = self.mutauth(
            "rnr", "remove", self.service_class, *self.reach, user="administrator"
        )
        self.assertEqual(removed.code, 0, removed)
        for word in ("removed SPN", "deleted RnR service", "deleted service class"):
            self.assertIn(word, removed.output)

    def test_over_tls(self) -> None:
        """The commands reach the directory with TLS, when they are told whom to trust."""
        directory = ("--directory", f"ldaps://{self.lab.dc_host}")
        listed = self.mutauth(
            "rnr",
            "list",
            "--json",
            *directory,
            "--directory-ca",
            str(self.lab.ca_file),
            *self.reach,
        )
        self.assertEqual(listed.code, 0, listed)
        json.loads(listed.output)
        self.refused(self.mutauth("rnr", "list", *directory, *self.reach), 2, "--directory-ca FILE")

    def test_refused_starts(self) -> None:
        """Not published, without the SPN, and on another port than published: each with the fixing
        command.
        """
        command = (
            f"run mutauth rnr publish {self.service_class} --service-class {self.service_class} "
            f"--host {self.host}"
        )

        def refused(*words: str) -> None:
            ended = self.start_refused("--publish", "rnr")
            line = next(line for line in ended.output.splitlines() if "does not start" in line)
            self.assertEqual(ended.code, 1, ended)
            for word in (command, *words):
                self.assertIn(word, line)

        refused("no such object")
        self.publish()
        refused("is not on account svc-echo")
        self.publish("--account", "svc-echo")
        refused("svc-echo may not write winsockAddresses", "listen on a fixed port")

    def test_refusals(self) -> None:
        """A computer may not publish, nobody finds what is not there, and forms are not mixed."""
        self.refused(self.publish(user="srv1"), 3, "only administrators may create services there")
        self.refused(
            self.mutauth("connect", self.rnr_endpoint),
            1,
            self.service_class,
            "mutauth rnr list --nameserver",
        )
        self.refused(
            self.mutauth("rnr", "remove", "nothing", *self.reach, user="administrator"),
            1,
            "nothing",
        )
        self.refused(self.start_refused("--spn-form", "rnr"), 2, "--publish rnr")
        self.refused(self.start_refused("--publish", "rnr", "--spn-form", "guid"), 2, "--spn-form")
