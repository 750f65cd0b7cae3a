"""Tables of captions as people write them: each line is a row with its own text, or is counted."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from jobs.core.errors import UsageError
from jobs.ingest.captions import caption_files, json_documents
from jobs.ingest.captions.caption_files import TextFormat
from jobs.ingest.captions.caption_table import REPEATED_HEADER, CaptionTable

pytestmark = pytest.mark.spark


def read(
    spark: SparkSession,
    path: Path,
    content: str | bytes | None = None,
    caption: str = "caption",
    **form: Any,
) -> CaptionTable:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return caption_files.read(spark, str(path), caption, TextFormat(**form))


def captions(table: CaptionTable) -> list[Any]:
    return [row[0] for row in table.frame.select(table.caption).collect()]


TITLES = ["a boat", '"Sunset over the bay', '5" pipe', '"all of it"', 'two "marks"', "the last"]


@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz", "x.txt", "a [1]{b}*.tsv"])
def test_a_tsv_has_no_quotation_marks(spark: SparkSession, tmp_path: Path, name: str) -> None:
    text = "file_name\tcaption\r\n" + "".join(f"{n}.jpg\t{t}\r\n" for n, t in enumerate(TITLES))
    data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    table = read(spark, tmp_path / name, data)
    assert captions(table) == TITLES
    assert (table.rows, table.left_out) == (6, {})
    assert table.notes == {"captions_in_quotation_marks": 1}
    quoted = read(spark, tmp_path / name, quote='"')
    assert captions(quoted) == [*TITLES[:3], "all of it", *TITLES[4:]]


@pytest.mark.parametrize(
    ("content", "form", "expected"),
    [
        ("file;caption\na;eins\nb;zwei\n", {"separator": ";"}, ["eins", "zwei"]),
        ("file| n| caption\na| 0| A .\na| 1| B .\n", {"separator": "|"}, ["A .", "B ."]),
        ("a\teins\nb\tzwei\n", {"separator": "\\t", "header": False}, ["eins", "zwei"]),
        ("File , CAPTION\na, eins\nb, zwei\n", {}, ["eins", "zwei"]),
        ("file,caption\rb,eins\r", {"quote": ""}, ["eins"]),
        ("file,caption\na,café\n".encode("latin-1"), {"encoding": "latin-1"}, ["café"]),
        ("file,caption\na,猫\n".encode("gbk"), {"encoding": "gbk", "quote": ""}, ["猫"]),
        ("file,caption\na,é\n".encode("utf-16"), {}, ["é"]),
        ("file,caption\na,é\n".encode("utf-16"), {"quote": ""}, ["é"]),
        ("file,caption\na,é\n".encode("utf-8-sig"), {}, ["é"]),
    ],
)
def test_separators_and_encodings(
    spark: SparkSession, tmp_path: Path, content: str | bytes, form: Any, expected: list[str]
) -> None:
    table = read(spark, tmp_path / "x.csv", content, **form)
    assert captions(table) == expected
    assert table.notes == table.left_out == {}


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_what_cannot_be_decoded_is_counted(spark: SparkSession, tmp_path: Path, name: str) -> None:
    text = "file,caption\na,café\nb,plain\n".replace(",", "," if name == "x.csv" else "\t")
    table = read(spark, tmp_path / name, text.encode("latin-1"))
    assert captions(table) == ["caf\ufffd", "plain"]
    assert table.notes == {"captions_with_replaced_characters": 1}


def test_lines_that_are_no_rows_are_counted(spark: SparkSession, tmp_path: Path) -> None:
    lines = ["file,caption", 'a,"open', "b,one,two", "file,caption", "c,,", "d"]
    for form in ({}, {"quote": ""}):
        table = read(spark, tmp_path / "x.csv", "\n".join(lines), **form)
        assert captions(table) == ['"open', None, None]
        assert table.left_out == {
            caption_files.TOO_MANY_FIELDS: (1, "line 3: b,one,two"),
            REPEATED_HEADER: (1, "line 1: file,caption"),
        }
        assert table.rejects is not None
        assert sorted(row["example"] for row in table.rejects.collect()) == [
            "b,one,two",
            "file,caption",
        ]


def test_json_lines(spark: SparkSession, tmp_path: Path) -> None:
    lines = [
        '{"file": "a", "caption": "[a] text", "Caption": "other"}',
        '{"file": "b", "caption": "broken}',
        '{"file": "c", "caption": ["one", "two"]}',
        '{"file": "d", "caption": {"x": 1}}',
        '{"file": "e", "caption": 12}',
        '["a", "b"]',
        '{"file": "f", "caption": null}',
    ]
    table = read(spark, tmp_path / "x.jsonl", "\ufeff" + "\r\n".join(lines))
    assert captions(table) == [["[a] text"], ["one", "two"], ["12"], None]
    assert table.frame.columns == ["Caption_2", "caption", "file"]
    assert table.left_out == {
        caption_files.NOT_JSON: (2, f"line 2: {lines[1]}"),
        "captions that are JSON objects or nested lists": (1, '{"x":1}'),
    }
    table = read(spark, tmp_path / "y.jsonl", lines[0])
    assert captions(table) == ["[a] text"]


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 5}],
    "annotations": [
        {"id": 7, "image_id": 1, "caption": "one"},
        {"id": 8, "image_id": 1, "caption": "two"},
        {"id": 9, "image_id": 2, "caption": "lost"},
    ],
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([{"image": "a", "caption": "one"}, {"image": "b", "caption": "two"}], ["one", "two"]),
        (COCO, ["one", "two"]),
        ({"a.jpg": "one", "b.jpg": "two"}, ["one", "two"]),
        ({"a.jpg": {"caption": "one"}}, ["one"]),
        ({"file_name": "a.jpg", "caption": "one"}, ["one"]),
        ({"version": 1, "data": [{"image": "a", "caption": "one"}]}, ["one"]),
    ],
)
def test_json_documents(
    spark: SparkSession, tmp_path: Path, document: Any, expected: list[str], indent: int | None
) -> None:
    table = read(spark, tmp_path / "x.json", json.dumps(document, indent=indent))
    assert captions(table) == expected
    if document is COCO:
        assert table.left_out == {json_documents.NO_IMAGE_ID: (1, "image_id 2")}
        assert table.frame.first().asDict() == {  # type: ignore[union-attr]
            **{"id": 7, "image_id": 1, "caption": "one", "file_name": "a.jpg", "width": 5}
        }


def test_json_lines_may_be_called_json(spark: SparkSession, tmp_path: Path) -> None:
    lines = [json.dumps({"file": str(n), "caption": f"text {n}"}) for n in range(3)]
    assert captions(read(spark, tmp_path / "x.json", "\n".join(lines))) == [
        f"text {n}" for n in range(3)
    ]


def test_only_the_data_of_a_folder_is_read(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "captions"
    (folder / "part").mkdir(parents=True)
    for name in ("_SUCCESS", "README.md", ".x.parquet.crc"):
        (folder / name).write_text("x")
    for name in ("a.parquet", "part/b.parquet"):
        pq.write_table(pa.table({"file": ["a"], "caption": [["one", "two"]]}), folder / name)
    assert captions(read(spark, folder)) == [["one", "two"]] * 2
    (folder / "c.csv").write_text("file,caption\n")
    with pytest.raises(UsageError, match=r"name one file; the folder has \.csv \.parquet"):
        read(spark, folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "file;caption\na;b\n", "--separator ';'"),
        ("x.csv", "a.jpg,one\nb.jpg,two\n", "--no-header"),
        ("x.csv", "", "the file is empty"),
        ("x.csv", "file,caption\n".encode("utf-16-le"), "--encoding utf-16-le"),
        ("x.csv.gz", "file,caption\n", "x.csv.gz"),
        ("x.json", '[{"caption": "a"},\n{"caption": "b]', r"is not JSON: .* line 2"),
        ("x.jsonl", "no\nJSON\n", "no line of it is a JSON object"),
        ("x.json", '[{"image": "a", "conversations": [{"from": "gpt"}]}]', "has conversations"),
        ("x.xlsx", "", "expected one of .csv"),
    ],
)
def test_what_cannot_be_read_is_told(
    spark: SparkSession, tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        read(spark, tmp_path / name, content)
    assert "\n" not in str(error.value)


TEXTS = st.text(st.sampled_from("ab ,;\"'\\[{\u2028") | st.characters(codec="utf-8"), max_size=9)


@pytest.mark.long
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(TEXTS, min_size=20, max_size=60))
def test_texts_come_back(spark: SparkSession, tmp_path: Path, texts: list[str]) -> None:
    expected = [text or None for text in texts]
    with open(tmp_path / "x.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "caption"), *enumerate(texts)])
    assert captions(read(spark, tmp_path / "x.csv")) == expected
    plain = ["".join(c for c in text if c not in "\t\r\n") for text in texts]
    lines = ["file\tcaption", *(f"{n}\t{text}" for n, text in enumerate(plain))]
    table = read(spark, tmp_path / "x.tsv", "\n".join(lines))
    assert captions(table) == [text or None for text in plain]
    lines = [json.dumps({"file": n, "caption": text}) for n, text in enumerate(texts)]
    assert captions(read(spark, tmp_path / "x.jsonl", "\n".join(lines))) == texts
