"""A selection of the sample pairs with made-up scores, and its figures, computed in plain Python.

The figures are also the reference for those that the report job computes with Spark.
"""

import math
import random
from bisect import bisect_right
from collections import Counter
from functools import cache
from importlib import metadata
from itertools import permutations
from pathlib import Path
from statistics import correlation, fmean, stdev
from typing import Any

import yaml

from udfs.report import histogram_bins
from udfs.report.thumbnails import Gallery, Picture, Strip, thumbnail_or_problem

METRICS = ("itm", "odf", "ctq", "su")
FILE = Path(__file__).parents[2] / "conf" / "sample_pairs.yaml"
# kind of caption -> roughly the scores that a good scorer would give it
_TYPICAL_SCORES = {
    "excellent": (88, 82, 92, 60),
    "good": (80, 66, 82, 45),
    "short": (70, 42, 55, 30),
    "vague": (45, 15, 50, 20),
    "wrong_detail": (55, 40, 82, 42),
    "wrong_theme": (8, 6, 84, 40),
    "meaning": (72, 40, 86, 88),
    "tags": (66, 45, 25, 30),
    "garbled": (40, 24, 8, 12),
    "file_name": (12, 5, 6, 6),
    "boilerplate": (10, 4, 40, 12),
    "spam": (6, 3, 12, 5),
}

Row = dict[str, Any]


def rows(seed: int = 0) -> list[Row]:
    """One row for each sample pair: scores, status, verdicts of two rules, `file` and `caption`."""
    rng = random.Random(seed)
    made: list[Row] = []
    for image in yaml.safe_load(FILE.read_text(encoding="utf-8"))["images"]:
        for pair in image["pairs"]:
            means = _TYPICAL_SCORES[pair["kind"]]
            scores = {
                metric: round(min(100.0, max(0.0, rng.gauss(mean, 8))), 2)
                for metric, mean in zip(METRICS, means, strict=True)
            }
            made.append(
                {
                    "uid": f"{rng.getrandbits(128):032x}",
                    "file": image["file"],
                    "caption": pair["caption"],
                    "status": "ok",
                    "reason": None,
                    **scores,
                    "clip_score": round(0.12 + scores["itm"] / 500 + rng.gauss(0, 0.02), 4),
                }
            )
    made[7] |= dict.fromkeys([*METRICS, "clip_score"]) | {
        "status": "bad_image",
        "reason": "damaged image: broken data stream",
    }
    made[9] |= {"clip_score": None}
    return judged(made)


def judged(rows: list[Row], match: float = 60.0, fraction: float = 0.3) -> list[Row]:
    """The rows with the verdicts of two rules, the second one a best fraction."""
    names = (f"itm >= {match:g}", f"top {fraction:.0%} of ctq")
    scored = sorted((r for r in rows if r["itm"] is not None), key=lambda r: -float(r["ctq"]))
    best = {row["uid"] for row in scored[: math.floor(len(scored) * fraction)]}
    for row in rows:
        passed = (row["itm"] is not None and row["itm"] >= match, row["uid"] in best)
        failed = next((name for name, ok in zip(names, passed, strict=True) if not ok), None)
        row["rules"] = dict(zip(names, passed, strict=True))
        row["keep"] = failed is None
        row["first_failed_rule"] = failed if row["status"] == "ok" else f"status:{row['status']}"
        row["repetitions"] = int(row["keep"])
    return rows


def figures(rows: list[Row], signals: tuple[str, ...] = (*METRICS, "clip_score")) -> Any:
    """The figures of these rows as the report job computes them, with a made-up `run`."""
    scored = [row for row in rows if row["status"] == "ok"]
    rule_counts, left = [], len(scored)
    for name in rows[0]["rules"] if rows else []:
        failed = sum(row["first_failed_rule"] == name for row in scored)
        left -= failed
        passed = sum(row["rules"][name] for row in scored)
        rule_counts.append({"name": name, "passed": passed, "failed_first": failed, "left": left})
    statuses = Counter(row["status"] for row in rows)
    reasons = Counter((r["status"], r["reason"]) for r in rows if r["reason"])
    return {
        "title": "Filter report",
        "rows": len(rows),
        "scored": len(scored),
        "kept": sum(row["keep"] for row in scored),
        "repetitions": sum(row["repetitions"] for row in rows),
        "combine": "and",
        "statuses": [{"status": s, "rows": n} for s, n in statuses.most_common()],
        "reasons": [{"status": s, "reason": r, "rows": n} for (s, r), n in reasons.most_common()],
        "rules": rule_counts,
        "signals": [_signal_figures(name, scored) for name in signals],
        "correlations": _correlations(signals, scored),
        "notes": [],
        "run": [{"name": "selection", "value": "my/selection"}],
    }


