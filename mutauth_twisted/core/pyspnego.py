"""What contexts over pyspnego's public API share; nothing here needs any security package."""

from __future__ import annotations

import logging
from typing import Any

from mutauth_twisted.core.context import Outcome, StepFailed
from mutauth_twisted.errors import MutualAuthError


def keep_quiet(record: logging.LogRecord) -> bool:
    """A filter for pyspnego's loggers, which write whole tokens at debug level."""
    return record.levelno > logging.DEBUG


class PublicContext:
    """One side's context: pyspnego's ContextProxy, once there is one.

    :param subject: how errors name the peer.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._proxy: Any = None

    def _advance(self, token: bytes | None) -> Outcome:
        """Take the step; raises anything."""
        raise AssertionError("a subclass takes the step")

    def _explain(self, error: Exception) -> MutualAuthError:
        """What a failed step means.  Nothing of pyspnego's own words, which nobody has looked over for secrets."""
        raise AssertionError("a subclass knows what its peer should have sent")

    def step(self, token: bytes | None) -> Outcome:
        try:
            return self._advance(token)
        except MutualAuthError as error:
            raise StepFailed(error) from error
        except Exception as error:  # a hostile token can raise anything
            raise StepFailed(self._explain(error)) from error
