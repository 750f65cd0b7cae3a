"""Which jobs need --image-root, and what may be one."""

from pathlib import Path

import pytest

from jobs.core.errors import UsageError
from jobs.core.settings import parse
from jobs.export.settings import ExportConfig
from jobs.signals.job import SignalsConfig

SHARDS = ["--selection", "s", "--pairs", "p", "--output", "o", "--image-path-column", "path"]


def test_a_root_is_needed_where_images_are_opened(tmp_path: Path) -> None:
    for written in ("webdataset", "parquet"):
        with pytest.raises(UsageError, match="^--image-path-column needs --image-root, the folder"):
            parse(ExportConfig, ["--format", written, *SHARDS])
    config = parse(ExportConfig, ["--format", "parquet", *SHARDS, "--image-root", str(tmp_path)])
    roots = config.roots()
    assert roots is not None
    assert roots.folders == (str(tmp_path),)
    assert parse(ExportConfig, ["--format", "delta", *SHARDS]).roots() is not None
    without = [word for word in SHARDS if word not in ("--image-path-column", "path")]
    assert parse(ExportConfig, ["--format", "parquet", *without]).roots() is None
    signals = ["--pairs", "p", "--output", "o", "--image-path-column", "path"]
    parse(SignalsConfig, [*signals, "--signal", "language"])
    with pytest.raises(UsageError, match="needs --image-root"):
        parse(SignalsConfig, [*signals, "--signal", "size"])


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("/no/such/folder", "--image-root /no/such/folder: there is no such folder"),
        ("s3://k:s3cr3t@b/x", "--image-root s3://.../x: a URI has no credentials or options"),
        ("https://a.example/x", "--image-root https://.../x: images are not read from web servers"),
    ],
)
def test_what_is_no_root_is_said(root: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(ExportConfig, ["--format", "parquet", *SHARDS, "--image-root", root])
    assert str(error.value).startswith(message)
    assert "s3cr3t" not in str(error.value)


def test_a_root_without_paths_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--image-root is for --image-path-column"):
        parse(ExportConfig, ["--format", "parquet", *SHARDS[:6], "--image-root", str(tmp_path)])
