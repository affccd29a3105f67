"""The configuration file with every key in it: ``python -m mutauth_twisted.cli.configreference``
prints it.

It is made of the schema; ``make reference`` writes it where the documentation has it, and a test
compares the two.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import click

from mutauth_twisted.settings.schema import FLAG, Option, Where, sections

_WIDTH = 100
_HEAD = """\
# Every key of the file of `twistd mutauth --config`. A key in a comment shows its default, or what
# its value is. Written by `make reference`: change mutauth_twisted/settings/schema.py instead.

"""
_DEFAULTS = """
# Keys for all services: each key of a service, for those that have not their own.
[defaults]
allow-group = ["EXAMPLE\\\\staff"]

# One service. NAME is for the log, the status and the audit trail; there may be any number.
[service.NAME]
"""
#: What the file says for a service that is complete.
_GIVEN = {
    "service-class": "shop",
    "host": "srv1.example.com",
    "keytab": "/etc/mutauth/shop.keytab",
    "listen": ["tcp:9000"],
    "forward": "tcp:127.0.0.1:5432",
}


def _value(option: Option) -> Any:
    """A value in a file: the default, or else what stands for one."""
    default = option.initial if option.shown else None
    if option.kind is FLAG:
        return False
    if default is None:
        choices = list(option.kind.choices)
        default = choices[0] if choices else option.kind.metavar
        if option.kind.types[0] is not str:
            default = 1
    if option.kind.repeatable:
        return list(default) if isinstance(default, tuple) else [default]
    if isinstance(default, tuple):
        return ",".join(default)
    return int(default) if isinstance(default, float) and default.is_integer() else default


def _lines(where: Where, given: dict[str, Any]) -> Iterator[str]:
    for title, rows in sections(where).items():
        yield f"\n## {title.rstrip(':')}\n"
        for option in rows:
            for line in textwrap.wrap(option.text, _WIDTH - 2):
                yield f"# {line}"
            is_given = option.name in given
            value = given[option.name] if is_given else _value(option)
            yield f"{'' if is_given else '#'}{option.name} = {json.dumps(value)}"


def every_key() -> str:
    """The file."""
    process = "\n".join(_lines(Where.PROCESS, {"status": "tcp:8080:interface=127.0.0.1"}))
    service = "\n".join(_lines(Where.SERVICE, _GIVEN))
    return f"{_HEAD}{process.lstrip()}\n{_DEFAULTS}{service}\n"


if __name__ == "__main__":
    click.echo(every_key(), nl=False)
