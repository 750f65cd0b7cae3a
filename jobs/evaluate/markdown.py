"""An evaluation in Markdown, for a README or a model card, and for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from udfs.agreement.correlation import Agreement
from udfs.agreement.ranking import Ranking
from udfs.agreement.resampling import Estimate
from udfs.core.visible_text import visible
from udfs.scoring.results import SCORED

from .comparison import ALL, Finding
from .rated_scores import RatedScores

_CHECKS = {"auc": "AUC", "pairs_won": "pairs won"}


def markdown(
    findings: Sequence[Finding],
    rated: Sequence[RatedScores],
    counts: dict[str, int],
    captions: int,
    interval: str,
) -> str:
    """All tables, each below a line that says what it holds.

    `interval` names the intervals in square brackets, e.g. "95 % bootstrap intervals by image".
    """
    parts = [
        _headline(findings, interval),
        _statistics(findings),
        _by_kind(findings),
        _checks(findings, interval),
        _counts(rated, counts, captions),
    ]
    return "\n".join(filter(None, parts))


def missing_scores(rated: RatedScores) -> dict[str, int]:
    """The number of captions without scores, by status."""
    counts = Counter(rated.statuses.tolist())
    return {status: n for status, n in sorted(counts.items()) if status not in SCORED}


def _headline(findings: Sequence[Finding], interval: str) -> str:
    cells = {
        (f.rated.label, f.comparison.reading, f.comparison.metric): f.outcome.spearman
        for f in findings
        if isinstance(f.outcome, Agreement) and f.kind == ALL
    }
    metrics = list(dict.fromkeys(metric for *_, metric in cells))
    scorers = list(dict.fromkeys((label, reading) for label, reading, _ in cells))
    if not cells:
        return ""
    lines = [
        [label, reading, *(str(cells.get((label, reading, m), Estimate())) for m in metrics)]
        for label, reading in scorers
    ]
    table = _table(["scorer", "reading", *metrics], lines, left=2)
    return f"Spearman correlation with the ratings [{interval}]:\n\n{table}"


def _statistics(findings: Sequence[Finding]) -> str:
    lines = [
        [
            f.rated.label,
            f.comparison.reading,
            f.comparison.metric,
            f"{f.outcome.n:,}",
            f"{f.outcome.left_out:,}",
            _short(f.outcome.pearson),
            _short(f.outcome.spearman),
            _short(f.outcome.kendall),
            _short(f.outcome.error, 1),
            f.outcome.reason or "",
        ]
        for f in findings
        if isinstance(f.outcome, Agreement) and f.kind == ALL
    ]
    names = ["scorer", "reading", "metric", "captions", "without score"]
    names += ["Pearson", "Spearman", "Kendall", "mean error", "note"]
    return f"All statistics:\n\n{_table(names, lines, left=3)}" if lines else ""


def _by_kind(findings: Sequence[Finding]) -> str:
    cells = {
        (f.comparison.metric, f.kind, f.rated.label, f.comparison.reading): f.outcome
        for f in findings
        if isinstance(f.outcome, Agreement) and f.kind != ALL and f.comparison.reading != "mode"
    }
    metrics = list(dict.fromkeys(metric for metric, *_ in cells))
    rows = sorted(
        {(m, kind) for m, kind, *_ in cells}, key=lambda row: (metrics.index(row[0]), row[1])
    )
    columns = list(dict.fromkeys(key[2:] for key in cells))
    if not cells:
        return ""
    lines = []
    for row in rows:
        outcomes = [cells.get((*row, *column)) for column in columns]
        captions = max(outcome.n for outcome in outcomes if outcome)
        values = [_short(outcome.spearman) if outcome else "-" for outcome in outcomes]
        lines.append([*row, f"{captions:,}", *values])
    names = [label if reading == "score" else f"{label} {reading}" for label, reading in columns]
    table = _table(["metric", "kind", "captions", *names], lines, left=2)
    return f"Spearman by kind of caption:\n\n{table}"


def _checks(findings: Sequence[Finding], interval: str) -> str:
    lines = [
        [
            _CHECKS[f.statistics],
            f.comparison.metric,
            f.kind,
            f.rated.label,
            f.comparison.reading,
            f"{f.outcome.first:,} / {f.outcome.second:,}",
            str(f.outcome.share),
            f.outcome.reason or "",
        ]
        for f in findings
        if isinstance(f.outcome, Ranking)
    ]
    names = ["check", "metric", "kinds", "scorer", "reading", "captions", "share", "note"]
    about = f"Ranking checks: how often the first is above the second [{interval}]:"
    return f"{about}\n\n{_table(names, lines, left=5)}" if lines else ""


def _counts(rated: Sequence[RatedScores], counts: dict[str, int], captions: int) -> str:
    unused = {
        name: n for name, n in counts.items() if n and name not in ("ratings", "used", "averaged")
    }
    lines = [f"{captions:,} captions, {counts['used']:,} of {counts['ratings']:,} ratings used"]
    if unused:
        lines[0] += f"; not used: {_listed(unused)}"
    if counts.get("averaged"):
        lines[0] += (
            f"; {counts['averaged']:,} are further ratings of the same caption, which are averaged"
        )
    for scorer in rated:
        missing = missing_scores(scorer)
        scored = len(scorer.statuses) - sum(missing.values())
        line = f"{scorer.label}: {scored:,} of {len(scorer.statuses):,} captions scored"
        if missing:
            line += f"; without scores: {_listed(missing)}"
        if scorer.repeated:
            line += f"; {scorer.repeated:,} have several rows of scores, of which the newest counts"
        lines.append(line)
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _table(names: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table that is also aligned as text; the first `left` columns are left-aligned."""
    if all(not line[-1] for line in lines) and names[-1] == "note":
        names, lines = names[:-1], [line[:-1] for line in lines]
    cells = [[visible(cell).replace("|", "\\|") for cell in line] for line in (names, *lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rules = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    padded = [
        [
            cell.ljust(w) if i < left or names[i] == "note" else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        for line in cells
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (padded[0], rules, *padded[1:]))


def _short(estimate: Estimate, decimals: int = 3) -> str:
    return "-" if estimate.value is None else f"{estimate.value:.{decimals}f}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())
