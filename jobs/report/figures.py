"""What a report counts of a selection, all of it exactly, in four passes over narrow columns.

`collect` gives the figures that udfs/report/page.py renders:

    rows, scored, kept, repetitions          how many; repetitions is the sum over kept rows
    combine                                  "and", or "or" where a kept row fails a rule
    statuses, reasons                        rows by status, and the most frequent reasons
    rules                                    name, passed (alone), failed_first, left (null for or)
    signals                                  name, rows (with a value), missing, mean, sd, low,
                                             high, thresholds, rows_at_or_above,
                                             bins (from, to, rows, kept)
    correlations                             names, pearson and rows (matrices in that order)

A row is scored where its status says so. NaN counts as no value; infinities count at thresholds
and in bins, not in means, ends and correlations.
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
from .rule_boundaries import Line, line_of

MOST_SIGNALS = 10
"""More would make a page that nobody reads, and correlations of all with all."""

_MOST_REASONS = 10
_NOT_SIGNALS = {*KEYS, "scorer", "keep", "repetitions", "rules", "attempts"}


def value_of(signal: str) -> Column:
    """The signal as a double, null where it is null or NaN."""
    value = F.col(quoted(signal)).cast("double")
    return F.when(~F.isnan(value), value)


def signals_of(schema: T.StructType) -> list[str]:
    """The numeric columns of a selection that tell of a pair: metrics first, at most ten."""
    found = [
        field.name
        for field in schema
        if isinstance(field.dataType, T.NumericType) and field.name not in _NOT_SIGNALS
    ]
    return sorted(found, key=lambda name: name not in METRICS)[:MOST_SIGNALS]


def collect(selection: DataFrame, signals: Sequence[str]) -> tuple[dict[str, Any], list[Line]]:
    """The figures of a selection, and each rule's line. Runs Spark jobs; collects no rows."""
    rules = rule_names(selection)
    groups = _groups(selection, rules, signals)
    figures = _fates(groups, rules)
    figures["reasons"] = _reasons(selection)
    grids = {
        name: grid(low, high, name in METRICS)
        for name in signals
        if (low := _extreme(min, groups, f"low:{name}")) is not None
        and (high := _extreme(max, groups, f"high:{name}")) is not None
    }
    cells = _cells(selection, grids)
    about, correlations = _moments(selection, signals)
    figures["signals"] = [
        _signal(name, about, groups, grids.get(name), cells.get(name)) for name in signals
    ]
    figures["correlations"] = correlations
    return figures, [line for rule in rules if (line := line_of(rule, rules, groups, signals))]


def rule_names(selection: DataFrame) -> list[str]:
    """The rules behind a selection in their order; none where it has no rows."""
    first = selection.where("rules IS NOT NULL").select(F.map_keys("rules")).first()
    return list(first[0]) if first else []


def _groups(selection: DataFrame, rules: Sequence[str], signals: Sequence[str]) -> list[Row]:
    """Rows with the same fate, as one: how many, and the range of their signals."""
    verdicts = [F.coalesce(F.col("rules")[rule], F.lit(False)) for rule in rules]
    repetitions = (
        F.col("repetitions") if "repetitions" in selection.columns else F.col("keep").cast("long")
    )
    found = [F.count("*").alias("rows"), F.sum(repetitions.cast("long")).alias("repetitions")]
    for name in signals:
        value = value_of(name)
        finite = F.when(F.abs(value) < math.inf, value)
        found += [
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
    return selection.groupBy(*by).agg(*found).collect()


def _fates(groups: Sequence[Row], rules: Sequence[str]) -> dict[str, Any]:
    rows = sum(group["rows"] for group in groups)
    scored = [group for group in groups if group["scored"]]
    kept = [group for group in groups if group["keep"]]
    combine = "or" if any(not all(group["verdicts"]) for group in kept) else "and"
    told = []
    left = sum(group["rows"] for group in scored)
    for number, rule in enumerate(rules):
        failed = sum(g["rows"] for g in scored if g["first_failed_rule"] == rule)
        left -= failed
        told.append(
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
        "kept": sum(group["rows"] for group in kept),
        "repetitions": sum(group["repetitions"] or 0 for group in kept),
        "combine": combine,
        "statuses": [{"status": s, "rows": n} for s, n in _ranked(statuses)],
        "rules": told,
    }


def _ranked(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))


