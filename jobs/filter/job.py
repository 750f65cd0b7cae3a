"""Keep the best pairs by rules over their scores: scores -> selection (-> filtered pairs).

    mlm-filter filter --scores S --selection SEL --rule "itm >= 66" --rule "top 30% of odf"
    mlm-filter filter --scores S --selection SEL --rule "itm >= 66" --pairs P --output FILTERED
    mlm-filter filter --scores S --signals clip=CLIP --what-if "a: itm >= 66" \
                      --what-if "b: top 30% of 0.6*rank(itm) + 0.4*rank(clip_score)"

The selection has one row for each row of the scores table, with the verdict of each rule.
``rules/rule.py`` describes the language, ``rules/apply.py`` its exact meaning,
``filter/joined_signals.py`` what can be joined. Filtered pairs are the rows of the pairs table that
are kept, each once, with their scores. A rerun replaces both tables. With `--what-if` the job
compares rules and writes nothing.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from udfs.core.metrics import METRICS

from ..core import job_runner
from ..core.errors import RUN_AGAIN, ConflictError, UsageError
from ..rules.apply import compute_statistics, judge
from ..rules.column_types import SCORES, NamedColumn
from ..rules.rule import Repetition, Rule, global_parts, signals
from ..rules.syntax_tree import AllOf, AnyOf
from ..tables import delta, uid_origin
from ..tables.delta import quoted
from ..tables.filtered_pairs import write_filtered
from ..tables.pairs import PAIRS_KEYS, keyed_by
from ..tables.scores import KEYS
from . import joined_signals, what_if
from .funnel import count_verdicts, funnel, thresholds
from .joined_signals import SignalTable
from .selection import selection_of
from .settings import FilterConfig

_SCORES_COLUMNS = (*KEYS, "scorer", *METRICS, "status", "reason", "scored_at")
_SELECTION_COLUMNS = ("uid", "keep", "first_failed_rule")


def run(spark: SparkSession, config: FilterConfig) -> dict[str, Any]:
    """Judge every row of the scores table; write the selection and the filtered pairs."""
    version = delta.version(spark, config.scores)  # several passes must see the same rows
    scores = delta.read(spark, config.scores, version)
    _require(config.scores, scores, _SCORES_COLUMNS, "a scores table")
    pairs = _latest(spark, config.pairs) if config.pairs else None
    keyed = None if pairs is None else keyed_by(pairs, config)
    joins = [joined_signals.load(spark, source, scores.columns) for source in config.sources()]
    if keyed is not None and config.pairs:
        joins.append(joined_signals.pairs_table(keyed, config.pairs))
    rules, repetitions = bind(config, scores, joins)
    for ref, columns in ((config.selection, _SELECTION_COLUMNS), (config.output, METRICS)):
        if ref and not config.what_if:
            _check_replaceable(spark, ref, columns)
    scorer = choose_scorer(scores, config.scores, config.scorer)
    summary: dict[str, Any] = {"scores": config.scores, "scores_version": version, "scorer": scorer}

    with ExitStack() as cleanup:
        of_scorer = scores.where(F.col("scorer").eqNullSafe(F.lit(scorer)))
        unjoined = _own_columns(of_scorer, [*rules, *repetitions])
        frame, summary["signals"] = _with_signals(unjoined, joins, [*rules, *repetitions], cleanup)
        for line in joined_signals.report_lines(summary["signals"]):
            job_runner.say(line)
        frame, statistics = compute_statistics(frame, [*rules, *repetitions], unjoined)
        cleanup.callback(statistics.release)
        summary["thresholds"] = thresholds(rules, statistics)
        if config.what_if:
            comparison = what_if.compare(rules, what_if.regions(frame, rules, statistics))
            job_runner.say(*what_if.report_lines(comparison))
            return summary | {"what_if": comparison}
        judged = judge(frame, rules, statistics, config.combine, repetitions)
        selection = selection_of(judged, [*rules, *repetitions])
        if config.selection and not config.dry_run:
            delta.overwrite(selection, config.selection, skipping=PAIRS_KEYS)
            uid_origin.record(spark, config.selection, uid_origin.of(spark, config.scores))
            selection_version = delta.version(spark, config.selection)
            selection = delta.read(spark, config.selection, selection_version)
        summary |= count_verdicts(selection, rules)
    job_runner.say(*funnel(summary, config.combine))
    if config.dry_run:
        job_runner.say("dry run: nothing is written")
        return summary | {"dry_run": True}
    summary["selection"] = config.selection
    if pairs is not None and keyed is not None and config.output:
        kept_count, output = summary["kept"], config.output
        written = write_filtered(
            keyed, pairs.columns, selection, kept_count, output, with_repetitions=bool(repetitions)
        )
        origin = uid_origin.of_column(spark, str(config.pairs), config.uid_column)
        uid_origin.record(spark, output, origin)
        if config.selection and selection_version != delta.version(spark, config.selection):
            raise ConflictError(
                f"another run has replaced {config.selection} meanwhile: {output} may not belong"
                f" to it; {RUN_AGAIN}"
            )
        missing = kept_count - written
        note = f"; {missing:,} kept rows are not or no longer in {config.pairs}" if missing else ""
        job_runner.say(f"{output}: {written:,} pairs{note}")
        summary |= {"output": output, "output_rows": written, "kept_without_pair": missing}
    return summary


def bind(
    config: FilterConfig, scores: DataFrame, joins: Sequence[SignalTable]
) -> tuple[list[Rule], list[Repetition]]:
    """The rules of a run, or those to compare, and the repetitions, bound to the tables' columns.

    With `--what-if`, the configured rules together count as one more rule, called `rules`.

    Raises:
        UsageError: a rule names a column that does not exist or has a type that does not fit.
    """
    columns = joined_signals.named_columns(scores, SCORES)
    columns += [column for join in joins for column in join.columns]
    if config.scorer is not None:
        scores = scores.where(F.col("scorer") == config.scorer)
    frames = {SCORES: scores} | {join.source.name: join.frame for join in joins}

    def select_filled(candidates: Sequence[NamedColumn]) -> list[NamedColumn]:
        counts = [frames[p.table].agg(F.count(quoted(p.name))).collect() for p in candidates]
        return [p for p, ((count,),) in zip(candidates, counts, strict=True) if count]

    rules = [rule.on_columns(columns, select_filled) for rule in config.parsed_rules()]
    repetitions = [each.on_columns(columns, select_filled) for each in config.parsed_repetitions()]
    if config.what_if:
        compared = [rule.on_columns(columns, select_filled) for rule in config.parsed_what_ifs()]
        if rules and all(rule.name != "rules" for rule in compared):
            conditions = tuple(rule.condition for rule in rules)
            combined = AllOf(conditions) if config.combine == "and" else AnyOf(conditions)
            compared.append(Rule("rules", combined if len(rules) > 1 else conditions[0], ""))
        return compared, []
    return rules, repetitions


def _own_columns(scores: DataFrame, rules: Sequence[Rule | Repetition]) -> DataFrame:
    """The columns of the scores table itself that are needed."""
    used = signals([tree for rule in rules for tree in rule.trees()])
    own = [signal.name for signal in used if signal.table is None]
    names = [*KEYS, "scorer", "status", "reason", *METRICS]
    return scores.select(*map(quoted, dict.fromkeys([*names, *own])))


def _with_signals(
    frame: DataFrame,
    joins: Sequence[SignalTable],
    rules: Sequence[Rule | Repetition],
    cleanup: ExitStack,
) -> tuple[DataFrame, list[dict[str, Any]]]:
    """Scores (``frame``) with the columns of other tables that rules use; counts of each join."""
    trees = [tree for rule in rules for tree in rule.trees()]
    used = signals(trees)
    summaries = []
    for join in joins:
        columns = [signal.name for signal in used if signal.table == join.source.name]
        if columns:
            frame, join_summary = joined_signals.join(frame, join, columns)
            summaries.append(join_summary)
        elif not join.is_pairs:
            job_runner.say(f"{join.source.name}: no rule uses its columns")
    joined = {signal for signal in used if signal.table is not None}
    if joined & set(signals(list(global_parts(trees)))):  # or each pass would repeat the join
        frame = frame.persist(StorageLevel.DISK_ONLY)
        cleanup.callback(frame.unpersist)
    return frame, summaries


def choose_scorer(scores: DataFrame, ref: str, wanted: str | None) -> str | None:
    """The scorer whose rows are judged: ``wanted``, or the only one (None for an empty table).

    Raises:
        UsageError: there are several scorers, or none called ``wanted``; it lists all there are.
    """
    # Dual encoders give a clip_score, MLMs do not; tables of earlier versions lack the column.
    cosines = F.count("clip_score") if "clip_score" in scores.columns else F.lit(0)
    found = (
        scores.groupBy("scorer")
        .agg(
            F.count("*"),
            *(f("scored_at").cast("date").cast("string") for f in (F.min, F.max)),
            cosines,
        )
        .orderBy("scorer")
        .collect()
    )
    names = [row[0] for row in found]
    if wanted is None and len(names) <= 1:
        return names[0] if names else None
    if wanted is not None and wanted in names:
        return wanted
    listed = ", ".join(
        f"{name} ({rows:,} rows{' with clip_score' if cosines else ''}, {first} to {last})"
        for name, rows, first, last, cosines in found
    )
    if wanted is None:
        raise UsageError(f"{ref} has several scorers; choose one with --scorer: {listed}")
    raise UsageError(f"{ref} has no scores of scorer {wanted}; it has {listed or 'no rows'}")


def _latest(spark: SparkSession, ref: str) -> DataFrame:
    """A table pinned to its latest version."""
    return delta.read(spark, ref, delta.version(spark, ref))


def _require(ref: str, df: DataFrame, columns: Sequence[str], table_kind: str) -> None:
    missing = [name for name in columns if name not in df.columns]
    if missing:
        raise UsageError(
            f"{ref} is not {table_kind}: it has no column {', '.join(missing)}"
            f" among {', '.join(df.columns)}"
        )


def _check_replaceable(spark: SparkSession, ref: str, columns: Sequence[str]) -> None:
    """Refuse to overwrite a table that this job cannot have written."""
    if delta.exists(spark, ref) and not set(columns) <= set(delta.read(spark, ref).columns):
        raise UsageError(f"{ref} is a table of another kind, which would be replaced: name another")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return job_runner.main("filter", FilterConfig, run, argv)
