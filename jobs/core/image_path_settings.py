"""The settings of jobs that can read images by paths in a table."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from udfs.inputs.image_roots import ImageRoots

from .settings import JobConfig


def roots_of(image_root: list[str]) -> ImageRoots:
    """What --image-root names. Raises ValueError if one of them cannot be a root."""
    try:
        return ImageRoots.of(image_root)
    except ValueError as error:
        raise ValueError(f"--image-root {error}") from None


class ImagePathConfig(JobConfig):
    """Settings of a job that reads images by their paths, if it is given their column."""

    image_path_column: str | None = Field(
        default=None,
        description="column with paths of images, instead of their bytes; needs --image-root",
    )
    image_root: list[str] = Field(
        default_factory=list,
        description="of the images in --image-path-column: folder or URI (s3://bucket/images) "
        "below which they lie; may be repeated",
    )

    @model_validator(mode="after")
    def _check_roots(self) -> Self:
        if self.image_path_column and not self.image_root and self.reads_images():
            raise ValueError(
                "--image-path-column needs --image-root, the folder or URI below which the images "
                "lie: nothing else is read"
            )
        if self.image_root and not self.image_path_column:
            raise ValueError("--image-root is for --image-path-column")
        roots_of(self.image_root)
        return self

    def reads_images(self) -> bool:
        """Whether the job opens images at all; their paths also tell pairs apart."""
        return True

    def roots(self) -> ImageRoots | None:
        """Where images are read by their paths; None: they are in the table."""
        return roots_of(self.image_root) if self.image_path_column else None
