"""Views of an image, and what the projector reads of them."""

from pathlib import Path

import numpy as np
import tiny_examples
from PIL import Image
from tiny_examples import recipe

from udfs.training import adapter, examples, features
from udfs.training.image_views import LEAST, STRETCH, views


def gradient(width: int, height: int) -> Image.Image:
    """A picture each pixel of which tells where it stands."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))


def test_crops_are_parts_of_the_picture_and_most_of_it() -> None:
    picture = gradient(90, 60)
    found = views(picture, 40, seed=0)
    assert len(found) == 40
    assert found[0] == picture
    assert len({each.size for each in found}) > 10
    for each in found[1:]:
        left, top, _ = np.asarray(each)[0, 0].tolist()
        assert each == picture.crop((left, top, left + each.width, top + each.height))
        assert each.width * each.height > 0.95 * LEAST * 90 * 60
        assert 0.95 / STRETCH < (each.width / each.height) / 1.5 < 1.05 * STRETCH


def test_chance_comes_from_the_pixels_and_the_seed() -> None:
    picture = gradient(50, 50)
    first = views(picture, 3, seed=0)
    assert views(picture.copy(), 3, seed=0) == first
    assert views(picture, 3, seed=1)[1:] != first[1:]
    assert views(Image.new("RGB", (1, 1)), 3, seed=0) == [Image.new("RGB", (1, 1))] * 3


def test_each_turn_reads_another_view(internvl: Path, tmp_path: Path) -> None:
    data = examples.read(tiny_examples.write(tmp_path / "examples", 3))
    read = {}
    for count in (1, 3):
        how = recipe({"weights": {"rank": 1}}, views=count)
        student = adapter.student(str(internvl), how)
        read[count] = features.cached(tmp_path / str(count), student, data.images)
    assert read[3].shape == (len(data.images), 3, *read[1].shape[2:])
    assert np.allclose(read[3][:, :1], read[1], atol=1e-5)
    assert not np.allclose(read[3][:, 1], read[3][:, 0], atol=1e-2)
    assert np.array_equal(features.means(read[3]), read[1][:, 0].mean(axis=1))