def _signal_figures(name: str, scored: list[Row]) -> Row:
    values = [row[name] for row in scored if row[name] is not None]
    kept_values = [row[name] for row in scored if row["keep"] and row[name] is not None]
    signal: Row = {"name": name, "rows": len(values), "missing": len(scored) - len(values)}
    no_moments = {"mean": None, "sd": None, "low": None, "high": None}
    if not values:
        return signal | no_moments | {"thresholds": [], "rows_at_or_above": [], "bins": []}
    finite = [value for value in values if math.isfinite(value)]
    grid = histogram_bins.grid(min(finite), max(finite), name in METRICS)
    cells, kept_cells = [0] * len(grid.thresholds), [0] * len(grid.thresholds)
    for counts, counted in ((cells, values), (kept_cells, kept_values)):
        for value in counted:
            if value >= grid.thresholds[0]:
                counts[bisect_right(grid.thresholds, value) - 1] += 1
    return signal | {
        "mean": fmean(finite),
        "sd": stdev(finite) if len(finite) > 1 else None,
        "low": min(finite),
        "high": max(finite),
        "thresholds": list(grid.thresholds),
        "rows_at_or_above": [sum(v >= t for v in values) for t in grid.thresholds],
        "bins": [
            {"from": b.low, "to": b.high, "rows": b.rows, "kept": b.kept}
            for b in histogram_bins.bins(grid, cells, kept_cells)
        ],
    }


def _correlations(signals: tuple[str, ...], scored: list[Row]) -> Row:
    size = len(signals)
    pearson: list[list[float | None]] = [[None] * size for _ in signals]
    counts = [[0] * size for _ in signals]
    for a, b in permutations(range(size), 2):
        values = [(row[signals[a]], row[signals[b]]) for row in scored]
        both = [(x, y) for x, y in values if None not in (x, y) and math.isfinite(x + y)]
        pearson[a][b], counts[a][b] = _pearson(both), len(both)
    return {"names": list(signals), "pearson": pearson, "rows": counts}


def _pearson(both: list[tuple[float, float]]) -> float | None:
    if len({x for x, _ in both}) < 2 or len({y for _, y in both}) < 2:
        return None
    return correlation(*zip(*both, strict=True))


def galleries(rows: list[Row], each: int = 6) -> list[Gallery]:
    """Galleries at both rules' boundaries and of two signals' best and worst, with photographs."""
    scored = [row for row in rows if row["status"] == "ok"]
    made = []
    for rule, signal in zip(rows[0]["rules"], ("itm", "ctq"), strict=True):
        above = sorted((r for r in scored if r["rules"][rule]), key=lambda r: r[signal])
        below = sorted((r for r in scored if not r["rules"][rule]), key=lambda r: -r[signal])
        strips = (
            Strip("last to pass", tuple(_picture(r, signal) for r in above[:each])),
            Strip("first to fail", tuple(_picture(r, signal) for r in below[:each])),
        )
        made.append(Gallery(rule, signal, strips, kind="line"))
    for signal in ("itm", "su"):
        order = sorted(scored, key=lambda r: -r[signal])
        ends = (("best", order[:each]), ("worst", order[::-1][:each]))
        extremes = tuple(
            Strip(t, tuple(_picture(r, signal) for r in ordered)) for t, ordered in ends
        )
        made.append(Gallery(signal, signal, extremes))
    return made


@cache
def _thumbnail(file: str) -> tuple[bytes | None, str | None]:
    return thumbnail_or_problem(photograph(file))


def photograph(file: str) -> bytes | None:
    """The bytes of a photograph from the scikit-image wheel; None if it is not there."""
    listed = metadata.files("scikit-image") or []
    path = next((f for f in listed if f.name == file and "data" in f.parts), None)
    return Path(str(path.locate())).read_bytes() if path else None


def _picture(row: Row, signal: str) -> Picture:
    thumbnail, problem = _thumbnail(row["file"])
    return Picture(
        row["uid"],
        row[signal],
        row["caption"],
        row["keep"],
        thumbnail,
        problem,
        {name: row[name] for name in METRICS},
        row["first_failed_rule"],
        row["reason"],
    )
