"""Images re-encoded for exports: format, size, and what stays as it is."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, noise, picture
from PIL import Image

from udfs.inputs.images import ImageError
from udfs.outputs.image_encoding import ImageEncoding, image_extension
from udfs.outputs.shards import Layout, write_shards
from udfs.outputs.tar_shards import write_tar

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(FORMATS),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from((None, "jpg", "png", "webp")),
    st.none() | st.integers(1, 100),
)
def test_format_and_size_are_those_asked_for(
    kind: str, size: tuple[int, int], wanted: str | None, longest: int | None
) -> None:
    data = encoded(picture(*size), kind)
    encoding = ImageEncoding(wanted, longest)
    written = encoding.encode(data)
    own = EXTENSIONS.get(kind)
    fits = longest is None or max(size) <= longest
    if fits and wanted in (None, own):
        assert written is data
        return
    assert image_extension(written) == (wanted or own or "png")
    assert encoding.encode(data) == written
    scale = 1 if fits or longest is None else longest / max(size)
    expected = [max(1, side * scale) for side in size]
    assert np.allclose(opened(written).size, expected, atol=1)
    assert max(opened(written).size) == max(size) if fits else longest


def test_upright_and_white_where_it_is_transparent() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the right side is the top
    turned = encoded(picture(40, 20), "JPEG", exif=exif, icc_profile=b"profile")
    for wanted in ("png", "webp"):
        written = opened(ImageEncoding(wanted).encode(turned))
        assert written.size == (20, 40)
        assert not written.getexif()
        assert "icc_profile" not in written.info
    assert ImageEncoding("jpg").encode(turned) is turned

    clear = encoded(Image.new("RGBA", (20, 10), (255, 0, 0, 0)))
    assert opened(ImageEncoding("jpg").encode(clear)).getpixel((5, 5)) == (255, 255, 255)
    assert opened(ImageEncoding("webp").encode(clear)).mode == "RGBA"
    assert opened(ImageEncoding("png", 10).encode(clear)).getchannel("A").getextrema() == (0, 0)
    grey = encoded(Image.fromarray(np.full((9, 9), 128 * 257, np.uint16)), "PNG")
    assert opened(ImageEncoding("jpg").encode(grey)).getpixel((4, 4)) == (128, 128, 128)


def test_quality() -> None:
    data = encoded(noise(64, 64, 1))
    sizes = [len(ImageEncoding("jpg", quality=quality).encode(data)) for quality in (10, 50, 95)]
    assert sizes == sorted(set(sizes))
    assert len(ImageEncoding("jpg").encode(data)) == sizes[-1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no picture", "not an image of a known format"),
        (encoded(picture(300, 200), "PNG")[:500], "damaged image"),
        (encoded(Image.new("RGB", (16_384, 1)), "PNG"), "16384 pixels is too long for webp"),
    ],
)
def test_what_cannot_be_encoded_is_left_out_with_the_reason(
    data: bytes, reason: str, tmp_path: Any
) -> None:
    with pytest.raises(ImageError, match=reason):
        ImageEncoding("webp").encode(data)
    good = encoded(picture(), "TIFF")
    rows = {"_shard": [0, 0], "_index": [0, 1], "_image": [good, data], "_caption": [b"a", b"b"]}
    batch = pa.RecordBatch.from_pydict(rows | {"uid": ["good", "bad"]})
    layout = Layout(str(tmp_path), 1, 10, "plan")
    (written,) = write_shards(iter([batch]), layout, write_tar, ImageEncoding("webp"))
    (shard,) = written.to_pylist()
    assert (shard["rows"], shard["left_out"], shard["extensions"]) == (1, 1, [("webp", 1)])
    assert shard["left_out_such_as"][0].startswith("bad: ")
    assert reason in shard["left_out_such_as"][0]
