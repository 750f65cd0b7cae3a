"""The folder of examples that `mlm-filter finetune` writes and training reads.

    images.arrow           uid, image (bytes): each image once, read from disk when it is needed
    instructions.parquet   uid, caption, metric, score, spread, reason: the teacher's answers
    conversations.parquet  uid (null without an image), turns: general visual instructions

A folder `held_out` inside has the same files for the groups that are only evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from udfs.core.metrics import METRICS

IMAGES = "images.arrow"
INSTRUCTIONS = "instructions.parquet"
CONVERSATIONS = "conversations.parquet"
HELD_OUT = "held_out"

IMAGE_SCHEMA = pa.schema([("uid", pa.string()), ("image", pa.binary())])
INSTRUCTION_SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("caption", pa.string()),
        ("metric", pa.string()),
        ("score", pa.float64()),
        ("spread", pa.float64()),
        ("reason", pa.string()),
    ]
)
CONVERSATION_SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("turns", pa.list_(pa.struct([("role", pa.string()), ("text", pa.string())]))),
    ]
)


class ExamplesError(ValueError):
    """The folder of examples cannot be read or is not one."""


class Instruction(NamedTuple):
    """What a teacher said of one caption of one image.

    `image` is an index of `Examples.images`, `metric` one of METRICS, `score` 0..100; `spread` (a
    standard deviation in points) may be None, `reason` empty.
    """

    image: int
    caption: str
    metric: int
    score: float
    spread: float | None
    reason: str


class Conversation(NamedTuple):
    """Turns of (role, text) about an image, or about none; roles are "user" and "assistant"."""

    image: int | None
    turns: tuple[tuple[str, str], ...]


class Images:
    """Encoded images by index, in a memory-mapped file: only what is looked at is read."""

    def __init__(self, path: Path) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._column = table.column("image")
        self.uids: list[str] = table.column("uid").to_pylist()

    def __getitem__(self, index: int) -> bytes:
        found: bytes = self._column[index].as_py()
        return found


@dataclass(frozen=True)
class Examples:
    """All of a folder; instructions in the order of (uid, caption, metric)."""

    images: Images
    instructions: list[Instruction]
    conversations: list[Conversation]


def read(folder: str | Path) -> Examples:
    """Read a folder of examples. Raises ExamplesError for one that is damaged."""
    folder = Path(folder)
    try:
        images = Images(folder / IMAGES)
        index = {uid: i for i, uid in enumerate(images.uids)}
        order = [("uid", "ascending"), ("caption", "ascending"), ("metric", "ascending")]
        instructions = [
            Instruction(
                index[row["uid"]],
                row["caption"],
                METRICS.index(row["metric"]),
                row["score"],
                row["spread"],
                row["reason"] or "",
            )
            for row in pq.read_table(folder / INSTRUCTIONS).sort_by(order).to_pylist()
        ]
        conversations = [
            Conversation(
                None if row["uid"] is None else index[row["uid"]],
                tuple((turn["role"], turn["text"]) for turn in row["turns"]),
            )
            for row in pq.read_table(folder / CONVERSATIONS).to_pylist()
        ]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise ExamplesError(f"cannot read the examples in {folder}: {error}") from error
    return Examples(images, instructions, conversations)
