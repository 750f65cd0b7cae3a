"""Builds the syntax tree of a rule: lark's callbacks, which also check numbers and sizes.

An invalid value (``top 130%``, an unknown function, too many brackets) raises
:class:`InvalidValueError`, which ``rules/grammar.py`` turns into an error with a caret.
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

MAX_DEPTH = 50  # levels of nodes: far below where Python or Spark run out of stack
MAX_PARTS = 1_000  # nodes
MAX_OPERANDS = 100  # of one sum or product, which Spark adds up level by level
MAX_DECIMALS = 18

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
    """The amount of a best fraction: a percentage or a number of rows."""

    value: Decimal
    percent: bool
    number: Token


class InvalidValueError(Exception):
    """The rule is grammatical, but one of its values is invalid."""

    def __init__(self, message: str, position: int = 0) -> None:
        self.message, self.position = message, position


def _start(token: Token) -> int:
    return token.start_pos or 0


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Lark's callbacks, one for each grammar rule that makes a node."""

    def rule(self, label: str | None, condition: Node) -> tuple[str | None, Node]:
        return label, _checked_size(condition)

    def repetition(
        self, amount: Node, where: Node | None, at_most: Token | None
    ) -> tuple[Node, Node | None, int | None]:
        most = None if at_most is None else int(_rows(at_most, "at most 3"))
        return _checked_size(amount), where and _checked_size(where), most

    def label(self, name: Token) -> str:
        return name.strip("`")

    def signal(self, table: Token | None, name: Token) -> Signal:
        table_name = None if table is None else table.strip("`")
        return Signal(name.strip("`"), table_name, position=_start(table or name))

    def any_of(self, *parts: Node) -> Node:
        return _checked_depth(AnyOf(parts, position=parts[0].position))

    def all_of(self, *parts: Node) -> Node:
        return _checked_depth(AllOf(parts, position=parts[0].position))

    def negation(self, keyword: Token, part: Node) -> Node:
        return _checked_depth(Not(part, position=_start(keyword)))

    def comparison(self, left: Node, comparator: Token, right: Node) -> Node:
        spelled = _SPELLINGS.get(comparator, str(comparator))
        return Comparison(left, spelled, right, position=left.position)

    def one_of(self, value: Node, keyword: Token | None, *options: Node) -> Node:
        for option in options:
            if not isinstance(option, Number | Text | Truth):
                raise InvalidValueError("`in` takes a list of numbers or texts", option.position)
        return _negated_if(keyword, OneOf(value, options, position=value.position))

    def like(self, value: Node, keyword: Token | None, pattern: Text) -> Node:
        bare = pattern.value.replace("\\\\", "")
        if any(piece[:1] not in ("%", "_") for piece in bare.split("\\")[1:]):
            raise InvalidValueError(
                "a backslash in a pattern must come before %, _ or another backslash",
                pattern.position,
            )
        return _negated_if(keyword, Like(value, pattern, position=value.position))

    def between(self, value: Node, keyword: Token | None, low: Node, high: Node) -> Node:
        sides = (Comparison(value, ">=", low), Comparison(value, "<=", high))
        sides = tuple(replace(side, position=value.position) for side in sides)  # type: ignore[assignment]
        return _negated_if(keyword, AllOf(sides, position=value.position))

    def is_null(self, value: Node, keyword: Token | None) -> Node:
        return _negated_if(keyword, IsNull(value, position=value.position))

    def best(
        self,
        direction: Token,
        amount: Amount,
        value: Node,
        per: tuple[Signal, ...] | None,
        minimum: tuple[Token, int, tuple[Signal, ...] | None] | None,
    ) -> Node:
        decimal = amount.value if amount.percent else _whole(direction, amount)
        best = Best(direction.lower(), decimal, amount.percent, value, per or ())
        best = replace(best, position=_start(direction))
        keyword, least, groups = minimum or (None, 0, None)
        if keyword is not None and not (groups or per):
            raise InvalidValueError(
                "the groups are missing: write at least 1000 per column",
                _start(keyword) + _leading_length(keyword),
            )
        return replace(best, at_least=least, at_least_per=(groups or best.per) if least else ())

    def datacomp(self, keyword: Token, amount: Amount, value: Node) -> Node:
        if not amount.percent:
            percentage = float(amount.value) * (100 if amount.value < 1 else 1)
            raise InvalidValueError(
                f"DataComp's rule takes a share: write datacomp {percentage:.9g}%",
                _start(amount.number),
            )
        if float(amount.value / 100) >= 1:
            raise InvalidValueError(
                "DataComp's rule has no threshold for 100%", _start(amount.number)
            )
        return Datacomp(amount.value, value, position=_start(keyword))

    def amount(self, sign: Token | None, number: Token, percent: Token | None) -> Amount:
        text = ("-" if sign == "-" else "") + number
        position = _start(number if sign is None else sign)
        try:
            amount = Decimal(text)
        except InvalidOperation:  # an exponent of 20 digits
            raise InvalidValueError(f"{text} is not a valid amount", position) from None
        if percent is None:
            if not 0 <= amount < 2**63:
                raise InvalidValueError(f"{text} is not a valid number of rows", position)
        elif not 0 <= amount <= 100:
            raise InvalidValueError(
                f"{text}% is not a valid share: a percentage is between 0 and 100", position
            )
        elif amount and int(amount.as_tuple().exponent) < -MAX_DECIMALS:
            raise InvalidValueError(f"a percentage has at most {MAX_DECIMALS} decimals", position)
        return Amount(amount, percent is not None, number)

    def at_least(
        self, keyword: Token, number: Token, groups: tuple[Signal, ...] | None
    ) -> tuple[Token, int, tuple[Signal, ...] | None]:
        return keyword, int(_rows(number, "at least 1000")), groups

    def groups(self, *signals: Signal) -> tuple[Signal, ...]:
        return signals

    def sum(self, *parts: Any) -> Node:
        return _arithmetic(parts)

    def product(self, *parts: Any) -> Node:
        return _arithmetic(parts)

    def sign(self, sign: Token, part: Node) -> Node:
        if sign == "+":
            return part
        if isinstance(part, Number):
            return Number(-part.value, position=_start(sign))
        return _checked_depth(Negative(part, position=_start(sign)))

    def number(self, number: Token) -> Node:
        value = float(number)
        if math.isinf(value):
            raise InvalidValueError(f"{number} is too large", _start(number))
        return Number(value, position=_start(number))

    def text(self, text: Token) -> Node:
        return Text(text[1:-1].replace("''", "'"), position=_start(text))

    def truth(self, keyword: Token) -> Node:
        return Truth(keyword.lower() == "true", position=_start(keyword))

    def call(self, name: Token, *arguments: Node | None) -> Node:
        return _call_node(name, [argument for argument in arguments if argument is not None])