def _reasons(selection: DataFrame) -> list[dict[str, Any]]:
    reason = F.substring("reason", 1, 200).alias("reason")
    status = F.coalesce("status", F.lit("null")).alias("status")
    counted = (
        selection.where("reason IS NOT NULL")
        .groupBy(status, reason)
        .agg(F.count("*").alias("rows"))
    )
    most = counted.orderBy(F.desc("rows"), "status", "reason").limit(_MOST_REASONS)
    return [row.asDict() for row in most.collect()]


def _extreme(which: Any, groups: Sequence[Row], column: str) -> float | None:
    found = [g[column] for g in groups if g["scored"] and g[column] is not None]
    return which(found) if found else None


def _cells(selection: DataFrame, grids: dict[str, Grid]) -> dict[str, tuple[list[int], list[int]]]:
    """Rows in each cell of each grid, all and kept; what is below a grid (-infinity) is in none."""
    if not grids:
        return {}
    names = list(grids)
    keep = F.coalesce("keep", F.lit(False)).alias("keep")
    structs = [
        F.struct(F.lit(number).alias("signal"), cell(value_of(name), grids[name]).alias("cell"))
        for number, name in enumerate(names)
    ]
    one_each = selection.where(is_scored()).select(keep, F.explode(F.array(*structs)).alias("at"))
    counted = one_each.where("at.cell >= 0").groupBy("at.signal", "at.cell", "keep").count()
    found = {name: ([0] * len(g.thresholds), [0] * len(g.thresholds)) for name, g in grids.items()}
    for signal, index, kept, rows in counted.collect():
        total, chosen = found[names[signal]]
        total[index] += rows
        chosen[index] += rows if kept else 0
    return found


def cell(value: Column, grid: Grid) -> Column:
    """The cell of a value: the index of the last threshold at or below it, -1 below all of them.

    Exact: a guess by division, which rounding may put one cell off, is then compared with the
    thresholds themselves. Null for null.
    """
    first, last = grid.thresholds[0], grid.thresholds[-1]
    if first == last:
        return F.when(value.isNotNull(), F.when(value >= first, 0).otherwise(-1))
    thresholds = F.lit(list(grid.thresholds))
    inside = F.least(F.greatest(value, F.lit(first)), F.lit(last))
    part = 1.0 if math.isfinite(last - first) else 0.5
    steps = (inside * part - F.lit(first * part)) / F.lit(grid.step * part)
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
    wanted = [F.count("*").alias("rows")]
    for n in range(len(signals)):
        wanted += [F.mean(f"v{n}").alias(f"mean{n}"), F.stddev_samp(f"v{n}").alias(f"sd{n}")]
    pairs = list(combinations(range(len(signals)), 2))
    for a, b in pairs:
        both = F.col(f"v{a}").isNotNull() & F.col(f"v{b}").isNotNull()
        wanted += [F.corr(f"v{a}", f"v{b}").alias(f"r{a},{b}"), F.count_if(both).alias(f"n{a},{b}")]
    (row,) = finite.agg(*wanted).collect()
    about = {
        name: {"mean": row[f"mean{n}"], "sd": _finite(row[f"sd{n}"])}
        for n, name in enumerate(signals)
    }
    size = range(len(signals))
    pearson: list[list[float | None]] = [[None] * len(signals) for _ in size]
    rows = [[0] * len(signals) for _ in size]
    for a, b in pairs:
        pearson[a][b] = pearson[b][a] = _finite(row[f"r{a},{b}"])
        rows[a][b] = rows[b][a] = row[f"n{a},{b}"]
    return about, {"names": list(signals), "pearson": pearson, "rows": rows}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _signal(
    name: str,
    about: dict[str, Any],
    groups: Sequence[Row],
    lines: Grid | None,
    cells: tuple[list[int], list[int]] | None,
) -> dict[str, Any]:
    scored = [group for group in groups if group["scored"]]
    rows = sum(group[f"rows:{name}"] for group in scored)
    found = {
        "name": name,
        "rows": rows,
        "missing": sum(group["rows"] for group in scored) - rows,
        **about[name],
        "low": _extreme(min, groups, f"low:{name}"),
        "high": _extreme(max, groups, f"high:{name}"),
    }
    if lines is None or cells is None:
        return found | {"thresholds": [], "rows_at_or_above": [], "bins": []}
    return found | {
        "thresholds": list(lines.thresholds),
        "rows_at_or_above": at_or_above(cells[0]),
        "bins": [
            {"from": b.low, "to": b.high, "rows": b.rows, "kept": b.kept}
            for b in bins(lines, *cells)
        ],
    }
