"""Reads WebDataset tars, as img2dataset writes them, sample by sample and in bounded memory.

A sample is a run of members with the same key: `000012.jpg`, `000012.txt`, `000012.json`. Texts and
JSON that stand elsewhere in the tar join the image of their key. A broken tar gives the samples
before the break, and a row with the error.

Every member is a part of a row, or there is a row that says why it is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, groupby
from typing import Any

import pyarrow as pa

from udfs.inputs import tar_samples
from udfs.inputs.image_files import BATCH_BYTES
from udfs.inputs.tar_members import READ_ERRORS, Member, open_members
from udfs.inputs.tar_samples import MAX_TEXT_BYTES, Naming, Part, Sample, left_out, part_of

_LEFT_OUT = [("reason", pa.string()), ("example", pa.string()), ("total", pa.int64())]
SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("image", pa.binary()),
        ("caption", pa.list_(pa.binary())),  # bytes: the text may be in a broken encoding
        ("source_path", pa.string()),
        ("read_error", pa.string()),
        ("key", pa.string()),
        ("url", pa.string()),
        ("metadata", pa.binary()),
        ("_left_out", pa.struct(_LEFT_OUT)),
    ]
)
"""Rows of a tar. `metadata` is the .json member, unchanged; `source_path` is `<tar>#<member>`.
`caption` has all captions of the image, nearly always one. Where `_left_out` is set, the row is not
a pair: it says why a member is left out, and which; or it ends the tar and has the `total` of a
reason, with the first member as its example."""

BATCH_ROWS = 256


def read_tars(
    batches: Iterator[pa.RecordBatch], naming: Naming | None = None
) -> Iterator[pa.RecordBatch]:
    """The samples of the tars named in the column `path`, and what is left out of each tar, one by
    one and in total, in batches of SCHEMA."""
    rows: list[dict[str, Any]] = []
    size = 0
    for batch in batches:
        for path in batch.column("path").to_pylist():
            for row in _with_totals(read_tar(path, naming)):
                rows.append(row)
                size += len(row["image"] or b"") + len(row["metadata"] or b"")
                size += sum(len(caption or b"") for caption in row["caption"] or ())
                if size >= BATCH_BYTES or len(rows) >= BATCH_ROWS:
                    yield pa.RecordBatch.from_pylist(rows, SCHEMA)
                    rows, size = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, SCHEMA)


def _with_totals(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of a tar, and behind them how many are left out, by reason."""
    totals: dict[str, dict[str, Any]] = {}
    for row in rows:
        if one := row["_left_out"]:
            totals.setdefault(one["reason"], one | {"total": 0})["total"] += 1
        yield row
    for total in totals.values():
        yield dict.fromkeys(SCHEMA.names) | {"_left_out": total}


def read_tar(path: str, naming: Naming | None = None) -> Iterator[dict[str, Any]]:
    """The samples of one tar and what is left out of it, in its order; never raises for a broken
    tar.

    If the tar ends inside a sample, that sample has a `read_error`. If it ends between samples or
    cannot be opened, a row without a key has the error.
    """
    yield from _Reader(path, naming or Naming()).rows()


