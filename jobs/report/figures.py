"""Computes the figures of a report exactly, in four passes over narrow columns of a selection.

`collect` returns the figures that udfs/report/page.py renders:

    rows, scored, kept, repetitions          counts; repetitions is the sum over kept rows
    combine                                  "and", or "or" if any kept row fails a rule
    statuses, reasons                        rows by status, and the most frequent reasons
    rules                                    name, passed (alone), failed_first, left (null for or)
    signals                                  name, rows (with a value), missing, mean, sd, low,
                                             high, thresholds, rows_at_or_above,
                                             bins (from, to, rows, kept)
    correlations                             names, pearson and rows (matrices in that order)

A row is scored if its status says so. NaN counts as missing. Infinities count in thresholds and
bins, but not in means, low, high and correlations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.core.metrics import METRICS
from udfs.report.histogram_bins import Grid, at_or_above, bins, grid

from ..rules.table_statistics import is_scored
from ..tables.delta import quoted
from ..tables.scores import KEYS
from .rule_boundaries import RuleBoundary, boundary_of

MAX_SIGNALS = 10
"""More would make a page that nobody reads, with correlations of every two signals."""

_MAX_REASONS = 10
_NOT_SIGNALS = {*KEYS, "scorer", "keep", "repetitions", "rules", "attempts"}


def value_of(signal: str) -> Column:
    """The signal as a double, null where it is null or NaN."""
    value = F.col(quoted(signal)).cast("double")
    return F.when(~F.isnan(value), value)


def signals_of(schema: T.StructType) -> list[str]:
    """The numeric columns of a selection that describe a pair: metrics first, at most ten."""
    numeric = [
        field.name
        for field in schema
        if isinstance(field.dataType, T.NumericType) and field.name not in _NOT_SIGNALS
    ]
    return sorted(numeric, key=lambda name: name not in METRICS)[:MAX_SIGNALS]


def collect(
    selection: DataFrame, signals: Sequence[str]
) -> tuple[dict[str, Any], list[RuleBoundary]]:
    """The figures and rule boundaries of a selection. Runs Spark jobs; collects no rows."""
    rules = rule_names(selection)
    groups = _groups(selection, rules, signals)
    figures = _row_counts(groups, rules)
    figures["reasons"] = _reasons(selection)
    grids = {
        name: grid(low, high, name in METRICS)
        for name in signals
        if (low := _extreme(min, groups, f"low:{name}")) is not None
        and (high := _extreme(max, groups, f"high:{name}")) is not None
    }
    cells = _cells(selection, grids)
    moments, correlations = _moments(selection, signals)
    figures["signals"] = [
        _signal_figures(name, moments, groups, grids.get(name), cells.get(name)) for name in signals
    ]
    figures["correlations"] = correlations
    boundaries = (boundary_of(rule, rules, groups, signals) for rule in rules)
    return figures, [boundary for boundary in boundaries if boundary]


def rule_names(selection: DataFrame) -> list[str]:
    """The names of the rules of a selection, in their order; none if it has no rows."""
    first = selection.where("rules IS NOT NULL").select(F.map_keys("rules")).first()
    return list(first[0]) if first else []


def _groups(selection: DataFrame, rules: Sequence[str], signals: Sequence[str]) -> list[Row]:
    """One row for each group of rows with the same verdicts: counts, and ranges of the signals."""
    verdicts = [F.coalesce(F.col("rules")[rule], F.lit(False)) for rule in rules]
    repetitions = (
        F.col("repetitions") if "repetitions" in selection.columns else F.col("keep").cast("long")
    )
    columns = [F.count("*").alias("rows"), F.sum(repetitions.cast("long")).alias("repetitions")]
    for name in signals:
        value = value_of(name)
        finite = F.when(F.abs(value) < math.inf, value)
        columns += [
            F.count(value).alias(f"rows:{name}"),
            F.count(finite).alias(f"finite:{name}"),
            F.min(finite).alias(f"low:{name}"),
            F.max(finite).alias(f"high:{name}"),
            F.sum(finite).alias(f"sum:{name}"),
        ]
    by = [
        F.col("status"),
        is_scored().alias("scored"),
        F.coalesce("keep", F.lit(False)).alias("keep"),
        F.col("first_failed_rule"),
        (F.array(*verdicts) if rules else F.array().cast("array<boolean>")).alias("verdicts"),
    ]
    return selection.groupBy(*by).agg(*columns).collect()


def _row_counts(groups: Sequence[Row], rules: Sequence[str]) -> dict[str, Any]:
    rows = sum(group["rows"] for group in groups)
    scored = [group for group in groups if group["scored"]]
    kept_groups = [group for group in groups if group["keep"]]
    combine = "or" if any(not all(group["verdicts"]) for group in kept_groups) else "and"
    rule_counts = []
    left = sum(group["rows"] for group in scored)
    for number, rule in enumerate(rules):
        failed = sum(g["rows"] for g in scored if g["first_failed_rule"] == rule)
        left -= failed
        rule_counts.append(
            {
                "name": rule,
                "passed": sum(g["rows"] for g in scored if g["verdicts"][number]),
                "failed_first": failed,
                "left": left if combine == "and" else None,
            }
        )
    statuses: Counter[str] = Counter()
    for group in groups:
        statuses[group["status"] or "null"] += group["rows"]
    return {
        "rows": rows,
        "scored": sum(group["rows"] for group in scored),
        "kept": sum(group["rows"] for group in kept_groups),
        "repetitions": sum(group["repetitions"] or 0 for group in kept_groups),
        "combine": combine,
        "statuses": [{"status": s, "rows": n} for s, n in _most_frequent_first(statuses)],
        "rules": rule_counts,
    }


def _most_frequent_first(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))


def _reasons(selection: DataFrame) -> list[dict[str, Any]]:
    reason = F.substring("reason", 1, 200).alias("reason")
    status = F.coalesce("status", F.lit("null")).alias("status")
    counted = (
        selection.where("reason IS NOT NULL")
        .groupBy(status, reason)
        .agg(F.count("*").alias("rows"))
    )
    most = counted.orderBy(F.desc("rows"), "status", "reason").limit(_MAX_REASONS)
    return [row.asDict() for row in most.collect()]


def _extreme(min_or_max: Any, groups: Sequence[Row], column: str) -> float | None:
    values = [g[column] for g in groups if g["scored"] and g[column] is not None]
    return min_or_max(values) if values else None


def _cells(selection: DataFrame, grids: dict[str, Grid]) -> dict[str, tuple[list[int], list[int]]]:
    """Rows in each cell of each grid, all and kept. Values below a grid (-infinity) are ignored."""
    if not grids:
        return {}
    names = list(grids)
    keep = F.coalesce("keep", F.lit(False)).alias("keep")
    structs = [
        F.struct(F.lit(number).alias("signal"), cell(value_of(name), grids[name]).alias("cell"))
        for number, name in enumerate(names)
    ]
    exploded = selection.where(is_scored()).select(keep, F.explode(F.array(*structs)).alias("at"))
    counted = exploded.where("at.cell >= 0").groupBy("at.signal", "at.cell", "keep").count()
    cells = {name: ([0] * len(g.thresholds), [0] * len(g.thresholds)) for name, g in grids.items()}
    for signal, index, is_kept, rows in counted.collect():
        all_rows, kept_rows = cells[names[signal]]
        all_rows[index] += rows
        kept_rows[index] += rows if is_kept else 0
    return cells


def cell(value: Column, grid: Grid) -> Column:
    """The cell of a value: the index of the last threshold at or below it, -1 below all of them.

    Exact: a division gives a first guess, which rounding may put one cell off; it is corrected by
    comparing with the thresholds. Null for null.
    """
    first, last = grid.thresholds[0], grid.thresholds[-1]
    if first == last:
        return F.when(value.isNotNull(), F.when(value >= first, 0).otherwise(-1))
    thresholds = F.lit(list(grid.thresholds))
    clamped = F.least(F.greatest(value, F.lit(first)), F.lit(last))
    scale = 1.0 if math.isfinite(last - first) else 0.5  # so that the difference cannot overflow
    steps = (clamped * scale - F.lit(first * scale)) / F.lit(grid.step * scale)
    guess = F.floor(F.least(steps, F.lit(len(grid.thresholds) - 1.0))).cast("int")
    above = F.when(F.get(thresholds, guess + 1) <= value, 1).otherwise(0)
    below = F.when(F.get(thresholds, guess) > value, 1).otherwise(0)
    return F.when(value.isNotNull(), guess + above - below)


def _moments(selection: DataFrame, signals: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mean and standard deviation of each signal, and Pearson's correlation of each two."""
    values = {name: value_of(name) for name in signals}
    finite = selection.where(is_scored()).select(
        *(F.when(F.abs(v) < math.inf, v).alias(f"v{n}") for n, v in enumerate(values.values()))
    )
    aggregates = [F.count("*").alias("rows")]
    for n in range(len(signals)):
        aggregates += [F.mean(f"v{n}").alias(f"mean{n}"), F.stddev_samp(f"v{n}").alias(f"sd{n}")]
    pairs = list(combinations(range(len(signals)), 2))
    for a, b in pairs:
        both = F.col(f"v{a}").isNotNull() & F.col(f"v{b}").isNotNull()
        pearson_r = F.corr(f"v{a}", f"v{b}").alias(f"r{a},{b}")
        aggregates += [pearson_r, F.count_if(both).alias(f"n{a},{b}")]
    (row,) = finite.agg(*aggregates).collect()
    moments = {
        name: {"mean": row[f"mean{n}"], "sd": _finite(row[f"sd{n}"])}
        for n, name in enumerate(signals)
    }
    size = range(len(signals))
    pearson: list[list[float | None]] = [[None] * len(signals) for _ in size]
    rows = [[0] * len(signals) for _ in size]
    for a, b in pairs:
        pearson[a][b] = pearson[b][a] = _finite(row[f"r{a},{b}"])
        rows[a][b] = rows[b][a] = row[f"n{a},{b}"]
    return moments, {"names": list(signals), "pearson": pearson, "rows": rows}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _signal_figures(
    name: str,
    moments: dict[str, Any],
    groups: Sequence[Row],
    grid: Grid | None,
    cells: tuple[list[int], list[int]] | None,
) -> dict[str, Any]:
    scored = [group for group in groups if group["scored"]]
    rows = sum(group[f"rows:{name}"] for group in scored)
    figures = {
        "name": name,
        "rows": rows,
        "missing": sum(group["rows"] for group in scored) - rows,
        **moments[name],
        "low": _extreme(min, groups, f"low:{name}"),
        "high": _extreme(max, groups, f"high:{name}"),
    }
    if grid is None or cells is None:
        return figures | {"thresholds": [], "rows_at_or_above": [], "bins": []}
    return figures | {
        "thresholds": list(grid.thresholds),
        "rows_at_or_above": at_or_above(cells[0]),
        "bins": [
            {"from": b.low, "to": b.high, "rows": b.rows, "kept": b.kept}
            for b in bins(grid, *cells)
        ],
    }
