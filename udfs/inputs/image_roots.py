"""Reads images by paths that come from tables, and only below folders that the user has named.

    roots = ImageRoots.of(["/data/images", "s3://bucket/images"])
    data = roots.read("s3://bucket/images/0/1.jpg")

A path in a table may come from a stranger. So it is read only if, with all links followed, it is
a regular file below one of the roots; a URI only if it has the root's scheme and host, and neither
credentials nor options. What is said of a path is its scheme and its last part.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from udfs.core.visible_text import visible
from udfs.inputs.images import MAX_BYTES, ImageError

CONNECT_SECONDS, REQUEST_SECONDS = 10, 60
"""Time-outs of a storage's client."""

OUTSIDE = "it is not below any --image-root"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_ROOT_AT_FAULT = (
    *("NETWORK_CONNECTION", "SLOW_DOWN", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE"),
    *("INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID", "SIGNATURE_DOES_NOT_MATCH"),
)
"""Errors of S3 that say nothing of an object: the task fails, and Spark tries it again."""

_SHOWN_CHARACTERS = 60
_MOST_CHARACTERS = 4096
_HAS_PROC = os.path.isdir("/proc/self/fd")


class RootError(RuntimeError):
    """A root cannot be opened: no row is at fault."""


@dataclass(frozen=True)
class ImageRoots:
    """Folders (absolute paths) and URIs below which images may be read. Made by `of`."""

    folders: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()

    @classmethod
    def of(cls, roots: Sequence[str]) -> ImageRoots:
        """Check and sort the roots that a user has named.

        Raises ValueError for a URI with credentials or options, and for what is no folder.
        """
        folders, uris = [], []
        for root in roots:
            if not root.strip():
                raise ValueError("it is empty: name a folder or URI")
            if is_uri(root) and _local_path(root) is None:
                _check_uri(root)
                uris.append(root.rstrip("/"))
                continue
            folder = os.path.abspath(os.path.expanduser(_local_path(root) or root))
            if not os.path.isdir(folder):
                name = shown(root) if "@" in root else root
                raise ValueError(f"{name}: there is no such folder")
            folders.append(folder)
        return cls(tuple(folders), tuple(uris))

    def read(self, path: str | None) -> bytes | None:
        """The bytes of an image; None stays None. A relative path begins at a root on disk.

        Raises ImageError if the image may not or cannot be read, RootError if that is the root's
        fault.
        """
        if path is None:
            return None
        if len(path) > _MOST_CHARACTERS:  # more than any system opens; resolving it takes hours
            raise ImageError(f"cannot read {shown(path[-_MOST_CHARACTERS:])}: the path is too long")
        try:
            local = _local_path(path)
            return self._read_uri(path) if local is None else self._read_file(local)
        except (OSError, ValueError) as error:  # ImageError is a ValueError
            why = str(error) if isinstance(error, ImageError) else _why(error)
            raise ImageError(f"cannot read {shown(path)}: {why}") from None

    def _read_file(self, path: str) -> bytes:
        if not os.path.isabs(path):
            candidates = [os.path.join(folder, path) for folder in self.folders] or [path]
            path = next(filter(os.path.lexists, candidates), candidates[0])
        try:
            return read_regular_file(path, self.allows)
        except (OSError, ImageError):
            if not self.allows(os.path.realpath(path)):  # what is there is nobody's business
                raise ImageError(OUTSIDE) from None
            raise

    def allows(self, real_path: str) -> bool:
        """Whether a path without links lies below one of the folders."""
        return real_path.startswith(_real_paths(self.folders))

    def _read_uri(self, uri: str) -> bytes:
        address = urlsplit(uri)
        if _says_more_than_where(address):
            raise ImageError("its URI has credentials or options")
        path = unquote(address.path)
        for root in map(urlsplit, self.uris):
            folder = unquote(root.path).rstrip("/")
            same = (root.scheme.lower(), root.netloc) == (address.scheme.lower(), address.netloc)
            if same and _is_below(path, folder) and not {"..", "."} & {*path.split("/")}:
                try:
                    return _read_object(root.geturl(), path.removeprefix(folder))
                except OSError as error:
                    if _code(error) not in _ROOT_AT_FAULT:
                        raise
                    name = shown(root.geturl())
                    raise RootError(f"--image-root {name}: {_why(error)}") from None
        raise ImageError(OUTSIDE)


def _read_object(root: str, path: str) -> bytes:
    system, inner = _file_system(root)
    with system.open_input_file(inner + path) as file:
        if file.size() > MAX_BYTES:
            raise ImageError(f"it has over {MAX_BYTES} bytes")
        return bytes(file.read())


NO_ROOTS = ImageRoots()


def is_uri(path: str) -> bool:
    """Whether a path begins with a scheme."""
    return _SCHEME.match(path) is not None


def read_regular_file(
    path: str, allows: Callable[[str], bool] | None = None, most: int | None = None
) -> bytes:
    """The bytes of a file that is no pipe or device, which may never end.

    `allows` is asked with its path after all links. Raises ImageError if it says no, if the file is
    none or has over `most` bytes (default: MAX_BYTES); OSError if it cannot be read.
    """
    if allows and not allows(path) and not allows(os.path.realpath(path)):
        raise ImageError(OUTSIDE)
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        path = os.path.realpath(path)
        info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode):
        raise ImageError("it is not a regular file")
    # As few calls as possible, each of which lets another thread go first. What has become another
    # file by now neither makes this wait nor gives more bytes.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if allows and not allows(_path_of(file, path)):
            raise ImageError(OUTSIDE)
        most = MAX_BYTES if most is None else most
        if info.st_size > most:
            raise ImageError(f"it has over {most} bytes")
        return _read_all(file, info.st_size)
    finally:
        os.close(file)


