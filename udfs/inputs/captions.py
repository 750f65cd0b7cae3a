"""Captions as they come, made safe for a tokenizer; and their tokens, in training as in scoring."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from typing import Any

# C0 controls but tab, line feed and carriage return. A NUL ends strings in some readers, and the
# others are damage in a caption, never meaning.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")

# A tokenizer never needs to see more of a caption than this many characters a token kept: it bounds
# the time that a caption of a million characters takes.
CHARACTERS_PER_TOKEN = 16


def clean(caption: str | bytes | bytearray | memoryview | None) -> str:
    """Return the caption as valid text: undecodable bytes and lone surrogates as U+FFFD, control
    characters as spaces, no white space around it. None gives the empty string.

    Bytes are taken as UTF-8. Spark ships strings as raw bytes without checking them, and a Parquet
    file from elsewhere may hold anything: the shells send captions as bytes, decoded here.
    """
    if caption is None:
        return ""
    if not isinstance(caption, str):
        caption = bytes(caption).decode("utf-8", errors="replace")
    caption = _LONE_SURROGATES.sub("\ufffd", caption)
    return _CONTROLS.sub(" ", caption).strip()


class Encoder:
    """Tokens of clean captions: special tokens written in one are plain text, and those of
    `left_out` never come."""

    def __init__(self, tokenizer: Any, left_out: Collection[int]) -> None:
        # A copy of its own: encoding changes a tokenizer's state, and the processor's tokenizer is
        # in use by other threads.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._left_out = frozenset(left_out)

    def __call__(self, text: str, most: int) -> tuple[list[int], bool]:
        """The first `most` tokens of a caption, and whether some were cut."""
        bound = most * CHARACTERS_PER_TOKEN
        encoded = self._tokenizer(text[:bound], add_special_tokens=False, split_special_tokens=True)
        ids = [i for i in encoded["input_ids"] if i not in self._left_out]
        return ids[:most], len(text) > bound or len(ids) > most


def encoder(processor: Any) -> Encoder:
    """The encoder for an MLM's captions, which hold no placeholders of pictures."""
    return Encoder(processor.tokenizer, _image_token_ids(processor))


def _image_token_ids(processor: Any) -> frozenset[int]:
    """Placeholders of pictures: a caption must never smuggle one in."""
    names = ("image_token_id", "video_token_id", "start_image_token_id", "end_image_token_id")
    ids = {getattr(processor, name, None) for name in names}
    token = getattr(processor, "image_token", None)
    ids.add(processor.tokenizer.convert_tokens_to_ids(str(getattr(token, "content", token))))
    return frozenset(i for i in ids if isinstance(i, int))
