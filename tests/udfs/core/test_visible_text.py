"""Text from data cannot command a terminal, end a line or turn its direction."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.core.visible_text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, groß, 写真 😀", "plain, groß, 写真 😀"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\x1b[31mred\x1b[0m \x9b31m", r"\x1b[31mred\x1b[0m \x9b31m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("jpg\u202egnp", r"jpg\u202egnp"),
        ("line\u2028para\u2029", r"line\u2028para\u2029"),
        ("10\u00a0000\u202fkm", "10 000 km"),
        ("👩\u200d👧 می\u200cخواهم", "👩\u200d👧 می\u200cخواهم"),
        ("lone \ud800", r"lone \ud800"),
    ],
)
def test_what_does_not_show_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_any_text_is_one_harmless_line(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
    for letter in shown:
        kind = unicodedata.category(letter)
        assert kind not in ("Cc", "Cs", "Zl", "Zp")
        assert kind != "Cf" or letter in "\u200c\u200d"
