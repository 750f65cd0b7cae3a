"""The filter job on real tables: exact cuts, reasons, funnel, copies, exit codes."""

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from jobs import rules_spark, tables
from jobs.errors import UsageError
from jobs.filter import FilterConfig, main
from jobs.rules import Best, Rule, parse_rule
from jobs.rules_spark import find_cuts, judge

pytestmark = pytest.mark.spark

METRICS = ("itm", "odf", "ctq", "su")
SCORES = (
    "uid string, scorer string, image_sha string, caption_sha string, copy int, itm float,"
    " odf float, ctq float, su float, itm_mode int, status string, reason string, scored_at timestamp"
)


def row(uid: str | None, *scores: float | None, status: str = "ok", **other: Any) -> dict[str, Any]:
    """A row of a scores table; the scores are itm, odf, ctq, su, as many as are given."""
    values = dict(zip(METRICS, [*scores, *[None] * 4][:4], strict=True))
    return {
        "uid": uid,
        "scorer": "s1",
        "image_sha": sha(f"image {uid}".encode()),
        "caption_sha": sha(f"caption {uid}".encode()),
        "copy": 0,
        **values,
        "itm_mode": None if values["itm"] is None else 50,
        "status": status,
        "reason": None if status == "ok" else f"why {status}",
        "scored_at": datetime(2025, 1, 31),
        **other,
    }


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


Write = Callable[..., str]


@pytest.fixture
def write(spark: SparkSession, tmp_path: Path) -> Write:
    """write(name, rows, schema) -> path of a Delta table."""

    def written(name: str, rows: list[dict[str, Any]], schema: str = SCORES) -> str:
        path = str(tmp_path / name)
        tables.overwrite(spark.createDataFrame(rows, schema), path)
        return path

    return written


# --- cuts -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    rule: Rule
    values: list[float | None]


def adversarial(rng: random.Random, rows: int) -> list[float | None]:
    """Scores with ties, nulls, NaN, both zeros, infinities, neighbours one bit apart."""
    pools: list[list[float | None]] = [
        [0.0, -0.0, 1.0],
        [50.0],
        [math.inf, -math.inf, 0.0, 5e-324, 1e308, -1e308],
        [math.nextafter(66, 67), 66.0, math.nextafter(66, 65)],
        [float(value) for value in range(101)],
        [rng.uniform(0, 100) for _ in range(rows)],
        [1e9 + rng.random() * 1e-6 for _ in range(5)] + [0.0],
    ]
    pool = rng.choice(pools) + rng.choice([[], [None], [math.nan], [None, math.nan], [None] * 50])
    return [rng.choice(pool) for _ in range(rows)]


def cases(rng: random.Random, tables_: int, rows: int) -> list[Case]:
    made = []
    for number in range(tables_):
        amount = rng.choice(
            [f"{rng.randint(0, 100)}%", f"{rng.uniform(0, 100):.3f}%", str(rng.randint(0, rows))]
        )
        text = f"{rng.choice(['top', 'bottom'])} {amount} of m{number}"
        made.append(Case(parse_rule(text), adversarial(rng, rows)))
    return made


def brute_force(case: Case, keys: list[Row], takes_part: list[bool]) -> set[str]:
    """What a best fraction keeps, by sorting everything."""
    best = case.rule.condition
    assert isinstance(best, Best)
    sign = -1 if best.direction == "top" else 1
    ranked = sorted(
        (sign * value, *key[:2], key["uid"])
        for key, value, included in zip(keys, case.values, takes_part, strict=True)
        if included and value is not None and not math.isnan(value)
    )
    amount = Fraction(best.amount)
    k = len(ranked) * amount // 100 if best.percent else amount
    return {uid for *_, uid in ranked[: int(k)]}


@pytest.mark.parametrize("collected_rows", [100_000, 5])
def test_best_fraction_equals_brute_force(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, collected_rows: int
) -> None:
    """Many random tables side by side, as columns of one."""
    monkeypatch.setattr(rules_spark, "COLLECTED_ROWS", collected_rows)  # 5: bracket by quantiles
    rng = random.Random(collected_rows)
    rows = 120
    many = cases(rng, 16, rows)
    takes_part = [rng.random() < 0.9 for _ in range(rows)]
    uids = [f"uid-{number}" for number in range(rows)]
    fields = {f"m{number}": case.values for number, case in enumerate(many)}
    data = [
        (uid, "i", "c", 0, "ok" if included else "bad_image", None, *values)
        for uid, included, *values in zip(uids, takes_part, *fields.values(), strict=True)
    ]
    schema = "uid string, image_sha string, caption_sha string, copy int, status string, reason string"
    schema += "".join(f", {name} double" for name in fields)
    scores = spark.createDataFrame(data, schema).coalesce(2)
    rules = [case.rule for case in many]
    cuts = find_cuts(scores, rules)
    judged = judge(scores, rules, cuts, "and").select("uid", "rules").collect()
    keys = spark.createDataFrame([(u,) for u in uids], "uid string")
    hashed = keys.select(F.xxhash64("uid"), "uid").collect()
    for case in many:
        kept = {row["uid"] for row in judged if row["rules"][case.rule.name]}
        assert kept == brute_force(case, hashed, takes_part), case.rule.text
        (best,) = case.rule.bests()
        assert cuts[best].taken == len(kept)
