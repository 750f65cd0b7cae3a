"""Rules and repetitions, parsed from text: a frozen syntax tree, or an error with a caret.

The rule language by example:

    itm >= 66                           a signal against a number
    itm - su > 0.5 * odf                arithmetic: + - * / and brackets
    top 30% of odf                      the best fraction; also: bottom 5% of su
    top 2000000 of itm                  the best 2,000,000 rows
    top 30% of odf per source           the best of each group; nulls are a group too
    top 30% of odf, at least 1000 per language
                                        and more of the best from small groups
    datacomp 30% of clip_score          DataComp's own threshold: keeps all ties
    0.6*rank(itm) + 0.4*rank(clip_score) >= 0.7
                                        ranks, from 0 (the worst row) to just under 1
    itm > quantile(itm, 0.7)            above the value that 70% of rows do not exceed
    language in ('en', 'de') AND caption like '%cat%' AND NOT duplicate AND source is not null
    match: itm >= 66 AND NOT (su < 20 OR bottom 5% of odf)

Keywords may be in any case. NOT binds before AND, AND before OR. ``match:`` names the rule; without
it, the rule's text is its name. Put column names that are not plain words in backquotes:
`` `clip score` > 0.3 ``. A column of a joined table may have the table's name in front:
``clip.clip_score``. Comparisons: >= > <= < = !=, with == and <> as other spellings of the last two;
``between 20 and 80``, ``in``, ``like``, ``is null``. Functions of a row: abs, log (natural), sqrt,
least, greatest, coalesce. Percentages are exact decimals. ``rules/apply.py`` defines what a rule
means on a table, nulls included.

Repetitions, which say how often a kept row is repeated, use the same language:

    3 where itm >= 90
    1 + 2*rank(itm), at most 3
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .column_types import FilledSelector, NamedColumn, bind, check
from .errors import RuleError
from .grammar import parse
from .syntax_tree import Best, Datacomp, Node, Quantile, Rank, Signal

Global = Best | Datacomp | Quantile | Rank
"""The parts of a rule that depend on other rows than the one being judged."""


def _keep_all(columns: Sequence[NamedColumn]) -> Sequence[NamedColumn]:
    return columns


@dataclass(frozen=True)
class Rule:
    """One named condition, with the text that it was parsed from."""

    name: str
    condition: Node
    text: str = field(compare=False)

    def __str__(self) -> str:
        return str(self.condition)

    def trees(self) -> list[Node]:
        """The syntax trees of the rule: its condition only."""
        return [self.condition]

    def signals(self) -> list[Signal]:
        """The signals that the rule uses, each once, in the order of the text."""
        return signals(self.trees())

    def bests(self) -> list[Best | Datacomp]:
        """The ``top``, ``bottom`` and ``datacomp`` parts, each once, in the order of the text."""
        return [part for part in global_parts(self.trees()) if isinstance(part, Best | Datacomp)]

    def on_columns(
        self, columns: Sequence[NamedColumn], select_filled: FilledSelector = _keep_all
    ) -> "Rule":
        """The rule with its signals bound to columns of tables.

        Raises:
            RuleError: pointing at the first signal that is no column or does not fit by its type.
        """
        condition = bind(self.condition, columns, self.text, select_filled)
        check(condition, "truth", self.text)
        return replace(self, condition=condition)


@dataclass(frozen=True)
class Repetition:
    """Repeats kept rows ``amount`` times where ``where`` holds, but no more than ``at_most``."""

    amount: Node
    where: Node | None
    at_most: int | None
    text: str = field(compare=False)

    def __str__(self) -> str:
        where = f" where {self.where}" if self.where else ""
        return f"{self.amount}{where}" + (f", at most {self.at_most}" if self.at_most else "")

    def trees(self) -> list[Node]:
        """The syntax trees: the amount, and the condition if there is one."""
        return [self.amount, *([self.where] if self.where else [])]

    def signals(self) -> list[Signal]:
        """The signals used, each once, in the order of the text."""
        return signals(self.trees())

    def on_columns(
        self, columns: Sequence[NamedColumn], select_filled: FilledSelector = _keep_all
    ) -> "Repetition":
        """The repetition with its signals bound to columns of tables. Raises RuleError."""
        amount = bind(self.amount, columns, self.text, select_filled)
        where = self.where and bind(self.where, columns, self.text, select_filled)
        return replace(_checked(amount, where, self), amount=amount, where=where)


def parse_rule(text: str) -> Rule:
    """Parse one rule.

    Raises:
        RuleError: the text is empty, too long, not in the grammar, or has a number out of range or
            parts whose types do not fit together.
    """
    name, condition = parse(text, "rule")
    check(condition, "truth", text)
    return Rule(name or str(condition), condition, text)


def parse_repetition(text: str) -> Repetition:
    """Parse how often rows are repeated. Raises RuleError, as for rules."""
    amount, where, at_most = parse(text, "repetition")
    if at_most == 0:
        raise RuleError("a kept row appears at least once", text, len(text.rstrip()) - 1)
    return _checked(amount, where, Repetition(amount, where, at_most, text))


def _checked(amount: Node, where: Node | None, repetition: Repetition) -> Repetition:
    check(amount, "number", repetition.text)
    if where is not None:
        check(where, "truth", repetition.text)
    return repetition


def signals(trees: Sequence[Node]) -> list[Signal]:
    """The signals that occur in some trees, each once."""
    return list(dict.fromkeys(p for tree in trees for p in tree.walk() if isinstance(p, Signal)))


def global_parts(trees: Sequence[Node]) -> list[Global]:
    """The parts that depend on other rows, each once, inner parts before those that use them."""
    return list(dict.fromkeys(p for tree in trees for p in tree.walk() if isinstance(p, Global)))
