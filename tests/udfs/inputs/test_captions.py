"""Cleaning of raw captions."""

import pytest

from udfs.inputs.captions import clean


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (None, ""),
        ("", ""),
        (" \n\t ", ""),
        ("a cat", "a cat"),
        (b"a cat", "a cat"),
        (memoryview(b"a cat"), "a cat"),
        ("a\x00cat\x07", "a cat"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        (b"\xed\xa0\x80 in bytes \xff", "\ufffd\ufffd\ufffd in bytes \ufffd"),
        ("two\nlines", "two\nlines"),
        ("\u200b \u200d\ufeff\u00ad", ""),
        ("\u3164\ufe0f\u2800", ""),
        ("a\u200bcat\ufe0f", "a\u200bcat\ufe0f"),
        ("日本語のキャプション 🐈", "日本語のキャプション 🐈"),
    ],
)
def test_clean(raw: object, text: str) -> None:
    assert clean(raw) == text  # type: ignore[arg-type]
    clean(raw).encode("utf-8")  # type: ignore[arg-type]