class _Reader:
    """Reads one tar.

    Samples that lack an image or a caption make it look through the tar, once, for texts and JSON
    that stand apart from the image of their key. They are small enough to be kept until then.
    """

    def __init__(self, path: str, naming: Naming) -> None:
        self.path = path
        self.naming = naming
        self.seen: set[int] = set()  # hashes of the keys that have a row
        self.apart: dict[str, Sample] | None = None
        self.joined: set[str] = set()

    def rows(self) -> Iterator[dict[str, Any]]:
        sample: Sample | None = None
        error: str | None = None
        try:
            with open_members(self.path) as members:
                for member in members:
                    part = part_of(member, self.naming)
                    if isinstance(part, str):
                        if not member.is_folder:
                            yield left_out(part, self.path, member.name)
                        continue
                    if sample is None or sample.key != part.key:
                        if sample is not None:
                            yield from self._finished(sample)
                        sample = Sample(self.path, part.key, member.offset)
                    sample.add(member, part)
        except READ_ERRORS as broken:
            error = f"the tar is broken: {broken}"
        if sample is not None and (error is None or self._has_all(sample)):
            yield from self._finished(sample)
            sample = None
        for texts in (self.apart or {}).values():
            yield from self._given(texts, texts.row(self.naming))
        if error is not None:
            sample = sample or Sample(self.path, "")
            row = sample.row(self.naming)
            yield from sample.rows_left_out()
            yield row | {"read_error": error, "key": sample.key or None}
        elif not self.seen:
            yield left_out(tar_samples.NO_SAMPLE, self.path)

    def _has_all(self, sample: Sample) -> bool:
        """Whether a sample in which the tar breaks off lacks nothing."""
        return {"image", "caption"} <= sample.held.keys() or self._is_apart(sample)

    def _is_apart(self, sample: Sample) -> bool:
        """Whether texts of the sample stand apart from its image."""
        if "image" not in sample.held and sample.key in self.joined:
            return True
        return self.apart is not None and sample.key in self.apart

    def _finished(self, sample: Sample) -> Iterator[dict[str, Any]]:
        """The rows of a sample whose members have all been read."""
        row = sample.row(self.naming)
        lacks_uid = self.naming.uid_field is not None and row["uid"] is None
        if self.apart is None and sample.held and (_is_half(sample, row) or lacks_uid):
            self.apart = _texts_apart(self.path, self.naming, sample.offset)
        if self._is_apart(sample):
            if self.apart and "image" in sample.held:
                sample.join(self.apart.pop(sample.key))
                self.joined.add(sample.key)
            else:  # they are, or were, in `apart` too
                sample.forget_texts()
            row = sample.row(self.naming)
        yield from self._given(sample, row)

    def _given(self, sample: Sample, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if sample.held and hash(sample.key) in self.seen and _is_half(sample, row):
            sample.leave_out_all(tar_samples.APART)
        if sample.held:
            self.seen.add(hash(sample.key))
            yield row
        yield from sample.rows_left_out()


def _is_half(sample: Sample, row: dict[str, Any]) -> bool:
    return "image" not in sample.held or row["caption"] is None


def _texts_apart(path: str, naming: Naming, offset: int) -> dict[str, Sample]:
    """Texts and JSON that stand in a run without an image though their key has other runs, by key.

    Looks at the members from `offset` on. Keys beyond MAX_TEXT_BYTES in total are left out.
    """
    runs: Counter[str] = Counter()
    without_image: dict[int, str] = {}
    apart: dict[str, Sample] = {}
    with suppress(*READ_ERRORS):
        with open_members(path) as members:
            for key, start, run in _runs(members, naming):
                columns = {part.column for _, part in run}
                if start >= offset:
                    runs[key] += 1
                    if "image" not in columns:
                        without_image[start] = key
        wanted = {start for start, key in without_image.items() if runs[key] > 1}
        if not wanted:
            return {}
        size = 0
        too_large: set[str] = set()
        with open_members(path) as members:
            for key, start, run in _runs(members, naming):
                for member, part in run:
                    if start not in wanted or part.column is None:
                        continue
                    size += member.size
                    if size > MAX_TEXT_BYTES:
                        too_large.add(key)
                    else:
                        apart.setdefault(key, Sample(path, key)).add(member, part)
        for key in too_large:
            apart.pop(key, None)
    return apart


def _runs(
    members: Iterator[Member], naming: Naming
) -> Iterator[tuple[str, int, Iterator[tuple[Member, Part]]]]:
    """Key, offset of the first member, and members, of each run of members with the same key."""
    parts = ((member, part_of(member, naming)) for member in members)
    named = ((member, part) for member, part in parts if not isinstance(part, str))
    for key, run in groupby(named, lambda item: item[1].key):
        first = next(run)
        yield key, first[0].offset, chain([first], run)  # noqa: B031
