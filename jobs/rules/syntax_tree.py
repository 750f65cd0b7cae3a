"""The syntax tree of the rule language: frozen nodes that print as rule text.

Values and conditions share one node type, because a column of booleans is both. ``rules/apply.py``
defines what they mean on a table. ``str(node)`` is canonical: parsing it gives the same tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, Self

Kind = Literal["number", "text", "truth"]

_WORDS = "and|or|not|top|bottom|datacomp|of|per|in|like|between|is|null|true|false|where"


@dataclass(frozen=True)
class Node:
    """Part of a rule; ``position`` is where its text begins, and is ignored in comparisons."""

    position: int = field(default=0, compare=False, kw_only=True)

    def parts(self) -> list[Node]:
        """The direct children of this node, in the order of the text."""
        values = [getattr(self, each.name) for each in fields(self)]
        groups = [value if isinstance(value, tuple) else (value,) for value in values]
        return [part for group in groups for part in group if isinstance(part, Node)]

    def with_parts(self, change: Callable[[Node], Node]) -> Self:
        """This node with ``change`` applied to each of its parts."""

        def changed(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(changed, value))
            return change(value) if isinstance(value, Node) else value

        return replace(self, **{f.name: changed(getattr(self, f.name)) for f in fields(self)})

    def walk(self) -> list[Node]:
        """This node and all below it, parts before the nodes that hold them."""
        return [*(node for part in self.parts() for node in part.walk()), self]

    def depth(self) -> int:
        """How many levels of nodes there are below this one."""
        return max((1 + part.depth() for part in self.parts()), default=0)


@dataclass(frozen=True)
class Signal(Node):
    """A column of the scores table, or of a table (``table``) joined to it.

    Set when the rule is bound: ``kind``, its type; ``column``, its name in the joined DataFrame;
    ``plain``, whether the text leaves out the table's name.
    """

    name: str
    table: str | None = None
    kind: Kind | None = field(default=None, compare=False)
    column: str | None = field(default=None, compare=False)
    plain: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        table = None if self.plain else self.table
        return (f"{_name(table)}." if table else "") + _name(self.name)


@dataclass(frozen=True)
class Number(Node):
    """A number, never NaN, never infinite."""

    value: float

    def __str__(self) -> str:
        return repr(self.value).removesuffix(".0")


@dataclass(frozen=True)
class Text(Node):
    """A text literal."""

    value: str

    def __str__(self) -> str:
        return "'{}'".format(self.value.replace("'", "''"))


@dataclass(frozen=True)
class Truth(Node):
    """True or false."""

    value: bool

    def __str__(self) -> str:
        return str(self.value).lower()


@dataclass(frozen=True)
class Arithmetic(Node):
    """``a + b - c`` or ``a * b / c``, from left to right; one operator fewer than operands."""

    operands: tuple[Node, ...]
    operators: tuple[str, ...]

    def __str__(self) -> str:
        first, *rest = (f"({x})" if self._needs_brackets(x) else _operand(x) for x in self.operands)
        return " ".join([first, *(f"{o} {x}" for o, x in zip(self.operators, rest, strict=True))])

    def _needs_brackets(self, part: Node) -> bool:
        is_product = self.operators[0] in "*/"
        return isinstance(part, Arithmetic) and (is_product or part.operators[0] in "+-")


@dataclass(frozen=True)
class Negative(Node):
    """``-value``."""

    part: Node

    def __str__(self) -> str:
        return f"-({self.part})" if isinstance(self.part, Arithmetic) else f"-{_operand(self.part)}"


@dataclass(frozen=True)
class Call(Node):
    """A function applied to the values of one row."""

    function: str
    arguments: tuple[Node, ...]

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True)
class Rank(Node):
    """The share of scored rows with a value that are worse: 0 for the worst, never 1."""

    part: Node

    def __str__(self) -> str:
        return f"rank({self.part})"


@dataclass(frozen=True)
class Quantile(Node):
    """The least value such that a ``share`` of all values is at most that: one number per table."""

    part: Node
    share: Number

    def ascending_rank(self, values: int) -> int:
        """The exact rank of the quantile among so many values, from the least, which is 1."""
        return max(1, math.ceil(values * Fraction(repr(self.share.value))))

    def __str__(self) -> str:
        return f"quantile({self.part}, {self.share})"


@dataclass(frozen=True)
class Comparison(Node):
    """``left comparator right``, the comparator one of >= > <= < = !=."""

    left: Node
    comparator: str
    right: Node

    def __str__(self) -> str:
        return f"{_operand(self.left)} {self.comparator} {_operand(self.right)}"


@dataclass(frozen=True)
class OneOf(Node):
    """``value in (options)``."""

    value: Node
    options: tuple[Node, ...]

    def __str__(self) -> str:
        return f"{_operand(self.value)} in ({', '.join(map(str, self.options))})"


@dataclass(frozen=True)
class Like(Node):
    """Text matches an SQL pattern: % is any text, _ any one character, a backslash escapes them."""

    value: Node
    pattern: Text

    def __str__(self) -> str:
        return f"{_operand(self.value)} like {self.pattern}"


@dataclass(frozen=True)
class IsNull(Node):
    """Whether there is no value: null, NaN, or arithmetic without a result."""

    value: Node

    def __str__(self) -> str:
        return f"{_operand(self.value)} is null"


@dataclass(frozen=True)
class Best(Node):
    """The best rows by a value: highest first for ``top``, lowest first for ``bottom``.

    With ``per``, the best of each group of these columns. ``at_least`` then adds the best of the
    other rows until each group by ``at_least_per`` has that many rows, or all it has.
    """

    direction: str  # "top" or "bottom"
    amount: Decimal  # percent in 0..100, or a whole number of rows
    percent: bool
    value: Node
    per: tuple[Signal, ...] = ()
    at_least: int = 0
    at_least_per: tuple[Signal, ...] = ()

    def rows_of(self, scored: int) -> int:
        """How many of ``scored`` rows are taken: floor(scored * percent / 100), exactly."""
        if self.percent:
            return math.floor(scored * Fraction(self.amount) / 100)
        return min(int(self.amount), scored)

    def __str__(self) -> str:
        amount = f"{self.direction} {self.amount:f}{'%' if self.percent else ''}"
        text = f"{amount} of {_operand(self.value)}" + _per(self.per)
        return text + (f", at least {self.at_least}" + _per(self.at_least_per)) * (
            self.at_least > 0
        )


@dataclass(frozen=True)
class Datacomp(Node):
    """DataComp's own rule: all rows >= the value at index int(N * share) in descending order."""

    percent: Decimal  # from 0 to below 100
    value: Node

    def descending_index(self, rows: int) -> int:
        """The 0-based index, rounded like DataComp's ``int(len(df) * fraction)``."""
        return int(rows * float(self.percent / 100))

    def __str__(self) -> str:
        return f"datacomp {self.percent:f}% of {_operand(self.value)}"


