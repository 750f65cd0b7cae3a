"""What a source leaves out, counted by reason while its rows are written."""

from __future__ import annotations

import pyspark
from pyspark.sql import Column, Observation
from pyspark.sql import functions as F

from ..core.job_runner import say
from ..tables import delta
from ..tables.uid_origin import Origin
from .source_columns import LEFT_OUT, Source

EXAMPLES = 5


class LeftOut:
    """Takes the rows that are left out from a source's frame, and counts them as they pass.

    `frame` is what remains. The counts are known once it has been written; they are those of the
    rows that were read, so with a limit of a part of them.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.frame = source.frame
        self._observation = Observation()
        reason = F.col(f"{LEFT_OUT}.reason")
        pair = F.col(LEFT_OUT).isNull()
        counts = [F.count_if(pair).alias("pairs")]
        for number, text in enumerate(source.reasons):
            example = F.when(reason == text, F.col(f"{LEFT_OUT}.example"))
            counts += [F.count_if(reason == text).alias(f"n{number}")]
            counts += [_first(example).alias(f"such_as{number}")]
        if LEFT_OUT in source.frame.columns:
            given = F.count_if(pair & F.col("uid").isNotNull()).alias("uids")
            observed = source.frame.observe(self._observation, *counts, given)
            self.frame = observed.where(pair).drop(LEFT_OUT)

    def counts(self) -> dict[str, tuple[int, str]]:
        """How many rows are left out and an example, by reason; call it after the write."""
        found = dict(self.source.left_out)
        if self.source.reasons:
            seen = self._observation.get
            for number, text in enumerate(self.source.reasons):
                if seen.get(f"n{number}"):
                    examples = ", ".join(map(str, seen[f"such_as{number}"]))
                    found[text] = int(seen[f"n{number}"]), examples
        return found

    def uid_origin(self) -> Origin:
        """Whose the uids of the pairs are; call it after the write."""
        if "uid" not in self.frame.columns:
            return "made_up"
        if not self.source.fill_uid or LEFT_OUT not in self.source.frame.columns:
            return "given"
        pairs, uids = (self._observation.get[name] or 0 for name in ("pairs", "uids"))
        return "made_up" if not uids else "given" if uids == pairs else "mixed"

    def write(self, ref: str) -> None:
        """Write the table of what is left out, row by row: `reason` and `example`."""
        spark = self.source.frame.sparkSession
        rows = spark.createDataFrame([], "reason string, example string")
        if LEFT_OUT in self.source.frame.columns:
            rows = self.source.frame.where(F.col(LEFT_OUT).isNotNull()).select(f"{LEFT_OUT}.*")
        if self.source.rejects is not None:
            rows = rows.unionByName(self.source.rejects.select("reason", "example"))
        delta.overwrite(rows, ref)


def _first(example: Column) -> Column:
    """The first EXAMPLES by name, as an array."""
    if pyspark.__version__ < "4.2":  # whose `min_by` gives one
        return F.array(F.min(example))
    return F.call_function("min_by", example, example, F.lit(EXAMPLES))


def say_left_out(counts: dict[str, tuple[int, str]]) -> None:
    """Print a line for each reason, with an example."""
    for reason, (count, example) in counts.items():
        say(f"left out: {count:,} {reason}, such as {example}")
