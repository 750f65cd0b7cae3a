"""Runs rows through a child process; those that end it get a verdict, all others their answers.

When the child dies, its parent reads what rows it was working on. A new child then gets each of
them alone; one that ends the process twice more has crashed it, and one that takes too long once
more has timed out. The other rows go on. So a bad row costs three processes at most.

The child asks for pieces of rows and the parent gives them, one message each way: neither ever
waits for the other to read.
"""

from __future__ import annotations

import logging
import os
import pickle
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from udfs.core.error_lines import one_line
from udfs.processes.activity import Activity
from udfs.processes.row_queue import RowQueue
from udfs.processes.watched_process import Limits, ProcessDiedError, WatchedProcess

log = logging.getLogger(__name__)

CRASHED = "crashed"
TIMEOUT = "timeout"

ALONE = 2
"""So often a row has to end the process alone: once may be an accident, or a signal from outside.
"""
MOST_IDLE_DEATHS = 3
"""In a row, of a process that was working on no row."""
MOST_DEATHS = 48
"""In a row without an answer. All rows of a batch may be bad; if that many are, the model or the
machine is at fault, and no row is to blame."""


class ProcessError(RuntimeError):
    """The process dies, and no row is at fault. `starting`: before it was ready for rows."""

    def __init__(self, message: str, starting: bool) -> None:
        super().__init__(message)
        self.starting = starting


class ProcessLostError(RuntimeError):
    """Raised by `serve`: what it works on has made this process unusable; the message says how."""


class RemoteTracebackError(Exception):
    """The child's traceback, as the cause of the error that it raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Channel:
    """How `serve` speaks with its parent. A report may go with what it says: any value, for
    `on_report` of the parent's stream."""

    def __init__(self, connection: Connection, activity: Activity) -> None:
        self._connection = connection
        self.record = activity.working

    def ready(self, report: Any = None) -> None:
        """Say that all is loaded: what memory is taken from here on is limited."""
        self._connection.send(("ready", None, report))

    def pieces(self) -> Iterator[list[Any]]:
        """The rows, in pieces."""
        while True:
            self._connection.send(("next", None, None))
            piece = self._connection.recv()
            if piece is None:
                return
            yield piece

    def answer(self, answers: Sequence[Any], report: Any = None) -> None:
        """Give the answers for the next rows, in order."""
        self._connection.send(("answers", answers, report))


Serve = Callable[[Any, Channel], None]
"""`serve(request, channel)`, run in the child, answers all rows of `channel.pieces()` in order. It
records by `channel.record` what it works on; a row's number is its place among them, from 0."""


