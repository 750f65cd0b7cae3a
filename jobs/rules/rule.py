"""The rule language: text -> frozen syntax tree, or a :class:`RuleError` with a caret.

    itm >= 66                           a signal against a number
    itm - su > 0.5 * odf                arithmetic: + - * / and brackets
    top 30% of odf                      the best fraction; also: bottom 5% of su
    top 2000000 of itm                  the best so many
    top 30% of odf per source           the best of each group; nulls are a group too
    top 30% of odf, at least 1000 per language
                                        and the best of what is left of small groups
    datacomp 30% of clip_score          DataComp's own threshold: ties are all kept
    0.6*rank(itm) + 0.4*rank(clip_score) >= 0.7
                                        ranks, from 0 (the worst row) to just under 1
    itm > quantile(itm, 0.7)            above the value that 70% of rows do not exceed
    language in ('en', 'de') AND caption like '%cat%' AND NOT duplicate AND source is not null
    match: itm >= 66 AND NOT (su < 20 OR bottom 5% of odf)

Keywords in any case. NOT binds before AND, AND before OR. ``match:`` names the rule; without it its
text is its name. A name that is no plain word stands in backquotes: `` `clip score` > 0.3 ``; a
column of a joined table may have the table's name in front: ``clip.clip_score``. Comparisons:
>= > <= < = !=, with == and <> as other spellings of the last two; ``between 20 and 80``, ``in``,
``like``, ``is null``. Functions of a row: abs, log (natural), sqrt, least, greatest, coalesce.
Percentages are exact decimals. What a rule means on a table, nulls included, is defined in
``rules/apply.py``.

How often a kept row is repeated is said in the same language:

    3 where itm >= 90
    1 + 2*rank(itm), at most 3
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .column_types import Filled, Place, bind, check
from .errors import RuleError as RuleError
from .grammar import parse
from .syntax_tree import Best, Datacomp, Node, Quantile, Rank, Signal

Global = Best | Datacomp | Quantile | Rank
"""What depends on other rows than the one that is judged."""


def _keep_all(places: Sequence[Place]) -> Sequence[Place]:
    return places


@dataclass(frozen=True)
class Rule:
    """One named condition, with the text that it was read from."""

    name: str
    condition: Node
    text: str = field(compare=False)

    def __str__(self) -> str:
        return str(self.condition)

    def trees(self) -> list[Node]:
        """The condition, as the one tree that the rule has."""
        return [self.condition]

    def signals(self) -> list[Signal]:
        """The signals that the rule uses, each once, in the order of the text."""
        return signals(self.trees())

    def bests(self) -> list[Best | Datacomp]:
        """The ``top``, ``bottom`` and ``datacomp`` parts, each once, in the order of the text."""
        return [part for part in global_parts(self.trees()) if isinstance(part, Best | Datacomp)]

    def on_columns(self, places: Sequence[Place], filled: Filled = _keep_all) -> "Rule":
        """The rule with its signals spelled as the tables' columns are.

        Raises:
            RuleError: pointing at the first signal that is no column, or does not fit where it is.
        """
        condition = bind(self.condition, places, self.text, filled)
        check(condition, "truth", self.text)
        return replace(self, condition=condition)


@dataclass(frozen=True)
class Repetition:
    """How often kept rows are repeated: ``amount``, where ``where`` holds, ``at_most`` so often."""

    amount: Node
    where: Node | None
    at_most: int | None
    text: str = field(compare=False)

    def __str__(self) -> str:
        where = f" where {self.where}" if self.where else ""
        return f"{self.amount}{where}" + (f", at most {self.at_most}" if self.at_most else "")

    def trees(self) -> list[Node]:
        """Amount and condition."""
        return [self.amount, *([self.where] if self.where else [])]

    def signals(self) -> list[Signal]:
        """The signals that it uses, each once, in the order of the text."""
        return signals(self.trees())

    def on_columns(self, places: Sequence[Place], filled: Filled = _keep_all) -> "Repetition":
        """As for rules."""
        amount = bind(self.amount, places, self.text, filled)
        where = self.where and bind(self.where, places, self.text, filled)
        return replace(_checked(amount, where, self), amount=amount, where=where)


def parse_rule(text: str) -> Rule:
    """Read one rule.

    Raises:
        RuleError: empty, too long, not in the grammar, with a number out of range, or with parts
            that do not fit together.
    """
    name, condition = parse(text, "rule")
    check(condition, "truth", text)
    return Rule(name or str(condition), condition, text)


def parse_repetition(text: str) -> Repetition:
    """Read how often rows are repeated. Raises RuleError, as for rules."""
    amount, where, at_most = parse(text, "repetition")
    if at_most == 0:
        raise RuleError("a kept row is there at least once", text, len(text.rstrip()) - 1)
    return _checked(amount, where, Repetition(amount, where, at_most, text))


def _checked(amount: Node, where: Node | None, repetition: Repetition) -> Repetition:
    check(amount, "number", repetition.text)
    if where is not None:
        check(where, "truth", repetition.text)
    return repetition


def signals(trees: Sequence[Node]) -> list[Signal]:
    """The signals of some trees, each once."""
    return list(dict.fromkeys(p for tree in trees for p in tree.walk() if isinstance(p, Signal)))


def global_parts(trees: Sequence[Node]) -> list[Global]:
    """What depends on other rows, each once, inner parts before those that use them."""
    return list(dict.fromkeys(p for tree in trees for p in tree.walk() if isinstance(p, Global)))
