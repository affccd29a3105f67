"""A new key for the account of a service, without a client that is turned away.

The order is what makes it safe.  The new key is in the keytab, beside the old one, before the KDC
uses it; so the service accepts tickets for either at any moment.  Everything that a later run needs
to know is in the keytab and at the KDC: a rotation that was interrupted, at whatever step, is ended
or taken back by the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from attrs import evolve, frozen

from mutauth_twisted.directory.accountkeys import AccountKeys
from mutauth_twisted.errors import CredentialError, KDCRefused, MutualAuthError
from mutauth_twisted.kerberos.keytabfile import (
    Key,
    read_keys,
    read_keytab,
    render_keys,
    replace_keys,
    replace_keytab,
)
from mutauth_twisted.kerberos.passwords import (
    KINDS,
    current_key,
    keys_of,
    likely_salts,
    salt_of,
)
from mutauth_twisted.names import fold_ascii

#: Seconds for which a service's tickets are valid, by a domain's default policy: 10 hours, and 5
#: minutes for clocks.
LIFETIME = 36_300.0
#: Keys that are tried to find the account's: each one that is not is a wrong password.
_MOST_TRIED = 4


@frozen
class Rotated:
    """Result of a rotation.

    :param version: the version of the keytab's newest key, which is the account's.
    :param resumed: whether an earlier rotation that was interrupted had set it, and was ended.
    """

    version: int
    resumed: bool = False


@frozen
class Rotation:
    """One rotation; all of it blocks.

    :param path: the keytab.
    :param principal: the account's, ``sAMAccountName@REALM``.
    :param look: reads the account.
    :param change: makes what changes the password, of a present key, if there is one.
    :param report: is told of each step.
    :param now: seconds since 1970.
    """

    path: Path
    principal: str
    look: Callable[[], AccountKeys]
    change: Callable[[Key | None], Callable[[str], None]]
    report: Callable[[str], None]
    now: Callable[[], float] = time.time

    def rotate(self, password: str) -> Rotated:
        """Give the account a new password, and the keytab its keys.

        :raises KDCRefused: when the domain refuses it; the keytab is as it was.
        :raises CredentialError: when the keytab does not fit the account, or cannot be written.
        :raises MutualAuthError: when the KDC cannot be asked.  Where it is not known then whether
            the password was changed, the keytab has both keys, and the next rotation goes on.
        """
        added = self._add(password)
        if isinstance(added, Rotated):
            return added
        kept, new, change, content = added
        try:
            self._change(change, new, password)
        except MutualAuthError:
            replace_keytab(self.path, content)
            self.report(f"took the new key out of {self.path} again")
            raise
        return self._settle(kept, new, password)

    def add(self, password: str) -> int:
        """Only add the keys of a new password to the keytab; :meth:`finish` changes it.

        For services that have a copy of the keytab, and are restarted in between.

        :return: the version of the new keys.
        :raises MutualAuthError: as :meth:`rotate`; the keytab is as it was.
        """
        added = self._add(password)
        # What was ended was a rotation before this one.
        added = self._add(password) if isinstance(added, Rotated) else added
        assert not isinstance(added, Rotated)
        return added[1][0].version

    def finish(self, password: str) -> Rotated:
        """Change the password to the one whose keys :meth:`add` has put into the keytab.

        :raises KDCRefused: when the domain refuses it; the keytab keeps both keys.
        :raises CredentialError: when the newest keys are not of this password.
        """
        keys = read_keys(self.path)
        current, _ = self._find_current(keys)
        account = self.look()
        salts = likely_salts(self.principal, account.names, account.host)
        salts = tuple(dict.fromkeys(filter(None, (*salts, salt_of(self.principal)))))
        secrets = {key.secret for key in keys_of(password, [self.principal], salts, 1, 0)}
        mine = {key.batch for key in keys if key.secret in secrets}
        new = [key for key in keys if key.batch in mine]
        kept = tuple(key for key in keys if key.batch not in mine)
        if not new:
            cause = "it has no key of the password that was added"
            raise CredentialError(self._subject, cause, "run --add again", code="keytab-outdated")
        if current is None or current.batch not in mine:
            self._change(self.change(current), new, password)
        return self._settle(kept, new, password)

    def _change(self, change: Callable[[str], None], new: Sequence[Key], password: str) -> None:
        """Change the password.

        :raises MutualAuthError: when it was not changed.
        """
        try:
            change(password)
        except KDCRefused:
            raise
        except MutualAuthError:
            # The answer was lost, maybe, and not the change.
            if not any(current_key(self.principal, [key]) for key in _strongest(new)):
                raise
        self.report(f"changed the password of {self.principal}")

    def _add(
        self, password: str
    ) -> tuple[tuple[Key, ...], list[Key], Callable[[str], None], bytes] | Rotated:
        """Put the keys of a password into the keytab; gives the older keys, the new ones, what
        changes the password, and the keytab's content before.  Or end a rotation that was
        interrupted.
        """
        keys, content = read_keytab(self.path)
        current, wrong = self._find_current(keys)
        if wrong:
            keys = tuple(key for key in keys if key.batch not in wrong)
            content = render_keys(keys)
            replace_keytab(self.path, content)
            self.report("removed the keys of a rotation that was interrupted")
            if current is not None and current.version in {version for version, _ in wrong}:
                return Rotated(current.version, resumed=True)
        change, account = self.change(current), self.look()
        new = self._new_keys(keys, current, account, password)
        version = account.version + 1
        # Numbers that the KDC has not given yet are those of another account's keys.
        kept = tuple(key for key in keys if key.version < version or not self._is_own(key))
        replace_keys(self.path, (*kept, *new))
        self.report(f"added the new key, version {version}, to {self.path}")
        return kept, new, change, content

    def _settle(self, kept: Sequence[Key], new: Sequence[Key], password: str) -> Rotated:
        """See which of the new keys is the KDC's, and keep only that one beside the older."""
        version, salt = self.look().version, salt_of(self.principal)
        if salt is not None:
            names = list(dict.fromkeys(key.principal for key in new))
            new = keys_of(password, names, [salt], version, new[0].added)
        current = current_key(self.principal, _strongest(new))
        if current is None:
            cause = f"the KDC takes none of the new keys, version {version}"
            raise CredentialError(self._subject, cause, "export it again", code="keytab-outdated")
        final = [evolve(key, version=version) for key in new if key.batch == current.batch]
        replace_keys(self.path, (*kept, *final))
        self.report(f"the KDC takes the new key, version {version}")
        return Rotated(version)

    def _new_keys(
        self, keys: Sequence[Key], current: Key | None, account: AccountKeys, password: str
    ) -> list[Key]:
        """The keys of the new password, for each name that the account has in the keytab; of each
        salt that they may have.
        """
        salts = likely_salts(self.principal, account.names, account.host)
        present = salt_of(self.principal)
        if present in salts:  # then the account was not renamed, and keeps it
            salts = (present,)
        secrets = {key.secret for key in keys if current and key.batch == current.batch}
        names = {key.principal: None for key in keys if key.secret in secrets}
        return keys_of(
            password, list(names) or [self.principal], salts, account.version + 1, int(self.now())
        )

    @property
    def _subject(self) -> str:
        return f"keytab {self.path}"

    def _is_own(self, key: Key) -> bool:
        return fold_ascii(key.principal) == fold_ascii(self.principal)

    def _find_current(self, keys: Sequence[Key]) -> tuple[Key | None, set[tuple[int, int]]]:
        """The newest key that is the account's, and the batches that are as new or newer, and are
        not; with none that is, those are none.

        :raises MutualAuthError: when the KDC cannot be asked.
        """
        wrong: set[tuple[int, int]] = set()
        own = sorted(filter(self._is_own, keys), key=lambda key: key.version, reverse=True)
        for key in _strongest(own)[:_MOST_TRIED]:
            if current_key(self.principal, [key]) is not None:
                return key, wrong
            wrong.add(key.batch)
        return None, set()


