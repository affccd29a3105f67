"""Name of a service, and the commands that have it."""

from __future__ import annotations

import shlex

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.errors import UsageError
from mutauth_twisted.ldap.options import DirectoryOptions


class ServiceNameTests(SynchronousTestCase):
    """A service's names, and the commands that errors print."""

    def test_defaults_are_left_out(self) -> None:
        """Options that an administrator need not type are not there."""
        self.assertEqual(
            str(
                DirectoryOptions().command(
                    *ServiceName("echo", "h.example", scp_name="echo").install_words("svc")
                )
            ),
            "mutauth install --service-class echo --host h.example --account svc",
        )

    def test_everything_is_quoted(self) -> None:
        """It can be copied into a shell, whatever is in it, and reaches the same directory."""
        service = ServiceName("a b", "h", ("guid",), scp_name="q'", scp_parent="OU=a b,DC=c")
        command = DirectoryOptions(nameserver="10.0.0.1").command(*service.install_words("x;rm"))
        self.assertEqual(
            " | ".join(shlex.split(str(command))[2:]),
            "--service-class | a b | --host | h | --account | x;rm | --spn-form | guid | "
            "--scp-name | q' | --scp-parent | OU=a b,DC=c | --nameserver | 10.0.0.1",
        )

    def test_a_container(self) -> None:
        """It goes where a replicated service's is, until the object's own DN is known."""
        service = ServiceName("echo", "h", container="Echo")
        self.assertEqual(service.uninstall_words()[-2:], ["--container", "Echo"])
        self.assertEqual(service.at("CN=e,CN=Echo,DC=a").scp_parent, "CN=Echo,DC=a")

    def test_refused(self) -> None:
        """Each part is checked when the value is made."""
        for given, words in (
            (("a/b", "h"), "not a valid service class"),
            (("echo", "h/x"), "not a valid host name"),
            (("echo", "h", ("guid", "x")), "--spn-form x: there is no such form"),
            (("echo", "h", ()), "it names no form"),
            (("echo", "h", ("guid", "rnr")), "there is no such form"),
            (("echo", "h", ("guid",), None, "DC=a", "Echo"), "a parent was given too"),
        ):
            self.assertIn(words, str(self.assertRaises(UsageError, ServiceName, *given)))

    def test_for_a_remedy(self) -> None:
        """Text of the directory that is not valid does not get into a command."""
        for given, expected in (
            (("echo", "h.example."), ServiceName("echo", "h.example.")),
            ((None, None), ServiceName("CLASS", "HOST")),
            (("$(reboot)/", "h x"), ServiceName("CLASS", "HOST")),
        ):
            self.assertEqual(ServiceName.for_remedy(*given), expected)
