"""What contexts over pyspnego share; nothing here needs any security package."""

from __future__ import annotations

import logging
from typing import Any

from spnego.iov import BufferType

from mutauth_twisted.core.context import Outcome, StepFailed
from mutauth_twisted.errors import AuthenticationError, MutualAuthError, RecordError


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
        """What a failed step means.  Nothing of pyspnego's own words, which nobody has looked over
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


class RecordsApart:
    """Records of two parts, as wire *winsock* has them, over an established ContextProxy."""

    _subject: str
    _proxy: Any

    def _spent(self, error: Exception) -> MutualAuthError:
        """Why the context protects no further record."""
        raise AssertionError("a subclass knows its package's errors")

    def _not_next(self, error: Exception) -> RecordError:
        """Why a record was refused."""
        raise AssertionError("a subclass knows its package's errors")

    def wrap_apart(self, data: bytes, *, seal: bool) -> tuple[bytes, bytes]:
        try:
            if not seal:
                return bytes(self._proxy.sign(data)), data
            wrapped = self._proxy.wrap_iov([BufferType.header, data, BufferType.padding])
        except Exception as error:
            raise self._spent(error) from error
        if not wrapped.encrypted:
            raise AuthenticationError(self._subject, "the security package did not encrypt")
        header, sealed, padding = (buffer.data or b"" for buffer in wrapped.buffers)
        return header, sealed + padding

    def unwrap_apart(self, trailer: bytes, data: bytes, *, seal: bool) -> tuple[bytes, bool]:
        try:
            if not seal:
                self._proxy.verify(data, trailer)
                return data, False
            result = self._proxy.unwrap_iov([(BufferType.header, trailer), data])
        except Exception as error:  # any bytes can come in here, and raise anything
            raise self._not_next(error) from error
        return result.buffers[1].data or b"", bool(result.encrypted)
