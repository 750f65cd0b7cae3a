"""The rows of a selection table: a verdict on each row of scores, and the signals that decided."""

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..rules.rule import Repetition, Rule, signals
from ..rules.syntax_tree import Signal
from ..tables import delta
from ..tables.selection import COLUMNS, COMMENTS


def signal_columns(rules: Sequence[Rule | Repetition]) -> dict[str, Signal]:
    """The other signals that rules (bound) use, and how the selection calls them.

    As their table does; ``table_column`` where that name is taken, by a column of every selection
    or by a signal that came before.
    """
    named: dict[str, Signal] = {}
    taken = {name.lower() for name in COLUMNS}
    used = signals([tree for rule in rules for tree in rule.trees()])
    for signal in sorted(used, key=lambda each: each.table is not None):  # the scores' own first
        if signal.table is None and signal.name in COLUMNS:
            continue
        short = signal.name.lower() in taken and signal.table
        name = f"{signal.table}_{signal.name}" if short else signal.name
        name = delta.free_name(name, taken)
        taken.add(name.lower())
        named[name] = signal
    return named


def selection_of(judged: DataFrame, rules: Sequence[Rule | Repetition]) -> DataFrame:
    """The columns of a selection table: key, verdict, the four scores, what else the rules used."""
    others = signal_columns(rules)
    comments = dict.fromkeys(others, "a signal that the rules used")
    for field in judged.schema:
        for name, signal in others.items():
            if field.name == signal.column and "comment" in field.metadata:
                comments[name] = field.metadata["comment"]
    columns = [
        F.col(delta.quoted(signal.column or signal.name)).alias(name)
        for name, signal in others.items()
    ]
    selected = delta.storable(judged.select(*COLUMNS, *columns))
    fields = [
        T.StructField(name, T.StringType(), True, {"comment": comment})
        for name, comment in (comments | COMMENTS).items()
    ]
    return delta.commented(selected, T.StructType(fields))
