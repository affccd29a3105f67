"""Plain endpoints from strings: where connections come in, and where they go."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, cast

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import (
    CannotListenError,
)
from twisted.internet.interfaces import (
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)

from mutauth_twisted.errors import (
    NetworkError,
    UsageError,
)
from mutauth_twisted.net.descriptors import guard

# A part of a string with a keyword, which ends with the first = that no backslash escapes.
_KEYWORD = re.compile(r"(?:^|:)((?:[^\\:=]|\\.)*)=(?:[^\\:]|\\.)*", re.DOTALL)


def _check_once(text: str) -> None:
    """See that no keyword is given twice: Twisted would take the last and drop the others.

    :raises UsageError: when one is.
    """
    found = [re.sub(r"\\(.)", r"\1", name) for name in _KEYWORD.findall(text)]
    for name in found:
        if found.count(name) > 1:
            cause = f"it gives {name}= twice, and only the last would count"
            remedy = "give it once; a list has commas between"
            raise UsageError(f"endpoint {text}", cause, remedy)


_PART = re.compile(r"(?:[^\\:]|\\.)*", re.DOTALL)
_NAMED = re.compile(r"((?:[^\\=]|\\.)*)=(.*)", re.DOTALL)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def split_endpoint(text: str) -> tuple[str, list[str], dict[str, str]]:
    """The kind of an endpoint string, its arguments, and those that have a keyword, as Twisted
    takes them apart.
    """
    parts: list[str] = []
    start = 0
    while start <= len(text) and (part := _PART.match(text, start)) is not None:
        parts.append(part.group())
        start = part.end() + 1
    named = [_NAMED.fullmatch(part) for part in parts[1:]]
    arguments = [
        _unescaped(part) for part, name in zip(parts[1:], named, strict=True) if name is None
    ]
    keywords = {_unescaped(name.group(1)): _unescaped(name.group(2)) for name in named if name}
    return _unescaped(parts[0]).lower(), arguments, keywords


def parse_client(reactor: Any, text: str) -> IStreamClientEndpoint:
    """The client endpoint that a string describes.

    :param text: such as ``tcp:srv1.example.com:9000``.
    :raises UsageError: when it describes no endpoint.
    """
    _check_once(text)
    try:
        return cast(IStreamClientEndpoint, clientFromString(reactor, text))
    except UsageError:
        raise
    except (ValueError, TypeError) as error:  # TypeError: Twisted's word for a part that is missing
        raise UsageError(
            f"endpoint {text}", _no_endpoint(error), "write it in full, such as tcp:HOST:PORT"
        ) from error


def _no_endpoint(error: Exception) -> str:
    if str(error).startswith("invalid literal for int()"):
        return "its port or another number in it is invalid"
    return (
        "a part of it is missing, or one too many" if isinstance(error, TypeError) else str(error)
    )


#: Connections that the kernel keeps until they are accepted.  With Twisted's own 50, those of a
#: burst are dropped, and try again after a second.
BACKLOG = 1024


_TAKES_BACKLOG = re.compile(r"(?:haproxy:)?(?:tcp6?|ssl|tls|unix):")


def _server_endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    if "systemd:" in text and "domain=" not in text:  # the socket knows it
        text = text.replace("systemd:", "systemd:domain=UNSPEC:")
    if _TAKES_BACKLOG.match(text) and ":backlog=" not in text:
        with suppress(TypeError):  # it has one already, without its name
            return cast(
                IStreamServerEndpoint, serverFromString(reactor, f"{text}:backlog={BACKLOG}")
            )
    return cast(IStreamServerEndpoint, serverFromString(reactor, text))


def parse_server(reactor: Any, text: str) -> IStreamServerEndpoint:
    """The server endpoint that a string describes; nothing listens yet.

    :param text: such as ``tcp:9000:interface=127.0.0.1``; the backlog is :data:`BACKLOG` unless it
        says otherwise.
    :raises UsageError: when it describes no endpoint, or its port is not a port.
    """
    _check_once(text)
    remedy = "write a server endpoint, such as tcp:9000"
    try:
        endpoint = _server_endpoint(reactor, text)
    except UsageError:
        raise
    except (ValueError, TypeError) as error:
        raise UsageError(f"endpoint {text}", _no_endpoint(error), remedy) from error
    except (
        LookupError,
        AttributeError,
    ) as error:  # what systemd has not passed
        cause = "systemd has passed no such socket, or there is no such domain"
        remedy = "start it by its .socket unit, whose FileDescriptorName= is the name"
        raise UsageError(f"endpoint {text}", cause, remedy) from error
    port = re.match(r"(?:tcp6?|ssl):(?:port=)?(-?[0-9]+)(?![^:])", text)
    if port is not None and not 0 <= int(port.group(1)) <= 65535:
        raise UsageError(f"endpoint {text}", "its port is out of range", remedy)
    return endpoint


async def listen_on(reactor: Any, text: str, factory: IProtocolFactory) -> Any:
    """Listen where a server endpoint string says.

    :param text: such as ``tcp:9000:interface=127.0.0.1``.
    :return: the IListeningPort.
    :raises UsageError: when the string is not an endpoint, or its port no port.
    :raises NetworkError: when that place is taken or not ours.
    """
    try:
        return guard(await parse_server(reactor, text).listen(factory), reactor)
    except UsageError:
        raise
    except (ValueError, OverflowError, TypeError) as error:
        raise UsageError(
            f"endpoint {text}", _no_endpoint(error), "write a server endpoint, such as tcp:9000"
        ) from error
    except CannotListenError as error:
        raise NetworkError(
            f"endpoint {text}",
            str(error.socketError),
            "choose another port or address",
            code="cannot-listen",
        ) from error
