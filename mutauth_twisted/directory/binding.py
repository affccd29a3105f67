"""serviceBindingInformation: the port that clients connect to, and what else they should know.

The text is the bare port, ``9000``, when everything else is as usual: that is
what Microsoft's sample writes and reads.  What differs follows it::

    9000;priority=1;weight=5;wire=winsock;protection=sign;spn=guid

Keys are in lower case; keys that a reader does not know are kept, and those
that are missing have their defaults.  A reader of the bare port stops at the
first ``;`` when it reads digits as ``atoi`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Attribute, field, frozen

from mutauth_twisted.errors import UsageError

_RESERVED = ";="
_MAX_16 = 65535  # priority and weight are 16-bit numbers, as in SRV records (RFC 2782)


class BindingError(UsageError):
    """Binding information that cannot be read, or cannot be written."""

    code = "binding-invalid"


def _check_number(binding: object, attribute: Attribute[int], value: int) -> None:
    lowest = 1 if attribute.name == "port" else 0
    if not lowest <= value <= _MAX_16:
        raise BindingError(
            f"{attribute.name} {value}", "it is out of range", f"use {lowest} to {_MAX_16}"
        )


def _check_word(binding: object, attribute: Attribute[str], value: str) -> None:
    if not _is_plain(value) or not value:
        raise BindingError(
            f"{attribute.name} {value!r}", "it is empty or holds ';', '=', or control characters"
        )


def _is_plain(text: str) -> bool:
    return (
        text == text.strip() and text.isprintable() and not any(mark in text for mark in _RESERVED)
    )


def _check_extra(
    binding: object, attribute: Attribute[Any], value: tuple[tuple[str, str], ...]
) -> None:
    seen = set(_KEYS)
    for key, text in value:
        if (
            not key
            or key != key.lower()
            or key in seen
            or not _is_plain(key)
            or not _is_plain(text)
        ):
            raise BindingError(
                f"binding information key {key!r}", "it cannot be written, or is there twice"
            )
        seen.add(key)


def _freeze(extra: Mapping[str, str] | tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(extra.items()) if isinstance(extra, Mapping) else tuple(extra)


@frozen
class BindingInformation:
    """Way to reach one instance of a service.

    :param port: the TCP port, 1 to 65535.
    :param priority: instances with a lower number are tried first.
    :param weight: an instance's share among those of the same priority.
    :param wire: the wire protocol.
    :param protection: what is done to application data.
    :param spn_form: which SPN clients ask for: ``dn``, ``guid``, ``host``, ...
    :param extra: keys of later versions, kept as they are.
    :raises BindingError: for a value that cannot be written.
    """

    port: int = field(validator=_check_number)
    priority: int = field(default=0, validator=_check_number)
    weight: int = field(default=100, validator=_check_number)
    wire: str = field(default="nns", validator=_check_word)
    protection: str = field(default="seal", validator=_check_word)
    spn_form: str = field(default="dn", validator=_check_word)
    extra: tuple[tuple[str, str], ...] = field(
        default=(), converter=_freeze, validator=_check_extra
    )

    def __str__(self) -> str:
        parts = [str(self.port)]
        for key, name in _KEYS.items():
            value = getattr(self, name)
            if value != getattr(_DEFAULTS, name):
                parts.append(f"{key}={value}")
        parts += [f"{key}={text}" for key, text in self.extra]
        return ";".join(parts)

    @classmethod
    def parse(cls, text: str) -> BindingInformation:
        """Read what a service published, tolerantly: blanks and the case of keys do not count.

        :raises BindingError: without a usable port, or with an invalid number.
        """
        first, *rest = (part.strip() for part in text.split(";"))
        values: dict[str, Any] = {"port": _number(text, first)}
        extra: dict[str, str] = {}
        for part in filter(None, rest):
            key, _, value = (piece.strip() for piece in part.partition("="))
            name = _KEYS.get(key.lower())
            if name in ("priority", "weight"):
                values[name] = _number(text, value)
            elif name is not None:
                values[name] = value
            else:
                extra[key.lower()] = value
        try:
            return cls(**values, extra=extra)
        except BindingError as error:
            raise BindingError(
                _subject(text), f"{error.subject}: {error.cause}", error.remedy
            ) from None


_KEYS = {
    "priority": "priority",
    "weight": "weight",
    "wire": "wire",
    "protection": "protection",
    "spn": "spn_form",
}
_DEFAULTS = BindingInformation(1)


def _subject(text: str) -> str:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"binding information {shown!r}"


def _number(text: str, digits: str) -> int:
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5):
        raise BindingError(
            _subject(text),
            f"{digits[:20]!r} is not a number",
            "it begins with the port, such as 9000",
        )
    return int(digits)


def advertised_form(binding: BindingInformation) -> str:
    """The SPN form that clients ask for unless their user says otherwise: always one of three
    parts.
    """
    return binding.spn_form if binding.spn_form in ("guid", "dn") else "dn"
