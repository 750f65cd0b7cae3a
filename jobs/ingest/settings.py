"""The settings of the ingest job."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ..core.image_path_settings import roots_of
from ..core.settings import JobConfig


class IngestConfig(JobConfig):
    """Make a pairs table from images and captions; --source says in which form they come."""

    source: Literal["folder", "parquet", "delta", "webdataset", "samples"] = Field(
        description="form of the input: a folder of images with a file of captions; Parquet or "
        "Delta with the images' bytes; tars written by img2dataset; the built-in sample pairs"
    )
    output: str = Field(description="pairs table to write: a path or catalog.schema.table")
    input: str | None = Field(
        default=None, description="folder, file or table to read (not for samples)"
    )
    captions: str | None = Field(
        default=None,
        description="captions of --source folder: a .csv, .tsv, .txt, .jsonl, .json or .parquet "
        "file, also .gz; `sidecar`: a .txt file beside each image",
    )
    separator: str | None = Field(
        default=None, description="between the columns of --captions (default: by its ending)"
    )
    quote: str | None = Field(
        default=None, description='around texts of --captions (default: " in .csv, none in .tsv)'
    )
    header: bool = Field(default=True, description="whether --captions has a line of column names")
    encoding: str = Field(default="utf-8", description="of the text in --captions")
    captions_per_image: Literal["all", "first"] = Field(
        default="all",
        description="where a row has a list of captions: a row for each, or the first",
    )
    image_ending: list[str] = Field(
        default_factory=list,
        description="ending of images in tars and folders (default: usual ones); may be repeated",
    )
    caption_ending: list[str] = Field(
        default_factory=list,
        description="ending of captions in tars (default: txt); may be repeated",
    )
    key_ends_at: Literal["first-dot", "last-dot"] = Field(
        default="first-dot",
        description="where the key in a name in a tar ends (webdataset: the first)",
    )
    rejects: str | None = Field(
        default=None, description="table to write what is left out to: reason and example"
    )
    image_column: str = Field(default="image", description="column with the bytes of the image")
    caption_column: str = Field(default="caption", description="column with the caption")
    uid_column: str | None = Field(
        default=None, description="column with the key of the pair (default: uid, else a hash)"
    )
    path_column: str | None = Field(
        default=None,
        description="column with the image's path: how --source folder finds the file; in other "
        "sources it becomes source_path (default: file_name, file, path ...; source_path)",
    )
    image_root: list[str] = Field(
        default_factory=list,
        description="folder or URI below which images lie that Parquet and Delta have only the "
        "path of, or that links in a folder lead to; may be repeated",
    )
    mode: Literal["error", "overwrite", "append"] = Field(
        default="error",
        description="if the output exists: stop; replace it; or add the pairs that it does not "
        "have yet (by uid, image and caption)",
    )

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        roots_of(self.image_root)
        if self.source != "samples" and self.input is None:
            raise ValueError(f"--source {self.source} needs --input")
        if self.source == "folder" and self.captions is None:
            raise ValueError("--source folder needs --captions, a table of file names and captions")
        if self.source != "folder" and self.captions is not None:
            raise ValueError(f"--captions is for --source folder, not for {self.source}")
        return self
