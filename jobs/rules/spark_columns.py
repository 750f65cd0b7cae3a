"""Values and conditions of rules as Spark columns, once :class:`Answers` are known.

A number is a double, null where it is not known: where the column is null or NaN, at a division by
zero, the logarithm of nothing, infinity less infinity. Conditions follow Kleene's logic, as in SQL.
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
from .table_statistics import Answers, place, tie_order

Operation = Callable[[Column, Column], Column]

_COMPARISONS: dict[str, Operation] = {">=": ge, ">": gt, "<=": le, "<": lt, "=": eq, "!=": ne}


def _divided(one: Column, other: Column) -> Column:
    return F.when(other != 0, one / other)  # a plain division by zero would end the job


_ARITHMETIC: dict[str, Operation] = {"+": add, "-": sub, "*": mul, "/": _divided}
_FUNCTIONS: dict[str, Callable[..., Column]] = {
    "abs": F.abs,
    "log": F.ln,
    "sqrt": F.sqrt,
    "least": F.least,
    "greatest": F.greatest,
}


def column(signal: Signal) -> Column:
    """The signal as its table holds it, but NaN as null."""
    raw = F.col(quoted(signal.column or signal.name))
    if signal.kind in ("text", "truth"):
        return raw
    return F.when(~F.isnan(raw.cast("double")), raw)


def number(node: Node, answers: Answers) -> Column:
    """A value as a double, null where it is not known, never NaN."""
    match node:
        case Number():
            return F.lit(node.value)
        case Signal():
            value = F.col(quoted(node.column or node.name)).cast("double")
        case Rank():
            return F.col(answers.ranks[node])
        case Quantile():
            return F.lit(answers.quantiles[node]).cast("double")
        case Negative(part):
            return -number(part, answers)
        case Arithmetic(operands, operators):
            value = number(operands[0], answers)
            for operator, operand in zip(operators, operands[1:], strict=True):
                value = _ARITHMETIC[operator](value, number(operand, answers))
        case Call("coalesce", arguments):
            return F.coalesce(*(number(argument, answers) for argument in arguments))
        case Call(function, arguments):
            given = [number(argument, answers) for argument in arguments]
            known = reduce(and_, (argument.isNotNull() for argument in given))
            value = F.when(known, _FUNCTIONS[function](*given))  # Spark's least passes nulls over
        case _:
            raise TypeError(f"not a number: {node}")
    return F.when(~F.isnan(value), value)


def truth(node: Node, answers: Answers) -> Column:
    """A condition: true, false, or null where it is not known."""
    match node:
        case Truth():
            return F.lit(node.value)
        case Signal():
            return F.col(quoted(node.column or node.name))
        case Call("coalesce", arguments):
            return F.coalesce(*(truth(argument, answers) for argument in arguments))
        case Comparison(left, comparator, right):
            one, other = _alike((left, right), answers)
            return _COMPARISONS[comparator](one, other)
        case OneOf(value, options):
            one, *others = _alike((value, *options), answers)
            return balanced(or_, [one == other for other in others])
        case Like(value, pattern):
            return _text(value).like(pattern.value)
        case IsNull(value):
            return _alike((value,), answers)[0].isNull()
        case Not(part):
            return ~truth(part, answers)
        case AllOf(operands):
            return balanced(and_, [truth(part, answers) for part in operands])
        case AnyOf(operands):
            return balanced(or_, [truth(part, answers) for part in operands])
        case Best():
            return _is_best(node, answers)
        case Datacomp(_, value):
            return _is_within(node, height(node, answers), answers)
    raise TypeError(f"not a condition: {node}")


def height(best: Best | Datacomp, answers: Answers) -> Column:
    """What ``best`` ranks by, highest first; null where it is not known, never -0."""
    value = number(best.value, answers)
    value = -value if isinstance(best, Best) and best.direction == "bottom" else value
    return F.when(value == 0, F.lit(0.0)).otherwise(value)


def up_to(last: Row) -> Column:
    """True for ties that come before ``last``, or are it. Null parts of a key come first."""
    key = [F.lit(last[name]).cast("string").alias(name) for name in KEYS]
    return F.struct(*tie_order()) <= F.struct(F.lit(last["hash"]).alias("hash"), *key)


def is_cut_in(best: Best, answers: Answers) -> Column:
    """Whether a row is taken, were there no ``at least``."""
    top = height(best, answers)
    if not best.per:
        return _is_within(best, top, answers)
    taken = place(-top) <= F.col(answers.quotas[best].column)
    return F.when(top.isNotNull(), F.coalesce(taken, F.lit(False)))


def _is_best(best: Best, answers: Answers) -> Column:
    taken = is_cut_in(best, answers)
    if not best.at_least:
        return taken
    last = F.col(answers.minima[best].column)  # null in groups that are taken whole
    depth = -height(best, answers)
    return taken | (taken.isNotNull() & (last.isNull() | (place(depth) <= last)))


def _is_within(best: Best | Datacomp, top: Column, answers: Answers) -> Column:
    cut = answers.cuts[best]
    if cut.value is None:
        return F.when(top.isNotNull(), F.lit(False))
    is_bottom = isinstance(best, Best) and best.direction == "bottom"
    edge = F.lit(-cut.value if is_bottom else cut.value)
    if cut.last_tie is None:
        return top >= edge
    return (top > edge) | ((top == edge) & up_to(cut.last_tie))


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


def _alike(nodes: Sequence[Node], answers: Answers) -> list[Column]:
    """Columns of one kind. A signal that is not bound is what the others are, else a number."""
    kind = next(filter(None, map(_kind, nodes)), "number")
    if kind == "text":
        return [_text(node) for node in nodes]
    return [(truth if kind == "truth" else number)(node, answers) for node in nodes]


def balanced(operation: Operation, columns: Sequence[Column]) -> Column:
    """``a AND b AND ...`` as a shallow tree: Spark's stack would not hold a chain of thousands."""
    if len(columns) == 1:
        return columns[0]
    middle = len(columns) // 2
    left, right = balanced(operation, columns[:middle]), balanced(operation, columns[middle:])
    return operation(left, right)
