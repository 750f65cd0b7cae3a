"""General visual instructions: LLaVA's JSON, or a table with its columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from udfs.inputs.image_roots import OUTSIDE, ImageRoots
from udfs.inputs.images import ImageError

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
    try:
        roots = ImageRoots.of([image_folder] if image_folder else [])
    except ValueError as error:
        raise UsageError(f"--conversation-images {error}") from None
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
    return _rows(frame, column, image, roots, ref)


def _rows(
    frame: DataFrame, column: str, image: T.DataType | None, roots: ImageRoots, ref: str
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
            try:
                data = roots.read(str(data))
            except ImageError as error:
                reason = str(error).replace(OUTSIDE, "it leads out of the folder")
                raise UsageError(f"--conversation-images: {reason}") from None
        data = None if data is None else bytes(data)
        uid = None if data is None else f"conversation {hashlib.sha256(data).hexdigest()}"
        yield Conversation(uid, data, turns)


def _turn(turn: dict[str, Any], where: str) -> tuple[str, str]:
    role = ROLES.get(str(turn.get("from") or turn.get("role")))
    text = turn.get("value") if turn.get("value") is not None else turn.get("content")
    if role is None or not isinstance(text, str):
        raise UsageError(f"{where}: a turn needs `from` (human or gpt) and `value`")
    return role, text.replace("<image>", "").strip()
