"""What a process works on is seen by its parent, also after its death; and how large it is."""

import os
import threading
import time

import pytest

from udfs.processes import memory_size
from udfs.processes.activity import MOST_ROWS, SLOTS, Activity, unrecorded


def test_tasks_are_seen_as_long_as_they_last() -> None:
    activity = Activity()
    before = time.monotonic()
    with activity.working(1, range(7, 7 + MOST_ROWS)), activity.working(0, [5]):
        tasks = sorted(activity.tasks(), key=lambda task: task.stage)
        assert [(task.stage, task.rows) for task in tasks] == [
            (0, (5,)),
            (1, tuple(range(7, 7 + MOST_ROWS))),
        ]
        assert all(before <= task.since <= time.monotonic() for task in tasks)
    assert activity.tasks() == []


def test_an_error_that_leaves_the_block_leaves_its_rows() -> None:
    activity = Activity()
    for number in range(SLOTS):
        with pytest.raises(ValueError, match="x"), activity.working(0, [number]):
            raise ValueError("x")
    assert {task.rows for task in activity.tasks()} == {(number,) for number in range(SLOTS)}
    activity.clear()
    assert activity.tasks() == []
    with activity.working(0, [1]):
        assert len(activity.tasks()) == 1


def test_threads_do_not_share_a_slot() -> None:
    activity = Activity()
    together = threading.Barrier(8)
    seen = []

    def work(number: int) -> None:
        for _ in range(50):
            with activity.working(0, [number]):
                together.wait(10)
                seen.append({task.rows[0] for task in activity.tasks()})
                together.wait(10)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [set(range(8))] * 400
    assert activity.tasks() == []


def test_a_dead_childs_tasks_can_be_read() -> None:
    activity = Activity()
    child = os.fork()
    if child == 0:
        with activity.working(1, [3, 4]):
            os._exit(0)
    os.waitpid(child, 0)
    assert [task.rows for task in activity.tasks()] == [(3, 4)]


def test_work_that_nobody_watches() -> None:
    with unrecorded(0, [1]):
        pass


def test_memory_of_a_process_and_of_the_machine() -> None:
    before = memory_size.private_memory(os.getpid())
    taken = b"x" * (64 << 20)
    after = memory_size.private_memory(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(len(taken), rel=0.2)
    assert after < memory_size.machine_memory()
    assert memory_size.private_memory(1 << 30) is None


@pytest.mark.parametrize(
    ("size", "words"), [(4 << 30, "4.0 GiB"), (256 << 20, "256 MiB"), (0, "0 MiB")]
)
def test_bytes_in_words(size: int, words: str) -> None:
    assert memory_size.in_words(size) == words
