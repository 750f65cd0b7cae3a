"""A forked process that is killed if one task takes too long or the process too much memory.

The child is forked, not spawned: what its parent has imported need not be imported again. So the
parent must not have used what does not survive a fork (CUDA, OpenMP's threads).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from udfs.processes.activity import Activity, Task
from udfs.processes.memory_size import in_words, private_memory

POLL_SECONDS = 0.25
OOM_SCORE = "500"
"""A system that runs out of memory kills the child, not Spark's worker, which can start another."""
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass(frozen=True)
class Limits:
    """Seconds for one task, and bytes beyond what the process had at `count_memory`."""

    seconds: float
    memory: int


Cause = Literal["time", "memory", "end"]


class ProcessDiedError(Exception):
    """The process is dead: killed because of its limits, or ended otherwise; `tasks` is what it was
    working on. The message follows a subject: "ended the process: SIGSEGV"."""

    def __init__(self, cause: Cause, how: str, tasks: list[Task]) -> None:
        super().__init__(how)
        self.cause = cause
        self.tasks = tasks


class WatchedProcess:
    """A child that runs `main(connection, activity)` and is killed beyond `limits`."""

    def __init__(self, main: Callable[[Connection, Activity], None], limits: Limits) -> None:
        self.limits = limits
        self.activity = Activity()
        self._memory_at_start: int | None = None
        self._death: tuple[Cause, str] | None = None
        self._connection, childs_end = Pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _isolate(childs_end, parent)
                main(childs_end, self.activity)
            except EOFError:  # the parent is gone, or wants no more
                pass
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(1)  # nothing of what the parent would do at its end
        childs_end.close()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._watcher.start()

    def limit(self, limits: Limits) -> None:
        """Set other limits; that on memory holds from the next call of `count_memory` on."""
        self._memory_at_start = None
        self.limits = limits

    def count_memory(self) -> None:
        """Count memory from what the process has now."""
        self._memory_at_start = private_memory(self.pid)

    def send(self, message: Any) -> None:
        """Raises ProcessDiedError."""
        try:
            self._connection.send(message)
        except OSError:
            raise self._buried() from None

    def receive(self) -> Any:
        """The next message. Raises ProcessDiedError."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise self._buried() from None

    def is_idle(self) -> bool:
        """Whether the process lives and has nothing to say."""
        return not self._connection.closed and not self._connection.poll()

    def lost(self, why: str) -> ProcessDiedError:
        """End the process, which says that it cannot go on."""
        self._death = "end", f"ended the process: {why}"
        return self._buried()

    def end(self) -> None:
        """Kill the process."""
        if not self._connection.closed:
            self._buried()

    def _buried(self) -> ProcessDiedError:
        """Kill what is left of the process, wait for its end and say what it was."""
        self._stop.set()
        self._watcher.join()  # it must not kill another process that gets the same number
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # of no effect on one that has ended
        status = 0
        with contextlib.suppress(ChildProcessError):  # someone else waited for it
            status = os.waitpid(self.pid, 0)[1]
        self._connection.close()
        tasks = self.activity.tasks()
        if self._death:
            return ProcessDiedError(*self._death, tasks)
        return ProcessDiedError("end", f"ended the process: {_in_words(status)}", tasks)

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            if excess := self._excess():
                self._death = excess
                os.kill(self.pid, signal.SIGKILL)
                return

    def _excess(self) -> tuple[Cause, str] | None:
        tasks, limits = self.activity.tasks(), self.limits
        if any(time.monotonic() - task.since > limits.seconds for task in tasks):
            return "time", f"took more than {limits.seconds:g} s"
        if (start := self._memory_at_start) is not None:
            memory = private_memory(self.pid)
            if memory is not None and memory - start > limits.memory:
                return "memory", f"took more than {in_words(limits.memory)} of memory"
        return None


def _isolate(connection: Connection, parent: int) -> None:
    """In the child: never outlive the parent, and hold nothing of it open but the connection."""
    if sys.platform == "linux":
        # Sent when the thread that forked ends, which is the main thread of Spark's workers.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would be as large as the model
    nothing = os.open(os.devnull, os.O_RDWR)
    for file in map(int, os.listdir("/dev/fd")):
        if file > 2 and file not in (nothing, connection.fileno()):
            os.dup2(nothing, file, inheritable=False)


def _in_words(status: int) -> str:
    """How a process ended, by the status of `waitpid`."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"
    return f"exit code {os.WEXITSTATUS(status)}"
