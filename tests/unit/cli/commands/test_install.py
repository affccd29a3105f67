"""``mutauth install`` and ``mutauth uninstall`` as far as they go without a directory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.cli.cli_case import invoke


class UsageTests(SynchronousTestCase):
    """Wrong usage ends with one line and exit code 2, before anything is asked of a directory."""

    def test_refused(self) -> None:
        """Each with what was wrong, in the words of every front-end."""
        service = ("--service-class", "echoSvc", "--host", "srv1.example.com")
        for words, said in (
            (("install",), "Missing option '--service-class'"),
            (("uninstall",), "Missing option '--service-class'"),
            (("install", *service), "Missing option '--account'"),
            (("uninstall", "--service-class", "a/b"), "--service-class a/b: it is not a valid"),
            (("uninstall", *service, "--spn-form", "upn"), "--spn-form upn: there is no upn; use"),
            (("uninstall", *service, "--spn-form", ","), "--spn-form ,: it names none; use guid"),
        ):
            result = invoke(*words)
            self.assertEqual((result.exit_code, result.stderr.count("\n")), (2, 1), result.stderr)
            self.assertIn(said, result.stderr)