class RowSupervisor:
    """One child, which serves one stream after another and is replaced when it dies.

    `stages` are the words for what `serve` records, as in "the model ended the process".
    """

    def __init__(self, serve: Serve, stages: Sequence[str]) -> None:
        self._serve = serve
        self._stages = stages
        self._process: WatchedProcess | None = None
        self._owner = 0  # the process whose child it is
        self._idle = True
        self.starts = 0

    def stream(
        self,
        request: Any,
        batches: Iterable[Sequence[Any]],
        limits: Limits,
        verdict: Callable[[str, str], Any],
        on_report: Callable[[Any], None] = lambda _: None,
        smaller: Callable[[Any, int], Any] = lambda request, rows: request,
    ) -> Generator[list[Any], None, None]:
        """Yield the answers for each batch of rows, in order: those of `serve(request, ...)`, and
        `verdict(CRASHED or TIMEOUT, reason)` for a row that ends the process.

        Rows that end it together and not alone were too many: the stream goes on with
        `smaller(request, rows)`, for at most so many at once. Without rows no process is started.
        It is killed if the consumer stops early. Raises ProcessError, what `serve` raises and what
        reading `batches` raises.
        """
        queue = RowQueue(iter(batches))
        deaths = idle_deaths = 0
        together = 0  # rows that ended the process, none of which has ended it alone so far
        try:
            while queue.has_more():
                queue.begin()
                ready = False
                if queue.alone is None and together > 1:
                    request, together = smaller(request, together // 2), 0
                try:
                    for kind, answers, report in self._messages(request, queue, limits):
                        ready = True
                        if report is not None:
                            on_report(report)
                        if kind == "answers":
                            deaths = idle_deaths = 0
                            queue.settle(answers)
                            yield from queue.finished()
                except ProcessDiedError as died:
                    suspects = queue.suspects({n for task in died.tasks for n in task.rows})
                    deaths += 1
                    idle_deaths = 0 if suspects else idle_deaths + 1
                    log.warning("%s; rows to be tried alone: %d", died, len(suspects))
                    if idle_deaths == MOST_IDLE_DEATHS or deaths == MOST_DEATHS:
                        times = idle_deaths if idle_deaths == MOST_IDLE_DEATHS else deaths
                        raise ProcessError(f"{died}, {times} times in a row", not ready) from None
                    if queue.alone is None:
                        together = max((len(task.rows) for task in died.tasks), default=0)
                    elif suspects:
                        together = 0
                        self._judge(queue, died, verdict)
                    queue.break_off(suspects)
                yield from queue.finished()
            yield from queue.finished()
        finally:
            if not self._idle and self._process is not None:
                self._process.end()
            self._idle = True

    def _judge(
        self, queue: RowQueue, died: ProcessDiedError, verdict: Callable[[str, str], Any]
    ) -> None:
        """Give the row that ended the process alone its verdict, if it has done so often enough."""
        row = queue.alone
        assert row is not None
        row.crashes += 1
        reason = f"{self._stages[died.tasks[0].stage]} {died}"
        if died.cause == "time":
            row.settle(verdict(TIMEOUT, reason))
        elif row.crashes == ALONE:
            row.settle(verdict(CRASHED, f"{reason}, three times (twice alone)"))

    def _messages(
        self, request: Any, queue: RowQueue, limits: Limits
    ) -> Iterator[tuple[str, Any, Any]]:
        """What the child says of a request until it has served it: ("ready" or "answers", answers,
        report)."""
        process = self._running(limits)
        self._idle = False
        process.send(request)
        while True:
            kind, payload, report = process.receive()
            if kind == "next":
                process.send(queue.piece())
                continue
            if kind == "lost":
                raise process.lost(payload)
            if kind == "ready":
                process.count_memory()
            self._idle = kind in ("done", "error")
            if kind == "error":
                error, trace = payload
                raise error from RemoteTracebackError(trace)
            if kind == "done":
                return
            yield kind, payload, report

    def _running(self, limits: Limits) -> WatchedProcess:
        """The child, with these limits."""
        process = self._process
        if process is not None and self._owner == os.getpid():
            if process.is_idle():
                process.limit(limits)
                return process
            process.end()  # it died between two streams, of nothing that they did
        self.starts += 1
        self._owner = os.getpid()
        self._process = WatchedProcess(self._run, limits)
        return self._process

    def _run(self, connection: Connection, activity: Activity) -> None:
        """The child: serve one request after another."""
        while True:
            request = connection.recv()
            activity.clear()
            try:
                self._serve(request, Channel(connection, activity))
                connection.send(("done", None, None))
            except ProcessLostError as error:
                connection.send(("lost", str(error), None))
                return
            except Exception as error:
                connection.send(("error", (_sendable(error), traceback.format_exc()), None))


def _sendable(error: Exception) -> Exception:
    """The error, or what it says if the parent might not have its class or could not make it."""
    if type(error).__module__.partition(".")[0] in ("builtins", "udfs"):
        try:
            copy: Exception = pickle.loads(pickle.dumps(error))
            return copy
        except Exception as reason:
            log.debug("an error cannot be pickled: %s", reason)
    return RuntimeError(one_line(error))