@dataclass(frozen=True)
class Not(Node):
    """True where ``part`` is false."""

    part: Node

    def __str__(self) -> str:
        return f"NOT {_bracketed(self.part)}"


@dataclass(frozen=True)
class AllOf(Node):
    """AND of two or more parts."""

    operands: tuple[Node, ...]

    def __str__(self) -> str:
        return " AND ".join(map(_bracketed, self.operands))


@dataclass(frozen=True)
class AnyOf(Node):
    """OR of two or more parts."""

    operands: tuple[Node, ...]

    def __str__(self) -> str:
        return " OR ".join(map(_bracketed, self.operands))


_BRACKETED_OPERANDS = (Comparison, OneOf, Like, IsNull, Best, Datacomp, Not, AllOf, AnyOf)


def _name(name: str) -> str:
    plain = name.isidentifier() and name.lower() not in _WORDS.split("|")
    return name if plain else f"`{name}`"


def _per(groups: tuple[Signal, ...]) -> str:
    return f" per {', '.join(map(str, groups))}" if groups else ""


def _bracketed(condition: Node) -> str:
    return f"({condition})" if isinstance(condition, AnyOf | AllOf) else str(condition)


def _operand(value: Node) -> str:
    """The text of ``value`` as part of arithmetic or of a comparison."""
    return f"({value})" if isinstance(value, _BRACKETED_OPERANDS) else str(value)
