"""Views of an image: itself, and crops of it (data augmentation).

Seen the same way in each epoch, an image is soon known by heart, and what is learned of it says
little of others. Crops leave most of it in sight, since a caption tells of the whole; none is
mirrored or coloured, since captions name sides and colours.
"""

from __future__ import annotations

from PIL import Image

from udfs.training import sampling

LEAST = 0.5
"""A crop has at least this share of the image's area, ..."""
STRETCH = 4 / 3
"""... and its sides' ratio is at most so many times that of the image's, or one so-many-th of it
(as in `torchvision.transforms.RandomResizedCrop`)."""


def views(picture: Image.Image, count: int, seed: int) -> list[Image.Image]:
    """The picture and `count` - 1 crops, the same for the same pixels and seed."""
    if count == 1:
        return [picture]
    draw = sampling.rng(seed, "views", picture.size, picture.tobytes().hex())
    found = [picture]
    for _ in range(count - 1):
        area = draw.uniform(LEAST, 1)
        ratio = STRETCH ** draw.uniform(-1, 1)
        width, height = (
            max(1, min(side, round(side * share)))
            for side, share in zip(
                picture.size, ((area * ratio) ** 0.5, (area / ratio) ** 0.5), strict=True
            )
        )
        left = int(draw.integers(picture.width - width + 1))
        top = int(draw.integers(picture.height - height + 1))
        found.append(picture.crop((left, top, left + width, top + height)))
    return found
