"""General visual instructions: LLaVA's JSON, or a table with its columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from ..core.errors import UsageError
from ..tables.external_table import find_column, read_table

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
"""What others call the two sides of a conversation -> what chat templates call them."""


class Conversation(NamedTuple):
    """Turns of (role, text), and the image's bytes or None."""

    uid: str | None
    image: bytes | None
    turns: list[tuple[str, str]]


def read_conversations(
    spark: SparkSession, ref: str, image_folder: str | None
) -> Iterator[Conversation]:
    """Rows with `conversations` (a list of `from` and `value`, or `role` and `content`) and maybe
    `image` (bytes, or a path below `image_folder`).

    The mark `<image>` is taken off: the chat template puts the image in its place. Raises
    UsageError for a missing column or folder, an image that is not there, and for turns that are
    not those of a user and an assistant.
    """
    frame = read_table(spark, ref, "--conversations")
    column = find_column(frame, "conversations", "--conversations", ref)
    image = frame.schema["image"].dataType if "image" in frame.columns else None
    turns = frame.schema[column].dataType
    if not (
        isinstance(turns, T.ArrayType) and isinstance(turns.elementType, T.StructType | T.MapType)
    ):
        raise UsageError(f"--conversations {ref}: {column} is {turns.simpleString()}, not turns")
    if not isinstance(image, T.StringType | T.BinaryType | None):
        raise UsageError(f"--conversations {ref}: image is {image.simpleString()}, not a path")
    if isinstance(image, T.StringType) and image_folder is None:
        raise UsageError(
            "--conversations has image paths: --conversation-images names their folder"
        )
    return _rows(frame, column, image, image_folder, ref)


def _rows(
    frame: DataFrame, column: str, image: T.DataType | None, folder: str | None, ref: str
) -> Iterator[Conversation]:
    for number, row in enumerate(frame.toLocalIterator()):
        found = row.asDict(recursive=True)
        turns = [
            _turn(turn, f"--conversations {ref}: row {number}") for turn in found[column] or ()
        ]
        if not any(role == "assistant" for role, _ in turns) or turns[0][0] != "user":
            raise UsageError(
                f"--conversations {ref}: row {number} is no conversation of a user and an assistant"
            )
        data = found.get("image")
        if isinstance(image, T.StringType) and data:
            data = _file(Path(str(folder)), str(data))
        data = None if data is None else bytes(data)
        uid = None if data is None else f"conversation {hashlib.sha256(data).hexdigest()}"
        yield Conversation(uid, data, turns)


def _turn(turn: dict[str, Any], where: str) -> tuple[str, str]:
    role = ROLES.get(str(turn.get("from") or turn.get("role")))
    text = turn.get("value") if turn.get("value") is not None else turn.get("content")
    if role is None or not isinstance(text, str):
        raise UsageError(f"{where}: a turn needs `from` (human or gpt) and `value`")
    return role, text.replace("<image>", "").strip()


def _file(folder: Path, name: str) -> bytes:
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise UsageError(f"--conversation-images: {name[:80]!r} leads out of {folder}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--conversation-images: cannot read {name[:80]!r}: {reason}") from None
