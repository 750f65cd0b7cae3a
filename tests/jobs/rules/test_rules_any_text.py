"""Any tree is read from its own text, and any text is a rule or a RuleError (Hypothesis)."""

from contextlib import suppress
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from jobs.rules.errors import RuleError
from jobs.rules.rule import parse_rule
from jobs.rules.syntax_tree import (
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

names = st.sampled_from(["a", "b2", "of", "clip score", "Top", "rank", "\u00e9t\u00e9"])
signals = st.builds(Signal, names, st.none() | names)
numbers = st.builds(Number, st.floats(allow_nan=False, allow_infinity=False))
texts = st.builds(Text, st.text(st.characters(exclude_characters="\\", codec="utf-8"), max_size=5))


def chains(operands: st.SearchStrategy[Node], operators: str) -> st.SearchStrategy[Node]:
    def chained(parts: list[Node], signs: list[str]) -> Node:
        return Arithmetic(tuple(parts), tuple(signs[: len(parts) - 1]))

    many = st.lists(operands, min_size=2, max_size=4)
    return st.builds(chained, many, st.lists(st.sampled_from(operators), min_size=3, max_size=3))


def calculations(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    shares = st.builds(Number, st.floats(0, 1))
    pairs = st.tuples(inner, inner)
    not_numbers = inner.filter(lambda node: not isinstance(node, Number))  # -3 is a number
    return st.one_of(
        chains(inner, "+-"),
        chains(inner, "*/"),
        st.builds(Negative, not_numbers),
        st.builds(Rank, inner),
        st.builds(Quantile, inner, shares),
        st.builds(Call, st.sampled_from(["least", "coalesce"]), pairs),
    )


values = st.recursive(signals | numbers, calculations, max_leaves=6)
groups = st.lists(signals, min_size=1, max_size=2).map(tuple)
percentages = st.decimals(0, 99, places=3)
comparators = st.sampled_from([">=", ">", "<=", "<", "=", "!="])
simple: st.SearchStrategy[Node] = st.one_of(
    signals,
    st.builds(Truth, st.booleans()),
    st.builds(Comparison, values, comparators, values),
    st.builds(OneOf, signals, st.lists(texts, min_size=1, max_size=3).map(tuple)),
    st.builds(Like, signals, texts),
    st.builds(IsNull, values),
    st.builds(Datacomp, percentages, values),
    st.builds(Best, st.just("top"), percentages, st.just(True), values, groups),
    st.builds(
        Best,
        st.just("bottom"),
        st.integers(0, 10**12).map(Decimal),
        st.just(False),
        values,
        groups | st.just(()),
        st.integers(1, 10**6),
        groups,
    ),
)


def combinations(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    truths = st.builds(Comparison, inner, st.just("="), inner)
    made = st.one_of(st.builds(Not, inner), st.builds(AllOf, several), st.builds(AnyOf, several))
    return made | truths


@given(st.recursive(simple, combinations, max_leaves=6))
def test_any_tree_is_read_from_its_own_text(tree: Node) -> None:
    rule = parse_rule(str(tree))
    assert rule.condition == tree
    assert str(rule) == str(tree)


@given(st.text(st.sampled_from("ab 1.,%()'`=<>+-*/\n") | st.sampled_from("topinsler"), max_size=40))
def test_any_text_is_a_rule_or_a_rule_error(text: str) -> None:
    with suppress(RuleError):  # anything else is a failure
        parse_rule(text)


def test_share_is_exact() -> None:
    def rows(share: str, scored: int) -> int:
        best = parse_rule(f"top {share} of a").condition
        assert isinstance(best, Best)
        return best.rows_of(scored)

    assert int(1000 * 0.29 * 10 / 10 / 1) == 290  # floats happen to hold here ...
    assert int(100 * (0.29 * 100) / 100) == 28  # ... and not here
    assert rows("29%", 100) == 29
    assert rows("33.3%", 1000) == 333
    assert rows("33.3%", 999) == 332
    assert rows("0.1%", 999) == 0
    assert rows("100%", 7) == 7
    assert rows("10", 7) == 7
    assert rows("0", 7) == 0
