"""The slices of a run: which are left, which other runs have done or are at work on.

Runs that score one pairs table share the work: each says with its commits which slice it takes
next. Others leave that slice for the end, and take it then if it is still not done: a run that
died keeps nothing from them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .pending_rows import BUCKETS

NAMED_FILES = 300
"""How many files of a slice other runs are told of; with more, work may be done twice."""


@dataclass(frozen=True)
class Extent:
    """Which rows a slice has, as runs can compare it: those of some files in the buckets from
    `start` up to `stop`, exclusive. `work` is the same for runs that divide the same rows alike.
    Without `files` it may be any.
    """

    work: str
    files: frozenset[str]
    start: int = 0
    stop: int = BUCKETS

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Extent:
        """What `as_json` gave."""
        return cls(value["work"], frozenset(value["files"]), value["start"], value["stop"])

    def as_json(self) -> dict[str, Any]:
        """For other runs."""
        files = sorted(self.files) if len(self.files) <= NAMED_FILES else []
        return {"work": self.work, "files": files, "start": self.start, "stop": self.stop}

    def overlaps(self, other: Extent) -> bool:
        """Whether the two may have rows in common. A row's bucket depends on its uid alone, its
        file on the version of the table."""
        if self.stop <= other.start or other.stop <= self.start:
            return False
        known = self.work == other.work and self.files and other.files
        return not (known and self.files.isdisjoint(other.files))


@dataclass(frozen=True)
class Slice:
    """Whole files, or part of one: its rows in the buckets from `start` up to `stop`, exclusive."""

    paths: tuple[str, ...]
    start: int = 0
    stop: int = BUCKETS


@dataclass
class _Part:
    """The rows of a file in some of its buckets."""

    path: str
    start: int
    stop: int
    rows_per_bucket: float

    @property
    def rows(self) -> float:
        return (self.stop - self.start) * self.rows_per_bucket


class SliceQueue:
    """The rows that are to be scored, by file; `files` are paths with the number of such rows.

    Each run goes through the files in an order of its own, which comes from `run_id`.
    """

    def __init__(self, files: Iterable[tuple[str, int]], work: str, run_id: str) -> None:
        self.work = work
        ordered = sorted(files, key=lambda file: _short(run_id + file[0]))
        self._parts = [_Part(path, 0, BUCKETS, rows / BUCKETS) for path, rows in ordered]

    def __len__(self) -> int:
        """How many files have rows left; parts of a file count by themselves."""
        return len(self._parts)

    @property
    def paths(self) -> set[str]:
        """The files that have rows left."""
        return {part.path for part in self._parts}

    @property
    def rows(self) -> float:
        """How many rows are left, about: a file's rows are taken to lie evenly in its buckets."""
        return sum(part.rows for part in self._parts)

    def skipped_rows(self) -> Extent:
        """The extent of the rows that are not for the model: none of those in the slices."""
        return Extent(self.work, frozenset(["skipped"]))

    def extent(self, part: Slice) -> Extent:
        """The extent of a slice."""
        files = frozenset(map(_short, part.paths))
        return Extent(self.work, files, part.start, part.stop)

    def next(self, rows: float, claimed: Sequence[Extent]) -> Slice | None:
        """A slice of about `rows` rows: several small files, or part of a large one; None if all
        is done. Extents that are `claimed` come last. The slice stays in the queue."""
        parts = self._parts
        for extent in claimed:
            parts = self._without(parts, extent)
        parts = parts or self._parts
        if not parts:
            return None
        first = parts[0]
        if first.rows > 1.5 * rows:
            buckets = max(1, round(rows / first.rows_per_bucket))
            return Slice((first.path,), first.start, min(first.start + buckets, first.stop))
        if (first.start, first.stop) != (0, BUCKETS):
            return Slice((first.path,), first.start, first.stop)
        paths: list[str] = []
        total = 0.0
        for part in parts:
            whole = (part.start, part.stop) == (0, BUCKETS)
            if whole and (not paths or total + part.rows <= 1.5 * rows):
                paths.append(part.path)
                total += part.rows
        return Slice(tuple(paths))

    def remove(self, done: Extent) -> None:
        """Take rows out that are done. Extents of other work are passed over."""
        self._parts = self._without(self._parts, done)

    def _without(self, parts: list[_Part], extent: Extent) -> list[_Part]:
        if extent.work != self.work or not extent.files:
            return parts
        left: list[_Part] = []
        for part in parts:
            if _short(part.path) not in extent.files:
                left.append(part)
                continue
            before = replace(part, stop=min(part.stop, extent.start))
            after = replace(part, start=max(part.start, extent.stop))
            left += [piece for piece in (before, after) if piece.start < piece.stop]
        return left


@functools.cache
def _short(path: str) -> str:
    """A path as 64 bits, in hex: no two files of a table will have the same."""
    return hashlib.sha256(path.encode()).hexdigest()[:16]
