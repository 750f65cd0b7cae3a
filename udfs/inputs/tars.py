"""Reads WebDataset tars, as img2dataset writes them, sample by sample and in bounded memory.

A sample is a run of members whose names agree up to the first dot: `000012.jpg`, `000012.txt`,
`000012.json`. A broken tar gives the samples before the break, and a row with the error.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Self

import pyarrow as pa

from udfs.inputs.image_files import BATCH_BYTES, is_image
from udfs.inputs.images import MAX_BYTES

SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("image", pa.binary()),
        ("caption", pa.binary()),  # bytes: the text may be in a broken encoding
        ("source_path", pa.string()),
        ("read_error", pa.string()),
        ("key", pa.string()),
        ("url", pa.string()),
        ("metadata", pa.binary()),
    ]
)
"""Rows of a tar. `metadata` is the .json member, unchanged; `source_path` is `<tar>#<member>`."""

MAX_TEXT_BYTES = 64 * 1024 * 1024
BATCH_ROWS = 256

_READ_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, ImportError)


def read_tars(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The samples of the tars named in the column `path`, in batches of SCHEMA."""
    rows: list[dict[str, Any]] = []
    size = 0
    for batch in batches:
        for path in batch.column("path").to_pylist():
            for row in read_tar(path):
                rows.append(row)
                size += sum(len(row[name] or b"") for name in ("image", "caption", "metadata"))
                if size >= BATCH_BYTES or len(rows) >= BATCH_ROWS:
                    yield pa.RecordBatch.from_pylist(rows, SCHEMA)
                    rows, size = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, SCHEMA)


def read_tar(path: str) -> Iterator[dict[str, Any]]:
    """The samples of one tar, in its order; never raises for a broken tar.

    If the tar ends inside a sample, that sample has a `read_error`. If it ends between samples or
    cannot be opened, a row without a key has the error.
    """
    sample: dict[str, Any] | None = None
    try:
        with (
            open_file(path) as file,
            tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as tar,
        ):
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps all headers
                if not member.isfile():
                    continue
                name = _text(member.name)
                key, kind = _split(name)
                if kind == "":
                    continue
                if sample is None or sample["key"] != key:
                    if sample is not None:
                        yield _with_json_fields(sample)
                    sample = dict.fromkeys(SCHEMA.names) | {"key": key, "source_path": path}
                _add(sample, tar, member, name, kind, path)
    except _READ_ERRORS as error:
        reason = f"the tar is broken: {error}"
        if sample is None or sample["image"] is not None and sample["caption"] is not None:
            if sample is not None:
                yield _with_json_fields(sample)
            sample = dict.fromkeys(SCHEMA.names) | {"source_path": path}
        sample["read_error"] = reason
    if sample is not None:
        yield _with_json_fields(sample)


def open_file(path: str) -> IO[bytes]:
    """Open a file on this machine, on DBFS, or in any storage that fsspec has a driver for."""
    scheme, colon, rest = path.partition(":/")
    if not colon or "/" in scheme:
        return open(path, "rb")
    if scheme in ("file", "dbfs"):
        local = "/" + rest.lstrip("/")
        return open(
            local if scheme == "file" or local.startswith("/Volumes/") else f"/dbfs{local}", "rb"
        )
    import fsspec  # only needed here; transformers brings it along

    stream: IO[bytes] = fsspec.open(path, "rb").open()
    return stream


class _Member(tarfile.TarInfo):
    """A member's header; an invalid one is an error, where tarfile would take it for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the regular end mark
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it ends without an end mark") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _split(name: str) -> tuple[str, str]:
    """Key and kind (`image`, `txt`, `json` or an empty string) of a member."""
    folder, slash, base = name.rpartition("/")
    stem, _, extensions = base.partition(".")
    last = extensions.rpartition(".")[2].lower()
    if base.startswith("."):  # macOS metadata and other hidden files
        return name, ""
    kind = "image" if is_image(base) else last if last in ("txt", "json") else ""
    return folder + slash + stem, kind


def _add(
    sample: dict[str, Any],
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    name: str,
    kind: str,
    path: str,
) -> None:
    field = {"image": "image", "txt": "caption", "json": "metadata"}[kind]
    if sample[field] is not None:  # a second image of the sample
        return
    if kind == "image":
        sample["source_path"] = f"{path}#{name}"
    if member.size > (MAX_BYTES if kind == "image" else MAX_TEXT_BYTES):
        sample["read_error"] = f"{name} has {member.size} bytes, too many to read"
        return
    file = tar.extractfile(member)
    sample[field] = file.read() if file else None


def _with_json_fields(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample with uid and url from its .json member, and the caption if there is no .txt."""
    try:
        fields = json.loads(sample["metadata"] or b"{}")
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return sample
    caption = fields.get("caption", fields.get("text"))
    if sample["caption"] is None and caption is not None:
        sample["caption"] = str(caption).encode("utf-8", "replace")
    for name in ("uid", "url"):
        value = fields.get(name)
        sample[name] = None if value is None else _text(str(value))
    return sample


def _text(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()
