"""The rule language without Spark: what is read, and where the caret stands when it cannot be."""

import pytest

from jobs.rules import AllOf, AnyOf, Best, Comparison, Not, RuleError, Signal, parse_rule


def test_not_binds_before_and_before_or() -> None:
    a, b, c = (Comparison(Signal(name), ">", 1.0) for name in "abc")
    assert parse_rule("a > 1 or b > 1 AND nOt c > 1").condition == AnyOf((a, AllOf((b, Not(c)))))
    assert parse_rule("(a>1 or b>1) and not(c>1)").condition == AllOf((AnyOf((a, b)), Not(c)))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("itm>=66", "itm >= 66"),
        ("itm == -0.5", "itm = -0.5"),
        ("itm <> 1e3", "itm != 1000"),
        ("itm < 66.1", "itm < 66.1"),
        ("TOP 30 % Of odf", "top 30% of odf"),
        ("top 2e6 of itm", "top 2000000 of itm"),
        ("bottom 33.40% of `clip score`", "bottom 33.40% of `clip score`"),
        ("`top` > 0", "`top` > 0"),
        ("order > 0 and android > 0", "order > 0 AND android > 0"),
        ("((a > 1 or\n\t(b > 2)))", "a > 1 OR b > 2"),
        ("a>1 and (b>2 or not (c>3 and d>4))", "a > 1 AND (b > 2 OR NOT (c > 3 AND d > 4))"),
        ("top 0% of a or top 100% of b", "top 0% of a OR top 100% of b"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    rule = parse_rule(text)
    assert rule.name == str(rule) == canonical
    assert parse_rule(canonical).condition == rule.condition


@pytest.mark.parametrize(
    ("text", "name"),
    [("match: itm >= 66", "match"), ("top: top 1 of a", "top"), ("`best of`: a > 1", "best of")],
)
def test_named_rule(text: str, name: str) -> None:
    assert parse_rule(text).name == name


ERRORS = [  # rule, caret, message
    ("", "^", "the rule is empty"),
    (" \n ", "^", "the rule is empty"),
    ("itm >= ", "      ^", "expected a number, but the rule ends"),
    ("itm 66", "    ^", "expected a comparison (>= > <= < = !=), not '66'"),
    ("itm >= high", "       ^", "expected a number, not 'high': signals are compared with numbers"),
    ("itm >= 'a'", "       ^", "signals are compared with numbers, not with text"),
    ("66 <= itm", "^", "expected a column, top, bottom, NOT or '(', not '66'"),
    ("itm >= 66 odf", "          ^", "expected AND, OR or the end, not 'odf'"),
    ("itm >= 66 and", "             ^", "expected a column, top, bottom, NOT or '(', but the rule"),
    ("a > 1 and ((b > 2)", "          ^", "this '(' is never closed"),
    ("`(` > 1 and (b > 2", "            ^", "this '(' is never closed"),
    ("(a > 1))", "       ^", "this ')' closes no '('"),
    ("a > 1 & b > 1", "      ^", "unexpected '&': write AND"),
    ("clip-score > 1", "    ^", "unexpected '-': a name with such characters stands in backquotes"),
    ("top 130% of odf", "    ^", "130% is no share: a percentage lies between 0 and 100"),
    ("top -1% of odf", "    ^", "-1% is no share"),
    ("top 0.5 of odf", "    ^", "0.5 is no whole number of rows; for a share write top 50%"),
    ("bottom -3 of odf", "       ^", "-3 is no number of rows"),
    ("top many of odf", "    ^", "expected a percentage or a number of rows, not 'many'"),
    ("top 5 odf", "      ^", "expected % or of, not 'odf'"),
    ("a: b: c > 3", "    ^", "expected a comparison"),
    ("a > 1\nand b >> 2", "       ^", "expected a number, not '>'"),
    ("a > 1e999", "    ^", "1e999 is too large"),
    ("top 1e-99999999999% of a", "    ^", "at most 18 decimals"),
    ("top 1e99999999999999999999 of a", "    ^", "1e99999999999999999999 is no usable amount"),
    ("NOT " * 60 + "a > 1", "^", "more than 50 levels"),
    ("(" * 3000 + "a > 1", " " * 2999 + "^", "this '(' is never closed"),
    ("a" * 5000 + " > 1", "^", "the rule is longer than 4000 characters"),
]


@pytest.mark.parametrize(("text", "caret", "message"), ERRORS)
def test_error_points_at_the_character(text: str, caret: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(text)
    first, line, pointer = str(caught.value).split("\n")
    assert message in first
    assert pointer == "  " + caret
    assert line[2:] in text


def test_brackets_alone_do_not_make_a_rule_deep() -> None:
    assert str(parse_rule("(" * 1900 + "a > 1" + ")" * 1900)) == "a > 1"


def test_signals_are_spelled_as_the_columns() -> None:
    rule = parse_rule("ITM >= 66 and top 5 of Odf and itm < 90 or top 5 of odf")
    bound = rule.on_columns(["odf", "itm"], {})
    assert [signal.name for signal in bound.signals()] == ["itm", "odf"]
    assert bound.bests() == [parse_rule("top 5 of odf").condition]


@pytest.mark.parametrize(
    ("text", "caret", "message"),
    [
        ("itm > 1 and odff > 1", "            ^", "no column 'odff'; did you mean 'odf'?"),
        ("size > 1", "^", "no column 'size'; there are itm, odf"),
        ("top 5 of UID", "         ^", "column 'UID' holds string: a signal is a number"),
    ],
)
def test_unknown_column_is_pointed_at(text: str, caret: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(text).on_columns(["itm", "odf"], {"uid": "string"})
    assert str(caught.value) == f"{message}\n  {text}\n  {caret}"


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
