"""A worker: takes connections of its parent's sockets, and does nothing else.

``python -m mutauth_twisted.service.worker`` is run by :mod:`mutauth_twisted.service.workers` alone.
It obeys its parent, and no signal but SIGKILL: who stops a service stops the parent, which sends
clients elsewhere first.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure

from mutauth_twisted.dns import install_resolver
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.log import Log
from mutauth_twisted.net.events import ConnectionObserver, ConnectionRecord
from mutauth_twisted.service.assembly import make_worker
from mutauth_twisted.service.exitcode import end_with
from mutauth_twisted.service.messages import (
    OBEYS_NO_SIGNAL,
    TO_PARENT,
    Lines,
    Renewal,
    Start,
    line_of,
)
from mutauth_twisted.service.process import WorkerProcess
from mutauth_twisted.service.server import MutualAuthService

#: Seconds between two snapshots.
INTERVAL: Final = 1.0


class _Seen(ConnectionObserver):
    """Tells at once when a client comes with the service's own account: the parent may wait for
    it.
    """

    def __init__(self, worker: Worker, service: MutualAuthService) -> None:
        self._worker = worker
        self._service = service
        self._seen = 0

    def refused(self, record: ConnectionRecord) -> None:
        """See ConnectionObserver."""
        # Anybody can be refused as often as he likes, and a report has every session in it.
        if self._service.own_seen != self._seen:
            self._seen = self._service.own_seen
            self._worker.report()


class Worker(Lines):
    """The worker's end of the messages, and the services that it runs.

    :param reactor: Twisted's reactor, which is about to run.
    """

    _log = Log()

    def __init__(self, reactor: Any) -> None:
        super().__init__(self._obey, longest=None)
        self._reactor = reactor
        self._process: WorkerProcess | None = None
        self._reports = LoopingCall(self.report)

    def _obey(self, message: dict[str, Any]) -> None:
        if "start" in message:
            self._start(Start(**message["start"]))
        elif self._process is None:
            return
        elif "groups" in message:
            self._process.use_groups(message["groups"])
        elif "reload" in message:
            renewing = Deferred.fromCoroutine(self._process.renew(Renewal(**message["reload"])))
            renewing.addCallbacks(lambda _: self._send({"applied": True}), self._not_renewed)
        elif "stop" in message:
            self._stop()

    def _start(self, start: Start) -> None:
        try:
            process = self._process = make_worker(self._reactor, start)
        except MutualAuthError as error:
            self._log.critical("worker {number}: {error}", number=start.number, error=error)
            end_with(error.exit_code, self._reactor)
            self._stop()
            return
        process.use_groups(start.groups)
        for service in process.services.values():
            service.observe(_Seen(self, service))
        process.serving.addCallback(self._ready)
        self._reactor.addSystemEventTrigger("before", "shutdown", process.stopService)
        process.startService()

    def _not_renewed(self, failure: Failure) -> None:
        if failure.check(MutualAuthError):
            self._log.error("the reload failed: {error}", error=failure.value)
        else:
            self._log.failure("internal error while files were reloaded", failure)
        self._send({"applied": False})

    def _ready(self, _: object) -> None:
        self._send({"ready": True})
        self._reports.start(INTERVAL)

    def report(self) -> None:
        """Tell how the services are."""
        if self._process is not None:
            services = self._process.services.values()
            self._send(
                {
                    "snapshots": [each.snapshot().as_json() for each in services],
                    "seen": {each.name: each.own_seen for each in services},
                }
            )

    def _send(self, message: dict[str, Any]) -> None:
        transport: ITransport | None = self.transport
        if transport is not None:
            transport.write(line_of(message))

    def _stop(self) -> None:
        if self._reactor.running:
            self._reactor.stop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The parent has ended, without a word: nobody counts and nobody restarts this one."""
        if self._process is None or self._process.running:
            self._log.error("the parent of this worker has ended; it ends too")
            end_with(1, self._reactor)
            self._stop()


def main() -> None:
    """Run until the parent says so, or ends."""
    for number in OBEYS_NO_SIGNAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYS_NO_SIGNAL)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    from twisted.internet import reactor

    install_resolver(reactor)
    worker = Worker(reactor)
    loop: Any = reactor
    loop.callWhenRunning(StandardIO, worker, 0, TO_PARENT)
    loop.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
