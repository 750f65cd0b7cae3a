"""Splits CSV as people write it into rows; reads the text of files.

A quotation mark that is never closed is a character like any other: it takes no other row with it.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, cast

import pyarrow as pa

MAX_QUOTED = 1 << 20
"""A quoted text that is longer than this many characters counts as never closed."""

_BATCH_ROWS = 4096
_MAX_TEXT_BYTES = 1 << 24  # of a file that holds one caption
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(head: bytes, encoding: str) -> str:
    """The encoding that the first bytes of a file tell by a byte-order mark, else `encoding`."""
    return next((name for mark, name in _BOMS if head.startswith(mark)), encoding)


def keeps_lines(encoding: str) -> bool:
    """Whether line breaks are the same bytes as in ASCII, so that bytes can be cut into lines."""
    return "\r\n".encode(encoding) == b"\r\n"


def decode(data: bytes, encoding: str) -> str:
    """The text of `data` without a byte-order mark; what cannot be decoded becomes U+FFFD."""
    return data.decode(encoding_of(data, encoding), errors="replace").removeprefix("\ufeff")


def open_file(path: str, content: bytes | None = None) -> IO[bytes]:
    """A file or its `content`, unpacked if its name ends in .gz or .bz2."""
    source: IO[bytes] = (
        open(path, "rb") if content is None else io.BytesIO(content)  # noqa: SIM115
    )
    if path.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(source))
    if path.lower().endswith(".bz2"):
        return cast("IO[bytes]", bz2.open(source))
    return source


def split(lines: Iterable[str], separator: str, quote: str | None) -> Iterator[list[str]]:
    """The fields of each row of `lines`, which keep their line breaks; blank lines are no rows.

    With `quote`, a field that begins with it may hold separators, line breaks and doubled quotes.
    It must end before a separator or at the end of a line; otherwise the mark is part of the text.
    """
    waiting = iter(lines)
    if not quote:
        for line in waiting:
            if text := _without_break(line):
                yield text.split(separator)
        return
    again: list[str] = []  # lines that were looked at and are rows of their own, the next one last
    field, rest = _quoted_field(separator, quote)
    while line := again.pop() if again else next(waiting, ""):
        if quote not in line:
            if text := _without_break(line):
                yield text.split(separator)
            continue
        fields: list[str] = []
        start = 0
        while start >= 0:
            found = field.match(line, start)
            if found and found["open"] is not None:
                more = _until_closed(again, waiting, rest)
                line += more
                found = field.match(line, start) if more else None
            if found:
                fields.append(found["text"].replace(quote * 2, quote))
                end = found.end()
            else:
                end = line.find(separator, start)
                end = len(_without_break(line)) if end < 0 else end
                fields.append(line[start:end])
            start = end + len(separator) if line.startswith(separator, end) else -1
        yield fields


def separator_hint(line: str, separator: str) -> str:
    """The option that gives the likely separator of a line that is one field with `separator`."""
    likely = max(("\t", ";", "|", ","), key=line.count)
    if likely == separator or likely not in line:
        return ""
    shown = "\\t" if likely == "\t" else likely
    return f"; its fields look separated by another character: --separator '{shown}'"


def _quoted_field(separator: str, quote: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What a quoted field matches from its mark on, and from the beginning of a later line on. The
    group `open` is not None if it does not end within the text."""
    q, s = re.escape(quote), re.escape(separator)
    text = rf"(?P<text>[^{q}]*+(?:{q}{q}[^{q}]*+)*+)"
    rest = rf"{text}(?:{q}[ ]*(?={s}|\r?\n?\Z)|(?P<open>\Z))"
    return re.compile(f" *{q}{rest}"), re.compile(rest)


def _until_closed(again: list[str], waiting: Iterator[str], rest: re.Pattern[str]) -> str:
    """The following lines up to the one that closes an open field; they are taken from `again` and
    `waiting`. Empty, and nothing is taken, if no line closes it."""
    taken: list[str] = []
    size = 0
    while size < MAX_QUOTED and (line := again.pop() if again else next(waiting, "")):
        taken.append(line)
        size += len(line)
        found = rest.match(line)
        if found is None:
            break
        if found["open"] is None:
            return "".join(taken)
    again.extend(reversed(taken))
    return ""


def _without_break(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def rows_of_files(
    separator: str, quote: str | None, encoding: str, line_break: str
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """From batches of `path` and `content` (null: the file is opened) to batches of `fields`, a
    list of texts for each row of those files."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for file in batch.to_pylist():
                rows: list[list[str]] = []
                with open_file(file["path"], file["content"]) as stream:
                    lines = text_lines(stream, encoding, line_break)
                    for fields in split(lines, separator, quote):
                        rows.append(fields)
                        if len(rows) == _BATCH_ROWS:
                            yield _batch(rows)
                            rows = []
                yield _batch(rows)

    return read


def text_lines(stream: IO[bytes], encoding: str, line_break: str) -> Iterator[str]:
    """The lines of a file, each with its line break, without a byte-order mark."""
    text = io.TextIOWrapper(stream, encoding, errors="replace", newline=line_break)
    for number, line in enumerate(text):
        yield line if number else line.removeprefix("\ufeff")


def decoded_lines(
    encoding: str,
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """From batches of `value` as bytes to batches of `value` as text."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            lines = [line.decode(encoding, "replace") for line in batch["value"].to_pylist()]
            texts = [_storable(line) for line in lines]
            yield pa.RecordBatch.from_pydict({"value": pa.array(texts, pa.string())})

    return read


def texts_of_files(
    encoding: str,
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """From batches with `path` and `content` (null: the file is opened) last to batches with
    `caption` (the file's text without the line break at its end) and `_error` in their place."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = [
                _text(file, encoding) for file in batch.select(["path", "content"]).to_pylist()
            ]
            added = [pa.array([row[n] for row in found], pa.string()) for n in (0, 1)]
            names = [*batch.schema.names[:-2], "caption", "_error"]
            yield pa.RecordBatch.from_arrays([*batch.columns[:-2], *added], names)

    return read


def _text(file: dict[str, Any], encoding: str) -> tuple[str | None, str | None]:
    """The caption that a file is, and None, or None and the reason why it cannot be read."""
    try:
        with open_file(file["path"], file["content"]) as stream:
            data = stream.read(_MAX_TEXT_BYTES + 1)
    except (OSError, EOFError) as error:
        return None, f"cannot read the caption: {getattr(error, 'strerror', None) or error}"
    if len(data) > _MAX_TEXT_BYTES:
        return None, f"cannot read the caption: over {_MAX_TEXT_BYTES} bytes"
    return _storable(decode(data, encoding)).rstrip("\r\n"), None


def _batch(rows: list[list[str]]) -> pa.RecordBatch:
    fields = [[_storable(text) for text in row] for row in rows]
    return pa.RecordBatch.from_pydict({"fields": pa.array(fields, pa.list_(pa.string()))})


def _storable(text: str) -> str:
    """`text`, with U+FFFD for what UTF-8 cannot hold (some encodings give lone surrogates)."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\ufffd", text)
