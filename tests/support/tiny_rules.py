"""Small tables of scored rows for the tests of rules, and the rows that rules keep of them."""

from collections.abc import Iterable, Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from jobs.filter import joined_signals
from jobs.rules.apply import compute_statistics, judge
from jobs.rules.rule import Rule, parse_rule

KEY = "uid string, image_sha string, caption_sha string, copy int, status string, reason string"


def table(spark: SparkSession, columns: str, rows: Iterable[Sequence[Any]]) -> DataFrame:
    """Scored rows: uid, and the given columns. A uid that ends in `!` was not scored."""
    keyed = [
        (uid, "i", "c", 0, "bad_image" if uid[-1] == "!" else "ok", None, *values)
        for uid, *values in rows
    ]
    return spark.createDataFrame(keyed, f"{KEY}, {columns}")


def bound_rules(frame: DataFrame, texts: Iterable[str]) -> list[Rule]:
    """The rules, parsed and bound to the columns of the frame."""
    columns = joined_signals.named_columns(frame, "scores")
    return [parse_rule(text).on_columns(columns) for text in texts]


def passing_uids(frame: DataFrame, rules: Sequence[Rule]) -> dict[str, set[str]]:
    """The uids that pass each rule, by its name. Judges the table once."""
    prepared, statistics = compute_statistics(frame, rules)
    judged = judge(prepared, rules, statistics).select("uid", "rules").collect()
    statistics.release()
    return {rule.name: {r["uid"] for r in judged if r["rules"][rule.name]} for rule in rules}
