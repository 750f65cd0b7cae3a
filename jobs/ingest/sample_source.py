"""The sample pairs: the images of the scikit-image wheel with this project's captions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import yaml
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from ..core.errors import UsageError
from ..core.settings import conf_file
from .source_columns import Source


def samples(spark: SparkSession, captions: Path | None = None) -> Source:
    """The sample pairs: the images of the scikit-image wheel with this project's captions."""
    image_folder = sample_folder()
    captions_file = captions or conf_file("sample_pairs.yaml")
    entries = yaml.safe_load(captions_file.read_text(encoding="utf-8"))["images"]
    missing = [entry["file"] for entry in entries if not (image_folder / entry["file"]).is_file()]
    if missing:
        raise UsageError(
            f"scikit-image lacks {', '.join(missing)}; versions 0.24 to 0.26 have them"
        )
    images = [(entry["file"], (image_folder / entry["file"]).read_bytes()) for entry in entries]
    pairs = [
        (entry["file"], pair["kind"], pair["caption"])
        for entry in entries
        for pair in entry["pairs"]
    ]
    left = spark.createDataFrame(pairs, "file string, kind string, caption string")
    right = spark.createDataFrame(images, "file string, image binary")
    frame = left.join(F.broadcast(right), "file", "inner")
    path = F.concat(F.lit("skimage/data/"), "file")
    return Source(frame.withColumn("source_path", path), len(pairs), notes={"images": len(images)})


def sample_folder() -> Path:
    """The folder of images in the installed scikit-image, which is not imported."""
    spec = importlib.util.find_spec("skimage")
    for location in (spec and spec.submodule_search_locations) or ():
        return Path(location) / "data"
    raise UsageError("the sample images come with scikit-image: pip install 'mlm-filter[samples]'")
