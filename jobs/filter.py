"""Keep the best pairs by rules over their scores: scores -> selection (-> filtered pairs).

    mlm-filter filter --scores S --selection SEL --rule "itm >= 66" --rule "top 30% of odf"
    mlm-filter filter --scores S --selection SEL --rule "itm >= 66" --pairs P --output FILTERED

The selection has one row for each row of the scores table, with what each rule said about it;
``rules.py`` gives the language, ``rules_spark.py`` its exact meaning. Filtered pairs are the rows
of the pairs table that are kept, each once, with their scores. A rerun replaces both tables.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.metrics import METRICS

from . import job, tables
from .config import JobConfig
from .errors import UsageError
from .pairs import with_keys
from .rules import Rule, parse_rule
from .rules_spark import find_cuts, judge
from .scores_table import KEYS, SCORES_TABLE
from .tables import PAIRS_KEYS

BROADCAST_ROWS = 100_000
"""So many kept rows are sent to every executor, some 20 MB; with more, Spark chooses the join."""

_COMMENTS = {field.name: field.metadata["comment"] for field in SCORES_TABLE} | {
    "keep": "whether the pair is kept",
    "first_failed_rule": "first rule that the row failed, status:<status> where it has no scores",
    "reason": "what was missing: why there are no scores, or which signals have no value",
    "rules": "rule -> whether the row passed it",
}
_NEEDED = (*KEYS, "scorer", *METRICS, "status", "reason", "scored_at")


class FilterConfig(JobConfig):
    """Keep the best pairs by rules over their scores."""

    scores: str = Field(description="scores table: a path or catalog.schema.table")
    selection: str = Field(description="table to write: every row's fate, and the rule behind it")
    rule: list[str] = Field(
        min_length=1, description='e.g. "itm >= 66" or "best: top 30% of odf"; repeat for more'
    )
    combine: Literal["and", "or"] = Field(
        "and", description="keep what passes all rules (and) or at least one (or)"
    )
    scorer: str | None = Field(None, description="whose scores, where the table has several")
    pairs: str | None = Field(None, description="pairs table, for --output")
    output: str | None = Field(None, description="table to write: the kept pairs and their scores")
    uid_column: str = Field("uid", description="column of --pairs with the pair's key")
    image_column: str = Field("image", description="column of --pairs with the image's bytes")
    image_path_column: str | None = Field(
        None, description="column of --pairs with the image's path, instead of its bytes"
    )
    caption_column: str = Field("caption", description="column of --pairs with the caption")

    @field_validator("rule", mode="before")
    @classmethod
    def _yaml_names(cls, rules: Any) -> Any:
        """YAML reads ``- match: itm >= 66`` as a mapping."""
        if isinstance(rules, dict):
            rules = [rules]
        if not isinstance(rules, list):
            return rules
        texts: list[Any] = []
        for rule in rules:
            named = isinstance(rule, dict)
            texts += [f"`{name}`: {text}" for name, text in rule.items()] if named else [rule]
        return texts

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.limit is not None:
            raise UsageError("filter takes no --limit: `top` rules are about all rows (--dry-run?)")
        if (self.pairs is None) != (self.output is None):
            raise UsageError("--pairs and --output go together: the kept pairs, and where they go")
        refs = [ref for ref in (self.scores, self.pairs, self.selection, self.output) if ref]
        for number, ref in enumerate(refs):
            if any(tables.same(ref, other) for other in refs[:number]):
                raise UsageError(f"{ref} is named twice: every table needs a place of its own")
        self.parsed_rules()
        return self

    def parsed_rules(self) -> list[Rule]:
        """The rules in their order.

        Raises:
            UsageError: not a rule, or two rules of one name.
        """
        rules = [parse_rule(text) for text in self.rule]
        names = [rule.name for rule in rules]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two rules are named {name!r}; name a rule by `name: rule`")
        return rules


def bind(rules: Sequence[Rule], schema: T.StructType) -> list[Rule]:
    """The rules on the columns of a scores table.

    Raises:
        UsageError: a rule names a column that is not there, or is no number.
    """
    numeric = [field.name for field in schema if isinstance(field.dataType, T.NumericType)]
    others = {f.name: f.dataType.simpleString() for f in schema if f.name not in numeric}
    return [rule.on_columns(numeric, others) for rule in rules]


def selection_of(judged: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """The columns of a selection table: key, verdict, the four scores, what else the rules used."""
    columns = [*KEYS, "scorer", "status", "keep", "first_failed_rule", "reason", "rules"]
    columns += METRICS
    used = dict.fromkeys(signal.name for rule in rules for signal in rule.signals())
    columns += [name for name in used if name not in columns]
    comments = {name: "a signal that the rules used" for name in used} | _COMMENTS
    return _commented(judged.select(*map(tables.quoted, columns)), comments)


def scores_in(selection: DataFrame) -> list[str]:
    """The scores that go with a kept pair: the four metrics, and `clip_score` if a rule used it."""
    return [name for name in (*METRICS, "clip_score") if name in selection.columns]


def kept_keys(selection: DataFrame) -> DataFrame:
    """Keys and scores of the kept rows, each key once."""
    kept = selection.where("keep").select(*PAIRS_KEYS, *scores_in(selection))
    return kept.dropDuplicates(list(PAIRS_KEYS))


def repeated(pairs: DataFrame) -> DataFrame:
    """The uids that several rows of a pairs table have; reads that column only."""
    return pairs.groupBy("uid").count().where("count > 1").select("uid")


def filtered_pairs(pairs: DataFrame, kept: DataFrame) -> DataFrame:
    """The pairs (with keys) that are kept, and their scores in place of columns of these names."""
    scores = [name for name in kept.columns if name not in PAIRS_KEYS]
    return pairs.drop(*scores).join(kept, on=list(PAIRS_KEYS), how="inner")


def first_copies(pairs: DataFrame) -> DataFrame:
    """One row of each key: the first by its columns of plain types. Shuffles all columns."""
    plain = (T.NumericType, T.StringType, T.BooleanType, T.DateType, T.TimestampType)
    order = [F.col(tables.quoted(f.name)) for f in pairs.schema if isinstance(f.dataType, plain)]
    window = Window.partitionBy(*PAIRS_KEYS).orderBy(*order)
    numbered = pairs.withColumn("__number", F.row_number().over(window))
    return numbered.where("__number = 1").drop("__number")


def _commented(df: DataFrame, comments: Mapping[str, str]) -> DataFrame:
    fields = [T.StructField(n, T.StringType(), True, {"comment": c}) for n, c in comments.items()]
    return tables.commented(df, T.StructType(fields))


def run(spark: SparkSession, config: FilterConfig) -> dict[str, Any]:
    """Judge every row of the scores table; write the selection and the filtered pairs."""
    version = tables.version(spark, config.scores)  # several passes must see the same rows
    scores = tables.read(spark, config.scores, version)
    _require(config.scores, scores, _NEEDED, "a scores table")
    rules = bind(config.parsed_rules(), scores.schema)
    _check_replaceable(spark, config.selection, ("uid", "keep", "first_failed_rule"))
    if config.pairs and config.output:
        pairs = _latest(spark, config.pairs)
        keyed = with_keys(
            pairs,
            config.uid_column,
            config.image_column,
            config.image_path_column,
            config.caption_column,
        )
        _check_replaceable(spark, config.output, METRICS)
    scorer = choose_scorer(scores, config.scores, config.scorer)
    scores = scores.where(F.col("scorer").eqNullSafe(F.lit(scorer)))

    cuts = find_cuts(scores, rules)
    selection = selection_of(judge(scores, rules, cuts, config.combine), rules)
    if not config.dry_run:
        tables.overwrite(selection, config.selection, skipping=PAIRS_KEYS)
        selection = _latest(spark, config.selection)
    summary: dict[str, Any] = {"scores": config.scores, "scores_version": version, "scorer": scorer}
    summary |= count_fates(selection, rules)
    summary["thresholds"] = [
        {
            "rule": rule.name,
            "part": str(best),
            "signal": best.signal.name,
            "scored": cuts[best].scored,
            "taken": cuts[best].taken,
            "threshold": cuts[best].value,
            "ties": cuts[best].ties,
            "ties_taken": cuts[best].ties_taken,
        }
        for rule in rules
        for best in rule.bests()
    ]
    _show(summary, config)
    if config.dry_run:
        return summary | {"dry_run": True}
    summary["selection"] = config.selection
    if config.pairs and config.output:
        written = write_filtered(keyed, pairs.columns, selection, summary["kept"], config.output)
        without = summary["kept"] - written
        lost = f"; {without:,} kept rows are not in {config.pairs} (any more)" if without else ""
        job.say(f"{config.output}: {written:,} pairs{lost}")
        summary |= {"output": config.output, "output_rows": written, "kept_without_pair": without}
    return summary


def choose_scorer(scores: DataFrame, ref: str, wanted: str | None) -> str | None:
    """The scorer whose rows are judged: ``wanted``, or the only one (None for an empty table).

    Raises:
        UsageError: there is a choice, or no such scorer; it lists what there is.
    """
    # a dual encoder gives this, an MLM does not; tables of earlier versions lack the column
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
        f"{name} ({rows:,} rows{' with clip_score' if cosines else ''}, {a} to {b})"
        for name, rows, a, b, cosines in found
    )
    if wanted is None:
        raise UsageError(f"{ref} has several scorers; choose one by --scorer: {listed}")
    raise UsageError(f"{ref} has no scores of scorer {wanted}; it has {listed or 'no rows'}")


def count_fates(selection: DataFrame, rules: Sequence[Rule]) -> dict[str, Any]:
    """How many rows there are, are kept, pass each rule, and fail there first."""
    passed = [F.sum(F.col("rules")[rule.name].cast("long")) for rule in rules]
    counted = selection.groupBy("first_failed_rule").agg(F.count("*"), *passed).collect()
    failed = {fate: rows for fate, rows, *_ in counted}
    rows, kept = sum(failed.values()), failed.get(None, 0)
    prefix = "status:"
    return {
        "rows": rows,
        "kept": kept,
        "kept_fraction": kept / rows if rows else None,
        "without_scores": {
            fate.removeprefix(prefix): n
            for fate, n in sorted(failed.items(), key=str)
            if fate and fate.startswith(prefix)
        },
        "rules": [
            {
                "name": rule.name,
                "rule": str(rule),
                "passed": sum(row[2 + number] for row in counted),
                "failed_first": failed.get(rule.name, 0),
            }
            for number, rule in enumerate(rules)
        ],
    }


def write_filtered(
    keyed: DataFrame, columns: Sequence[str], selection: DataFrame, kept_rows: int, output: str
) -> int:
    """Write the kept pairs: these columns, hashes and scores. Returns how many there are."""
    kept, several = kept_keys(selection), repeated(keyed)
    if kept.join(several, on="uid", how="left_semi").isEmpty():
        filtered = filtered_pairs(keyed, _small(kept, kept_rows))
    else:  # a second scan for the few, so that only their images are shuffled to find copies
        once = kept.join(several, on="uid", how="left_anti")
        more = kept.join(several, on="uid", how="left_semi")
        copies = first_copies(filtered_pairs(keyed, _small(more, kept_rows)))
        filtered = filtered_pairs(keyed, _small(once, kept_rows)).unionByName(copies)
    added = ("image_sha", "caption_sha", *scores_in(selection))
    own = [name for name in columns if name.lower() not in added]
    filtered = tables.storable(filtered.select(*map(tables.quoted, own), *added))
    comments = {name: _COMMENTS[name] for name in added}
    # statistics of image bytes would be of no use: narrow columns only
    tables.overwrite(_commented(filtered, comments), output, skipping=added)
    return _latest(keyed.sparkSession, output).count()


def _small(kept: DataFrame, rows: int) -> DataFrame:
    # Spark takes a filtered table to be as large as the whole, and would shuffle the images.
    return F.broadcast(kept) if rows <= BROADCAST_ROWS else kept


def _latest(spark: SparkSession, ref: str) -> DataFrame:
    """A table pinned to its version of now."""
    return tables.read(spark, ref, tables.version(spark, ref))


def _require(ref: str, df: DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in df.columns]
    if missing:
        raise UsageError(
            f"{ref} is not {what}: it has no column {', '.join(missing)}"
            f" among {', '.join(df.columns)}"
        )


def _check_replaceable(spark: SparkSession, ref: str, columns: Sequence[str]) -> None:
    """Refuse to overwrite a table that this job cannot have written."""
    if tables.exists(spark, ref) and not set(columns) <= set(tables.read(spark, ref).columns):
        raise UsageError(f"{ref} is a table of another kind, which would be replaced: name another")


def _show(summary: dict[str, Any], config: FilterConfig) -> None:
    """The funnel and the thresholds, for people."""
    rows, kept = summary["rows"], summary["kept"]
    left = rows - sum(summary["without_scores"].values())
    lines = [("", "passes", "fails first", "left"), ("all rows", "", "", f"{rows:,}")]
    lines += [(f"status:{s}", "", f"{n:,}", "") for s, n in summary["without_scores"].items()]
    lines += [("with scores", "", "", f"{left:,}")]
    for rule in summary["rules"]:
        left -= rule["failed_first"]
        label = rule["rule"] if rule["name"] == rule["rule"] else f"{rule['name']}: {rule['rule']}"
        after = f"{left:,}" if config.combine == "and" else ""
        lines += [(label, f"{rule['passed']:,}", f"{rule['failed_first']:,}", after)]
    lines += [("kept", "", "", f"{kept:,}")]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for label, *numbers in lines:
        cells = [f"{n:>{w}}" for n, w in zip(numbers, widths[1:], strict=True)]
        job.say(f"{label:<{widths[0]}}  {'  '.join(cells)}".rstrip())
    for cut in summary["thresholds"]:
        share = f"{cut['part']}: {cut['taken']:,} of {cut['scored']:,}"
        at = f", down to {cut['threshold']}" if cut["part"].startswith("top") else ""
        at = at or f", up to {cut['threshold']}"
        ties = f" ({cut['ties_taken']:,} of {cut['ties']:,} ties)" if cut["ties"] > 1 else ""
        job.say(share + (at + ties if cut["taken"] else ""))
    fraction = f" ({kept / rows:.2%})" if rows else ""
    job.say(f"{kept:,} of {rows:,} rows kept{fraction}" + (": dry run" if config.dry_run else ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return job.main("filter", FilterConfig, run, argv)


if __name__ == "__main__":
    sys.exit(main())
