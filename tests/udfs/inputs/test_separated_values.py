"""Rows of CSV and TSV come back as written, and open quotation marks take nothing along."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.inputs import separated_values
from udfs.inputs.separated_values import split

TEXTS = st.text(
    st.sampled_from("ab ,;|\"'\\\t\r\né\u2028\x00[") | st.characters(codec="utf-8"), max_size=9
)


def rows(text: str, separator: str = ",", quote: str | None = '"') -> list[list[str]]:
    return list(split(io.StringIO(text, newline="\n"), separator, quote))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1), st.sampled_from(",;|\t"), st.booleans())
def test_quoted_text_comes_back(
    written: list[tuple[str, str]], separator: str, always: bool
) -> None:
    file = io.StringIO()
    if always:
        csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL).writerows(written)
    else:
        csv.writer(file, delimiter=separator).writerows(written)
    assert rows(file.getvalue(), separator) == [list(row) for row in written]


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1), st.sampled_from(["\t", "|", "||"]))
def test_unquoted_text_comes_back(written: list[tuple[str, str]], separator: str) -> None:
    lines = [
        ["x", *("".join(c for c in text if c not in f"\r\n{separator}") for text in row)]
        for row in written
    ]
    text = "".join(separator.join(line) + "\r\n" for line in lines)
    assert rows(text, separator, None) == lines


@given(st.lists(st.booleans(), min_size=1))
def test_open_marks_take_no_row_along(opened: list[bool]) -> None:
    texts = ['"open' if mark else "plain" for mark in opened]
    written = [[f"n{number}", text] for number, text in enumerate(texts)]
    assert rows("".join(",".join(row) + "\n" for row in written)) == written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('1,"open\n2,b\n3,"c, d"\n', [["1", '"open'], ["2", "b"], ["3", "c, d"]]),
        ('1,"a" b\n2,5" pipe\n', [["1", '"a" b'], ["2", '5" pipe']]),
        ('1, "a, b" ,c\r\n\r\n2,"d\r\ne"', [["1", "a, b", "c"], ["2", "d\r\ne"]]),
        ('1,""\n"2",""""\n', [["1", ""], ["2", '"']]),
    ],
)
def test_marks_in_odd_places(text: str, expected: list[list[str]]) -> None:
    assert rows(text) == expected


def test_a_quoted_text_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separated_values, "MAX_QUOTED", 20)
    text = '1,"open\n' + "".join(f"{n},b\n" for n in range(2, 9)) + '9,"c"\n'
    assert rows(text)[:2] == [["1", '"open'], ["2", "b"]]
    assert len(rows(text)) == 9


def test_encodings_are_told_by_their_mark(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        data = "é,b\n".encode(encoding)
        assert separated_values.decode(data, "utf-8") == "é,b\n"
    assert separated_values.decode(b"caf\xe9", "utf-8") == "caf\ufffd"
    assert separated_values.keeps_lines("latin-1")
    assert not separated_values.keeps_lines("utf-16")
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"packed"))
    with separated_values.open_file(str(tmp_path / "x.gz")) as file:
        assert file.read() == b"packed"
