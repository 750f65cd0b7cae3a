"""Paths from tables: only regular files below the roots are opened, no matter what is written."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from udfs.inputs import image_roots
from udfs.inputs.image_roots import OUTSIDE, ImageRoots, RootError, shown
from udfs.inputs.images import ImageError

SECRET = "s3cr3t"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of images with what may stand in its way."""
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "a b.jpg").write_bytes(b"good")
    (folder / "sub" / "c.jpg").write_bytes(b"nested")
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "d.jpg").write_bytes(SECRET.encode())
    (folder / "inside.jpg").symlink_to(folder / "sub" / "c.jpg")
    (folder / "out.jpg").symlink_to(tmp_path / "root2" / "d.jpg")
    (folder / "folder_out").symlink_to(tmp_path / "root2")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "null.jpg").symlink_to("/dev/null")
    os.mkfifo(folder / "pipe.jpg")
    return folder


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port of this machine that nobody has to connect to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def refused(roots: ImageRoots, path: str) -> str:
    started = time.monotonic()
    with pytest.raises(ImageError) as error:
        roots.read(path)
    assert time.monotonic() - started < 1
    assert SECRET not in str(error.value)
    return str(error.value)


def test_files_below_a_root_are_read(root: Path) -> None:
    roots = ImageRoots.of([str(root), str(root.parent / "root2")])
    assert roots.read(str(root / "a b.jpg")) == b"good"
    assert roots.read((root / "a b.jpg").as_uri()) == b"good"
    assert roots.read(f"{root}/sub/../sub/c.jpg") == b"nested"
    assert roots.read("sub/c.jpg") == b"nested"
    assert roots.read("d.jpg") == SECRET.encode()  # below the second root
    assert roots.read(str(root / "inside.jpg")) == b"nested"
    assert roots.read(None) is None


