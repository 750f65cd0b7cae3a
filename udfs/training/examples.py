"""The folder of examples that training reads: two Parquet files and nothing else.

    pairs.parquet          uid, image (bytes), caption, group: what matches, without scores. A uid
                           may come several times, with as many captions of one image (which may
                           be null in all rows but one); the caption may be null.
    instructions.parquet   uid, caption, metric, score, reason: what a teacher said; the images are
                           those of pairs.parquet.

`group` (a book, a web site) says which images resemble one another, for rivals that are not told
apart too easily.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from udfs.core.metrics import METRICS

PAIRS = "pairs.parquet"
INSTRUCTIONS = "instructions.parquet"


class ExamplesError(ValueError):
    """The folder of examples is not what training needs."""


@dataclass(frozen=True)
class Scored:
    """One caption of one image with what a teacher gave it: `scores` (4,) 0..100 in the order of
    METRICS, NaN where a metric has none, `reasons` in words or empty."""

    image: int
    caption: str
    scores: tuple[float, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Examples:
    """Everything in memory but the pictures' pixels.

    `uids`, `images` (encoded bytes), `groups` and `captions` (those that match) have one entry an
    image; `scored` one a pair that a teacher saw.
    """

    uids: list[str]
    images: list[bytes]
    groups: list[str]
    captions: list[list[str]]
    scored: list[Scored]


def read(folder: str | Path) -> Examples:
    """Read a folder of examples, in the order of uids, whatever the order of the files' rows.

    Raises ExamplesError where a file or a column is missing or an instruction has no image.
    """
    pairs = _table(Path(folder) / PAIRS, ["uid", "image", "caption", "group"])
    pairs.sort(key=lambda row: (row["uid"], row["image"] is None, row["image"] or b""))
    index: dict[str, int] = {}
    examples = Examples([], [], [], [], [])
    for row in pairs:
        if row["uid"] not in index:
            if row["image"] is None:
                raise ExamplesError(f"{folder}: no image for uid {row['uid']}")
            index[row["uid"]] = len(index)
            examples.uids.append(row["uid"])
            examples.images.append(row["image"])
            examples.groups.append(row["group"] or "")
            examples.captions.append([])
        own = examples.captions[index[row["uid"]]]
        if row["caption"] and row["caption"] not in own:
            own.append(row["caption"])
    for own in examples.captions:
        own.sort()
    path = Path(folder) / INSTRUCTIONS
    if path.is_file():
        examples.scored.extend(_scored(path, index))
    return examples


def fingerprint(examples: Examples) -> str:
    """Hex digits that change with anything that training sees, in whatever order files have it."""
    digest = hashlib.sha256()
    for i, uid in enumerate(examples.uids):
        image = hashlib.sha256(examples.images[i]).hexdigest()
        digest.update(repr((uid, image, examples.groups[i], examples.captions[i])).encode())
    for pair in examples.scored:
        digest.update(repr((pair.image, pair.caption, pair.scores, pair.reasons)).encode())
    return digest.hexdigest()


def _scored(path: Path, index: dict[str, int]) -> list[Scored]:
    rows = _table(path, ["uid", "caption", "metric", "score", "reason"])
    by_pair: dict[tuple[str, str], dict[str, tuple[float, str]]] = {}
    for row in rows:
        if row["metric"] not in METRICS:
            raise ExamplesError(f"{path}: unknown metric {row['metric']!r}")
        if row["uid"] not in index:
            raise ExamplesError(f"{path}: no image for uid {row['uid']}")
        said = by_pair.setdefault((row["uid"], row["caption"]), {})
        said[row["metric"]] = (float(row["score"]), row["reason"] or "")
    nothing = (np.nan, "")
    return [
        Scored(
            index[uid],
            caption,
            tuple(said.get(metric, nothing)[0] for metric in METRICS),
            tuple(said.get(metric, nothing)[1] for metric in METRICS),
        )
        for (uid, caption), said in sorted(by_pair.items())
    ]


def _table(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise ExamplesError(f"cannot read {path}: {error}") from error
    return rows
