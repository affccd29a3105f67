"""``twistd mutauth``: what the plugin names; see :mod:`twisted.application.service`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from twisted.application.service import IService

from mutauth_twisted.dns import install_resolver
from mutauth_twisted.errors import MutualAuthError, UsageError
from mutauth_twisted.service.assembly import check, make_process
from mutauth_twisted.service.reload import Reloader
from mutauth_twisted.settings.mistakes import Collector
from mutauth_twisted.settings.process import ProcessSettings
from mutauth_twisted.settings.twistd import Options, ServiceOptions, leave
from mutauth_twisted.signals import reload_on_hangup

__all__ = ["Options", "makeService"]


def _check_runner(runner: Mapping[str, Any] | None, settings: ProcessSettings) -> None:
    """See that twistd itself does not change the user, which it would do after keys, replay cache
    and ports were had as root; and that what is written to its standard output is kept.

    :raises UsageError: when it is otherwise.
    """
    if runner is None:
        return
    for name in ("uid", "gid"):
        if runner.get(name) is not None:
            cause = "it changes the user when the replay cache is root's already"
            raise UsageError(f"twistd --{name}", cause, "give --user NAME[:GROUP] after mutauth")
    for service in settings.services:
        if service.audit == "stdout" and not runner.get("nodaemon"):
            cause = "twistd has no standard output in the background, and every event would be lost"
            remedy = "run twistd -n, or name a file or journald"
            raise UsageError(service.front.spell("audit", "stdout"), cause, remedy)
    workers = settings.workers
    is_heard = runner.get("nodaemon") and runner.get("logfile") in (None, "-")
    if workers > 1 and (not is_heard or runner.get("syslog")):
        cause = "their log goes to standard output, which twistd does not keep here"
        remedy = "run twistd -n, without --logfile and --syslog"
        raise UsageError(f"workers {workers}", cause, remedy)


def makeService(options: ServiceOptions) -> IService:
    """Make the process that the options describe.

    What is wrong with keys or factories ends the process here, with a line for each mistake; and so
    does ``--check``, whatever it finds.
    """
    from twisted.internet import reactor

    install_resolver(reactor)
    if options.only_check:
        _check(reactor, options)
    try:
        _check_runner(options.parent, options.settings)
        process = make_process(reactor, options.settings, options.words, options.contents)

        def load() -> tuple[ProcessSettings, Collector]:
            settings, told = options.load()
            with told.taking():
                _check_runner(options.parent, settings)
            return settings, told

        reloads = process.reloads = Reloader(reactor, process, load, options.config)
        reload_on_hangup(reactor, reloads.request)
        return process
    except MutualAuthError as error:
        leave(error)


def _check(reactor: Any, options: ServiceOptions) -> NoReturn:
    told = options.told
    with told.taking():
        _check_runner(options.parent, options.settings)
    for warning in check(reactor, options.settings, told):
        sys.stderr.write(f"mutauth: warning: {warning}\n")
    for error in told.errors:
        sys.stderr.write(f"mutauth: {error}\n")
    if told.errors:
        sys.exit(UsageError.exit_code)
    names = ", ".join(service.name for service in options.settings.services)
    sys.stdout.write(f"mutauth: nothing is wrong with {names}\n")
    sys.exit(0)