def _path_of(file: int, path: str) -> str:
    """The path of an open file, after all links."""
    return os.readlink(f"/proc/self/fd/{file}") if _HAS_PROC else os.path.realpath(path)


def _read_all(file: int, size: int) -> bytes:
    data = os.read(file, size)
    while len(data) < size and (more := os.read(file, size - len(data))):
        data += more
    return data


def shown(path: str) -> str:
    """The scheme and the last part of a path, as one line that any terminal can show; of what only
    looks like a URI, too, nothing that may be a password or a token."""
    scheme, _, address = path.partition("://") if "://" in path else ("", "", path)
    scheme = f"{visible(scheme.strip())[-20:]}://" if scheme else ""
    parts = re.split(
        r"[/\\]|%2f|%5c", re.split("[?#]", address)[0].rstrip("/"), flags=re.IGNORECASE
    )
    if scheme and not any(parts[1:]):  # the host, which may have a password before it
        return f"{scheme}..."
    last = visible(parts[-1].rpartition("@")[2])
    if len(last) > _SHOWN_CHARACTERS:
        last = f"{last[:_SHOWN_CHARACTERS]}..."
    return f"{scheme}.../{last}" if len(parts) > 1 or scheme else last or "an empty path"


def _local_path(path: str) -> str | None:
    """The path on this machine that a path or URI means; None for another storage."""
    if not is_uri(path):
        return path
    address = urlsplit(path)
    if address.scheme.lower() == "file" and address.netloc in ("", "localhost"):
        return unquote(address.path)
    if address.scheme.lower() == "dbfs" and not address.netloc:
        inner = unquote(address.path)
        return inner if inner.startswith("/Volumes/") else f"/dbfs{inner}"
    return None


def _check_uri(uri: str) -> None:
    address = urlsplit(uri)
    if not address.netloc:
        raise ValueError(f"{shown(uri)}: a URI needs a host or bucket after ://")
    if _says_more_than_where(address):
        raise ValueError(
            f"{shown(uri)}: a URI has no credentials or options here; the storage's client takes "
            "them from its environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL ...)"
        )
    if address.scheme.lower() in ("http", "https"):
        raise ValueError(f"{shown(uri)}: images are not read from web servers")


def _says_more_than_where(address: SplitResult) -> bool:
    """Whether a URI has a user, a password, options or a fragment."""
    user = address.netloc.rpartition("@")[0]
    if address.scheme.lower() in ("abfs", "abfss"):  # CONTAINER@ACCOUNT
        user = user.partition(":")[1]
    return bool(user or address.query or address.fragment)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder if folder.endswith("/") else f"{folder}/")


@functools.lru_cache(maxsize=16)
def _real_paths(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)


@functools.lru_cache(maxsize=16)
def _file_system(root: str) -> tuple[Any, str]:
    """The client for a root, one in each process, and the root's path as it takes it."""
    from pyarrow import fs

    address = urlsplit(root)
    try:
        if address.scheme.lower() != "s3":
            system, inner = fs.FileSystem.from_uri(root)
            if isinstance(system, fs.GcsFileSystem):
                system = fs.GcsFileSystem(retry_time_limit=timedelta(seconds=REQUEST_SECONDS))
            return system, inner.rstrip("/")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        # Arrow takes the variable's host, but not that it may say http.
        scheme, _, host = os.environ.get("AWS_ENDPOINT_URL", "").rpartition("://")
        system = fs.S3FileSystem(
            region=region or (None if host else fs.resolve_s3_region(address.netloc)),
            scheme=scheme or "https",
            endpoint_override=host or None,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=REQUEST_SECONDS,
        )
        return system, address.netloc + unquote(address.path).rstrip("/")
    except Exception as error:
        raise RootError(f"--image-root {shown(root)} cannot be opened: {_why(error)}") from None


def _code(error: Exception) -> str:
    """What S3 says is wrong, or nothing."""
    code = re.search(r"AWS Error ([A-Z_]+)", str(error))
    return code[1] if code else ""


def _why(error: Exception) -> str:
    """What is wrong, without a client's own words, which may repeat the path."""
    if code := _code(error):
        return code
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return "it is no path" if isinstance(error, ValueError) else type(error).__name__
