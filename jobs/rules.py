"""The rule language: text -> frozen syntax tree, or a :class:`RuleError` with a caret.

    itm >= 66                           a signal (a numeric column) against a number
    top 30% of odf                      the best fraction; also: bottom 5% of su
    top 2000000 of itm                  the best so many
    match: itm >= 66 AND NOT (su < 20 OR bottom 5% of odf)

Keywords in any case. NOT binds before AND, AND before OR. ``match:`` names the rule; without it its
text is its name. A name that is no plain word stands in backquotes: `` `clip score` > 0.3 ``.
Comparisons: >= > <= < = !=, with == and <> as other spellings of the last two. Percentages are
exact decimals. What a rule means on a table, nulls included, is defined in ``rules_spark.py``.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import cast

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from .config import nearest
from .errors import UsageError

GRAMMAR = r"""
    start: [label] any_of
    label: (NAME | QUOTED | TOP | BOTTOM) ":"

    ?any_of: all_of (_OR all_of)*
    ?all_of: _unary (_AND _unary)*
    _unary: negation | comparison | best | "(" any_of ")"
    negation: _NOT _unary
    comparison: signal COMPARATOR NUMBER
    best: (TOP | BOTTOM) NUMBER [PERCENT] _OF signal
    signal: NAME | QUOTED

    _AND.2: /and\b/i
    _OR.2: /or\b/i
    _NOT.2: /not\b/i
    _OF.2: /of\b/i
    TOP.2: /top\b/i
    BOTTOM.2: /bottom\b/i
    COMPARATOR: />=|<=|==|!=|<>|>|<|=/
    NUMBER: /[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?/i
    PERCENT: "%"
    NAME: /[^\W\d]\w*/
    QUOTED: /`[^`]+`/
    %ignore /\s+/
"""
_BEFORE_AMOUNT = re.compile(r"\b(top|bottom)\s*$", re.IGNORECASE)
LONGEST_RULE = 4_000  # characters
DEEPEST_RULE = 50  # nested NOT, AND, OR: far below where Python or Spark run out of stack
MOST_DECIMALS = 18

_KEYWORDS = frozenset({"and", "or", "not", "top", "bottom", "of"})
_SPELLINGS = {"==": "=", "<>": "!="}
_EXPECTED = {  # in the order in which an error message names them
    "NAME": "a column",
    "TOP": "top",
    "BOTTOM": "bottom",
    "_NOT": "NOT",
    "LPAR": "'('",
    "COMPARATOR": "a comparison (>= > <= < = !=)",
    "NUMBER": "a number",
    "PERCENT": "%",
    "_OF": "of",
    "_AND": "AND",
    "_OR": "OR",
    "RPAR": "')'",
    "$END": "the end",
}
_STRAY = {
    "&": "write AND",
    "|": "write OR",
    "!": "write NOT",
    ",": "numbers are written without separators",
    "`": "a name in backquotes ends with another backquote",
    "'": "signals are compared with numbers, not with text",
    '"': "signals are compared with numbers, not with text",
}


class RuleError(UsageError):
    """A rule that cannot be read; ``str()`` shows it with a caret under ``position``."""

    def __init__(self, message: str, text: str, position: int) -> None:
        self.message, self.text, self.position = message, text, position
        start = text.rfind("\n", 0, position) + 1
        line = text[start:].split("\n", 1)[0].expandtabs(1)
        super().__init__(f"{message}\n  {line}\n  {' ' * (position - start)}^")


@dataclass(frozen=True)
class Signal:
    """A numeric column; ``position`` is where the rule's text names it."""

    name: str
    position: int = field(default=0, compare=False)

    def __str__(self) -> str:
        plain = self.name.isidentifier() and self.name.lower() not in _KEYWORDS
        return self.name if plain else f"`{self.name}`"


@dataclass(frozen=True)
class Comparison:
    """``signal comparator number``, the comparator one of >= > <= < = !=."""

    signal: Signal
    comparator: str
    number: float

    def __str__(self) -> str:
        return f"{self.signal} {self.comparator} {repr(self.number).removesuffix('.0')}"


@dataclass(frozen=True)
class Best:
    """The best rows by a signal: highest first for ``top``, lowest first for ``bottom``."""

    direction: str  # "top" or "bottom"
    amount: Decimal  # percent in 0..100, or a whole number of rows
    percent: bool
    signal: Signal

    def rows_of(self, scored: int) -> int:
        """How many of ``scored`` rows are taken: floor(scored * percent / 100), exactly."""
        if self.percent:
            return math.floor(scored * Fraction(self.amount) / 100)
        return min(int(self.amount), scored)

    def __str__(self) -> str:
        unit = "%" if self.percent else ""
        return f"{self.direction} {self.amount:f}{unit} of {self.signal}"