def tree_builder() -> Transformer[Token, Any]:
    """The callbacks that lark calls for the rules of the grammar."""
    return _Builder()


def _call_node(name: Token, arguments: Sequence[Node]) -> Node:
    function, position = name.lower(), _start(name)
    if function not in FUNCTIONS:
        near = nearest(function, list(FUNCTIONS))
        hint = f"did you mean {near}?" if near else f"there are {', '.join(FUNCTIONS)}"
        raise InvalidValueError(f"no function {str(name)!r}; {hint}", position)
    least, most = FUNCTIONS[function]
    if not least <= len(arguments) <= most:
        counts = f"{least}" if least == most else f"{least} to {most}"
        plural = "" if counts == "1" else "s"
        message = f"{function} takes {counts} value{plural}, not {len(arguments)}"
        raise InvalidValueError(message, position)
    if function == "rank":
        return _checked_depth(Rank(arguments[0], position=position))
    if function == "quantile":
        share = arguments[1]
        if not isinstance(share, Number) or not 0 <= share.value <= 1:
            raise InvalidValueError(
                f"{share} is not a valid share: quantile takes a number from 0 to 1",
                share.position,
            )
        return _checked_depth(Quantile(arguments[0], share, position=position))
    return _checked_depth(Call(function, tuple(arguments), position=position))


def _arithmetic(parts: Sequence[Any]) -> Node:
    operands, operators = tuple(parts[::2]), tuple(map(str, parts[1::2]))
    if len(operands) > MAX_OPERANDS:
        raise InvalidValueError(f"a sum or product of more than {MAX_OPERANDS} parts")
    return _checked_depth(Arithmetic(operands, operators, position=operands[0].position))


def _negated_if(keyword: Token | None, condition: Node) -> Node:
    return condition if keyword is None else Not(condition, position=condition.position)


def _whole(direction: Token, amount: Amount) -> Decimal:
    value, number = amount.value, amount.number
    if value == value.to_integral_value():
        return Decimal(int(value))
    percentage = float(value) * (100 if value < 1 else 1)  # 0.3 is meant as 30%
    hint = f"; for a share write {direction.lower()} {percentage:.9g}%"
    raise InvalidValueError(f"{number} is not a whole number of rows{hint}", _start(number))


def _rows(number: Token, example: str) -> Decimal:
    try:
        rows = Decimal(number)
        if rows < 2**31 and rows == rows.to_integral_value():
            return rows
    except InvalidOperation:  # an exponent of 20 digits
        pass
    raise InvalidValueError(
        f"{number} is not a valid number of rows; write, for example, {example}", _start(number)
    )


def _leading_length(keyword: Token) -> int:
    """The length of the comma and blanks at the start of a token such as ``, at least``."""
    return len(keyword) - len(keyword.lstrip(", \t\r\n"))


def _checked_depth(node: Node) -> Node:
    if node.depth() > MAX_DEPTH:
        raise InvalidValueError(f"the rule has more than {MAX_DEPTH} levels of NOT and brackets")
    return node


def _checked_size(node: Node) -> Node:
    if sum(1 for _ in node.walk()) > MAX_PARTS:
        raise InvalidValueError(f"the rule has more than {MAX_PARTS} parts")
    return node
