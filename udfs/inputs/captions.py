"""Makes raw captions safe for a tokenizer and encodes them, the same in training and scoring."""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Collection
from typing import Any

from udfs.core.arrow_values import as_bytes

# C0 controls except tab, line feed and carriage return. A NUL ends the string in some readers, and
# the others are damage in a caption and never carry meaning.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# What shows nothing: format characters (zero-width space and joiner, soft hyphen, direction marks),
# separators, controls, variation selectors, fillers of Hangul and Braille.
_INVISIBLE = frozenset(("Cf", "Cc", "Zs", "Zl", "Zp"))
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")

# The tokenizer is given at most this many characters for each token that is used: it bounds the
# time that a caption of a million characters takes.
CHARACTERS_PER_TOKEN = 16


def clean(caption: str | bytes | bytearray | memoryview | None) -> str:
    """Return the caption as valid text: undecodable bytes and lone surrogates become U+FFFD,
    control characters become spaces, and white space around it goes. None gives the empty string,
    and so does a caption of nothing but characters that show nothing.

    Bytes are read as UTF-8. Spark passes strings on as raw bytes without checking them, and a
    Parquet file from elsewhere may hold anything: so UDFs get captions as bytes, decoded here.
    What is neither text nor bytes raises TypeError.
    """
    if caption is None:
        return ""
    if not isinstance(caption, str):
        caption = as_bytes(caption).decode("utf-8", errors="replace")
    caption = _LONE_SURROGATES.sub("\ufffd", caption)
    caption = _CONTROLS.sub(" ", caption).strip()
    return "" if all(map(_shows_nothing, caption)) else caption


def _shows_nothing(letter: str) -> bool:
    return (
        unicodedata.category(letter) in _INVISIBLE
        or letter in _FILLERS
        or "\ufe00" <= letter <= "\ufe0f"
    )


class Encoder:
    """Encodes clean captions: special tokens spelled out in one count as plain text, and the token
    ids `excluded` are removed."""

    def __init__(self, tokenizer: Any, excluded: Collection[int]) -> None:
        # Its own copy: encoding changes a tokenizer's state, and other threads use the processor's.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._excluded = frozenset(excluded)

    def __call__(self, text: str, max_tokens: int) -> tuple[list[int], bool]:
        """The first `max_tokens` tokens of a caption, and whether any were cut off."""
        max_characters = max_tokens * CHARACTERS_PER_TOKEN
        encoded = self._tokenizer(
            text[:max_characters], add_special_tokens=False, split_special_tokens=True
        )
        ids = [i for i in encoded["input_ids"] if i not in self._excluded]
        return ids[:max_tokens], len(text) > max_characters or len(ids) > max_tokens


def encoder(processor: Any) -> Encoder:
    """The encoder for captions of an MLM, without its image placeholder tokens."""
    return Encoder(processor.tokenizer, _image_token_ids(processor))


def _image_token_ids(processor: Any) -> frozenset[int]:
    """Ids of the image placeholder tokens, which a caption must never smuggle in."""
    names = ("image_token_id", "video_token_id", "start_image_token_id", "end_image_token_id")
    ids = {getattr(processor, name, None) for name in names}
    token = getattr(processor, "image_token", None)
    ids.add(processor.tokenizer.convert_tokens_to_ids(str(getattr(token, "content", token))))
    return frozenset(i for i in ids if isinstance(i, int))
