"""Images of which a Parquet or Delta table has only the path, as `datasets` writes them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import Row, SparkSession

from jobs.core.errors import UsageError
from jobs.ingest import table_sources
from jobs.ingest.settings import IngestConfig
from jobs.ingest.source_columns import Columns, Source
from jobs.tables import delta
from udfs.inputs.image_roots import ImageRoots

pytestmark = pytest.mark.spark


def by_caption(source: Source) -> dict[str, Row]:
    return {row["caption"]: row for row in source.frame.collect()}


def test_images_by_path_are_read_below_the_roots(spark: SparkSession, tmp_path: Path) -> None:
    pictures = tmp_path / "data/pics"
    pictures.mkdir(parents=True)
    (pictures / "0.jpg").write_bytes(b"from a file")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (pictures / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    outside = "it is not below any --image-root"
    paths: dict[str | None, tuple[bytes | None, str | None]] = {
        "pics/0.jpg": (b"from a file", None),  # from the folder of the Parquet file
        str(pictures / "0.jpg"): (b"from a file", None),
        "gone.jpg": (None, "cannot read .../gone.jpg: No such file or directory"),
        "nosuch://datasets/a/b.jpg": (None, f"cannot read nosuch://.../b.jpg: {outside}"),
        "../secret.jpg": (None, f"cannot read .../secret.jpg: {outside}"),
        "pics/out.jpg": (None, f"cannot read .../out.jpg: {outside}"),
        None: (None, None),
    }
    values: list[Any] = [{"bytes": None, "path": path} for path in paths]
    values += [{"bytes": b"inside", "path": "x.jpg"}, None]
    captions = [*map(str, paths), "inside", "null"]
    table = pa.table({"image": pa.array(values, struct), "caption": captions})
    file = tmp_path / "data/a.parquet"
    pq.write_table(table, file)
    roots = ImageRoots.of([str(tmp_path / "data")])
    found = by_caption(table_sources.parquet(spark, str(file), Columns(), roots))
    for path, (image, error) in paths.items():
        row = found[str(path)]
        assert (row["image"] and bytes(row["image"]), row["read_error"]) == (image, error)
    assert bytes(found["inside"]["image"]) == b"inside"
    assert found["null"]["image"] is None
    assert found["pics/0.jpg"]["source_path"] == "pics/0.jpg"

    ref = str(tmp_path / "delta")
    delta.overwrite(spark.read.parquet(str(file)), ref)
    found = by_caption(table_sources.delta(spark, ref, Columns(), roots))
    assert bytes(found[str(pictures / "0.jpg")]["image"]) == b"from a file"
    with pytest.raises(UsageError, match="rows with the path of an image only: --image-root names"):
        table_sources.parquet(spark, str(file), Columns())


def test_a_root_that_is_none_is_refused_before_anything_is_read() -> None:
    for root in ("/no/such/folder", "s3://k:s3cr3t@bucket"):
        with pytest.raises(ValueError, match="--image-root") as error:
            IngestConfig(source="parquet", input="x", output="y", image_root=[root])
        assert "s3cr3t" not in str(error.value).partition("[type=")[0]
