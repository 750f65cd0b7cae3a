"""The selection table: its columns, and a check that a table is one."""

from pyspark.sql import DataFrame
from pyspark.sql import types as T

from udfs.core.metrics import METRICS

from ..core.errors import UsageError
from .delta import described
from .pairs import PAIRS_KEYS
from .scores import KEYS, SCORES_TABLE

REPETITIONS = described(
    "repetitions", T.IntegerType(), "how often the pair is in the training set; 0 if not kept"
)
COMMENTS = {field.name: field.metadata["comment"] for field in SCORES_TABLE} | {
    "keep": "whether the pair is kept",
    "repetitions": REPETITIONS.metadata["comment"],
    "first_failed_rule": "first rule that the row failed; status:<status> if it has no scores",
    "reason": "what was missing: why there are no scores, or which signals have no value",
    "rules": "rule -> whether the row passed it",
}
"""Column name -> comment, for the columns of every selection."""

COLUMNS = (
    *(*KEYS, "scorer", "status", "keep", "repetitions"),
    *("first_failed_rule", "reason", "rules", *METRICS),
)
"""The columns of every selection; the other signals that the rules used follow them."""

REQUIRED = (*PAIRS_KEYS, "keep", "first_failed_rule")
"""The columns that every selection must have."""


def check_selection(ref: str, selection: DataFrame) -> None:
    """Raise UsageError unless `selection` has the columns of a selection table."""
    missing = [name for name in REQUIRED if name not in selection.columns]
    if missing:
        raise UsageError(
            f"{ref} is not a selection table: it has no column {', '.join(missing)}"
            f" among {', '.join(selection.columns)}"
        )
