"""What rules mean on tables, against plain Python that sorts everything."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from jobs.core.errors import UsageError
from jobs.filter import joined_signals
from jobs.rules import thresholds
from jobs.rules.apply import answer, judge
from jobs.rules.rule import Repetition, Rule, parse_repetition, parse_rule
from jobs.rules.syntax_tree import Best, Datacomp, Signal

pytestmark = pytest.mark.spark

KEY = "uid string, image_sha string, caption_sha string, copy int, status string, reason string"


def table(spark: SparkSession, columns: str, rows: Iterable[Sequence[Any]]) -> DataFrame:
    """Scored rows: uid, and the given columns. A uid that ends in `!` was not scored."""
    keyed = [
        (uid, "i", "c", 0, "bad_image" if uid[-1] == "!" else "ok", None, *values)
        for uid, *values in rows
    ]
    return spark.createDataFrame(keyed, f"{KEY}, {columns}")


def bound(frame: DataFrame, texts: Iterable[str]) -> list[Rule]:
    places = joined_signals.places_of(frame, "scores")
    return [parse_rule(text).on_columns(places) for text in texts]


def kept(frame: DataFrame, rules: Sequence[Rule]) -> dict[str, set[str]]:
    """The uids that pass each rule. Judges the table once."""
    prepared, answers = answer(frame, rules)
    judged = judge(prepared, rules, answers).select("uid", "rules").collect()
    answers.release()
    return {rule.name: {r["uid"] for r in judged if r["rules"][rule.name]} for rule in rules}


# --- against plain Python ---------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """A scored row with a value, in plain Python."""

    uid: str
    value: float
    hash: int
    groups: tuple[str | None, ...]

    def place(self, direction: str) -> tuple[float, int, str]:
        """The smaller the better."""
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


def best_of(best: Best, rows: Sequence[Known]) -> set[str]:
    """The best fraction of rows of one group."""
    ordered = sorted(rows, key=lambda row: row.place(best.direction))
    amount = Fraction(best.amount)
    k = len(ordered) * amount // 100 if best.percent else amount
    return {row.uid for row in ordered[: int(k)]}


def brute_force(best: Best, rows: Sequence[Known], columns: Sequence[str]) -> set[str]:
    """What a best fraction keeps, quotas and minima included, by sorting everything."""

    def grouped(signals: Sequence[Signal]) -> Iterable[list[Known]]:
        groups: dict[tuple[str | None, ...], list[Known]] = defaultdict(list)
        for row in rows:
            groups[tuple(row.groups[columns.index(s.name)] for s in signals)].append(row)
        return groups.values()

    taken = set().union(*(best_of(best, g) for g in grouped(best.per)))
    for group in grouped(best.at_least_per) if best.at_least else ():
        left_out = [row for row in group if row.uid not in taken]
        left_out.sort(key=lambda row: row.place(best.direction))
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
    """Random tables side by side, as columns of one."""
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
    rules = bound(scores, texts)
    found = kept(scores, rules)
    hashed = hashes(spark, uids)
    for rule, column in zip(rules, values, strict=True):
        (best,) = rule.bests()
        assert isinstance(best, Best)
        known = [
            Known(uid, value, h, ())
            for uid, value, h in zip(uids, column, hashed, strict=True)
            if uid[-1] != "!" and value is not None and not math.isnan(value)
        ]
        assert found[rule.name] == brute_force(best, known, ()), rule.text


def test_200_tables_equal_brute_force_however_they_are_partitioned(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random tables one above the other, as groups of one: quotas, minima, the whole, ranks."""
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
    rules = bound(scores, [*texts, "rank(v) >= 0.93", "rank(v) > 2"])
    shuffled = scores.repartition(7, F.rand(1)).sortWithinPartitions(F.rand(2))
    one, other = (kept(frame, rules) for frame in (scores.coalesce(1), shuffled))
    assert one == other
    known = [
        Known(uid, value, h, (t, g))
        for (uid, t, g, value), h in zip(rows, hashes(spark, [r[0] for r in rows]), strict=True)
        if uid[-1] != "!" and value is not None and not math.isnan(value)
    ]
    for rule in rules[: len(texts)]:
        (best,) = rule.bests()
        assert isinstance(best, Best)
        assert one[rule.name] == brute_force(best, known, ("t", "g")), rule.text
    assert one["rank(v) >= 0.93"] == one["top 7% of v"]

    prepared, answers = answer(shuffled, rules[-2:])
    (rank,) = answers.ranks.values()
    found = {row["uid"]: row[rank] for row in prepared.select("uid", rank).collect()}
    answers.release()
    ordered = sorted(known, key=lambda row: row.place("top"), reverse=True)
    expected = {row.uid: worse / len(ordered) for worse, row in enumerate(ordered)}
    assert found == {uid: expected.get(uid) for uid, *_ in rows}


def datacomp_keeps(values: np.ndarray[Any, Any], fraction: float) -> np.ndarray[Any, Any]:
    """DataComp's rule, transcribed: which rows are kept."""
    threshold = -np.sort(-values)[int(len(values) * fraction)]
    kept_rows: np.ndarray[Any, Any] = values >= threshold
    return kept_rows


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
    listed = (  # null is NaN to them
        [None if np.isnan(x) and n % 2 else float(x) for n, x in enumerate(column)]
        for column in columns.values()
    )
    scores = table(spark, fields, zip(map(str, range(rows)), *listed, strict=True))
    rules = bound(scores, [f"datacomp {share} of {name}" for share in shares for name in columns])
    found = kept(scores, rules)
    for rule in rules:
        (best,) = rule.bests()
        assert isinstance(best, Datacomp)
        share, name = rule.text.split("%")[0].split()[1], rule.text[-1]
        passing = np.flatnonzero(datacomp_keeps(columns[name], float(Fraction(share) / 100)))
        assert found[rule.name] == set(map(str, passing)), rule.text


