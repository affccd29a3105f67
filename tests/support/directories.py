"""Directories for files that are only believed where nobody else could have put them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


def own_directory(case: SynchronousTestCase) -> Path:
    """A new directory of this user's, in one of root's or this user's, until the end of the test.

    Trial's own is below the checkout, which may be another user's.
    """
    directory = Path(tempfile.mkdtemp(prefix="mutauth-test-")).resolve()
    case.addCleanup(shutil.rmtree, directory)
    directory.chmod(0o755)
    return directory
