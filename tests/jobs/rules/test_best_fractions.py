"""Best fractions, quotas, quantiles and ranks, against plain Python that sorts everything."""

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from tiny_rules import bound_rules, passing_uids, table

from jobs.rules import thresholds
from jobs.rules.apply import compute_statistics
from jobs.rules.syntax_tree import Best, Datacomp, Signal

pytestmark = pytest.mark.spark


@dataclass(frozen=True)
class ScoredRow:
    """A scored row with a value, in plain Python."""

    uid: str
    value: float
    hash: int
    groups: tuple[str | None, ...]

    def sort_key(self, direction: str) -> tuple[float, int, str]:
        """Orders rows, best first."""
        return (-self.value if direction == "top" else self.value, self.hash, self.uid)


def adversarial(rng: random.Random, rows: int) -> list[float | None]:
    """Scores with ties, nulls, NaN, both zeros, infinities, neighbours one bit apart."""
    pools: list[list[float | None]] = [
        [0.0, -0.0, 1.0],
        [50.0],
        [math.inf, -math.inf, 0.0, 5e-324, 1e308, -1e308],
        [math.nextafter(66, 67), 66.0, math.nextafter(66, 65)],
        [float(value) for value in range(101)],
        [rng.uniform(0, 100) for _ in range(rows)],
        [0.0, *(1e9 + rng.random() * 1e-6 for _ in range(5))],
    ]
    holes: list[list[float | None]] = [[], [None], [math.nan], [None, math.nan], [None] * 50]
    pool = rng.choice(pools) + rng.choice(holes)
    return [rng.choice(pool) for _ in range(rows)]


def best_of(best: Best, rows: Sequence[ScoredRow]) -> set[str]:
    """The best fraction of rows of one group."""
    ordered = sorted(rows, key=lambda row: row.sort_key(best.direction))
    amount = Fraction(best.amount)
    k = len(ordered) * amount // 100 if best.percent else amount
    return {row.uid for row in ordered[: int(k)]}


def brute_force(best: Best, rows: Sequence[ScoredRow], columns: Sequence[str]) -> set[str]:
    """What a best fraction keeps, quotas and minima included, by sorting everything."""

    def grouped(signals: Sequence[Signal]) -> Iterable[list[ScoredRow]]:
        groups: dict[tuple[str | None, ...], list[ScoredRow]] = defaultdict(list)
        for row in rows:
            groups[tuple(row.groups[columns.index(s.name)] for s in signals)].append(row)
        return groups.values()

    taken = set().union(*(best_of(best, g) for g in grouped(best.per)))
    for group in grouped(best.at_least_per) if best.at_least else ():
        left_out = [row for row in group if row.uid not in taken]
        left_out.sort(key=lambda row: row.sort_key(best.direction))
        missing = best.at_least - (len(group) - len(left_out))
        taken |= {row.uid for row in left_out[: max(0, missing)]}
    return taken


def hashes(spark: SparkSession, uids: Sequence[str]) -> list[int]:
    frame = spark.createDataFrame([(n, uid) for n, uid in enumerate(uids)], "n int, uid string")
    return [row[0] for row in frame.orderBy("n").select(F.xxhash64("uid")).collect()]


@pytest.mark.parametrize("collected_rows", [100_000, 5])
def test_best_fraction_equals_brute_force(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, collected_rows: int
) -> None:
    """Random tables side by side, as the columns of one."""
    monkeypatch.setattr(thresholds, "COLLECTED_ROWS", collected_rows)  # 5: bracket by quantiles
    rng = random.Random(collected_rows)
    rows, tables = 120, 16
    uids = [f"uid-{number}" + "!" * (rng.random() < 0.1) for number in range(rows)]
    values = [adversarial(rng, rows) for _ in range(tables)]
    fields = ", ".join(f"m{number} double" for number in range(tables))
    scores = table(spark, fields, zip(uids, *values, strict=True)).coalesce(2)
    texts = []
    for number in range(tables):
        shares = [
            f"{rng.randint(0, 100)}%",
            f"{rng.uniform(0, 100):.3f}%",
            f"{rng.randint(0, rows)}",
        ]
        texts.append(f"{rng.choice(['top', 'bottom'])} {rng.choice(shares)} of m{number}")
    rules = bound_rules(scores, texts)
    found = passing_uids(scores, rules)
    hashed = hashes(spark, uids)
    for rule, column in zip(rules, values, strict=True):
        (best,) = rule.bests()
        assert isinstance(best, Best)
        scored_rows = [
            ScoredRow(uid, value, h, ())
            for uid, value, h in zip(uids, column, hashed, strict=True)
            if uid[-1] != "!" and value is not None and not math.isnan(value)
        ]
        assert found[rule.name] == brute_force(best, scored_rows, ()), rule.text


