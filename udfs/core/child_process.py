"""Runs a function in a process of its own, with limits on time and memory.

For a program that came with a model, as a chat template is: it may never end or fill the memory,
and neither can be stopped in the process that runs it (no signals reach a worker's thread, and one
multiplication may take all memory).

A forked process has everything that the function needs, in milliseconds; a new interpreter would
import transformers for seconds. Forking beside other threads is safe for what only runs Python: the
child calls neither torch nor CUDA, and never returns. Were a lock of another thread's left taken in
it, it would be stopped as one that does not end.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

from udfs.core.error_lines import one_line

CPU_SECONDS = 5
WALL_SECONDS = 60
"""A machine that is busy may take long to give a process its seconds."""
MEMORY = 1 << 30
"""Bytes beyond what the process has when it is forked. Linux holds it to them; macOS knows no such
limit, and there only the seconds bound it."""
MOST_BYTES = 1 << 20
"""Of the answer."""


class ChildError(ValueError):
    """The function raised, did not end or took too much memory; one line says which."""


def call_in_child(function: Callable[[], str]) -> str:
    """What `function` returns. Raises ChildError."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(function, writer)  # never returns
    os.close(writer)
    try:
        answer = _read(reader)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # of no effect on one that has ended
        status = 0
        with contextlib.suppress(ChildProcessError):  # someone else waited for it
            status = os.waitpid(child, 0)[1]
    if answer is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        raise ChildError(f"it does not end within {CPU_SECONDS} seconds")
    if not answer:
        raise ChildError(f"its process died (status {status})")
    text = answer[1:].decode("utf-8", "surrogatepass")
    if answer[:1] == b"-":
        raise ChildError(text)
    return text


def _answer(function: Callable[[], str], writer: int) -> None:
    """In the child: write what the function returns or raises, and end at once, without what the
    parent process would do at its end."""
    try:
        _limit()
        try:
            answer = "+" + function()
        except MemoryError:
            answer = f"-it takes more than {MEMORY >> 30} GiB of memory"
        except BaseException as error:
            answer = f"-{one_line(error)}"
        data = answer.encode("utf-8", "surrogatepass")
        if len(data) > MOST_BYTES:
            data = f"-it writes more than {MOST_BYTES >> 20} MiB".encode()
        with open(writer, "wb") as pipe:
            pipe.write(data)
    finally:
        os._exit(0)


def _limit() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = CPU_SECONDS + 1  # where the two are the same, the signal does not say why
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, hard))
    statm = Path("/proc/self/statm")  # Linux
    if statm.exists():
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _read(reader: int) -> bytes | None:
    """All that comes through the pipe until it is closed; None if time is up before."""
    deadline, answer = time.monotonic() + WALL_SECONDS, b""
    poll = select.poll()
    poll.register(reader, select.POLLIN | select.POLLHUP)
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            part = os.read(reader, 1 << 16)
            if not part:
                return answer
            answer += part
    return None
