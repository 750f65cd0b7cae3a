"""Values and conditions of rules as Spark columns, once their :class:`TableStatistics` are known.

A number is a double. It is null where it is unknown: where the column is null or NaN, and for
division by zero, log(0) and infinity minus infinity. Conditions follow Kleene's three-valued logic,
as in SQL.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add, and_, eq, ge, gt, le, lt, mul, ne, or_, sub

from pyspark.sql import Column, Row
from pyspark.sql import functions as F

from ..tables.delta import quoted
from ..tables.scores import KEYS
from .syntax_tree import (
    AllOf,
    AnyOf,
    Arithmetic,
    Best,
    Call,
    Comparison,
    Datacomp,
    IsNull,
    Kind,
    Like,
    Negative,
    Node,
    Not,
    Number,
    OneOf,
    Quantile,
    Rank,
    Signal,
    Text,
    Truth,
)
from .table_statistics import TableStatistics, sort_key, tie_order

Operation = Callable[[Column, Column], Column]

_COMPARISONS: dict[str, Operation] = {">=": ge, ">": gt, "<=": le, "<": lt, "=": eq, "!=": ne}


def _divide(dividend: Column, divisor: Column) -> Column:
    return F.when(divisor != 0, dividend / divisor)  # in ANSI mode dividing by zero fails the job


_ARITHMETIC: dict[str, Operation] = {"+": add, "-": sub, "*": mul, "/": _divide}
_FUNCTIONS: dict[str, Callable[..., Column]] = {
    "abs": F.abs,
    "log": F.ln,
    "sqrt": F.sqrt,
    "least": F.least,
    "greatest": F.greatest,
}


def column(signal: Signal) -> Column:
    """The signal with the type it has in its table, NaN as null."""
    raw = F.col(quoted(signal.column or signal.name))
    if signal.kind in ("text", "truth"):
        return raw
    return F.when(~F.isnan(raw.cast("double")), raw)


def number(node: Node, statistics: TableStatistics) -> Column:
    """A value as a double, null where it is unknown, never NaN."""
    match node:
        case Number():
            return F.lit(node.value)
        case Signal():
            value = F.col(quoted(node.column or node.name)).cast("double")
        case Rank():
            return F.col(statistics.ranks[node])
        case Quantile():
            return F.lit(statistics.quantiles[node]).cast("double")
        case Negative(part):
            return -number(part, statistics)
        case Arithmetic(operands, operators):
            value = number(operands[0], statistics)
            for operator, operand in zip(operators, operands[1:], strict=True):
                value = _ARITHMETIC[operator](value, number(operand, statistics))
        case Call("coalesce", arguments):
            return F.coalesce(*(number(argument, statistics) for argument in arguments))
        case Call(function, arguments):
            given = [number(argument, statistics) for argument in arguments]
            known = reduce(and_, (argument.isNotNull() for argument in given))
            value = F.when(known, _FUNCTIONS[function](*given))  # Spark's least ignores nulls
        case _:
            raise TypeError(f"not a number: {node}")
    return F.when(~F.isnan(value), value)


def truth(node: Node, statistics: TableStatistics) -> Column:
    """A condition: true, false, or null where it is unknown."""
    match node:
        case Truth():
            return F.lit(node.value)
        case Signal():
            return F.col(quoted(node.column or node.name))
        case Call("coalesce", arguments):
            return F.coalesce(*(truth(argument, statistics) for argument in arguments))
        case Comparison(left, comparator, right):
            first, second = _columns_of_one_kind((left, right), statistics)
            return _COMPARISONS[comparator](first, second)
        case OneOf(value, options):
            tested, *allowed = _columns_of_one_kind((value, *options), statistics)
            return balanced(or_, [tested == option for option in allowed])
        case Like(value, pattern):
            return _text(value).like(pattern.value)
        case IsNull(value):
            return _columns_of_one_kind((value,), statistics)[0].isNull()
        case Not(part):
            return ~truth(part, statistics)
        case AllOf(operands):
            return balanced(and_, [truth(part, statistics) for part in operands])
        case AnyOf(operands):
            return balanced(or_, [truth(part, statistics) for part in operands])
        case Best():
            return _is_best(node, statistics)
        case Datacomp(_, value):
            return _reaches_cutoff(node, ranking_value(node, statistics), statistics)
    raise TypeError(f"not a condition: {node}")


def ranking_value(best: Best | Datacomp, statistics: TableStatistics) -> Column:
    """What ``best`` ranks by, highest first; null where it is unknown, never -0."""
    value = number(best.value, statistics)
    value = -value if isinstance(best, Best) and best.direction == "bottom" else value
    return F.when(value == 0, F.lit(0.0)).otherwise(value)


def is_tie_up_to(last: Row) -> Column:
    """True for ties up to and including ``last``. Null parts of a key come first."""
    key = [F.lit(last[name]).cast("string").alias(name) for name in KEYS]
    return F.struct(*tie_order()) <= F.struct(F.lit(last["hash"]).alias("hash"), *key)


def is_among_best(best: Best, statistics: TableStatistics) -> Column:
    """Whether a row is among the best, before ``at least`` adds rows."""
    value = ranking_value(best, statistics)
    if not best.per:
        return _reaches_cutoff(best, value, statistics)
    taken = sort_key(-value) <= F.col(statistics.quotas[best].column)
    return F.when(value.isNotNull(), F.coalesce(taken, F.lit(False)))


def _is_best(best: Best, statistics: TableStatistics) -> Column:
    taken = is_among_best(best, statistics)
    if not best.at_least:
        return taken
    last = F.col(statistics.minima[best].column)  # null in groups that are taken whole
    key = sort_key(-ranking_value(best, statistics))
    return taken | (taken.isNotNull() & (last.isNull() | (key <= last)))


def _reaches_cutoff(best: Best | Datacomp, value: Column, statistics: TableStatistics) -> Column:
    cutoff = statistics.cutoffs[best]
    if cutoff.value is None:
        return F.when(value.isNotNull(), F.lit(False))
    is_bottom = isinstance(best, Best) and best.direction == "bottom"
    last_value = F.lit(-cutoff.value if is_bottom else cutoff.value)
    if cutoff.last_tie is None:
        return value >= last_value
    return (value > last_value) | ((value == last_value) & is_tie_up_to(cutoff.last_tie))


def _text(node: Node) -> Column:
    match node:
        case Text(value):
            return F.lit(value)
        case Call("coalesce", arguments):
            return F.coalesce(*map(_text, arguments))
        case Signal():
            return F.col(quoted(node.column or node.name)).cast("string")
    raise TypeError(f"not text: {node}")


def _kind(node: Node) -> Kind | None:
    match node:
        case Signal():
            return node.kind
        case Call("coalesce", arguments):
            return next(filter(None, map(_kind, arguments)), None)
        case Text():
            return "text"
        case Number() | Arithmetic() | Negative() | Call() | Rank() | Quantile():
            return "number"
    return "truth"


def _columns_of_one_kind(nodes: Sequence[Node], statistics: TableStatistics) -> list[Column]:
    """The nodes as columns of one kind. An unbound signal has the kind of the others, or number."""
    kind = next(filter(None, map(_kind, nodes)), "number")
    if kind == "text":
        return [_text(node) for node in nodes]
    return [(truth if kind == "truth" else number)(node, statistics) for node in nodes]


def balanced(operation: Operation, columns: Sequence[Column]) -> Column:
    """``a AND b AND ...`` as a shallow tree: a chain of thousands would overflow Spark's stack."""
    if len(columns) == 1:
        return columns[0]
    middle = len(columns) // 2
    left, right = balanced(operation, columns[:middle]), balanced(operation, columns[middle:])
    return operation(left, right)
