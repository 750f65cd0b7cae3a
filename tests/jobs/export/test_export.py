"""The export job on real tables: every format is read back by the program that it is for."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import webdataset
from pictures import encoded, picture
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.export.job import main, run
from jobs.export.settings import ExportConfig
from jobs.ingest import job as ingest
from jobs.ingest.settings import IngestConfig
from jobs.tables import delta
from jobs.tables.pairs import PAIRS_KEYS
from jobs.tables.scores import SCORES_TABLE
from udfs.core.metrics import METRICS
from udfs.outputs.upstream_score_files import TASKS

pytestmark = pytest.mark.spark

SELECTION = (
    "uid string, image_sha string, caption_sha string, copy int, scorer string, status string,"
    " keep boolean, repetitions int, first_failed_rule string, reason string,"
    " rules map<string,boolean>, itm float, odf float, ctq float, su float, clip_score double"
)


@dataclass(frozen=True)
class Tables:
    """Pairs of three tars, with one pair twice; their scores; a selection of some of them."""

    folder: Path
    pairs: str
    scores: str
    selection: str
    images: dict[str, bytes]
    repetitions: dict[str, int]


def uid(number: int) -> str:
    """32 digits, some in capitals; half of them are negative as signed numbers."""
    digits = hashlib.md5(str(number).encode()).hexdigest()
    return digits.upper() if number % 5 == 0 else digits


def make_tar(path: Path, numbers: range) -> dict[str, bytes]:
    images = {}
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            image = encoded(picture(20 + number, 20, number), ("JPEG", "PNG", "WEBP")[number % 3])
            images[uid(number)] = image
            fields = {"uid": uid(number), "url": f"https://x/{number}", "width": 20 + number}
            members = {"jpg": image, "txt": f"caption {number}".encode()}
            for suffix, data in (members | {"json": json.dumps(fields).encode()}).items():
                member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return images


@pytest.fixture(scope="module")
def tables(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "tars").mkdir()
    images = make_tar(folder / "tars/00000000.tar", range(8))
    images |= make_tar(folder / "tars/00000001.tar", range(8, 14))
    make_tar(folder / "tars/00000002.tar", range(13, 14))  # a copy
    pairs, scores, selection = (str(folder / name) for name in ("pairs", "scores", "selection"))
    config = {"source": "webdataset", "input": str(folder / "tars"), "output": pairs}
    ingest.run(spark, IngestConfig.model_validate(config))
    repetitions = {uid(n): (0, 1, 3, 1)[n % 4] for n in range(14)}
    scored, selected, seen = [], [], set()
    for row in delta.read(spark, pairs).orderBy("uid", "source_path").collect():
        number = int(row["caption"].removeprefix("caption "))
        copy = int(row["uid"] in seen)
        seen.add(row["uid"])
        status = "duplicate_uid" if copy else "bad_image" if number == 4 else "ok"
        is_scored = status == "ok"
        numbers = [float(number + n) if is_scored else None for n in range(4)]
        keys = {name: row[name] for name in PAIRS_KEYS}
        keys |= {"copy": copy, "scorer": "s1", "status": status}
        keys |= dict(zip(METRICS, numbers, strict=True))
        modes = {
            f"{m}_mode": None if x is None else int(x)
            for m, x in zip(METRICS, numbers, strict=True)
        }
        scored.append(keys | modes)
        keep = is_scored and repetitions[row["uid"]] > 0
        verdict: dict[str, Any] = {
            "keep": keep,
            "repetitions": repetitions[row["uid"]] if keep else 0,
        }
        verdict |= {"first_failed_rule": None if keep else "r", "rules": {"r": keep}}
        selected.append(keys | verdict | {"clip_score": float("nan") if number == 1 else 0.5})
    # a kept pair that is no longer in the pairs table
    deleted = selected[0] | {"uid": "0" * 32, "keep": True, "repetitions": 2, "copy": 0}
    for rows, ref, schema in (
        ([*scored, scored[0] | {"scorer": "s2"}], scores, SCORES_TABLE),
        ([*selected, deleted], selection, SELECTION),
    ):
        names = [field.name for field in spark.createDataFrame([], schema).schema]
        values = [tuple(row.get(name) for name in names) for row in rows]
        delta.overwrite(spark.createDataFrame(values, schema), ref)
    kept_repetitions = {u: times for u, times in repetitions.items() if times}
    return Tables(folder, pairs, scores, selection, images, kept_repetitions)


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The line of JSON, and what is on stderr."""
    out, err = capsys.readouterr()
    summary: dict[str, Any] = json.loads(out.splitlines()[-1])
    return summary, err


