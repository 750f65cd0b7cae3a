"""The uid file without Spark, read as DataComp's resharder reads it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.outputs import uid_file
from udfs.outputs.uid_file import UIDS, UidWriter, is_uid_file, pack_uids


def batches(keys: list[bytes], times: list[int], rows: int) -> Iterator[pa.RecordBatch]:
    """What Spark passes on: sorted keys, in batches that may end anywhere."""
    whole = pa.table({"key": pa.array(keys, pa.binary()), "repetitions": pa.array(times)})
    yield from whole.to_batches(max_chunksize=rows)


def write(path: Path, pieces: Iterator[pa.RecordBatch]) -> int:
    with UidWriter(path) as uids:
        for piece in pieces:
            uids.write(piece.column("uids")[0].as_py())
    return uids.rows


def load(path: Path) -> np.ndarray:
    """The file as the resharder opens it."""
    with path.open("rb") as file:
        assert file.read(6) == b"\x93NUMPY"
    subset: np.ndarray = np.load(path, mmap_mode="r")
    assert subset.dtype == np.dtype("u8,u8")
    return subset


def count(subset: np.ndarray, uid: str) -> int:
    """How often a sample is repeated, by the resharder's look-up."""
    key = np.array([divmod(int(uid, 16), 2**64)], np.dtype("u8,u8"))[0]
    return int(np.searchsorted(subset, key, "right") - np.searchsorted(subset, key, "left"))


def test_a_million_uids_are_found_as_often_as_they_repeat(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 1_000_000
    halves = rng.integers(0, 2**64, (rows, 2), dtype=np.uint64)
    halves[: rows // 10, 0] = halves[0, 0]  # the low half has to decide as well
    halves = np.unique(halves, axis=0)  # sorted by rows
    times = rng.choice([1, 1, 1, 2, 3, 7], len(halves))
    raw = halves.astype(">u8").tobytes()
    keys = [raw[start : start + 16] for start in range(0, len(raw), 16)]
    path = tmp_path / "uids.npy"
    assert write(path, pack_uids(batches(keys, times.tolist(), 99_991))) == times.sum()
    subset = load(path)
    assert np.array_equal(subset, np.repeat(np.ascontiguousarray(halves).view(UIDS)[:, 0], times))
    assert np.array_equal(subset, np.sort(subset))
    # NumPy's search in structured arrays takes 30 us: one call for all of them
    uids = np.ascontiguousarray(halves).view(UIDS)[:, 0]
    found = np.searchsorted(subset, uids, "right") - np.searchsorted(subset, uids, "left")
    assert np.array_equal(found, times)
    assert count(subset, keys[77].hex()) == times[77]
    assert count(subset, "f" * 31 + "e") == 0


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.integers(1, 9)), max_size=40),
    duplicates=st.integers(0, 3),
    size=st.integers(1, 7),
)
def test_each_uid_counts_once_with_its_most_repetitions(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[bytes, int]],
    duplicates: int,
    size: int,
) -> None:
    """With several rows of one uid, also across batches, and small pieces."""
    rows += [(key, times + 1) for key, times in rows[:duplicates]]
    rows.sort(key=lambda row: (row[0], -row[1]))
    path = tmp_path_factory.mktemp("uids") / "uids.npy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uid_file, "PIECE_UIDS", 4)
        write(path, pack_uids(batches([k for k, _ in rows], [t for _, t in rows], size)))
    expected: dict[bytes, int] = {}
    for key, times in rows:
        expected[key] = max(times, expected.get(key, 0))
    subset = load(path)
    assert len(subset) == sum(expected.values())
    assert all(count(subset, key.hex()) == times for key, times in expected.items())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "uids.npy"
    path.write_bytes(b"before")
    larger, smaller = np.array([(1, 2)], UIDS).tobytes(), np.array([(1, 1)], UIDS).tobytes()
    unsorted = iter([pa.RecordBatch.from_pylist([{"uids": larger}, {"uids": smaller}])])
    with pytest.raises(ValueError, match="out of order"):
        write(path, (batch.slice(n, 1) for batch in unsorted for n in (0, 1)))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    assert not is_uid_file(path)
    assert write(path, iter(())) == 0
    assert is_uid_file(path)
    assert len(load(path)) == 0
