"""The settings of the export job."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from udfs.outputs.image_encoding import QUALITY, ImageEncoding

from ..core.errors import UsageError
from ..core.image_path_settings import ImagePathConfig

_NEEDS = {
    "uids": ("selection",),
    "webdataset": ("selection", "pairs"),
    "parquet": ("selection", "pairs"),
    "delta": ("selection", "pairs"),
    "upstream-parquet": ("scores", "pairs"),
}


class ExportConfig(ImagePathConfig):
    """Write the pairs that a selection keeps in the formats that training code reads."""

    format: Literal["uids", "webdataset", "parquet", "delta", "upstream-parquet"] = Field(
        description="DataComp's uid file (.npy); tars with .txt and .json; a Parquet folder for "
        "Hugging Face datasets; a Delta table; the paper's score files, one per tar and metric"
    )
    output: str = Field(description="file (uids), folder, or table (delta) to write")
    selection: str | None = Field(None, description="selection table (not for upstream-parquet)")
    pairs: str | None = Field(
        None, description="pairs table; with uids: drops uids that are not in it"
    )
    scores: str | None = Field(None, description="scores table, for upstream-parquet")
    scorer: str | None = Field(
        None, description="scorer to export, if the scores table has several"
    )
    made_up_uids: bool = Field(
        False, description="write uids even if ingest made them up: no other data set has them"
    )
    shard_rows: int = Field(10_000, ge=1, le=10_000_000, description="samples per shard")
    image_format: Literal["jpg", "png", "webp"] | None = Field(
        None, description="re-encode the images of shards that have another format (default: none)"
    )
    image_size: int | None = Field(
        None, ge=1, description="longest side of the images of shards in pixels; never enlarged"
    )
    image_quality: int | None = Field(
        None, ge=1, le=100, description=f"of images re-encoded as jpg or webp (default {QUALITY})"
    )
    uid_column: str = Field("uid", description="column of --pairs with the pair's key")
    image_column: str = Field("image", description="column of --pairs with the image's bytes")
    caption_column: str = Field("caption", description="column of --pairs with the caption")

    def reads_images(self) -> bool:
        """Whether images are opened: only to write them into shards."""
        return self.format in ("webdataset", "parquet")

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if self.limit is not None:
            raise UsageError(
                "export takes no --limit: keep fewer rows by a rule such as `top 1000`"
            )
        required = _NEEDS[self.format]
        for name in required:
            if getattr(self, name) is None:
                raise UsageError(f"--format {self.format} needs --{name}")
        if self.format == "upstream-parquet" and self.selection is not None:
            raise UsageError(
                "--format upstream-parquet exports all scores: it takes no --selection"
            )
        if self.scores is not None and "scores" not in required:
            raise UsageError(f"--scores is for upstream-parquet, not for {self.format}")
        encoding = self.image_encoding()
        if encoding and self.format not in ("webdataset", "parquet"):
            raise UsageError(
                "--image-format, --image-size and --image-quality are for webdataset and parquet,"
                f" not for {self.format}"
            )
        if self.image_quality is not None and self.image_format not in ("jpg", "webp"):
            raise UsageError("--image-quality needs --image-format jpg or webp")
        return self

    def image_encoding(self) -> ImageEncoding | None:
        """How images are re-encoded; None if they are written as they are."""
        wanted = (self.image_format, self.image_size, self.image_quality)
        if wanted == (None, None, None):
            return None
        return ImageEncoding(self.image_format, self.image_size, self.image_quality or QUALITY)