def test_nothing_else_is_opened(root: Path, listener: socket.socket) -> None:
    roots = ImageRoots.of([str(root)])
    port = listener.getsockname()[1]
    outside = [
        *("/etc/passwd", "file:///proc/self/environ", "/dev/zero", "../root2/d.jpg"),
        *(f"{root}/../root2/d.jpg", f"{root}2/d.jpg", f"{root}/out.jpg", f"{root}/null.jpg"),
        *(f"{root}/folder_out/d.jpg", f"file://{root}/%2e%2e/root2/d.jpg"),
        *(f"http://127.0.0.1:{port}/a.jpg", f"hdfs://127.0.0.1:{port}/a.jpg"),
        *(f"s3://bucket/{SECRET}/a.jpg", "file://host/etc/passwd", "dbfs:/a.jpg"),
        *(f"gs://127.0.0.1:{port}/a.jpg", "local:///etc/passwd", "fs:///etc/passwd"),
    ]
    for path in outside:
        assert refused(roots, path).endswith(f": {OUTSIDE}"), path
    for name in ("pipe.jpg", "sub", "loop.jpg"):
        assert refused(roots, f"{root}/{name}").endswith("it is not a regular file")
    assert refused(roots, "a/" * 1_000_000 + "x").endswith("x: the path is too long")
    for path in ("a\0.jpg", "a\ud800.jpg", "s3://[::1/a.jpg"):
        assert refused(roots, path).endswith("it is no path")
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_uris_lie_below_a_root_of_their_scheme_and_host(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    roots = ImageRoots.of(["s3://bucket/images/"])
    for path in (
        *("s3://bucket/images2/a.jpg", "s3://bucket/a.jpg", "s3://other/images/a.jpg"),
        *("gs://bucket/images/a.jpg", "s3://bucket/images/../a.jpg", "/images/a.jpg"),
        *("s3://bucket/images/%2e%2e/a.jpg", "images/a.jpg"),
    ):
        assert refused(roots, path).endswith(f": {OUTSIDE}"), path
    for path in (
        f"s3://key:{SECRET}@bucket/images/a.jpg",
        f"s3://bucket/images/a.jpg?endpoint_override=127.0.0.1:{port}&secret={SECRET}",
    ):
        assert refused(roots, path).endswith("its URI has credentials or options")
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_roots_are_checked(root: Path) -> None:
    assert ImageRoots.of(["abfss://container@account/x"]).uris == ("abfss://container@account/x",)
    for wrong, message in (
        (f"s3://key:{SECRET}@bucket", "s3://...: a URI has no credentials"),
        ("s3://bucket/a?endpoint_override=b", "s3://.../a: a URI has no credentials"),
        (f"abfss://container:{SECRET}@account/x", "has no credentials"),
        ("https://example.org/images", "not read from web servers"),
        (f"{root}/gone", "there is no such folder"),
        (f" s3://k:{SECRET}@b/x", "there is no such folder"),
        (f"s3:/k:{SECRET}@b", "a URI needs a host or bucket"),
        ("", "it is empty"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            ImageRoots.of([wrong])
        assert SECRET not in str(error.value)


class _Storage(BaseHTTPRequestHandler):
    """As much of S3 as reading an object takes."""

    content = {"/bucket/images/a b.jpg": b"from a storage"}

    def _answer(self, with_body: bool) -> None:
        from urllib.parse import unquote

        data = self.content.get(unquote(self.path))
        self.send_response(404 if data is None else 206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if with_body and data:
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: Any) -> None:
        pass


def test_objects_of_a_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Storage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        image_roots._file_system.cache_clear()
        roots = ImageRoots.of(["s3://bucket/images"])
        assert roots.read("s3://bucket/images/a b.jpg") == b"from a storage"
        assert roots.read("s3://bucket/images/a%20b.jpg") == b"from a storage"
        gone = refused(roots, "s3://bucket/images/deep/gone.jpg")
        assert gone == "cannot read s3://.../gone.jpg: No such file or directory"
        assert image_roots._file_system.cache_info().misses == 1  # one client
        server.shutdown()
    with pytest.raises(RootError, match=r"--image-root s3://.../images: NETWORK_CONNECTION"):
        roots.read("s3://bucket/images/a b.jpg")
    image_roots._file_system.cache_clear()


def test_a_root_that_cannot_be_opened_is_no_fault_of_a_row() -> None:
    roots = ImageRoots.of(["nosuch://host/images"])
    with pytest.raises(RootError, match=r"--image-root nosuch://.../images cannot be opened"):
        roots.read("nosuch://host/images/a.jpg")


def test_what_is_said_of_a_path() -> None:
    assert shown("/a/b/c.jpg") == ".../c.jpg"
    assert shown("c.jpg") == "c.jpg"
    assert shown(f"s3://k:{SECRET}@b/x?endpoint_override={SECRET}") == "s3://.../x"
    assert shown(f"s3://k:{SECRET}@b") == shown(f"s3://k:{SECRET}@b/?q={SECRET}") == "s3://..."
    assert shown("/a/\x1b[31m\u202eb\n.jpg") == r".../\x1b[31m\u202eb\n.jpg"
    assert len(shown("/a/" + "x" * 1000)) < 80
    assert shown("") == "an empty path"
    for hidden in (
        *(f"s3:/k:{SECRET}@b", f" s3://k:{SECRET}@b", f"jdbc:s3://k:{SECRET}@b/x"),
        *(f"https:k:{SECRET}@b", f"a.jpg?sig={SECRET}", f"..\\{SECRET}\\a.jpg"),
        f"file:///..%2f{SECRET}%2fa.jpg",
    ):
        assert SECRET not in shown(hidden), hidden


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["..", ".", "", "sub", "folder_out", "out.jpg", "c.jpg", "root2", "%2e%2e"])
        | st.text(max_size=6),
        max_size=6,
    ),
    st.sampled_from(["", "/", "file://", "file:", "{root}/", "file://{root}/", "s3://", "dbfs:/"]),
)
def test_no_path_leads_out(root: Path, parts: list[str], start: str) -> None:
    path = start.format(root=root) + "/".join(parts)
    found: bytes | str | None
    try:
        found = ImageRoots.of([str(root)]).read(path)
    except ImageError as error:
        found = str(error)
    if isinstance(found, str):
        assert found.isprintable()
    else:
        assert found in (b"good", b"nested")
