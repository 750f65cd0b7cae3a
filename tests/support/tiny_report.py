"""A selection of the sample pairs with made-up scores, and its figures worked out in plain Python.

The figures are also the reference that the report job's own, made by Spark, are held against.
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
from udfs.report.thumbnails import Gallery, Picture, Strip, shown

METRICS = ("itm", "odf", "ctq", "su")
FILE = Path(__file__).parents[2] / "conf" / "sample_pairs.yaml"
# kind -> about what a good scorer would say of it
_LIKELY = {
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
    """One row a sample pair: scores, status, what two rules say; `file` and `caption` beside."""
    rng = random.Random(seed)
    found: list[Row] = []
    for image in yaml.safe_load(FILE.read_text(encoding="utf-8"))["images"]:
        for pair in image["pairs"]:
            likely = _LIKELY[pair["kind"]]
            scores = {
                metric: round(min(100.0, max(0.0, rng.gauss(mean, 8))), 2)
                for metric, mean in zip(METRICS, likely, strict=True)
            }
            found.append(
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
    found[7] |= dict.fromkeys([*METRICS, "clip_score"]) | {
        "status": "bad_image",
        "reason": "damaged image: broken data stream",
    }
    found[9] |= {"clip_score": None}
    return judged(found)


def judged(found: list[Row], match: float = 60.0, fraction: float = 0.3) -> list[Row]:
    """The rows with `rules`, `keep`, `first_failed_rule` of two rules, the second a fraction."""
    names = (f"itm >= {match:g}", f"top {fraction:.0%} of ctq")
    scored = sorted((r for r in found if r["itm"] is not None), key=lambda r: -float(r["ctq"]))
    best = {row["uid"] for row in scored[: math.floor(len(scored) * fraction)]}
    for row in found:
        passed = (row["itm"] is not None and row["itm"] >= match, row["uid"] in best)
        failed = next((name for name, ok in zip(names, passed, strict=True) if not ok), None)
        row["rules"] = dict(zip(names, passed, strict=True))
        row["keep"] = failed is None
        row["first_failed_rule"] = failed if row["status"] == "ok" else f"status:{row['status']}"
        row["repetitions"] = int(row["keep"])
    return found


def figures(found: list[Row], signals: tuple[str, ...] = (*METRICS, "clip_score")) -> Any:
    """What jobs/report/figures.py collects of these rows, without its `run` and `notes`."""
    scored = [row for row in found if row["status"] == "ok"]
    kept = [row for row in scored if row["keep"]]
    told, left = [], len(scored)
    for name in found[0]["rules"] if found else []:
        gone = sum(row["first_failed_rule"] == name for row in scored)
        left -= gone
        passed = sum(row["rules"][name] for row in scored)
        told.append({"name": name, "passed": passed, "failed_first": gone, "left": left})
    statuses = Counter(row["status"] for row in found)
    reasons = Counter((r["status"], r["reason"]) for r in found if r["reason"])
    return {
        "title": "Filter report",
        "rows": len(found),
        "scored": len(scored),
        "kept": len(kept),
        "repetitions": sum(row["repetitions"] for row in found),
        "combine": "and",
        "statuses": [{"status": s, "rows": n} for s, n in statuses.most_common()],
        "reasons": [{"status": s, "reason": r, "rows": n} for (s, r), n in reasons.most_common()],
        "rules": told,
        "signals": [_signal(name, scored) for name in signals],
        "correlations": _correlations(signals, scored),
        "notes": [],
        "run": [{"name": "selection", "value": "my/selection"}],
    }


def _signal(name: str, scored: list[Row]) -> Row:
    values = [row[name] for row in scored if row[name] is not None]
    kept = [row[name] for row in scored if row["keep"] and row[name] is not None]
    signal: Row = {"name": name, "rows": len(values), "missing": len(scored) - len(values)}
    nothing = {"mean": None, "sd": None, "low": None, "high": None}
    if not values:
        return signal | nothing | {"thresholds": [], "rows_at_or_above": [], "bins": []}
    finite = [value for value in values if math.isfinite(value)]
    lines = histogram_bins.grid(min(finite), max(finite), name in METRICS)
    cells, chosen = [0] * len(lines.thresholds), [0] * len(lines.thresholds)
    for counts, some in ((cells, values), (chosen, kept)):
        for value in some:
            if value >= lines.thresholds[0]:
                counts[bisect_right(lines.thresholds, value) - 1] += 1
    return signal | {
        "mean": fmean(finite),
        "sd": stdev(finite) if len(finite) > 1 else None,
        "low": min(finite),
        "high": max(finite),
        "thresholds": list(lines.thresholds),
        "rows_at_or_above": [sum(v >= t for v in values) for t in lines.thresholds],
        "bins": [
            {"from": b.low, "to": b.high, "rows": b.rows, "kept": b.kept}
            for b in histogram_bins.bins(lines, cells, chosen)
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


def galleries(found: list[Row], each: int = 6) -> list[Gallery]:
    """Pictures at both rules' lines and at two signals' ends, made of the photographs."""
    scored = [row for row in found if row["status"] == "ok"]
    made = []
    for rule, signal in zip(found[0]["rules"], ("itm", "ctq"), strict=True):
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
        both = tuple(Strip(t, tuple(_picture(r, signal) for r in some)) for t, some in ends)
        made.append(Gallery(signal, signal, both))
    return made


@cache
def _thumbnail(file: str) -> tuple[bytes | None, str | None]:
    return shown(photograph(file))


def photograph(file: str) -> bytes | None:
    """The bytes of a photograph that the scikit-image wheel ships."""
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
