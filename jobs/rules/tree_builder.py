"""From the words of a rule to its syntax tree: lark's callbacks, and what numbers may be.

A value that means nothing (``top 130%``, an unknown function, too many brackets) raises
:class:`MeaninglessError`, which ``rules/grammar.py`` turns into an error with a caret.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from lark import Token, Transformer, v_args

from ..core.settings import nearest
from .syntax_tree import (
    AllOf,
    AnyOf,
    Arithmetic,
    Best,
    Call,
    Comparison,
    Datacomp,
    IsNull,
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

DEEPEST_RULE = 50  # levels of nodes: far below where Python or Spark run out of stack
MOST_PARTS = 1_000  # nodes
MOST_OPERANDS = 100  # of one sum or product, which Spark adds up level by level
MOST_DECIMALS = 18

FUNCTIONS: dict[str, tuple[int, int]] = {  # name -> least and most arguments
    "rank": (1, 1),
    "quantile": (2, 2),
    "abs": (1, 1),
    "log": (1, 1),
    "sqrt": (1, 1),
    "least": (2, 20),
    "greatest": (2, 20),
    "coalesce": (2, 20),
}
_SPELLINGS = {"==": "=", "<>": "!="}


class Amount(NamedTuple):
    """Of a best fraction: a percentage or a number of rows."""

    value: Decimal
    percent: bool
    number: Token


class MeaninglessError(Exception):
    """Grammatical, but with a value that means nothing."""

    def __init__(self, message: str, position: int = 0) -> None:
        self.message, self.position = message, position


def _at(token: Token) -> int:
    return token.start_pos or 0


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Lark's callbacks, one for each rule of the grammar that makes a node."""

    def rule(self, label: str | None, condition: Node) -> tuple[str | None, Node]:
        return label, _bounded(condition)

    def repetition(
        self, amount: Node, where: Node | None, at_most: Token | None
    ) -> tuple[Node, Node | None, int | None]:
        most = None if at_most is None else int(_rows(at_most, "at most 3"))
        return _bounded(amount), where and _bounded(where), most

    def label(self, name: Token) -> str:
        return name.strip("`")

    def signal(self, table: Token | None, name: Token) -> Signal:
        of = None if table is None else table.strip("`")
        return Signal(name.strip("`"), of, position=_at(table or name))

    def any_of(self, *parts: Node) -> Node:
        return _not_too_deep(AnyOf(parts, position=parts[0].position))

    def all_of(self, *parts: Node) -> Node:
        return _not_too_deep(AllOf(parts, position=parts[0].position))

    def negation(self, word: Token, part: Node) -> Node:
        return _not_too_deep(Not(part, position=_at(word)))

    def comparison(self, left: Node, comparator: Token, right: Node) -> Node:
        spelled = _SPELLINGS.get(comparator, str(comparator))
        return Comparison(left, spelled, right, position=left.position)

    def one_of(self, value: Node, word: Token | None, *options: Node) -> Node:
        for option in options:
            if not isinstance(option, Number | Text | Truth):
                raise MeaninglessError("`in` lists numbers or texts", option.position)
        return _maybe_not(word, OneOf(value, options, position=value.position))

    def like(self, value: Node, word: Token | None, pattern: Text) -> Node:
        bare = pattern.value.replace("\\\\", "")
        if any(piece[:1] not in ("%", "_") for piece in bare.split("\\")[1:]):
            raise MeaninglessError(
                "a backslash in a pattern stands before %, _ or another backslash", pattern.position
            )
        return _maybe_not(word, Like(value, pattern, position=value.position))

    def between(self, value: Node, word: Token | None, low: Node, high: Node) -> Node:
        sides = (Comparison(value, ">=", low), Comparison(value, "<=", high))
        sides = tuple(replace(side, position=value.position) for side in sides)  # type: ignore[assignment]
        return _maybe_not(word, AllOf(sides, position=value.position))

    def is_null(self, value: Node, word: Token | None) -> Node:
        return _maybe_not(word, IsNull(value, position=value.position))

    def best(
        self,
        direction: Token,
        amount: Amount,
        value: Node,
        per: tuple[Signal, ...] | None,
        floor: tuple[Token, int, tuple[Signal, ...] | None] | None,
    ) -> Node:
        decimal = amount.value if amount.percent else _whole(direction, amount)
        best = Best(direction.lower(), decimal, amount.percent, value, per or ())
        best = replace(best, position=_at(direction))
        word, least, groups = floor or (None, 0, None)
        if word is not None and not (groups or per):
            raise MeaninglessError(
                "of what? write at least 1000 per column", _at(word) + _stray_comma(word)
            )
        return replace(best, at_least=least, at_least_per=(groups or best.per) if least else ())

    def datacomp(self, word: Token, amount: Amount, value: Node) -> Node:
        if not amount.percent:
            percentage = float(amount.value) * (100 if amount.value < 1 else 1)
            raise MeaninglessError(
                f"DataComp's rule takes a share: write datacomp {percentage:.9g}%",
                _at(amount.number),
            )
        if float(amount.value / 100) >= 1:
            raise MeaninglessError("DataComp's rule has no threshold for 100%", _at(amount.number))
        return Datacomp(amount.value, value, position=_at(word))

    def amount(self, sign: Token | None, number: Token, percent: Token | None) -> Amount:
        shown = ("-" if sign == "-" else "") + number
        start = number if sign is None else sign
        try:
            amount = Decimal(shown)
        except InvalidOperation:  # an exponent of 20 digits
            raise MeaninglessError(f"{shown} is no usable amount", _at(start)) from None
        if percent is None:
            if not 0 <= amount < 2**63:
                raise MeaninglessError(f"{shown} is no number of rows", _at(start))
        elif not 0 <= amount <= 100:
            raise MeaninglessError(
                f"{shown}% is no share: a percentage lies between 0 and 100", _at(start)
            )
        elif amount and int(amount.as_tuple().exponent) < -MOST_DECIMALS:
            raise MeaninglessError(f"a percentage has at most {MOST_DECIMALS} decimals", _at(start))
        return Amount(amount, percent is not None, number)

    def at_least(
        self, word: Token, number: Token, groups: tuple[Signal, ...] | None
    ) -> tuple[Token, int, tuple[Signal, ...] | None]:
        return word, int(_rows(number, "at least 1000")), groups

    def groups(self, *signals: Signal) -> tuple[Signal, ...]:
        return signals

    def sum(self, *parts: Any) -> Node:
        return _chain(parts)

    def product(self, *parts: Any) -> Node:
        return _chain(parts)

    def sign(self, sign: Token, part: Node) -> Node:
        if sign == "+":
            return part
        if isinstance(part, Number):
            return Number(-part.value, position=_at(sign))
        return _not_too_deep(Negative(part, position=_at(sign)))

    def number(self, number: Token) -> Node:
        value = float(number)
        if math.isinf(value):
            raise MeaninglessError(f"{number} is too large for a number", _at(number))
        return Number(value, position=_at(number))

    def text(self, text: Token) -> Node:
        return Text(text[1:-1].replace("''", "'"), position=_at(text))

    def truth(self, word: Token) -> Node:
        return Truth(word.lower() == "true", position=_at(word))

    def call(self, name: Token, *arguments: Node | None) -> Node:
        return _called(name, [argument for argument in arguments if argument is not None])


