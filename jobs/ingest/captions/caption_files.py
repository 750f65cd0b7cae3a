"""Reads tables of captions: CSV, TSV and other separated text, JSON Lines, JSON, Parquet.

Text without quotation marks and JSON Lines are read by Spark, many parts of a file at a time. Text
with them is read by one task a file, since a quoted text may hold line breaks. JSON documents are
read by the driver. Each line is a row of the table or is counted as left out.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.inputs import separated_values
from udfs.inputs.folder_walk import walk_files

from ...core.errors import UsageError, first_line
from ...tables import delta
from ...tables.external_table import find_column
from ..image_folders import contents, is_local, spark_path
from . import json_documents
from .caption_table import (
    LINE,
    REASON,
    REPEATED_HEADER,
    CaptionTable,
    counted,
    different,
    plain_captions,
)

PATH_COLUMNS = (
    *("file_name", "filename", "file", "path", "image_path", "image", "filepath"),
    *("image_name", "file_path", "img_path", "img"),
)
"""Column names that caption files use for the image's path, tried in this order, in any case."""

TOO_MANY_FIELDS = "lines with more fields than the header"
NOT_JSON = "lines that are not JSON objects"

_SEPARATED = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": ","}
_LINES, _DOCUMENT = (".jsonl", ".ndjson"), ".json"
ENDINGS = (*_SEPARATED, *_LINES, _DOCUMENT, ".parquet")
_PACKED = (".gz", ".bz2")

_HEAD_BYTES = 1 << 18


@dataclass(frozen=True)
class TextFormat:
    """How a caption file is written; None: as its ending says, `quote` "": no quotation marks."""

    separator: str | None = None
    quote: str | None = None
    header: bool = True
    encoding: str = "utf-8"


@dataclass(frozen=True)
class _Files:
    name: str
    paths: list[str]
    ending: str
    encoding: str
    head: str

    @property
    def line_break(self) -> str:
        return "\r" if "\r" in self.head and "\n" not in self.head else "\n"


def read(spark: SparkSession, path: str, caption: str, form: TextFormat) -> CaptionTable:
    """The captions of a file, or of the files of a folder that are of one kind.

    Args:
        spark: the session.
        path: a file or folder; its names may end in .gz or .bz2.
        caption: the column of captions, in any case.
        form: how separated text is written.

    Returns:
        a table whose columns have names that differ in any case, and whose captions are texts,
        bytes, lists or structs. Separated text gives texts; empty ones are null.

    Raises:
        UsageError: the file cannot be read, or has no such column.
    """
    try:
        files = _find(spark, path, form.encoding)
        if files.ending == ".parquet":
            frame = spark.read.parquet(*map(spark_path, files.paths))
            return counted(frame, _column(frame, caption, files.name))
        if files.ending in _SEPARATED:
            return _separated(spark, files, caption, form)
        return _json(spark, files, caption)
    except AnalysisException as error:
        raise UsageError(f"--captions {path}: {first_line(error)}") from None
    except (OSError, EOFError) as error:
        raise UsageError(f"--captions {path}: {error}") from None


def _find(spark: SparkSession, path: str, encoding: str) -> _Files:
    location = delta.path_of(path)
    paths = [location]
    if is_local(location) and os.path.isdir(location):
        paths = [
            file
            for file in walk_files(location)
            if _ending(file) in ENDINGS and not os.path.basename(file).startswith(("_", "."))
        ]
        if not paths:
            raise UsageError(f"--captions {path}: the folder has no {' '.join(ENDINGS)} file")
    elif is_local(location) and not os.path.exists(location):
        raise UsageError(f"--captions {path}: there is no such file or folder")
    endings = sorted({_ending(file) for file in paths})
    if len(endings) > 1:
        raise UsageError(f"--captions {path}: name one file; the folder has {' '.join(endings)}")
    ending = endings[0] or ".parquet"
    if ending not in ENDINGS:
        raise UsageError(
            f"--captions {path}: expected one of {' '.join(ENDINGS)}, also with .gz or .bz2"
        )
    try:
        "".encode(encoding)
    except LookupError:
        raise UsageError(f"--encoding {encoding}: Python knows no such encoding") from None
    head = b"" if ending == ".parquet" else _head(spark, paths[0])
    encoding = separated_values.encoding_of(head, encoding)
    return _Files(path, paths, ending, encoding, separated_values.decode(head, encoding))