@pytest.mark.long
def test_200_tables_equal_brute_force_however_they_are_partitioned(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 random tables as the groups of one: quotas, minima, whole-table fractions, ranks."""
    monkeypatch.setattr(thresholds, "COLLECTED_ROWS", 50)
    rng = random.Random(200)
    rows: list[tuple[str, str | None, str | None, float | None]] = []
    for number in range(200):
        for value in adversarial(rng, rng.choice([1, 2, 10, 40])):
            uid = f"u{len(rows)}" + "!" * (rng.random() < 0.05)
            rows.append((uid, str(number) if number else None, rng.choice(["a", "b", None]), value))
    scores = table(spark, "t string, g string, v double", rows)
    texts = [
        "top 30% of v per t",
        "bottom 33.333% of v per t",
        "top 3 of v per t, g",
        "bottom 50% of v per t, at least 2 per t, g",
        "top 7% of v, at least 4 per t",
        "top 7% of v",
        "bottom 1000 of v, at least 700 per g",
        "top 0 of v per t",
        "top 100% of v per t",
    ]
    rules = bound_rules(scores, [*texts, "rank(v) >= 0.93", "rank(v) > 2"])
    shuffled = scores.repartition(7, F.rand(1)).sortWithinPartitions(F.rand(2))
    found, found_shuffled = (passing_uids(frame, rules) for frame in (scores.coalesce(1), shuffled))
    assert found == found_shuffled
    scored_rows = [
        ScoredRow(uid, value, h, (t, g))
        for (uid, t, g, value), h in zip(rows, hashes(spark, [r[0] for r in rows]), strict=True)
        if uid[-1] != "!" and value is not None and not math.isnan(value)
    ]
    for rule in rules[: len(texts)]:
        (best,) = rule.bests()
        assert isinstance(best, Best)
        assert found[rule.name] == brute_force(best, scored_rows, ("t", "g")), rule.text
    assert found["rank(v) >= 0.93"] == found["top 7% of v"]

    prepared, statistics = compute_statistics(shuffled, rules[-2:])
    (rank,) = statistics.ranks.values()
    ranks = {row["uid"]: row[rank] for row in prepared.select("uid", rank).collect()}
    statistics.release()
    ordered = sorted(scored_rows, key=lambda row: row.sort_key("top"), reverse=True)
    expected = {row.uid: worse / len(ordered) for worse, row in enumerate(ordered)}
    assert ranks == {uid: expected.get(uid) for uid, *_ in rows}


def datacomp_keeps(values: np.ndarray[Any, Any], fraction: float) -> np.ndarray[Any, Any]:
    """Which rows are kept by a copy of DataComp's own code."""
    threshold = -np.sort(-values)[int(len(values) * fraction)]
    passing: np.ndarray[Any, Any] = values >= threshold
    return passing


def test_datacomp_threshold_is_theirs_bit_for_bit(spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    rows = 107
    columns = {
        "a": rng.normal(0.2, 0.05, rows).astype("float32"),
        "b": rng.integers(0, 4, rows).astype("float32") / np.float32(10),
        "c": np.where(rng.random(rows) < 0.5, np.nan, rng.random(rows)).astype("float32"),
        "d": rng.choice(np.array([0.0, -0.0, np.inf, -np.inf, 0.1], "float32"), rows),
    }
    shares = ["0%", "30%", "29%", "66.6%", "99.9%"]
    fields = ", ".join(f"{name} float" for name in columns)
    listed = (  # DataComp reads null as NaN
        [None if np.isnan(x) and n % 2 else float(x) for n, x in enumerate(column)]
        for column in columns.values()
    )
    scores = table(spark, fields, zip(map(str, range(rows)), *listed, strict=True))
    rules = bound_rules(
        scores, [f"datacomp {share} of {name}" for share in shares for name in columns]
    )
    found = passing_uids(scores, rules)
    for rule in rules:
        (best,) = rule.bests()
        assert isinstance(best, Datacomp)
        share, name = rule.text.split("%")[0].split()[1], rule.text[-1]
        passing = np.flatnonzero(datacomp_keeps(columns[name], float(Fraction(share) / 100)))
        assert found[rule.name] == set(map(str, passing)), rule.text