def tree_builder() -> Transformer[Token, Any]:
    """What lark calls for each rule of the grammar."""
    return _Builder()


def _called(name: Token, arguments: Sequence[Node]) -> Node:
    function, at = name.lower(), _at(name)
    if function not in FUNCTIONS:
        near = nearest(function, list(FUNCTIONS))
        hint = f"did you mean {near}?" if near else f"there are {', '.join(FUNCTIONS)}"
        raise MeaninglessError(f"no function {str(name)!r}; {hint}", at)
    least, most = FUNCTIONS[function]
    if not least <= len(arguments) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        plural = "" if wanted == "1" else "s"
        raise MeaninglessError(f"{function} takes {wanted} value{plural}, not {len(arguments)}", at)
    if function == "rank":
        return _not_too_deep(Rank(arguments[0], position=at))
    if function == "quantile":
        share = arguments[1]
        if not isinstance(share, Number) or not 0 <= share.value <= 1:
            raise MeaninglessError(
                f"{share} is no share: quantile takes a number from 0 to 1", share.position
            )
        return _not_too_deep(Quantile(arguments[0], share, position=at))
    return _not_too_deep(Call(function, tuple(arguments), position=at))


def _chain(parts: Sequence[Any]) -> Node:
    operands, operators = tuple(parts[::2]), tuple(map(str, parts[1::2]))
    if len(operands) > MOST_OPERANDS:
        raise MeaninglessError(f"more than {MOST_OPERANDS} parts of one sum or product")
    return _not_too_deep(Arithmetic(operands, operators, position=operands[0].position))


def _maybe_not(word: Token | None, condition: Node) -> Node:
    return condition if word is None else Not(condition, position=condition.position)


def _whole(direction: Token, amount: Amount) -> Decimal:
    value, number = amount.value, amount.number
    if value == value.to_integral_value():
        return Decimal(int(value))
    percentage = float(value) * (100 if value < 1 else 1)  # 0.3 is meant as 30%
    hint = f"; for a share write {direction.lower()} {percentage:.9g}%"
    raise MeaninglessError(f"{number} is no whole number of rows{hint}", _at(number))


def _rows(number: Token, example: str) -> Decimal:
    try:
        rows = Decimal(number)
        if rows < 2**31 and rows == rows.to_integral_value():
            return rows
    except InvalidOperation:  # an exponent of 20 digits
        pass
    raise MeaninglessError(f"{number} is no number of rows, as in {example}", _at(number))


def _stray_comma(word: Token) -> int:
    """How far the words stand behind a comma and blanks that belong to their token."""
    return len(word) - len(word.lstrip(", \t\r\n"))


def _not_too_deep(node: Node) -> Node:
    if node.depth() > DEEPEST_RULE:
        raise MeaninglessError(f"more than {DEEPEST_RULE} levels of NOT and brackets")
    return node


def _bounded(node: Node) -> Node:
    if sum(1 for _ in node.walk()) > MOST_PARTS:
        raise MeaninglessError(f"more than {MOST_PARTS} parts")
    return node