def test_uids(tables: Tables, spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    path = tables.folder / "uids.npy"
    argv = ["--format", "uids", "--selection", tables.selection, "--output", str(path)]
    assert main([*argv, "--dry-run"]) == 0
    assert not path.exists()
    for pairs in ([], ["--pairs", tables.pairs]):
        expected = dict(tables.repetitions) | ({} if pairs else {"0" * 32: 2})
        for _ in range(2):
            assert main([*argv, *pairs]) == 0
        summary, _ = printed(capsys)
        subset = np.load(path, mmap_mode="r")
        assert subset.dtype == np.dtype("u8,u8")
        numbers = [int(f0) << 64 | int(f1) for f0, f1 in subset.tolist()]
        wanted = sorted(int(u, 16) for u, times in expected.items() for _ in range(times))
        assert numbers == wanted
        assert summary["uids"] == summary["repetitions"] == len(wanted)

    before = path.read_bytes()
    bad_uids = str(tables.folder / "bad_uids")
    frame = delta.read(spark, tables.selection)
    delta.overwrite(frame.withColumn("uid", F.concat("uid", F.lit("-"))), bad_uids)
    text = tables.folder / "text"
    text.write_text("mine")
    selection = ["--selection", tables.selection]
    for wrong, message in (
        (["--selection", bad_uids], "11 of 11 kept uids are not 32 hexadecimal digits"),
        (["--output", str(text)], "a file of another kind"),
        (["--output", str(tables.folder)], "is a folder: name a file"),
        (["--output", "s3://bucket/uids.npy"], "where the store is mounted"),
        (["--selection", tables.pairs], "is not a selection table"),
        (["--limit", "3"], "export takes no --limit"),
        (["--format", "webdataset"], "--format webdataset needs --pairs"),
        (["--image-size", "9"], "--image-size and --image-quality are for webdataset and parquet"),
    ):
        assert main(["--format", "uids", *selection, "--output", str(path), *wrong]) == 2
        summary, err = printed(capsys)
        assert message in err
        assert "Traceback" not in err
        assert summary["status"] == "usage_error"
    assert path.read_bytes() == before
    assert text.read_text() == "mine"


def tars_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_webdataset(
    tables: Tables, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tables.folder / "shards"
    argv = ["--format", "webdataset", "--selection", tables.selection, "--pairs", tables.pairs]
    assert main([*argv, "--output", str(folder), "--shard-rows", "5"]) == 0
    summary, _ = printed(capsys)
    total = sum(tables.repetitions.values())
    assert (summary["samples"], summary["rows"], summary["kept_without_pair"]) == (total, total, 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    first = tars_in(folder)
    assert manifest["complete"]
    assert {s["file"]: s["sha256"] for s in manifest["shards"]} == {
        name: hashlib.sha256(data).hexdigest() for name, data in first.items()
    }

    samples = list(webdataset.WebDataset([str(folder / n) for n in first], shardshuffle=False))
    records = [json.loads(sample["json"]) for sample in samples]
    assert Counter(a["uid"] for a in records) == Counter(tables.repetitions)
    for sample, record in zip(samples, records, strict=True):
        images = [sample[kind] for kind in ("jpg", "png", "webp") if kind in sample]
        assert images == [tables.images[record["uid"]]]
        assert sample["txt"].decode() == record["caption"] == f"caption {int(record['itm'])}"
        assert record["url"] == f"https://x/{int(record['itm'])}"
        assert record["width"] == 20 + int(record["itm"])
        assert record["clip_score"] in (0.5, None)
    order = spark.createDataFrame([(a["uid"], a["repetition"]) for a in records], "u string, r int")
    hashes = [row[0] % 2**64 for row in order.select(F.xxhash64("u", "r")).collect()]
    assert hashes == sorted(hashes)
    sizes = [json.loads(p.read_text())["successes"] for p in sorted(folder.glob("*_stats.json"))]
    assert sizes == [5] * (total // 5) + [total % 5] * bool(total % 5)
    back = IngestConfig.model_validate(
        {"source": "webdataset", "input": str(folder), "output": str(tables.folder / "back")}
    )
    summary = ingest.run(spark, back)
    assert (summary["rows"], summary["read_errors"], summary["rows_without_image"]) == (total, 0, 0)

    # A run that was killed: one shard is missing, one is truncated, a temporary file is left over.
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    (folder / "00000001_stats.json").unlink()
    (folder / "00000002.tar").write_bytes(first["00000002.tar"][:700])
    (folder / ".00000001.tar.0badf00d.part").write_bytes(b"half")
    assert main([*argv, "--output", str(folder), "--shard-rows", "5"]) == 0
    assert tars_in(folder) == first
    assert not list(folder.glob(".*"))
    rewritten = {
        path.name for path in folder.glob("*.tar") if path.stat().st_mtime_ns != stamps[path.name]
    }
    assert rewritten == {"00000001.tar", "00000002.tar"}

    # The same rows in other partitions and order are the same shards; larger ones replace them.
    moved = [str(tables.folder / name) for name in ("pairs2", "selection2")]
    for ref, new in zip((tables.pairs, tables.selection), moved, strict=True):
        delta.overwrite(delta.read(spark, ref).repartition(3, F.rand(1)), new)
    other = tables.folder / "other"
    moved_argv = ["--format", "webdataset", "--pairs", moved[0], "--selection", moved[1]]
    assert main([*moved_argv, "--output", str(other), "--shard-rows", "5"]) == 0
    assert tars_in(other) == first
    assert main([*moved_argv, "--output", str(other), "--shard-rows", "100"]) == 0
    assert sorted(path.name for path in other.iterdir()) == [
        *("00000000.parquet", "00000000.tar", "00000000_stats.json", "README.md", "manifest.json"),
    ]
    capsys.readouterr()
    assert main([*argv, "--output", str(tables.folder)]) == 2
    assert "has files but no manifest.json" in printed(capsys)[1]


def test_parquet_scores_and_delta(tables: Tables, spark: SparkSession) -> None:
    inputs = {"selection": tables.selection, "pairs": tables.pairs}
    folder = tables.folder / "parquet"
    config = {"format": "parquet", "output": str(folder), "shard_rows": 6, **inputs}
    run(spark, ExportConfig.model_validate(config))
    cache = str(tables.folder / "cache")
    train = datasets.load_dataset(str(folder), cache_dir=cache, split="train")
    assert isinstance(train.features["image"], datasets.Image)
    assert train.features["itm"].dtype == "float32"
    assert Counter(train["uid"]) == Counter(tables.repetitions)
    number = int(train[0]["itm"])
    assert train[0]["image"].size == (20 + number, 20)
    raw = train.cast_column("image", datasets.Image(decode=False))
    assert [r["bytes"] for r in raw["image"]] == [tables.images[u] for u in train["uid"]]

    scores = tables.folder / "upstream"
    config = {"format": "upstream-parquet", "scores": tables.scores, "pairs": tables.pairs}
    config |= {"output": str(scores), "scorer": "s1"}
    summary = run(spark, ExportConfig.model_validate(config))
    assert (summary["tars"], summary["files"], summary["rows"], summary["scored"]) == (
        3,
        12,
        15,
        14,
    )
    names = {f"{tar:08d}_{task}.parquet" for tar in range(3) for task in TASKS.values()}
    assert {path.name for path in scores.iterdir()} == names
    frame = pd.read_parquet(scores / "00000000_object_detail_fulfillment.parquet")
    assert frame["uid"].tolist() == [uid(n) for n in range(8)]
    assert frame["width"].tolist() == [20 + n for n in range(8)]
    expected = [None if n == 4 else str(n + 1) for n in range(8)]
    assert frame["object_detail_fulfillment_score"].tolist() == expected
    for wrong in ({"scorer": None}, {"scorer": "s3"}, {"pairs": tables.selection}):
        assert main([w for k, v in (config | wrong).items() if v for w in (f"--{k}", str(v))]) == 2

    output = str(tables.folder / "kept")
    config = {"format": "delta", "output": output, **inputs}
    assert run(spark, ExportConfig.model_validate(config))["rows"] == len(tables.repetitions)
    exported_pairs = delta.read(spark, output).select("uid", "image").collect()
    assert {row["uid"]: bytes(row["image"]) for row in exported_pairs} == {
        u: tables.images[u] for u in tables.repetitions
    }
