"""Writes DataComp's list of uids: a NumPy file of 128-bit numbers, as its resharder reads it.

The file's dtype is `u8,u8` (the uid's first and last 16 hex digits). Its numbers are sorted, and a
uid that is to be used three times occurs three times. The resharder looks up each sample by binary
search (mlfoundations/datacomp, resharder.py).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from udfs.core.atomic_files import atomic_write

UIDS = np.dtype("u8,u8")
"""One uid: high and low 64 bits. NumPy sorts such records by the first field, then the second."""

PIECE_UIDS = 1 << 18
"""The number of uids (4 MiB) that are passed on at once."""

SCHEMA = pa.schema([("uids", pa.binary())])


def pack_uids(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Sorted `key` (16 bytes, big-endian) and `repetitions` -> pieces of the file, as bytes.

    Of several rows with one key the first is used, even if a batch ends between them; their
    repetitions are not added up. A piece holds at most PIECE_UIDS uids, however often one repeats.
    """
    last: bytes | None = None
    for batch in batches:
        if not batch.num_rows:
            continue
        keys = _keys(batch.column("key"))
        times = batch.column("repetitions").to_numpy(zero_copy_only=False).astype(np.int64)
        new = np.ones(len(keys), dtype=bool)
        new[1:] = keys[1:] != keys[:-1]
        new[0] = keys[0].tobytes() != last
        last = keys[-1].tobytes()
        for piece in _repeated(keys[new], times[new]):
            yield pa.RecordBatch.from_pylist([{"uids": piece.tobytes()}], SCHEMA)


def _keys(column: pa.Array) -> np.ndarray[Any, Any]:
    """A column of 16-byte values as records of UIDS, without a Python object for each."""
    fixed = column.cast(pa.binary(16))
    raw = np.frombuffer(fixed.buffers()[1], dtype=">u8")
    halves = raw[2 * fixed.offset : 2 * (fixed.offset + len(fixed))].astype("<u8")
    return halves.view(UIDS)


def _repeated(
    keys: np.ndarray[Any, Any], times: np.ndarray[Any, Any]
) -> Iterator[np.ndarray[Any, Any]]:
    ends = np.cumsum(times)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, PIECE_UIDS):
        indices = np.arange(start, min(start + PIECE_UIDS, total))
        yield keys[np.searchsorted(ends, indices, side="right")]


class UidWriter:
    """Writes a uid file piece by piece, in ascending order; the file appears when it is closed.

        with UidWriter(path) as uids:
            uids.write(piece)

    The pieces are collected in a temporary file, because the header with their number comes first
    and a mounted store often cannot seek. Raises ValueError for a piece out of order: the resharder
    would silently miss uids in such a file.
    """

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._path = path
        self._last = np.empty(0, UIDS)

    def __enter__(self) -> Self:
        self._pieces = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        return self

    def write(self, piece: bytes | bytearray) -> None:
        """Append records of UIDS."""
        uids = np.frombuffer(piece, dtype=UIDS)
        if not is_sorted(np.concatenate([self._last, uids])):
            raise ValueError("uids are out of order")
        self._last = uids[-1:].copy()
        self._pieces.write(piece)
        self.rows += len(uids)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._pieces:
            if kind is not None:
                return
            self._pieces.seek(0)
            with atomic_write(self._path) as part, part.open("wb") as file:
                descr = np.lib.format.dtype_to_descr(UIDS)
                header = {"descr": descr, "fortran_order": False, "shape": (self.rows,)}
                np.lib.format.write_array_header_1_0(file, header)
                shutil.copyfileobj(self._pieces, file, 1 << 22)


def is_sorted(uids: np.ndarray[Any, Any]) -> bool:
    """Whether records of UIDS are in ascending order; equal ones are allowed."""
    high, low = uids["f0"], uids["f1"]
    ascends = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] >= low[:-1]))
    return bool(ascends.all())


def is_uid_file(path: Path) -> bool:
    """Whether a file is a NumPy array of UIDS."""
    try:
        return bool(np.load(path, mmap_mode="r", allow_pickle=False).dtype == UIDS)
    except (OSError, ValueError, EOFError):
        return False
