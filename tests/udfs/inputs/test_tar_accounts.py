"""Of random tars, every member is in a row or counted; their samples are `webdataset`'s."""

from collections import Counter

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tars import read_pairs

from udfs.inputs import tar_samples

KEYS = st.sampled_from(["a", "b/c", "ü 1", "d.e/f", "0001", "deep/er/2", "./7"])
ENDINGS = st.sampled_from(
    [
        "jpg",
        "PNG",
        "left.png",
        "5_1.jpg",
        "txt",
        "alt.txt",
        "TXT",
        "json",
        "a.json",
        "npy",
        "cls",
        "",
    ]
)
NAMES = st.one_of(
    st.builds(lambda key, ending: f"{key}.{ending}", KEYS, ENDINGS),
    st.sampled_from(["README", ".hidden.jpg", "x/._a.jpg", "__notes__/1.txt", "d.e/none"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(NAMES, max_size=25), st.booleans(), st.booleans())
def test_every_member_is_in_a_row_or_counted(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], by_key: bool, last_dot: bool
) -> None:
    if by_key:
        names.sort()
    members = [
        (name, b'{"number": %d}' % n if name.endswith("json") else b"%d" % n)
        for n, name in enumerate(names)
    ]
    folder = tmp_path_factory.getbasetemp()
    rows, left_out = read_pairs(folder, members, last_dot=last_dot)
    used = [name for reason, name in left_out if reason != tar_samples.NO_SAMPLE]
    bodies = {body: name for name, body in members}
    for row in rows:
        assert row["read_error"] is None
        parts = (row["image"], row["metadata"], *(row["caption"] or ()))
        found = [bodies[part] for part in parts if part is not None]
        assert found
        used += found
        assert all(name.startswith(f"{row['key']}.") for name in found)
    assert Counter(used) == Counter(names)
    # No two half rows: where a key has an image, no other row of it lacks one.
    with_image = {row["key"] for row in rows if row["image"] is not None}
    assert all(row["image"] is not None for row in rows if row["key"] in with_image)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        KEYS, st.sets(ENDINGS.filter(lambda ending: ending not in ("TXT", ""))), max_size=7
    )
)
def test_samples_are_those_of_webdataset(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, set[str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    members = {
        f"{key}.{ending}": f"{key} {ending}".encode()
        for key, endings in samples.items()
        for ending in endings
        if "json" not in ending
    }
    rows, _ = read_pairs(folder, members)
    theirs = webdataset.WebDataset(str(folder / "x.tar"), shardshuffle=False, empty_check=False)
    want = []
    for sample in theirs:
        images = [sample[e] for e in ("jpg", "png", "left.png", "5_1.jpg") if e in sample]
        texts = [sample[e] for e in ("txt", "alt.txt") if e in sample]
        if images or texts:
            want.append((sample["__key__"], set(images), set(texts)))
    assert len(rows) == len(want)
    for row, (key, any_image, any_text) in zip(rows, want, strict=True):
        assert row["key"] == key
        assert row["image"] in (any_image or {None})
        assert row["caption"] is None if not any_text else row["caption"][0] in any_text