# --- one row at a time ------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


def test_meaning_of_each_condition(spark: SparkSession) -> None:
    scores = table(
        spark,
        "a double, b float, n long, l string, d boolean",
        [
            ("null", None, 9.0, 3, "en", True),
            ("nan", NAN, 9.0, 0, "de", False),
            ("low", 1.0, None, -2, None, None),
            ("high", 3.0, 66.1, 2, "e%", False),
            ("inf", INF, -INF, 0, "EN", True),
            ("out!", 3.0, 66.1, 2, "en", True),
        ],
    )
    meanings = {
        "a >= 2": "high inf",
        "NOT a >= 2": "low",
        "a != 1": "high inf",
        "a >= 2 or b > 0": "null nan high inf",
        "a >= 2 and b > 0": "high",
        "NOT (a >= 2 or b > 0)": "",
        "NOT (a >= 2 and n >= 0)": "low",
        "NOT top 50% of a": "low high",
        "top 1 of a or l = 'de'": "nan inf",
        "a is null": "null nan",
        "a is not null and b is null": "low",
        "a is null or a >= 2": "null nan high inf",
        "coalesce(a, b) > 5": "null nan inf",
        "b = 66.1": "",
        "b > 66.09 and b < 66.1": "high",
        "a > n": "low high inf",
        "a between 1 and 3": "low high",
        "a not between 1 and 3": "inf",
        "a / n >= 0 or a / n < 0": "low high",
        "a / n is null": "null nan inf",
        "a + b is null": "null nan low inf",
        "log(n) = 0 or log(n) > 0": "null high",
        "sqrt(n) >= 0": "null nan high inf",
        "least(a, n) <= 2": "low high inf",
        "greatest(a, b) > 0 ": "high inf",
        "-n * 2 - 1 = 3": "low",
        "abs(n) = 2": "low high",
        "n in (0, 3, -2.0)": "null nan low inf",
        "n not in (0, 3)": "low high",
        "l = 'en'": "null",
        "l != 'en'": "nan high inf",
        "l in ('en', 'de')": "null nan",
        "l like 'e_' and l not like '%\\%'": "null",
        "d": "null inf",
        "NOT d": "nan high",
        "d = false or coalesce(d, true)": "null nan low high inf",
        "d = (a > 2)": "inf",
        "a >= quantile(a, 0.5)": "high inf",
        "n > quantile(n, 0.6) ": "null high",
        "rank(n) >= 0.8 or rank(n) < 0.2": "null low",
        "top 1 of rank(n) - rank(a)": "high",
        "top 1 of b per d": "null high",
    }
    rules = bound(scores, meanings)
    found = kept(scores, rules)
    for rule, uids in zip(rules, meanings.values(), strict=True):
        assert found[rule.name] == set(uids.split()), rule.text

    rules = bound(scores, ["a >= 2 and n > -9", "a / n > 0 or l is null", "d"])
    judged = judge(scores, rules, answer(scores, rules)[1]).collect()
    fates = {row["uid"]: (row["first_failed_rule"], row["reason"]) for row in judged}
    assert fates == {
        "null": ("a >= 2 AND n > -9", "no value of a"),
        "nan": ("a >= 2 AND n > -9", "no value of a"),
        "low": ("a >= 2 AND n > -9", None),
        "high": ("d", None),
        "inf": ("a / n > 0 OR l is null", "no result of a / n > 0 OR l is null"),
        "out!": ("status:bad_image", None),
    }


def test_repetitions_keep_their_mean_and_their_bounds(spark: SparkSession) -> None:
    rows = 20_000
    scores = table(spark, "v double", [(f"u{n}", n / rows) for n in range(rows)])
    rules = bound(scores, ["v >= 0"])
    places = joined_signals.places_of(scores, "scores")

    def times(*texts: str) -> list[Row]:
        repeats: list[Repetition] = [parse_repetition(t).on_columns(places) for t in texts]
        frame, answers = answer(scores, [*rules, *repeats])
        judged = (
            judge(frame, rules, answers, "and", repeats).orderBy("v").select("repetitions", "v")
        )
        found = judged.collect()
        answers.release()
        return found

    found = [row[0] for row in times("1 + 2 * v")]
    assert abs(sum(found) / rows - 2.0) < 0.01
    assert all(
        n - (1 + 2 * i / rows) > -1 and n - (1 + 2 * i / rows) < 1 for i, n in enumerate(found)
    )
    found = [row[0] for row in times("3 where v >= 0.5", "2 where v >= 0.9", "1/0 where v > 0")]
    assert found == [1] * (rows // 2) + [3] * (rows // 2)
    found = [row[0] for row in times("-5", "8 * rank(v), at most 4")]
    assert (found[0], found[-1], max(found)) == (1, 4, 4)
    assert [row[0] for row in times("1/v/v, at most 99999")][:1] == [1]  # 1/0: not known


def test_rows_that_cannot_be_told_apart_are_refused(spark: SparkSession) -> None:
    scores = table(spark, "v double, g string", [("a", 1.0, "x"), ("a", 1.0, "x"), ("b", 2.0, "x")])
    refused: Callable[[str], Any] = lambda text: kept(scores, bound(scores, [text]))  # noqa: E731
    assert kept(scores, bound(scores, ["v > 0"])) == {"v > 0": {"a", "b"}}  # no order needed
    for text in ("top 2 of v", "top 2 of v per g", "rank(v) > 0", "top 1 of v, at least 2 per g"):
        with pytest.raises(UsageError, match="the same scored row more than once .uid 'a'"):
            refused(text)