def _ending(path: str) -> str:
    base, ending = os.path.splitext(path.rstrip("/").lower())
    return os.path.splitext(base)[1] if ending in _PACKED else ending


def _head(spark: SparkSession, path: str) -> bytes:
    if is_local(path):
        with separated_values.open_file(path) as file:
            return file.read(_HEAD_BYTES)
    lines = spark.read.option("lineSep", "\n").text(path).limit(20)
    return b"\n".join(
        bytes(row[0]) for row in lines.select(F.col("value").cast("binary")).collect()
    )


def _lines(spark: SparkSession, files: _Files) -> DataFrame:
    """The lines of the files that are not blank, as `value`."""
    if separated_values.keeps_lines(files.encoding):
        reader = spark.read.option("lineSep", files.line_break)
        lines = reader.text([spark_path(path) for path in files.paths]).select("value")
        if re.fullmatch("utf-?8", files.encoding.lower().replace("_", "-")):
            lines = lines.select(F.make_valid_utf8("value").alias("value"))
        else:
            decoded = separated_values.decoded_lines(files.encoding)
            lines = lines.select(F.col("value").cast("binary"))
            lines = lines.mapInArrow(decoded, "value string")
        lines = lines.select(F.regexp_replace("value", r"\r\z", "").alias("value"))
        return lines.where("value <> ''")
    return _rows(spark, files, "\n", None).select(F.col("fields")[0].alias("value"))


def _rows(spark: SparkSession, files: _Files, separator: str, quote: str | None) -> DataFrame:
    """The rows of the files as `fields`, a list of texts, by one task a file."""
    read = separated_values.rows_of_files(separator, quote, files.encoding, files.line_break)
    return contents(spark, files.paths).mapInArrow(read, "fields array<string>")


def _separated(spark: SparkSession, files: _Files, caption: str, form: TextFormat) -> CaptionTable:
    default = "\t" if files.ending == ".txt" and "\t" in files.head.partition("\n")[0] else None
    separator = form.separator or default or _SEPARATED[files.ending]
    separator = "\t" if separator in (r"\t", "tab") else separator
    quote = (None if separator == "\t" else '"') if form.quote is None else form.quote
    if len(quote or "") > 1:
        raise UsageError(f"--quote {quote}: expected one character, or '' for none")
    head = io.StringIO(files.head, newline=files.line_break)
    first = next(separated_values.split(head, separator, quote), None)
    if first is None:
        raise UsageError(f"--captions {files.name}: the file is empty")
    if form.header:
        names = different([name.strip() or f"column_{n}" for n, name in enumerate(first, 1)])
    else:
        names = ["file_name", caption, *(f"column_{n}" for n in range(3, len(first) + 1))]
    if quote or not separated_values.keeps_lines(files.encoding):
        rows = _rows(spark, files, separator, quote)
    else:
        text = F.split("value", rf"\Q{separator}\E", -1)
        rows = _lines(spark, files).select(text.alias("fields"))
    # Who writes `a, b` in the header writes it in the rows.
    spaced = len(first) > 1 and all(name.startswith(" ") for name in first[1:])
    width = len(names)
    rest = F.filter(F.slice("fields", width + 1, F.size("fields")), lambda text: text != "")
    reason = F.when(F.size(rest) > 0, TOO_MANY_FIELDS)
    if form.header:
        is_header = F.col("fields") == F.array(*map(F.lit, first))
        reason = F.when(is_header, REPEATED_HEADER).otherwise(reason)
    columns = [F.get("fields", n) for n in range(width)]
    columns = [F.trim(column) for column in columns] if spaced else columns
    frame = rows.select(
        *(
            F.nullif(column, F.lit("")).alias(name)
            for column, name in zip(columns, names, strict=True)
        ),
        reason.alias(REASON),
        F.when(reason.isNotNull(), F.array_join("fields", separator)).alias(LINE),
    )
    hint = separated_values.separator_hint(first[0], separator) if width == 1 else ""
    if "\0" in files.head:
        hint = "; its text has zero bytes: is it --encoding utf-16-le?"
    if form.header and not hint and re.search(r"(?i)\.(jpe?g|png|webp|gif)$", first[0].strip()):
        hint = "; if the first line is no header: --no-header"
    if width == 1 and not form.header:
        raise UsageError(f"{files.name} has one column{hint}")
    column = _column(frame.drop(REASON, LINE), caption, files.name, hint)
    return _numbered(files, counted(frame, column, len(files.paths), quoted=bool(quote)))


