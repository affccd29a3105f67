"""Directory objects that a service keeps up to date, of either kind.

A kind is a module with one :class:`~mutauth_twisted.directory.published.base.PublishedEntry`, and
one line here.
"""

from __future__ import annotations

from collections.abc import Mapping

from mutauth_twisted.directory.published.base import PublishedEntry
from mutauth_twisted.directory.published.rnr import RnrEntry
from mutauth_twisted.directory.published.scp import ScpEntry

ENTRIES: Mapping[str, type[PublishedEntry]] = {"scp": ScpEntry, "rnr": RnrEntry}
