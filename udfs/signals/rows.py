"""A pair in, its signals out: whatever the bytes and the text are, and never an exception.

An image is read and decoded once for all signals that need it; where only its size is asked for, no
pixel is decoded. What cannot be had is null, and the status and the reason say why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from udfs.inputs import captions, images
from udfs.inputs.image_files import read_path
from udfs.scoring.batching import one_line
from udfs.scoring.results import BAD_IMAGE, EMPTY_CAPTION, OK
from udfs.signals import image_size, language, perceptual, shingles, text_in_image

SIGNAL_ERROR = "signal_error"
STATUSES = (OK, BAD_IMAGE, EMPTY_CAPTION, SIGNAL_ERROR)
"""Of several problems the first in this order behind `ok` is the row's status."""

OF_IMAGES = ("size", "near_images", "text_in_image")
OF_CAPTIONS = ("language", "length", "near_captions", "text_in_image")
MEASURED = tuple(dict.fromkeys(OF_IMAGES + OF_CAPTIONS))
"""The signals that a pair has by itself, or that finding its like begins with."""

PIECE_ROWS = 256
"""A batch comes out in pieces of so many rows: long captions have thousands of shingles."""

SCHEMA = pa.schema(
    [
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("language", pa.string()),
        ("language_probability", pa.float32()),
        ("caption_words", pa.int32()),
        ("caption_characters", pa.int32()),
        ("phash", pa.string()),
        ("image_keys", pa.list_(pa.int64())),  # hashes near this one share one
        ("caption_node", pa.string()),  # captions that are the same when normalized share it
        ("caption_keys", pa.list_(pa.int64())),  # captions similar to this one share one, mostly
        ("shingles", pa.list_(pa.int64())),
        ("text_in_image", pa.string()),
        ("text_in_image_overlap", pa.float32()),
        ("signal_status", pa.string()),
        ("signal_reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class Wanted:
    """Which of MEASURED to find, and how many bits near images may differ in (1..6)."""

    signals: frozenset[str]
    image_distance: int = 4

    def any_of(self, names: Collection[str]) -> bool:
        """Whether one of these signals is wanted."""
        return not self.signals.isdisjoint(names)


def measure(
    read: Callable[[], bytes | None], caption: bytes | str | None, wanted: Wanted
) -> dict[str, Any]:
    """The signals of one pair, by column of SCHEMA; what is not wanted or cannot be had is missing.

    `read` gives the image's bytes and is only called where a signal needs them. The caption's words
    are what white space divides, its characters are code points, both as in DataComp and of the
    text as it is (bytes that are no UTF-8 count as U+FFFD).
    """
    problems: dict[str, str] = {}
    found: dict[str, Any] = {}
    if wanted.any_of(OF_CAPTIONS):
        found |= _of_caption(caption, wanted, problems)
    if wanted.any_of(OF_IMAGES):
        found |= _of_image(read, caption, wanted, problems)
    status = next((status for status in STATUSES if status in problems), OK)
    reasons = "; ".join(problems[status] for status in STATUSES if status in problems)
    return found | {"signal_status": status, "signal_reason": captions.clean(reasons) or None}


def measure_batches(
    batches: Iterator[pa.RecordBatch], keys: Collection[str], wanted: Wanted
) -> Iterator[pa.RecordBatch]:
    """Batches with the columns `keys` and SCHEMA from batches with `keys` and, as far as wanted
    signals need them, `caption` and `image` or `image_path` (all binary).

    `keys` are handed on untouched, so that text in a broken encoding passes through.
    """
    for batch in batches:
        given = [name for name in batch.schema.names if name not in keys]
        for start in range(0, max(1, batch.num_rows), PIECE_ROWS):
            piece = batch.slice(start, PIECE_ROWS)
            rows = _measured(piece, given, wanted)
            columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in SCHEMA]
            columns = [*(piece.column(key) for key in keys), *columns]
            yield pa.RecordBatch.from_arrays(columns, [*keys, *SCHEMA.names])


def _measured(batch: pa.RecordBatch, given: Sequence[str], wanted: Wanted) -> list[dict[str, Any]]:
    rows = []
    for row in range(batch.num_rows):  # one at a time: only one image is copied from Arrow
        values = {name: batch.column(name)[row].as_py() for name in given}
        read = partial(values.get, "image")
        if "image_path" in given:
            read = partial(_read, values["image_path"])
        rows.append(measure(read, values.get("caption"), wanted))
    return rows


def _read(path: bytes | None) -> bytes | None:
    try:
        return read_path(None if path is None else path.decode("utf-8", "replace"))
    except images.ImageError:
        raise
    except Exception as error:  # a file system has errors of its own
        raise images.ImageError(f"cannot read the image: {one_line(error)}") from None


def _of_caption(
    caption: bytes | str | None, wanted: Wanted, problems: dict[str, str]
) -> dict[str, Any]:
    text = captions.clean(caption)
    if not text:
        problems[EMPTY_CAPTION] = "null caption" if caption is None else "blank caption"
    found: dict[str, Any] = {}
    if "length" in wanted.signals and caption is not None:
        raw = caption if isinstance(caption, str) else bytes(caption).decode("utf-8", "replace")
        found["caption_words"], found["caption_characters"] = len(raw.split()), len(raw)
    try:
        if "language" in wanted.signals:
            code, probability = language.language(text)
            found |= {"language": code, "language_probability": probability}
        if "near_captions" in wanted.signals:
            found |= _of_text(text)
    except Exception as error:  # nobody vouches for a library on any text
        problems[SIGNAL_ERROR] = f"caption: {one_line(error)}"
    return found


def _of_text(text: str) -> dict[str, Any]:
    same = shingles.normalized(text)
    if not same:  # a copy of nothing
        return {}
    parts = shingles.shingles(same)
    return {
        "caption_node": shingles.name(same),
        "caption_keys": shingles.keys(parts),
        "shingles": parts,
    }


def _of_image(
    read: Callable[[], bytes | None],
    caption: bytes | str | None,
    wanted: Wanted,
    problems: dict[str, str],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        image = read()
        if "size" in wanted.signals:
            found["width"], found["height"] = image_size.size(image)
        if wanted.any_of(("near_images", "text_in_image")):
            found |= _of_picture(images.decode(image), captions.clean(caption), wanted)
    except images.ImageError as error:
        problems[BAD_IMAGE] = str(error)
    except Exception as error:  # nobody vouches for a library on any picture
        said = f"image: {one_line(error)}"
        problems[SIGNAL_ERROR] = "; ".join(filter(None, [problems.get(SIGNAL_ERROR), said]))
    return found


def _of_picture(picture: Any, caption: str, wanted: Wanted) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "near_images" in wanted.signals:
        found["phash"] = perceptual.phash(picture)
        found["image_keys"] = perceptual.keys(found["phash"], wanted.image_distance)
    if "text_in_image" in wanted.signals:
        found["text_in_image"] = text_in_image.read_text(picture)
        found["text_in_image_overlap"] = text_in_image.overlap(found["text_in_image"], caption)
    return found
