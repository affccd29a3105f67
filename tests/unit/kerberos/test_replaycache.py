"""Where the replay cache is, and a service without one that can be written."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.credentials import ServiceCredentials
from mutauth_twisted.errors import REPLAY_CACHE, CredentialError
from mutauth_twisted.kerberos import replaycache as module
from mutauth_twisted.kerberos.replaycache import replay_cache
from mutauth_twisted.mechanisms import NEGOTIATE
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.testing.forge import set_environment
from tests.unit.kerberos_case import Case

NAME = f"krb5_{os.geteuid()}.rcache2"


def clean_environment(test: SynchronousTestCase, home: Path) -> None:
    """An environment that says nothing of replay caches."""
    for name in ("KRB5RCACHENAME", "KRB5RCACHEDIR", "STATE_DIRECTORY", "XDG_STATE_HOME", "TMPDIR"):
        set_environment(test, {name: ""})
    set_environment(test, {"HOME": str(home)})


class PlaceTests(SynchronousTestCase):
    """The directory that is chosen."""

    def setUp(self) -> None:
        self.here = Path(self.mktemp()).absolute()
        self.here.mkdir()
        clean_environment(self, self.here)

    def directory(self, name: str, mode: int = 0o700) -> Path:
        path = self.here / name
        path.mkdir()
        path.chmod(mode)
        return path

    def refused(self, text: str, state_dir: str | None = None) -> CredentialError:
        """There is none, in one line about the replay cache."""
        error: CredentialError = self.assertRaises(CredentialError, replay_cache, state_dir)
        self.assertEqual(error.subject, REPLAY_CACHE)
        self.assertIn(text, str(error))
        self.assertTrue(error.remedy)
        return error

    def test_order(self) -> None:
        """The service manager's directory, the service's own, the user's; in a file that only this
        user reads.
        """
        state, own = self.directory("state"), self.directory("own", 0o755)
        home = self.here / ".local" / "state" / "mutauth"
        for chosen, said, given in (
            (state, f"{state}:{own}", own),
            (own, "", own),
            (home, "", None),
        ):
            set_environment(self, {"STATE_DIRECTORY": said})
            self.assertEqual(replay_cache(str(given) if given else None), f"file2:{chosen / NAME}")
            self.assertEqual((chosen / NAME).stat().st_mode & 0o777, 0o600)
        for made in (home, home.parent, home.parent.parent):
            self.assertEqual(made.stat().st_mode & 0o777, 0o700)
        set_environment(self, {"XDG_STATE_HOME": str(state)})
        self.assertEqual(replay_cache(), f"file2:{state / 'mutauth' / NAME}")

    def test_directories_of_others(self) -> None:
        """A directory that others write to, that is not there, or is a link, is passed over,
        whatever is in it.
        """
        home = self.here / ".local" / "state" / "mutauth"
        link = self.here / "link"
        link.symlink_to(self.directory("target"))
        file = self.here / "file"
        file.touch()
        for unusable in (
            self.directory("all", 0o777),
            self.directory("group", 0o770),
            link,
            file,
            self.here / "nowhere",
        ):
            self.assertEqual(replay_cache(str(unusable)), f"file2:{home / NAME}", unusable)
        if os.geteuid() == 0:
            foreign = self.directory("foreign")
            os.chown(foreign, 65534, 65534)
            self.assertEqual(replay_cache(str(foreign)), f"file2:{home / NAME}")

    def test_made_by_another_first(self) -> None:
        """A user without a home has a directory in /var/tmp; one that somebody else has made there
        first is not used.
        """
        temporary = self.directory("tmp", 0o1777)
        self.patch(module, "_TEMPORARY", str(temporary))
        set_environment(
            self, {"HOME": "/nonexistent/home"} if os.geteuid() else {"HOME": "/proc/none"}
        )
        mine = temporary / f"mutauth-{os.geteuid()}"
        self.assertEqual(replay_cache(), f"file2:{mine / NAME}")
        self.assertEqual(mine.stat().st_mode & 0o777, 0o700)
        mine.chmod(0o777)
        self.refused(str(mine))

    def test_administrators_choice(self) -> None:
        """A cache that the environment names is left to MIT, which reads it by itself, and has to
        be one that can be written.
        """
        state = self.directory("state")
        for variables, file in (
            ({"KRB5RCACHEDIR": str(state)}, state / NAME),
            ({"KRB5RCACHENAME": f"file2:{state / 'named'}"}, state / "named"),
            (
                {"KRB5RCACHENAME": "dfl:", "KRB5RCACHEDIR": str(self.directory("other"))},
                self.here / "other" / NAME,
            ),
        ):
            set_environment(self, {"KRB5RCACHENAME": "", "KRB5RCACHEDIR": "", **variables})
            self.assertIsNone(replay_cache(str(state)))
            self.assertTrue(file.is_file())

    def test_unusable(self) -> None:
        """One that is turned off, or cannot be written, is an error, and a pipe in its place is not
        waited for.
        """
        state = self.directory("state")
        pipe, link, folder = state / "pipe", state / "link", self.directory("folder")
        os.mkfifo(pipe)
        link.symlink_to(state / "elsewhere")
        for name, text in (
            ("none:", "turns it off"),
            (f"file2:{self.here}/nowhere/file", "No such file"),
            (f"file2:{pipe}", "is not a file of this user's"),
            (f"file2:{link}", "symbolic links"),
            (f"file2:{folder}", "Is a directory"),
        ):
            set_environment(self, {"KRB5RCACHENAME": name})
            self.refused(text)
        set_environment(self, {"KRB5RCACHENAME": "dfl:", "KRB5RCACHEDIR": "/nonexistent"})
        self.refused("No such file")
        set_environment(self, {"KRB5RCACHENAME": "", "KRB5RCACHEDIR": str(state)})
        (state / NAME).symlink_to("/dev/null")
        self.refused("symbolic links")


class ServiceTests(Case):
    """Services and copied requests."""

    def setUp(self) -> None:
        super().setUp()
        self.state = Path(self.mktemp()).absolute()
        self.state.mkdir(0o700)

    def service(self, **options: bool) -> ServiceKeys:
        credentials = ServiceCredentials(
            self.realm.keytab("svc-echo"), state_dir=str(self.state), **options
        )
        return ServiceKeys(credentials, None, NEGOTIATE)

    def test_own_cache(self) -> None:
        """A copied request is refused by another instance with the same directory, and by the same
        one.
        """
        clean_environment(self, self.state)
        for _ in range(2):
            token = self.client().step(None).token
            self.assertTrue(self.service().acceptor("client").step(token).complete)
            for again in (self.service(), self.service()):
                self.assertIn("replay", str(self.step_fails(again.acceptor("thief"), token).error))
        self.assertGreater((self.state / NAME).stat().st_size, 0)

    def test_endpoint_string(self) -> None:
        """A server string's state-dir is where its service keeps the replay cache."""
        clean_environment(self, self.state)
        keytab = self.realm.keytab("svc-echo")
        serverFromString(
            MemoryReactorClock(),
            f"mutauth:tcp\\:0:keytab={keytab}:state-dir={self.state}:allow=*@X",
        )
        self.assertTrue((self.state / NAME).is_file())

    def test_none(self) -> None:
        """A service whose replay cache is turned off does not start, unless it was told to do
        without.
        """
        set_environment(self, {"KRB5RCACHENAME": "none:"})
        self.assertRaises(CredentialError, self.service)
        self.assertFalse(self.keys.accepts_replays)
        risky = self.service(accept_replays=True)
        self.assertTrue(risky.accepts_replays)

    def test_without(self) -> None:
        """One that was told to do without takes a copied request, and writes nothing."""
        risky, token = self.service(accept_replays=True), self.client().step(None).token
        for _ in range(2):
            self.assertTrue(risky.acceptor("client").step(token).complete)
        self.assertEqual(list(self.state.iterdir()), [])
