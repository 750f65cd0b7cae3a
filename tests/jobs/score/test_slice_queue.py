"""How a run divides its rows, and how runs keep out of each other's way."""

import json
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from jobs.score.pending_rows import BUCKETS
from jobs.score.slice_queue import NAMED_FILES, Extent, Slice, SliceQueue

FILES = {"x/a": 10, "x/b": 5000, "x/c": 3, "y/a": 4}  # two have the same name


def cells(part: Slice) -> set[tuple[str, int]]:
    return {(path, bucket) for path in part.paths for bucket in range(part.start, part.stop)}


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=6), st.text(max_size=3))
def test_slices_cover_every_bucket_of_every_file_once(sizes: list[int], run_id: str) -> None:
    queue = SliceQueue(FILES.items(), "w", run_id)
    seen: Counter[tuple[str, int]] = Counter()
    number = 0
    while part := queue.next(sizes[number % len(sizes)], []):
        seen.update(cells(part))
        queue.remove(queue.extent(part))
        number += 1
    assert len(seen) == len(FILES) * BUCKETS
    assert set(seen.values()) == {1}


def test_runs_that_tell_each_other_never_take_the_same_slice_while_others_are_left() -> None:
    queues = [SliceQueue(FILES.items(), "w", f"run-{i}") for i in range(3)]
    claims: dict[int, Extent] = {}
    done: list[Extent] = []
    doubled = 0
    turn = 0
    while any(queues):
        number = turn % 3
        queue = queues[number]
        if number in claims:
            done.append(claims.pop(number))
        for extent in done:
            queue.remove(extent)
        part = queue.next(400, list(claims.values()))
        if part:
            taken = queue.extent(part)
            doubled += any(taken.overlaps(claim) for claim in claims.values())
            claims[number] = taken
        turn += 1
    assert doubled <= 3  # the last ones: whoever has nothing else to do takes them too
    assert len(done) <= 5000 / 400 + len(FILES) + 3


def test_a_claim_of_a_run_that_died_is_taken_last() -> None:
    queue = SliceQueue(FILES.items(), "w", "run")
    dead = Extent("w", queue.extent(Slice(("x/b",))).files, 0, 2048)
    parts = []
    while part := queue.next(400, [dead]):
        parts.append(part)
        queue.remove(queue.extent(part))
    claimed = [queue.extent(part).overlaps(dead) for part in parts]
    assert claimed == sorted(claimed)
    assert claimed[-1]
    covered = sorted((p.start, p.stop) for p in parts if p.paths == ("x/b",))
    assert (covered[0][0], covered[-1][1]) == (0, BUCKETS)
    assert all(before[1] == after[0] for before, after in pairwise(covered))


def test_what_another_run_says_is_trusted_only_for_the_same_division() -> None:
    queue = SliceQueue(FILES.items(), "w", "run")
    whole = queue.extent(Slice(tuple(FILES)))
    other = Extent("another limit", whole.files)
    assert other.overlaps(whole)  # its rows may be in it ...
    queue.remove(other)
    assert len(queue) == len(FILES)  # ... but nobody knows whether all are
    assert not Extent("another limit", whole.files, 7, 9).overlaps(
        Extent("w", whole.files, 9, BUCKETS)
    )
    assert not queue.skipped_rows().overlaps(whole)


def test_extents_of_very_many_files_may_be_anything() -> None:
    few = Extent("w", frozenset(map(str, range(NAMED_FILES))), 1, 2)
    many = Extent("w", frozenset(map(str, range(NAMED_FILES + 1))))
    told = [Extent.from_json(json.loads(json.dumps(e.as_json()))) for e in (few, many)]
    assert told[0] == few
    assert told[1].overlaps(Extent("w", frozenset(["elsewhere"])))
    queue = SliceQueue(FILES.items(), "w", "run")
    queue.remove(Extent("w", frozenset()))
    assert len(queue) == len(FILES)
