"""Makes pictures for tests."""

import io
from typing import Any

import numpy as np
from PIL import Image


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """A picture of soft colours that survive compression."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def photo(seed: int, width: int = 240, height: int = 180) -> Image.Image:
    """A picture with as much detail as a photograph."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    return rough.resize((width, height), Image.Resampling.BICUBIC)


def noise(width: int, height: int, seed: int) -> Image.Image:
    """A picture no two of whose parts are alike."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file of this format."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