@dataclass(frozen=True)
class Not:
    """True where ``part`` is false."""

    part: "Condition"

    def __str__(self) -> str:
        return f"NOT {_bracketed(self.part)}"


@dataclass(frozen=True)
class AllOf:
    """AND of two or more parts."""

    parts: tuple["Condition", ...]

    def __str__(self) -> str:
        return " AND ".join(map(_bracketed, self.parts))


@dataclass(frozen=True)
class AnyOf:
    """OR of two or more parts."""

    parts: tuple["Condition", ...]

    def __str__(self) -> str:
        return " OR ".join(map(_bracketed, self.parts))


Condition = Comparison | Best | Not | AllOf | AnyOf


@dataclass(frozen=True)
class Rule:
    """One named condition, with the text that it was read from."""

    name: str
    condition: Condition
    text: str = field(compare=False)

    def __str__(self) -> str:
        return str(self.condition)

    def signals(self) -> list[Signal]:
        """The signals that the rule uses, each once, in the order of the text."""
        found = {leaf.signal.name: leaf.signal for leaf in reversed(list(_leaves(self.condition)))}
        return list(reversed(found.values()))

    def bests(self) -> list[Best]:
        """The ``top`` and ``bottom`` parts, each once, in the order of the text."""
        return list(dict.fromkeys(x for x in _leaves(self.condition) if isinstance(x, Best)))

    def on_columns(self, numeric: Sequence[str], others: Mapping[str, str]) -> "Rule":
        """The rule with its signals spelled as the table's columns are.

        Args:
            numeric: the columns that a rule can use.
            others: the table's other columns, and what they hold ("string", ...), for the message.

        Raises:
            RuleError: pointing at the first signal that is no numeric column.
        """
        spelling = {name.lower(): name for name in numeric}

        def resolved(signal: Signal) -> Signal:
            if signal.name in spelling.values():
                return signal
            if signal.name.lower() in spelling:
                return replace(signal, name=spelling[signal.name.lower()])
            held = {name.lower(): kind for name, kind in others.items()}.get(signal.name.lower())
            if held:
                message = f"column {signal.name!r} holds {held}: a signal is a number"
            else:
                near = nearest(signal.name, list(spelling.values()))
                hint = f"did you mean {near!r}?" if near else f"there are {', '.join(numeric)}"
                message = f"no column {signal.name!r}; {hint}"
            raise RuleError(message, self.text, signal.position)

        return replace(self, condition=_map_signals(self.condition, resolved))


def parse_rule(text: str) -> Rule:
    """Read one rule.

    Raises:
        RuleError: empty, too long, not in the grammar, or with a number out of range.
    """
    if not text.strip():
        raise RuleError("the rule is empty", "", 0)
    if len(text) > LONGEST_RULE:
        raise RuleError(f"the rule is longer than {LONGEST_RULE} characters", text[:60], 0)
    try:
        parsed = _PARSER.parse(text)
    except UnexpectedCharacters as error:
        position = cast("int", error.pos_in_stream)
        hint = _STRAY.get(text[position], "a name with such characters stands in backquotes")
        raise RuleError(f"unexpected {text[position]!r}: {hint}", text, position) from None
    except UnexpectedToken as error:
        raise _unexpected_token(text, error) from None
    except _MeaninglessError as error:
        raise RuleError(error.message, text, error.position) from None
    name, condition = cast("tuple[str | None, Condition]", parsed)  # what _Builder.start returns
    return Rule(name or str(condition), condition, text)


class _MeaninglessError(Exception):
    """Grammatical, but with a value that means nothing."""

    def __init__(self, message: str, token: Token | None = None) -> None:
        self.message = message
        self.position = token.start_pos or 0 if token else 0


