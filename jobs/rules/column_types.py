"""Binds the names in a rule to table columns, and checks the types of its parts.

A value is a number, text, or true or false. The type of a column is known only with its table, so
the same check runs twice: when a rule is parsed (unbound columns then fit anywhere), and when its
names are bound to columns.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..core.settings import nearest
from .errors import RuleError
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

N = TypeVar("N", bound=Node)
SCORES = "scores"
"""The name of the scores table in rules."""

_KIND_PHRASES = {"number": "a number", "text": "text", "truth": "true or false"}
_DASHED_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class NamedColumn:
    """A column that a rule may name.

    Attributes:
        name: its name in its table.
        table: the name of its table in rules.
        joined_name: its name in the joined DataFrame.
        kind: its type in rules; None for a type that rules cannot use.
        sql_type: its SQL type, for messages.
        is_fallback: whether its name means this column only if no other table has the name.
    """

    name: str
    table: str
    joined_name: str
    kind: Kind | None
    sql_type: str
    is_fallback: bool = False


def numeric(*names: str) -> list[NamedColumn]:
    """Numeric columns of the scores table."""
    return [NamedColumn(name, SCORES, name, "number", "double") for name in names]


FilledSelector = Callable[[Sequence[NamedColumn]], Sequence[NamedColumn]]
"""Given columns of the same name in several tables, returns those that have any values."""


def bind(node: N, columns: Sequence[NamedColumn], text: str, select_filled: FilledSelector) -> N:
    """``node`` with its signals bound to columns.

    A name without a table that occurs in several tables means the one column that has any values.

    Raises:
        RuleError: no such column, one of a type that rules cannot use, or one in several tables.
    """

    def bound(part: Node) -> Node:
        if isinstance(part, Signal):
            return _bound_signal(part, columns, text, select_filled)
        return part.with_parts(bound)

    return bound(node)  # type: ignore[return-value] # a node of the same class


def _bound_signal(
    signal: Signal, columns: Sequence[NamedColumn], text: str, select_filled: FilledSelector
) -> Signal:
    tables = {column.table for column in columns}
    if signal.table is not None:
        table = _match_name(signal.table, tables)
        if table is None:
            near = nearest(signal.table, sorted(tables))
            hint = f"did you mean {near}?" if near else f"there are {', '.join(sorted(tables))}"
            raise RuleError(f"no table {signal.table!r}; {hint}", text, signal.position)
        columns = [column for column in columns if column.table == table]
    name = _match_name(signal.name, {column.name for column in columns})
    if name is None:
        raise _unknown_column_error(signal, columns, text)
    matches: Sequence[NamedColumn] = [column for column in columns if column.name == name]
    matches = [column for column in matches if not column.is_fallback] or matches
    if len(matches) > 1:
        matches = select_filled(matches) or matches[:1]
    if len(matches) > 1:
        choices = " or ".join(f"{column.table}.{column.name}" for column in matches)
        raise RuleError(f"{name!r} is in several tables; write {choices}", text, signal.position)
    (column,) = matches
    if column.kind is None:
        raise RuleError(
            f"column {signal.name!r} holds {column.sql_type}: a signal is a number, text or"
            " true/false",
            text,
            signal.position,
        )
    table = None if column.table == SCORES else column.table
    plain = signal.table is None
    bound = replace(signal, name=column.name, table=table, plain=plain)
    return replace(bound, kind=column.kind, column=column.joined_name)


def _match_name(name: str, names: set[str]) -> str | None:
    """The one of ``names`` that equals ``name``, or else equals it but for case."""
    by_lower_case = {each.lower(): each for each in sorted(names)}
    return name if name in names else by_lower_case.get(name.lower())


def _unknown_column_error(signal: Signal, columns: Sequence[NamedColumn], text: str) -> RuleError:
    names = list(dict.fromkeys(column.name for column in columns if column.kind is not None))
    near = nearest(signal.name, names)
    hint = f"did you mean {near!r}?" if near else f"there are {', '.join(names)}"
    dashed = _DASHED_NAME.match(text, signal.position)
    if dashed and _match_name(dashed[0], set(names)):
        hint = f"write `{dashed[0]}` in backquotes"
    return RuleError(f"no column {signal.name!r}; {hint}", text, signal.position)


def check(node: Node, expected: Kind, text: str) -> None:
    """Check that a tree is of the expected kind, and each of its parts of the kind it has to be.

    Raises:
        RuleError: pointing at the first part that is not.
    """
    kind = _kind(node, text)
    if kind is None or kind == expected:
        return
    problem = f"{_subject_and_verb(node)} {_KIND_PHRASES[kind]}"
    if expected == "truth":
        hint = f"compare it, as in {node} >= 1" if kind == "number" else "compare it"
        message = f"{problem}, but a condition is needed here: {hint}"
    else:
        message = f"{problem}, but {_KIND_PHRASES[expected]} is needed here"
    raise RuleError(message, text, node.position)


def _kind(node: Node, text: str) -> Kind | None:
    """The kind of a node, whose parts are checked; None for a column that is not bound yet."""
    match node:
        case Signal():
            return node.kind
        case Number():
            return "number"
        case Text():
            return "text"
        case Truth():
            return "truth"
        case Call("coalesce", arguments):
            return _common_kind(arguments, text)
        case Arithmetic() | Negative() | Call() | Rank() | Quantile():
            for part in node.parts():
                check(part, "number", text)
            return "number"
        case Comparison(left, comparator, right):
            kind = _common_kind((left, right), text)
            known = kind is not None and kind == _kind(left, text) == _kind(right, text)
            if known and kind != "number" and comparator not in ("=", "!="):
                found = _KIND_PHRASES[kind or "text"]
                message = f"{comparator} compares numbers; compare {found} with = or !="
                raise RuleError(message, text, left.position)
        case OneOf(value, options):
            _common_kind((value, *options), text)
        case Like(value):
            check(value, "text", text)
        case IsNull(value):
            _kind(value, text)
        case Best(value=value) | Datacomp(value=value):
            check(value, "number", text)
        case Not() | AllOf() | AnyOf():
            for part in node.parts():
                check(part, "truth", text)
        case _:
            raise TypeError(f"not a part of a rule: {node!r}")
    return "truth"


def _common_kind(nodes: Sequence[Node], text: str) -> Kind | None:
    """The kind that all nodes have; None if it is not known of any.

    Raises:
        RuleError: their kinds differ; it points at the column that does not fit, else at the
            second of the two nodes that differ.
    """
    kinds = [_kind(node, text) for node in nodes]
    known = list(dict.fromkeys(kind for kind in kinds if kind is not None))
    if len(known) <= 1:
        return known[0] if known else None
    first = nodes[kinds.index(known[0])]
    second = next(n for n, kind in zip(nodes, kinds, strict=True) if kind not in (None, known[0]))
    misfit = first if isinstance(first, Signal) and known[0] != "number" else second
    left, right = (
        f"{_label(node)} ({_KIND_PHRASES[kind]})"
        for node, kind in zip((first, second), known, strict=False)
    )
    raise RuleError(f"cannot compare {left} with {right}", text, misfit.position)


def _label(node: Node) -> str:
    return f"column {node.name!r}" if isinstance(node, Signal) else str(node)


def _subject_and_verb(node: Node) -> str:
    return _label(node) + (" holds" if isinstance(node, Signal) else " is")