def _json(spark: SparkSession, files: _Files, caption: str) -> CaptionTable:
    lost: list[str] = []
    start = files.head.lstrip()[:1]
    if (files.ending == _DOCUMENT or start == "[") and json_documents.is_document(files.head):
        texts: list[str] = []
        known = (*PATH_COLUMNS, caption.lower())
        for file in files.paths:
            found, missing = json_documents.records(_document(spark, file, files), file, known)
            texts += found
            lost += missing
        lines = spark.createDataFrame([(text,) for text in texts], "value string")
    else:
        lines = _lines(spark, files)
    reader = spark.read.option("columnNameOfCorruptRecord", LINE)
    inferred = reader.json(lines)
    fields = [field for field in inferred.schema if field.name != LINE]
    if not fields:
        raise UsageError(f"--captions {files.name}: no line of it is a JSON object")
    names = different([field.name for field in fields])
    inferred = inferred.drop(LINE).toDF(*names)
    if "conversations" in names and caption.lower() not in map(str.lower, names):
        raise UsageError(
            f"{files.name} has conversations and no column {caption}: write the text that "
            "describes the image into a column of its own (--caption-column names it)"
        )
    column = _column(inferred, caption, files.name)
    fields.append(T.StructField(LINE, T.StringType()))
    reason = F.when(F.col(LINE).isNotNull(), NOT_JSON)

    def parse(caption_type: T.DataType | None = None) -> DataFrame:
        place = names.index(column)
        if caption_type is not None:
            fields[place] = T.StructField(fields[place].name, caption_type)
        frame = reader.schema(T.StructType(fields)).json(lines).toDF(*names, LINE)
        return frame.withColumn(REASON, reason)

    table = counted(plain_captions(parse, column), column)
    if lost:
        table.left_out[json_documents.NO_IMAGE_ID] = len(lost), lost[0]
    return _numbered(files, table)


def _column(frame: DataFrame, wanted: str, source_name: str, hint: str = "") -> str:
    """The column of captions; what the file may be instead is added to the message."""
    try:
        return find_column(frame, wanted, "--caption-column", source_name)
    except UsageError as error:
        raise UsageError(f"{error}{hint}") from None


def _numbered(files: _Files, table: CaptionTable) -> CaptionTable:
    """`table` with the number of the line in the examples of what is left out."""
    for reason, (count, line) in table.left_out.items():
        number = None
        if len(files.paths) == 1 and is_local(files.paths[0]):
            with separated_values.open_file(files.paths[0]) as file:
                lines = separated_values.text_lines(file, files.encoding, files.line_break)
                number = next((n for n, text in enumerate(lines, 1) if text.strip() == line), None)
        where = f"line {number}: " if number else ""
        table.left_out[reason] = count, where + line[:100]
    return table


def _document(spark: SparkSession, path: str, files: _Files) -> str:
    content = None if is_local(path) else bytes(contents(spark, [path]).collect()[0]["content"])
    with separated_values.open_file(path, content) as file:
        data = file.read(json_documents.MAX_BYTES + 1)
    if len(data) > json_documents.MAX_BYTES:
        raise UsageError(
            f"{path} is over {json_documents.MAX_BYTES >> 20} MiB; write an object on each line "
            "instead, for example with: jq -c '.[]'"
        )
    return separated_values.decode(data, files.encoding)
