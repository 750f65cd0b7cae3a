"""What a source leaves out, counted by reason while its rows are written."""

from __future__ import annotations

from pyspark.sql import Column, Observation
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..core.job_runner import say
from ..tables import delta
from ..tables.uid_origin import Origin
from .source_columns import LEFT_OUT, Source

EXAMPLES = 5
FURTHER_CAPTIONS = "further captions of a list (--captions-per-image first)"


class LeftOut:
    """Takes the rows that are left out from a source's frame, and counts them as they pass.

    `frame` is what remains. The counts are known once it has been written; they are those of the
    rows that were read, so with a limit of a part of them. With `first_captions`, captions behind
    the first of a list are counted too.
    """

    def __init__(self, source: Source, first_captions: bool = False) -> None:
        self.source = source
        self.frame = source.frame
        self._observation = Observation()
        counts: list[Column] = []
        if LEFT_OUT in source.frame.columns:
            pair = F.col(LEFT_OUT).isNull()
            total = F.col(f"{LEFT_OUT}.total").isNotNull()
            counts += [
                F.collect_list(F.when(total, F.col(LEFT_OUT))).alias("totals"),
                F.count_if(pair).alias("pairs"),
                F.count_if(pair & F.col("uid").isNotNull()).alias("uids"),
            ]
        captions = source.frame.schema["caption"].dataType
        self._counts_captions = first_captions and isinstance(captions, T.ArrayType)
        if self._counts_captions:
            further = F.greatest(F.size("caption") - 1, F.lit(0))
            example = F.when(further > 0, F.get("caption", 1).cast("string"))
            counts += [F.sum(further).alias("captions"), F.min(example).alias("caption")]
        if counts:
            self.frame = source.frame.observe(self._observation, *counts)
        if LEFT_OUT in source.frame.columns:
            self.frame = self.frame.where(pair).drop(LEFT_OUT)

    def counts(self) -> dict[str, tuple[int, str]]:
        """How many rows are left out and an example, by reason; call it after the write."""
        found = dict(self.source.left_out)
        by_reason: dict[str, list[tuple[str, int]]] = {}
        if LEFT_OUT in self.source.frame.columns:
            for row in self._observation.get["totals"] or ():
                by_reason.setdefault(row["reason"], []).append((row["example"], row["total"]))
        if self._counts_captions and (number := self._observation.get["captions"]):
            by_reason[FURTHER_CAPTIONS] = [(self._observation.get["caption"], number)]
        for reason, totals in sorted(by_reason.items()):
            examples = ", ".join(example for example, _ in sorted(totals)[:EXAMPLES])
            found[reason] = sum(total for _, total in totals), examples
        return found

    def uid_origin(self) -> Origin:
        """Whose the uids of the pairs are; call it after the write."""
        if "uid" not in self.frame.columns:
            return "made_up"
        given = self.source.uids or "given"
        if not self.source.fill_uid or LEFT_OUT not in self.source.frame.columns:
            return given
        pairs, uids = (self._observation.get[name] or 0 for name in ("pairs", "uids"))
        return "made_up" if not uids else given if uids == pairs else "mixed"

    def write(self, ref: str) -> None:
        """Write the table of what is left out, row by row: `reason` and `example`."""
        spark = self.source.frame.sparkSession
        rows = spark.createDataFrame([], "reason string, example string")
        if LEFT_OUT in self.source.frame.columns:
            one_by_one = f"{LEFT_OUT} IS NOT NULL AND {LEFT_OUT}.total IS NULL"
            rows = self.source.frame.where(one_by_one).select(f"{LEFT_OUT}.*").drop("total")
        if self._counts_captions:
            further = F.expr("explode(CAST(slice(caption, 2, size(caption)) AS array<string>))")
            captions = self.source.frame.select(further.alias("example"))
            rows = rows.unionByName(captions.withColumn("reason", F.lit(FURTHER_CAPTIONS)))
        if self.source.rejects is not None:
            rows = rows.unionByName(self.source.rejects.select("reason", "example"))
        delta.overwrite(rows, ref)


def say_left_out(counts: dict[str, tuple[int, str]]) -> None:
    """Print a line for each reason, with an example."""
    for reason, (count, example) in counts.items():
        say(f"left out: {count:,} {reason}, such as {example}")
