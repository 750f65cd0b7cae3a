"""Makes the rows of a selection table: the verdict on each scores row, and the signals used."""

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..rules.rule import Repetition, Rule, signals
from ..rules.syntax_tree import Signal
from ..tables import delta
from ..tables.selection import COLUMNS, COMMENTS


def signal_columns(rules: Sequence[Rule | Repetition]) -> dict[str, Signal]:
    """Column name in the selection -> signal, for the other signals that (bound) rules use.

    The name is that of the column in its table, or ``table_column`` if that is taken by a column of
    every selection or by an earlier signal.
    """
    signal_by_name: dict[str, Signal] = {}
    taken = {name.lower() for name in COLUMNS}
    used = signals([tree for rule in rules for tree in rule.trees()])
    for signal in sorted(used, key=lambda each: each.table is not None):  # the scores' own first
        if signal.table is None and signal.name in COLUMNS:
            continue
        needs_table = signal.name.lower() in taken and signal.table
        name = f"{signal.table}_{signal.name}" if needs_table else signal.name
        name = delta.free_name(name, taken)
        taken.add(name.lower())
        signal_by_name[name] = signal
    return signal_by_name


def selection_of(judged: DataFrame, rules: Sequence[Rule | Repetition]) -> DataFrame:
    """The columns of a selection table: key, verdict, the four scores, other signals used."""
    used = signal_columns(rules)
    comments = dict.fromkeys(used, "a signal that the rules used")
    for field in judged.schema:
        for name, signal in used.items():
            if field.name == signal.column and "comment" in field.metadata:
                comments[name] = field.metadata["comment"]
    columns = [
        F.col(delta.quoted(signal.column or signal.name)).alias(name)
        for name, signal in used.items()
    ]
    selected = delta.storable(judged.select(*COLUMNS, *columns))
    fields = [
        T.StructField(name, T.StringType(), True, {"comment": comment})
        for name, comment in (comments | COMMENTS).items()
    ]
    return delta.commented(selected, T.StructType(fields))