def _strongest(keys: Iterable[Key]) -> list[Key]:
    """One key of each batch, of the strongest kind, in their order."""
    best: dict[tuple[int, int], Key] = {}
    for key in keys:
        if key.kind in KINDS:
            known = best.setdefault(key.batch, key)
            if KINDS.index(key.kind) < KINDS.index(known.kind):
                best[key.batch] = key
    return list(best.values())


def prune(path: Path, principal: str, now: float, lifetime: float = LIFETIME) -> int:
    """Remove those keys of an account that no valid ticket is encrypted with; return how many.

    A key is used until the next version is added, and its tickets as long as they are valid.

    :param path: the keytab.
    :param lifetime: the longest time, in seconds, for which a service's ticket is valid.
    :raises CredentialError: when the keytab cannot be read or written.
    """
    keys = read_keys(path)
    own = [key for key in keys if fold_ascii(key.principal) == fold_ascii(principal)]
    added = {key.version: key.added for key in own}
    old = {
        version
        for version in added
        if any(newer > version and added[newer] + lifetime <= now for newer in added)
    }
    secrets = {key.secret for key in own if key.version in old}
    kept = tuple(key for key in keys if key.secret not in secrets)
    if len(kept) < len(keys):
        replace_keys(path, kept)
    return len(keys) - len(kept)
