"""Rules on the columns of tables: which column a name means, and whether the parts fit together.

A value is a number, text, or true and false; what a column holds is known only with its table. So
the same check runs twice: when a rule is read, where columns fit anywhere, and when it is bound.
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
"""What rules call the scores table."""

_A = {"number": "a number", "text": "text", "truth": "true or false"}
_DASHED = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Place:
    """A column that a rule may name.

    Attributes:
        name: as its table spells it.
        table: what rules call its table.
        column: what the joined DataFrame calls it.
        kind: what it is good for; None: nothing.
        holds: its SQL type, for messages.
        last: whether it is meant only where no other table has the name.
    """

    name: str
    table: str
    column: str
    kind: Kind | None
    holds: str
    last: bool = False


def numeric(*names: str) -> list[Place]:
    """Columns of numbers in the scores table."""
    return [Place(name, SCORES, name, "number", "double") for name in names]


Filled = Callable[[Sequence[Place]], Sequence[Place]]
"""Of columns of one name in several tables, those that have a value somewhere."""


def bind(node: N, places: Sequence[Place], text: str, filled: Filled) -> N:
    """``node`` with its signals bound to columns.

    A plain name that several tables have means the one in which it has values at all.

    Raises:
        RuleError: no such column, one of a useless type, or in several tables.
    """

    def bound(part: Node) -> Node:
        if isinstance(part, Signal):
            return _bound_signal(part, places, text, filled)
        return part.with_parts(bound)

    return bound(node)  # type: ignore[return-value] # a node of the same class


def _bound_signal(signal: Signal, places: Sequence[Place], text: str, filled: Filled) -> Signal:
    tables = {place.table for place in places}
    if signal.table is not None:
        table = _spelled(signal.table, tables)
        if table is None:
            near = nearest(signal.table, sorted(tables))
            hint = f"did you mean {near}?" if near else f"there are {', '.join(sorted(tables))}"
            raise RuleError(f"no table {signal.table!r}; {hint}", text, signal.position)
        places = [place for place in places if place.table == table]
    name = _spelled(signal.name, {place.name for place in places})
    if name is None:
        raise _unknown(signal, places, text)
    found: Sequence[Place] = [place for place in places if place.name == name]
    found = [place for place in found if not place.last] or found
    if len(found) > 1:
        found = filled(found) or found[:1]
    if len(found) > 1:
        written = " or ".join(f"{place.table}.{place.name}" for place in found)
        raise RuleError(f"{name!r} is in several tables; write {written}", text, signal.position)
    (place,) = found
    if place.kind is None:
        raise RuleError(
            f"column {signal.name!r} holds {place.holds}: a signal is a number, text or true/false",
            text,
            signal.position,
        )
    table = None if place.table == SCORES else place.table
    plain = signal.table is None
    bound = replace(signal, name=place.name, table=table, plain=plain)
    return replace(bound, kind=place.kind, column=place.column)


def _spelled(name: str, names: set[str]) -> str | None:
    """The one of ``names`` that is meant: exactly, else but for its case."""
    folded = {each.lower(): each for each in sorted(names)}
    return name if name in names else folded.get(name.lower())


def _unknown(signal: Signal, places: Sequence[Place], text: str) -> RuleError:
    names = list(dict.fromkeys(place.name for place in places if place.kind is not None))
    near = nearest(signal.name, names)
    hint = f"did you mean {near!r}?" if near else f"there are {', '.join(names)}"
    dashed = _DASHED.match(text, signal.position)
    if dashed and _spelled(dashed[0], set(names)):
        hint = f"write `{dashed[0]}` in backquotes"
    return RuleError(f"no column {signal.name!r}; {hint}", text, signal.position)


def check(node: Node, needed: Kind, text: str) -> None:
    """Whether a tree is of one kind, and each of its parts of the kind that it has to be.

    Raises:
        RuleError: pointing at the first part that is not.
    """
    kind = _kind(node, text)
    if kind is None or kind == needed:
        return
    what = f"{_told(node)} {_A[kind]}"
    if needed == "truth":
        wanted = f"compare it, as in {node} >= 1" if kind == "number" else "compare it"
        raise RuleError(f"{what}, and a condition is needed here: {wanted}", text, node.position)
    raise RuleError(f"{what}, and {_A[needed]} is needed here", text, node.position)


def _kind(node: Node, text: str) -> Kind | None:
    """What a node is, having checked its parts; None for a column that is not bound yet."""
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
            return _alike(arguments, text)
        case Arithmetic() | Negative() | Call() | Rank() | Quantile():
            for part in node.parts():
                check(part, "number", text)
            return "number"
        case Comparison(left, comparator, right):
            kind = _alike((left, right), text)
            known = kind is not None and kind == _kind(left, text) == _kind(right, text)
            if known and kind != "number" and comparator not in ("=", "!="):
                said = (
                    f"{comparator} compares numbers; {_A[kind or 'text']} is compared by = and !="
                )
                raise RuleError(said, text, left.position)
        case OneOf(value, options):
            _alike((value, *options), text)
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


def _alike(nodes: Sequence[Node], text: str) -> Kind | None:
    """The kind of all of them.

    Raises:
        RuleError: they are of several; points at the column that does not fit, else the last.
    """
    kinds = [_kind(node, text) for node in nodes]
    known = list(dict.fromkeys(kind for kind in kinds if kind is not None))
    if len(known) <= 1:
        return known[0] if known else None
    first = kinds.index(known[0])
    other = next(i for i, kind in enumerate(kinds) if kind not in (None, known[0]))
    one, two = nodes[first], nodes[other]
    odd = one if isinstance(one, Signal) and known[0] != "number" else two
    told = [f"{_named(node)} ({_A[kind]})" for node, kind in zip((one, two), known, strict=False)]
    raise RuleError(f"cannot compare {told[0]} with {told[1]}", text, odd.position)


def _named(node: Node) -> str:
    return f"column {node.name!r}" if isinstance(node, Signal) else str(node)


def _told(node: Node) -> str:
    return _named(node) + (" holds" if isinstance(node, Signal) else " is")