@v_args(inline=True)
class _Builder(Transformer[Token, tuple[str | None, Condition]]):
    """Lark's callbacks. They run while parsing, so that a deep rule recurses nowhere."""

    def start(self, label: str | None, condition: Condition) -> tuple[str | None, Condition]:
        return label, condition

    def label(self, name: Token) -> str:
        return name.strip("`")

    def signal(self, name: Token) -> Signal:
        return Signal(name.strip("`"), name.start_pos or 0)

    def any_of(self, *parts: Condition) -> Condition:
        return _not_too_deep(AnyOf(parts))

    def all_of(self, *parts: Condition) -> Condition:
        return _not_too_deep(AllOf(parts))

    def negation(self, part: Condition) -> Condition:
        return _not_too_deep(Not(part))

    def comparison(self, signal: Signal, comparator: Token, number: Token) -> Condition:
        value = float(number)
        if math.isinf(value):
            raise _MeaninglessError(f"{number} is too large for a number", number)
        return Comparison(signal, _SPELLINGS.get(comparator, str(comparator)), value)

    def best(
        self, direction: Token, number: Token, percent: Token | None, signal: Signal
    ) -> Condition:
        amount = _amount(direction, number, percent is not None)
        return Best(direction.lower(), amount, percent is not None, signal)


def _amount(direction: Token, number: Token, percent: bool) -> Decimal:
    try:
        amount = Decimal(number)
    except InvalidOperation:  # an exponent of 20 digits
        raise _MeaninglessError(f"{number} is no usable amount", number) from None
    if percent:
        if not 0 <= amount <= 100:
            raise _MeaninglessError(
                f"{number}% is no share: a percentage lies between 0 and 100", number
            )
        if amount and int(amount.as_tuple().exponent) < -MOST_DECIMALS:
            raise _MeaninglessError(f"a percentage has at most {MOST_DECIMALS} decimals", number)
        return amount
    if not 0 <= amount < 2**63:
        raise _MeaninglessError(f"{number} is no number of rows", number)
    if amount != amount.to_integral_value():
        percentage = float(amount) * (100 if amount < 1 else 1)  # 0.3 is meant as 30%
        hint = f"; for a share write {direction.lower()} {percentage:.9g}%"
        raise _MeaninglessError(f"{number} is no whole number of rows{hint}", number)
    return Decimal(int(amount))


def _unexpected_token(text: str, error: UnexpectedToken) -> RuleError:
    expected = error.accepts or error.expected
    ended = error.token.type == "$END"
    position = len(text.rstrip()) if ended else error.token.start_pos or 0
    if error.token.type == "RPAR" and "RPAR" not in error.expected:
        return RuleError("this ')' closes no '('", text, position)
    if ended and "RPAR" in expected:
        return RuleError("this '(' is never closed", text, _open_bracket(text))
    if "COLON" in expected and "NUMBER" in expected:  # a rule may be called top
        expected = expected - {"COLON"}
    wanted = [name for terminal, name in _EXPECTED.items() if terminal in expected]
    one_of = " or ".join(filter(None, [", ".join(wanted[:-1]), wanted[-1]]))
    found = "but the rule ends" if ended else f"not {str(error.token)!r}"
    hint = ""
    if wanted == ["a number"] and _BEFORE_AMOUNT.search(text, 0, position):
        one_of = "a percentage or a number of rows"
    elif wanted == ["a number"] and error.token.type in ("NAME", "QUOTED"):
        hint = ": signals are compared with numbers, not with text or columns"
    return RuleError(f"expected {one_of}, {found}{hint}", text, position)


def _open_bracket(text: str) -> int:
    """Where the innermost bracket stands that is still open at the end."""
    opened: list[int] = []
    for token in _PARSER.lex(text):
        if token.type == "LPAR":
            opened.append(token.start_pos or 0)
        elif token.type == "RPAR":
            opened.pop()
    return opened[-1]


def _leaves(condition: Condition) -> Iterator[Comparison | Best]:
    match condition:
        case Comparison() | Best():
            yield condition
        case Not(part):
            yield from _leaves(part)
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _leaves(part)


def _map_signals(condition: Condition, change: Callable[[Signal], Signal]) -> Condition:
    match condition:
        case Comparison() | Best():
            return replace(condition, signal=change(condition.signal))
        case Not(part):
            return Not(_map_signals(part, change))
        case AllOf(parts) | AnyOf(parts):
            return type(condition)(tuple(_map_signals(part, change) for part in parts))


def _depth(condition: Condition) -> int:
    match condition:
        case Comparison() | Best():
            return 0
        case Not(part):
            return 1 + _depth(part)
        case AllOf(parts) | AnyOf(parts):
            return 1 + max(map(_depth, parts))


def _not_too_deep(condition: Condition) -> Condition:
    if _depth(condition) > DEEPEST_RULE:
        raise _MeaninglessError(f"more than {DEEPEST_RULE} levels of NOT and brackets")
    return condition


def _bracketed(condition: Condition) -> str:
    return f"({condition})" if isinstance(condition, AnyOf | AllOf) else str(condition)


_PARSER = Lark(GRAMMAR, parser="lalr", lexer="basic", transformer=_Builder())
