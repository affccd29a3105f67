"""Context over pyspnego's public API, for NTLM and for SSPI.

It keeps pyspnego's loggers, which write whole tokens at debug level, quiet whatever the process's
logging configuration.
"""

from __future__ import annotations

import logging
from typing import Any

import spnego

from mutauth_twisted.core.context import Outcome, StepFailed
from mutauth_twisted.errors import MutualAuthError


def keep_quiet(record: logging.LogRecord) -> bool:
    """Drop debug lines; a filter for pyspnego's loggers."""
    return record.levelno > logging.DEBUG


# A logger's own filters survive logging.config, and do not depend on levels that others may change.
for _name in list(logging.root.manager.loggerDict):
    if _name.partition(".")[0] == spnego.__name__:
        logging.getLogger(_name).addFilter(keep_quiet)


class PublicContext:
    """Context of one side: pyspnego's ContextProxy, once there is one.

    :param subject: how errors name the peer.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._proxy: Any = None

    def _advance(self, token: bytes | None) -> Outcome:
        """Take the step; raises anything."""
        raise AssertionError("a subclass takes the step")

    def _explain(self, error: Exception) -> MutualAuthError:
        """Meaning of a failed step, without pyspnego's own words, which were not reviewed
        for secrets.
        """
        raise AssertionError("a subclass knows what its peer should have sent")

    def step(self, token: bytes | None) -> Outcome:
        try:
            return self._advance(token)
        except MutualAuthError as error:
            raise StepFailed(error) from error
        except Exception as error:  # a hostile token can raise anything
            raise StepFailed(self._explain(error)) from error
