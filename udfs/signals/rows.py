"""Computes the signals of a pair; never raises, whatever the bytes and the text are.

An image is read and decoded once for all signals that need it; if only its size is needed, no pixel
is decoded. A signal that cannot be computed is null, and the status and the reason say why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from udfs.inputs import captions, images
from udfs.inputs.image_roots import NO_ROOTS, ImageRoots, RootError
from udfs.scoring.batching import one_line
from udfs.scoring.results import BAD_IMAGE, EMPTY_CAPTION, OK
from udfs.signals import image_size, language, perceptual, shingles, text_in_image

SIGNAL_ERROR = "signal_error"
STATUSES = (OK, BAD_IMAGE, EMPTY_CAPTION, SIGNAL_ERROR)
"""If there are several problems, the row's status is the first of them in this order."""

IMAGE_SIGNALS = ("size", "near_images", "text_in_image")
CAPTION_SIGNALS = ("language", "length", "near_captions", "text_in_image")
PAIR_SIGNALS = tuple(dict.fromkeys(IMAGE_SIGNALS + CAPTION_SIGNALS))
"""The signals that are computed pair by pair; for near duplicates, the keys to find them."""

MAX_BATCH_ROWS = 256
"""Batches are split to this many rows: long captions have thousands of shingles."""

SCHEMA = pa.schema(
    [
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("language", pa.string()),
        ("language_probability", pa.float32()),
        ("caption_words", pa.int32()),
        ("caption_characters", pa.int32()),
        ("phash", pa.string()),
        ("image_keys", pa.list_(pa.int64())),  # two similar hashes share at least one
        ("caption_node", pa.string()),  # equal for captions that are equal when normalized
        ("caption_keys", pa.list_(pa.int64())),  # two similar captions very likely share one
        ("shingles", pa.list_(pa.int64())),
        ("text_in_image", pa.string()),
        ("text_in_image_overlap", pa.float32()),
        ("signal_status", pa.string()),
        ("signal_reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class SignalOptions:
    """Which of PAIR_SIGNALS to compute, in how many bits near images may differ (1..6), and below
    what images are read by their paths."""

    signals: frozenset[str]
    image_distance: int = 4
    roots: ImageRoots = NO_ROOTS

    def any_of(self, names: Collection[str]) -> bool:
        """Whether any of these signals is to be computed."""
        return not self.signals.isdisjoint(names)


def measure(
    read: Callable[[], bytes | None], caption: bytes | str | None, options: SignalOptions
) -> dict[str, Any]:
    """The signals of one pair, by column of SCHEMA; columns that are not in `options` or cannot be
    computed are missing.

    `read` returns the image's bytes and is called only if a signal needs them. The caption's words
    are separated by white space and its characters are code points, as in DataComp, and counted in
    the original text (bytes that are not valid UTF-8 count as U+FFFD).
    """
    problems: dict[str, str] = {}
    signals: dict[str, Any] = {}
    if options.any_of(CAPTION_SIGNALS):
        signals |= _caption_signals(caption, options, problems)
    if options.any_of(IMAGE_SIGNALS):
        signals |= _image_signals(read, caption, options, problems)
    status = next((status for status in STATUSES if status in problems), OK)
    reasons = "; ".join(problems[status] for status in STATUSES if status in problems)
    return signals | {"signal_status": status, "signal_reason": captions.clean(reasons) or None}


def measure_batches(
    batches: Iterator[pa.RecordBatch], keys: Collection[str], options: SignalOptions
) -> Iterator[pa.RecordBatch]:
    """Batches with the columns `keys` and SCHEMA, from batches with `keys` and, if the signals need
    them, `caption` and `image` or `image_path` (all binary).

    `keys` are passed on untouched, so text in a broken encoding passes through.
    """
    for batch in batches:
        inputs = [name for name in batch.schema.names if name not in keys]
        for start in range(0, max(1, batch.num_rows), MAX_BATCH_ROWS):
            part = batch.slice(start, MAX_BATCH_ROWS)
            rows = _measure_rows(part, inputs, options)
            columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in SCHEMA]
            columns = [*(part.column(key) for key in keys), *columns]
            yield pa.RecordBatch.from_arrays(columns, [*keys, *SCHEMA.names])


def _measure_rows(
    batch: pa.RecordBatch, inputs: Sequence[str], options: SignalOptions
) -> list[dict[str, Any]]:
    rows = []
    for row in range(batch.num_rows):  # one at a time: only one image is copied from Arrow
        values = {name: batch.column(name)[row].as_py() for name in inputs}
        read = partial(values.get, "image")
        if "image_path" in inputs:
            path = values["image_path"]
            path = None if path is None else path.decode("utf-8", "replace")
            read = partial(options.roots.read, path)
        rows.append(measure(read, values.get("caption"), options))
    return rows


def _caption_signals(
    caption: bytes | str | None, options: SignalOptions, problems: dict[str, str]
) -> dict[str, Any]:
    text = captions.clean(caption)
    if not text:
        problems[EMPTY_CAPTION] = "null caption" if caption is None else "blank caption"
    signals: dict[str, Any] = {}
    if "length" in options.signals and caption is not None:
        raw = caption if isinstance(caption, str) else bytes(caption).decode("utf-8", "replace")
        signals["caption_words"], signals["caption_characters"] = len(raw.split()), len(raw)
    try:
        if "language" in options.signals:
            code, probability = language.language(text)
            signals |= {"language": code, "language_probability": probability}
        if "near_captions" in options.signals:
            signals |= _shingle_columns(text)
    except Exception as error:  # the libraries may raise any exception on unusual text
        problems[SIGNAL_ERROR] = f"caption: {one_line(error)}"
    return signals


def _shingle_columns(text: str) -> dict[str, Any]:
    normalized = shingles.normalized(text)
    if not normalized:  # empty captions are not duplicates of one another
        return {}
    shingle_set = shingles.shingles(normalized)
    return {
        "caption_node": shingles.name(normalized),
        "caption_keys": shingles.keys(shingle_set),
        "shingles": shingle_set,
    }


def _image_signals(
    read: Callable[[], bytes | None],
    caption: bytes | str | None,
    options: SignalOptions,
    problems: dict[str, str],
) -> dict[str, Any]:
    signals: dict[str, Any] = {}
    try:
        image = read()
        if "size" in options.signals:
            signals["width"], signals["height"] = image_size.size(image)
        if options.any_of(("near_images", "text_in_image")):
            signals |= _picture_signals(images.decode(image), captions.clean(caption), options)
    except images.ImageError as error:
        problems[BAD_IMAGE] = str(error)
    except RootError:
        raise
    except Exception as error:  # the libraries may raise any exception on unusual pictures
        problem = f"image: {one_line(error)}"
        problems[SIGNAL_ERROR] = "; ".join(filter(None, [problems.get(SIGNAL_ERROR), problem]))
    return signals


def _picture_signals(picture: Any, caption: str, options: SignalOptions) -> dict[str, Any]:
    signals: dict[str, Any] = {}
    if "near_images" in options.signals:
        signals["phash"] = perceptual.phash(picture)
        signals["image_keys"] = perceptual.keys(signals["phash"], options.image_distance)
    if "text_in_image" in options.signals:
        text = text_in_image.read_text(picture)
        signals["text_in_image"] = text
        signals["text_in_image_overlap"] = text_in_image.overlap(text, caption)
    return signals
