"""The sample pairs of the quickstart: complete, well formed, and about images that exist."""

import re
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

KINDS = {
    "excellent",
    "good",
    "short",
    "vague",
    "wrong_detail",
    "wrong_theme",
    "meaning",
    "tags",
    "garbled",
    "file_name",
    "boilerplate",
    "spam",
}
FILE = Path(__file__).parents[3] / "conf" / "sample_pairs.yaml"


@pytest.fixture(scope="module")
def images() -> list[dict[str, Any]]:
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert content["version"] == 1
    found: list[dict[str, Any]] = content["images"]
    return found


def test_every_image_is_shipped_by_the_scikit_image_wheel(images: list[dict[str, Any]]) -> None:
    # The list of installed files answers without an import of skimage, which is slow.
    shipped = {
        Path(file.locate()).name
        for file in metadata.files("scikit-image") or []
        if file.as_posix().startswith("skimage/data/") and Path(file.locate()).is_file()
    }
    names = [image["file"] for image in images]
    assert set(names) <= shipped
    assert len(set(names)) == len(names)


def test_every_image_has_captions_of_every_kind(images: list[dict[str, Any]]) -> None:
    for image in images:
        assert image.keys() == {"file", "about", "pairs"}, image["file"]
        assert all(pair.keys() == {"kind", "caption"} for pair in image["pairs"]), image["file"]
        assert {pair["kind"] for pair in image["pairs"]} == KINDS, image["file"]
        assert len(image["pairs"]) >= 12, image["file"]


def test_captions_are_distinct_and_of_sensible_length(images: list[dict[str, Any]]) -> None:
    captions = [pair["caption"] for image in images for pair in image["pairs"]]
    assert 230 <= len(captions) <= 270
    # Over all images, not only within one: no caption is a template.
    counts = Counter(caption.casefold() for caption in captions)
    assert [caption for caption, count in counts.items() if count > 1] == []
    for caption in captions:
        # Folded lines of the YAML must not leave blanks at the ends or in a row.
        assert caption == " ".join(caption.split())
        words = re.findall(r"[^\W_]+", caption)  # "a_b.png" counts as three
        assert len(words) >= 3, caption
        assert len(caption.split()) <= 70, caption
