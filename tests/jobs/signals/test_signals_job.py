"""The signals job on Spark and Delta: one row per pair, whatever the rows and the partitions."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from damaged_images import DAMAGED
from pictures import encoded, photo
from PIL import Image
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from jobs.core.errors import UsageError
from jobs.signals import job as signals
from jobs.signals import near_duplicates
from jobs.signals.job import SignalsConfig, main
from jobs.signals.near_duplicates import claims_of
from jobs.tables import delta
from jobs.tables.signals import SIGNALS_TABLE
from udfs.signals import perceptual

pytestmark = pytest.mark.spark

LONG = "A detailed caption about a red boat that lies at a wooden pier in the evening sun"
WHITE = [
    encoded(Image.new("RGB", size, "white"), kind)
    for size, kind in (((9, 9), "PNG"), ((80, 60), "JPEG"))
]


def variants(seed: int) -> list[bytes]:
    """A photo as PNG, compressed as JPEG, and scaled down as WebP."""
    image = photo(seed, 320, 240)
    small = image.resize((160, 120), Image.Resampling.LANCZOS)
    return [encoded(image), encoded(image, "JPEG", quality=60), encoded(small, "WEBP", quality=80)]


def pairs_rows() -> list[tuple[str | None, bytes | None, Any]]:
    """Rows of all sorts: uid, image, caption."""
    rows: list[Any] = [
        (f"own-{n}", encoded(photo(n)), f"caption {n} of its own {n}") for n in range(8)
    ]
    for group, seed in (("boat", 100), ("tree", 101)):
        rows += [(f"{group}-{n}", data, f"{group} {n}") for n, data in enumerate(variants(seed))]
    words = ("four words that differ", "spring", "at the lake", "one image, many captions")
    rows += [(f"same-{n}", encoded(photo(50)), caption) for n, caption in enumerate(words)]
    rows += [("copied", encoded(photo(51)), "copied"), ("copied", encoded(photo(51)), "copied")]
    rows += [("white-0", WHITE[0], "nothing"), ("white-1", WHITE[1], "at all")]
    rows += [(f"damaged-{name}", data, "two words") for name, (data, _) in DAMAGED.items()]
    rows += [
        ("long-0", encoded(photo(60)), LONG),
        ("long-1", encoded(photo(61)), LONG.upper() + "  "),
        ("long-2", encoded(photo(62)), LONG.replace("evening", "morning")),
        (None, encoded(photo(63)), "no key"),
        (None, encoded(photo(63), "JPEG"), "no key either"),
        ("no-caption", encoded(photo(64)), None),
        ("blank", encoded(photo(65)), b" \n"),
        ("bytes", encoded(photo(66)), b"caf\xe9 in Paris \xed\xa0\x80"),
        ("german", encoded(photo(67)), "Ein brauner Hund im Park"),
    ]
    return rows


def write(spark: SparkSession, folder: Path, rows: list[Any], files: int) -> str:
    """Write a pairs table; captions go in as bytes, so that they may hold anything."""
    encoded_rows = [(u, i, c.encode() if isinstance(c, str) else c) for u, i, c in rows]
    frame = spark.createDataFrame(encoded_rows, "uid string, image binary, caption binary")
    frame = frame.withColumn("caption", F.col("caption").cast("string")).repartition(files)
    delta.overwrite(frame, str(folder), skipping=("uid",))
    return str(folder)


def content(spark: SparkSession, ref: str) -> Counter[Row]:
    return Counter(delta.read(spark, ref).collect())


def test_signals_of_all_sorts_of_pairs(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pairs_rows()
    pairs = write(spark, tmp_path / "pairs", rows, files=3)
    output = str(tmp_path / "signals")
    summary = signals.run(spark, SignalsConfig(pairs=pairs, output=output))
    table = delta.read(spark, output)
    assert table.schema.names == SIGNALS_TABLE.names
    assert all(field.metadata.get("comment") for field in table.schema)
    found = table.collect()
    assert len(found) == summary["rows"] == len(rows)
    assert Counter(row["uid"] for row in found) == Counter(uid for uid, *_ in rows)
    by_uid = {row["uid"]: row for row in found}

    for name in DAMAGED:
        row = by_uid[f"damaged-{name}"]
        assert row["signal_status"] == "bad_image", name
        assert (row["phash"], row["near_image_copies"]) == (None, None)
        assert (row["image_copies"] is None) == (name in ("null", "empty"))
        assert row["caption_words"] == 2
    assert summary["statuses"] == {
        "bad_image": len(DAMAGED),
        "empty_caption": 2,
        "ok": len(rows) - len(DAMAGED) - 2,
    }
    small = by_uid["boat-2"]
    sizes = (small["width"], small["height"], small["shorter_side"], small["aspect_ratio"])
    assert sizes == (160, 120, 120, 160 / 120)
    assert by_uid["german"]["language"] == "de"
    assert by_uid["bytes"]["caption_characters"] == 17
    assert by_uid["no-caption"]["caption_copies"] is None
    assert by_uid["blank"]["near_caption_copies"] is None

    # Exact copies are counted, and all rows but one of each image are duplicates.
    first = {
        row["uid"]: row["hash"]
        for row in table.select("uid", F.xxhash64("uid").alias("hash")).collect()
    }
    same = [f"same-{n}" for n in range(4)]
    representative = min(same, key=first.__getitem__)
    for uid in same:
        row = by_uid[uid]
        assert (row["image_copies"], row["near_image_copies"]) == (4, 4)
        assert (row["caption_copies"], row["near_caption_of"]) == (1, None)
        assert row["duplicate"] == (uid != representative)
        assert row["near_image_of"] == (None if uid == representative else representative)
    copies = [row for row in found if row["uid"] == "copied"]
    assert {(row["image_copies"], row["caption_copies"]) for row in copies} == {(2, 2)}
    assert sorted(row["duplicate"] for row in copies) == [False, True]
    assert by_uid["damaged-html"]["caption_copies"] == len(DAMAGED)
    assert summary["duplicates"] == 3 + 1

    # Near copies: of images by re-encoding and resizing, of captions by case and a word.
    groups = {
        "near_image": [["boat-0", "boat-1", "boat-2"], ["tree-0", "tree-1", "tree-2"]],
        "near_caption": [["long-0", "long-1", "long-2"]],
    }
    groups["near_image"].append(["white-0", "white-1"])
    for kind, kind_groups in groups.items():
        for group in kind_groups:
            representative = min(group, key=first.__getitem__)
            for uid in group:
                row = by_uid[uid]
                assert row[f"{kind}_copies"] == len(group), uid
                assert row[f"{kind}_of"] == (None if uid == representative else representative)
    assert by_uid["white-0"]["phash"] == perceptual.FLAT
    unnamed = [row for row in found if row["uid"] is None]
    assert [row["near_image_copies"] for row in unnamed] == [2, 2]
    for number in range(8):
        row = by_uid[f"own-{number}"]
        assert (row["near_image_of"], row["near_image_copies"]) == (None, 1)
    assert summary["languages"]["de"] >= 1

    # The result is the same from other partitions, and with claims found by rounds of joins.
    monkeypatch.setattr(near_duplicates, "COLLECTED_EDGES", 0)
    random.Random(1).shuffle(rows)
    pairs = write(spark, tmp_path / "shuffled", rows, files=1)
    again = str(tmp_path / "again")
    signals.run(spark, SignalsConfig(pairs=pairs, output=again))
    assert content(spark, again) == content(spark, output)


def test_usage_limit_and_single_signals(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"uid-{n}", b"no image", f"words {n}") for n in range(30)]
    pairs, output = write(spark, tmp_path / "pairs", rows, files=2), str(tmp_path / "signals")

    def call(*words: str) -> dict[str, Any]:
        code = main(["--pairs", pairs, *words])
        line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return {"code": code} | line

    dry = call("--output", output, "--dry-run")
    assert (dry["code"], dry["rows"]) == (0, 30)
    assert not delta.exists(spark, output)
    # Ten rows, the same as with `score --limit`; images that no signal needs are not read.
    done = call("--output", output, "--signal", "length", "--limit", "10")
    assert (done["code"], done["rows"], done["statuses"]) == (0, 10, {"ok": 10})
    wanted = delta.read(spark, pairs).orderBy(F.xxhash64("uid")).limit(10)
    table = delta.read(spark, output)
    assert {row[0] for row in table.select("uid").collect()} == {
        row[0] for row in wanted.select("uid").collect()
    }
    assert {row[0] for row in table.select("language").collect()} == {None}
    for words, message in {
        ("--output", pairs): "is the pairs table",
        ("--output", output, "--signal", "sizes"): "sizes",
        ("--output", output, "--image-distance", "9"): "image-distance",
        ("--output", output, "--caption-column", "captoin"): "did you mean caption",
    }.items():
        refused = call(*words)
        assert refused["code"] == 2
        assert message in refused["error"]
    delta.overwrite(spark.range(1), str(tmp_path / "other"))
    assert call("--output", str(tmp_path / "other"))["code"] == 2


NODE = "struct<absent: int, hash: bigint, name: string>"


def test_stars_by_rounds_equal_stars_on_the_driver(spark: SparkSession) -> None:
    rng = random.Random(3)
    nodes = [(0, rng.randrange(-99, 99), f"n{n}") for n in range(80)]
    drawn = (sorted(rng.sample(nodes, 2)) for _ in range(150))
    edges = {(small, big) for small, big in drawn}
    frame = spark.createDataFrame(sorted(edges), f"small {NODE}, big {NODE}")
    rounds = near_duplicates.claims_by_rounds(frame).collect()
    assert {row["name"]: row["star"] for row in rounds} == claims_of(edges)
    assert near_duplicates.claims_by_rounds(frame.limit(0)).collect() == []


def test_a_common_key_does_not_compare_all_with_all(spark: SparkSession) -> None:
    nodes = [((0, n, f"n{n}"), [7, 100 + n // 2]) for n in range(6)]
    frame = spark.createDataFrame(nodes, f"node {NODE}, keys array<bigint>")

    def compared(max_nodes: int) -> set[tuple[int, int]]:
        pairs = near_duplicates.candidates(frame, "keys", max_nodes).collect()
        return {(row["small"]["hash"], row["big"]["hash"]) for row in pairs}

    assert compared(6) == {(a, b) for b in range(6) for a in range(b)}
    assert compared(5) == {(0, b) for b in range(1, 6)} | {(2, 3), (4, 5)}


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "find_spec", lambda name: None)
    config = SignalsConfig(pairs="P", output="S", signal=["size", "text_in_image"])
    with pytest.raises(UsageError, match=r"text_in_image needs rapidocr.*mlm-filter\[ocr\]"):
        signals.run(None, config)  # type: ignore[arg-type]  # before Spark is used
