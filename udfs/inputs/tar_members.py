"""Reads the members of a tar one after the other: plain or compressed, on disk or in a storage."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Self

from udfs.inputs.image_magic import HEAD_BYTES

TAR_ENDINGS = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.lzma"),
    *(".tar.zst", ".tzst"),
)
"""Endings of files that are read as tars, in lower case. How one is compressed is told by its
bytes."""

READ_ERRORS = (
    *(tarfile.TarError, OSError, EOFError, ValueError, ImportError),
    *(zlib.error, lzma.LZMAError),
)
"""What reading a broken tar may raise."""


class Member:
    """A member of a tar that is being read; its bytes are there until the next one is asked for.

    Attributes:
        name: its path in the tar, as `valid_text`.
        size: in bytes.
        offset: of its bytes in the unpacked tar.
        is_file: whether it is a regular file, not a link or device.
        is_folder: whether it is a folder.
    """

    __slots__ = (
        "_file",
        "_head",
        "_info",
        "_tar",
        "is_file",
        "is_folder",
        "name",
        "offset",
        "size",
    )

    def __init__(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self.name = valid_text(info.name)
        self.size, self.offset = info.size, info.offset_data
        self.is_file, self.is_folder = info.isreg(), info.isdir()
        self._tar, self._info = tar, info
        self._head: bytes | None = None

    def head(self) -> bytes:
        """The first bytes of the file, enough for `looks_like_image`."""
        if self._head is None:
            self._head = self._read(0, min(HEAD_BYTES, self.size))
        return self._head

    def read(self) -> bytes:
        """All bytes of the file; in a tar that cannot be sought, only once."""
        if self._info.issparse():
            file = self._tar.extractfile(self._info)
            return file.read() if file else b""
        head = self._head or b""
        return head + self._read(len(head), self.size - len(head))

    def _read(self, start: int, size: int) -> bytes:
        # Half the time of `extractfile`, whose file objects are meant for large members.
        source: Any = self._tar.fileobj
        source.seek(self.offset + start)
        data: bytes = source.read(size)
        if len(data) < size:
            raise tarfile.ReadError("unexpected end of data")
        return data


@contextmanager
def open_members(path: str) -> Iterator[Iterator[Member]]:
    """The members of a tar, in its order and in bounded memory; raises READ_ERRORS.

    Args:
        path: the tar, also of no bytes, or of several tars written one behind the other.
    """
    with open_file(path) as file:
        magic = file.read(6)
        file.seek(0)
        if not magic:
            yield iter(())
            return
        plain = _unpacked(file, magic)
        mode: Any = "r:" if plain.seekable() else "r|"
        with tarfile.open(fileobj=plain, mode=mode, tarinfo=_Header, ignore_zeros=True) as tar:
            yield _members(tar)


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


def valid_text(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 cannot encode, spelled out, so that names differ."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _unpacked(file: IO[bytes], magic: bytes) -> Any:
    """The file itself, or a file of what is compressed in it, also in several parts."""
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if magic.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return lzma.LZMAFile(file)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    return file


def _members(tar: tarfile.TarFile) -> Iterator[Member]:
    while info := tar.next():
        tar.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps all headers
        yield Member(tar, info)


class _Header(tarfile.TarInfo):
    """A member's header; an invalid one is an error, where tarfile would take it for the end.

    Zeros are the end only where nothing follows: `cat a.tar b.tar` is a tar for many programs.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> Self:
        ended = getattr(tarfile_, "ended", False)
        try:
            header = super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # zeros, the regular end mark
            tarfile_.ended = True
            raise
        except tarfile.HeaderError as error:
            at_end = (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined]
            if ended and isinstance(error, at_end):
                raise
            is_empty = isinstance(error, at_end[0])
            reason = "it ends without an end mark" if is_empty else str(error)
            raise tarfile.ReadError(reason) from error
        if header.size < 0:  # it would lead back to where the reader has been
            raise tarfile.ReadError("invalid header")
        tarfile_.ended = False
        return header
