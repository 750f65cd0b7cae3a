"""What rules mean on tables, against plain Python that sorts everything."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession
from tiny_rules import bound_rules, passing_uids, table

from jobs.core.errors import UsageError
from jobs.filter import joined_signals
from jobs.rules.apply import compute_statistics, judge
from jobs.rules.rule import Repetition, parse_repetition

pytestmark = pytest.mark.spark


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
    rules = bound_rules(scores, meanings)
    found = passing_uids(scores, rules)
    for rule, uids in zip(rules, meanings.values(), strict=True):
        assert found[rule.name] == set(uids.split()), rule.text

    rules = bound_rules(scores, ["a >= 2 and n > -9", "a / n > 0 or l is null", "d"])
    judged = judge(scores, rules, compute_statistics(scores, rules)[1]).collect()
    verdicts = {row["uid"]: (row["first_failed_rule"], row["reason"]) for row in judged}
    assert verdicts == {
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
    rules = bound_rules(scores, ["v >= 0"])
    columns = joined_signals.named_columns(scores, "scores")

    def times(*texts: str) -> list[Row]:
        repeats: list[Repetition] = [parse_repetition(t).on_columns(columns) for t in texts]
        frame, statistics = compute_statistics(scores, [*rules, *repeats])
        judged = (
            judge(frame, rules, statistics, "and", repeats).orderBy("v").select("repetitions", "v")
        )
        found = judged.collect()
        statistics.release()
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
    refused: Callable[[str], Any] = lambda text: passing_uids(scores, bound_rules(scores, [text]))  # noqa: E731
    assert passing_uids(scores, bound_rules(scores, ["v > 0"])) == {
        "v > 0": {"a", "b"}
    }  # no order needed
    for text in ("top 2 of v", "top 2 of v per g", "rank(v) > 0", "top 1 of v, at least 2 per g"):
        with pytest.raises(UsageError, match="the same scored row more than once .uid 'a'"):
            refused(text)
