"""Rows of scores and pairs tables for the tests of the filter job, written as Delta tables."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.tables import delta

METRICS = ("itm", "odf", "ctq", "su")
SCORES = (
    "uid string, scorer string, image_sha string, caption_sha string, copy int,"
    " itm float, odf float, ctq float, su float, clip_score float, itm_mode int,"
    " status string, reason string, scored_at timestamp"
)


def row(uid: str | None, *scores: float | None, status: str = "ok", **other: Any) -> dict[str, Any]:
    """A row of a scores table; `scores` are itm, odf, ctq, su, and those not given are null."""
    values = dict(zip(METRICS, [*scores, *[None] * 4][:4], strict=True))
    return {
        "uid": uid,
        "scorer": "s1",
        "image_sha": sha(f"image {uid}".encode()),
        "caption_sha": sha(f"caption {uid}".encode()),
        "copy": 0,
        **values,
        "clip_score": None,
        "itm_mode": None if values["itm"] is None else 50,
        "status": status,
        "reason": None if status == "ok" else f"why {status}",
        "scored_at": datetime(2025, 1, 31),
        **other,
    }


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


UNSCORED = [row("bad", status="bad_image"), row(None, status="null_uid")]
FUNNEL = [
    row("best", 90.0, 90.0),
    row("cut", 80.0, 80.0, status="caption_truncated"),
    row("dull", 70.0, 10.0),
    row("wrong", 10.0, 95.0),
    row("unsure", 75.0, None),
    *UNSCORED,
]
PAIRS = "uid string, image binary, caption string, source_path string, itm string"


def pair(uid: str, **other: Any) -> dict[str, Any]:
    image, caption = f"image {uid}".encode(), f"caption {uid}"
    fields = {"uid": uid, "image": image, "caption": caption, "source_path": "p", "itm": "old"}
    return fields | other


Write = Callable[..., str]


def writer(spark: SparkSession, folder: Path) -> Write:
    """write(name, rows, schema) -> path of a Delta table in `folder`."""

    def write(name: str, rows: list[dict[str, Any]], schema: str = SCORES) -> str:
        path = str(folder / name)
        delta.overwrite(spark.createDataFrame(rows, schema), path)
        return path

    return write


def summary(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The JSON line that the job printed last."""
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line
