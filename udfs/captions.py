"""Captions as they come, made safe for a tokenizer."""

from __future__ import annotations

import re

# C0 controls but tab, line feed and carriage return. A NUL ends strings in some readers, and the
# others are damage in a caption, never meaning.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")


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
