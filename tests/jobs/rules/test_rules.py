"""The rule language without Spark: how rules are parsed, and where the caret of an error points."""

import pytest

from jobs.rules.column_types import SCORES, NamedColumn, numeric
from jobs.rules.errors import RuleError
from jobs.rules.rule import parse_repetition, parse_rule
from jobs.rules.syntax_tree import (
    AllOf,
    AnyOf,
    Comparison,
    Not,
    Number,
    Signal,
)


def test_not_binds_before_and_before_or() -> None:
    a, b, c = (Comparison(Signal(name), ">", Number(1.0)) for name in "abc")
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
        ("66<=itm", "66 <= itm"),
        ("a-1 > -b - -2*(c+1)/d", "a - 1 > -b - -2 * (c + 1) / d"),
        ("a - (b - c) + +d > - - e", "a - (b - c) + d > --e"),
        ("a/(b*c) > -(-3)", "a / (b * c) > 3"),
        ("0.6*RANK(itm)+.4*rank(b) >= .7", "0.6 * rank(itm) + 0.4 * rank(b) >= 0.7"),
        ("top 3 of 0.5*a+b and c>1", "top 3 of 0.5 * a + b AND c > 1"),
        ("itm > quantile(itm, 0.70)", "itm > quantile(itm, 0.7)"),
        ("top 3 of a PER b,`per`, at least 2 and c>1", None),
        ("top 3 of a at least 2 per c", "top 3 of a, at least 2 per c"),
        ("bottom 1% of a per x, at least 2 per y, z", "bottom 1% of a per x, at least 2 per y, z"),
        ("top 3 of a per b, at least 0", "top 3 of a per b"),
        ("DataComp 30 % of clip.clip_score", "datacomp 30% of clip.clip_score"),
        ("l = 'it''s' and l <> ''", "l = 'it''s' AND l != ''"),
        ("l not in ('en','de')", "NOT l in ('en', 'de')"),
        ("a in (1, -2)", "a in (1, -2)"),
        ("l LIKE 'a%' or l not like '\\\\_'", "l like 'a%' OR NOT l like '\\\\_'"),
        ("a between 1 and 2 and b > 1", "(a >= 1 AND a <= 2) AND b > 1"),
        ("a is null and b IS NOT NULL", "a is null AND NOT b is null"),
        ("duplicate or NOT duplicate = TRUE", "duplicate OR NOT duplicate = true"),
        ("least(a, 2) < coalesce(b, abs(c), 0)", "least(a, 2) < coalesce(b, abs(c), 0)"),
        ("where_from > 1 and least > 2", "where_from > 1 AND least > 2"),
    ],
)
def test_canonical_text(text: str, canonical: str | None) -> None:
    rule = parse_rule(text)
    canonical = canonical or "top 3 of a per b, `per`, at least 2 per b, `per` AND c > 1"
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
    ("itm >= ", "      ^", "expected a number or a column, but the rule ends"),
    ("itm 66", "    ^", "expected a comparison (>= > <= < = !=), not '66'"),
    ("itm >= 66 odf", "          ^", "expected AND, OR or the end, not 'odf'"),
    ("itm >= 66 and", "             ^", "expected a condition, such as itm >= 66 or top 30% of"),
    ("20 <= itm <= 80", "          ^", "expected AND, OR or the end, not '<='"),
    ("a > 1 and ((b > 2)", "          ^", "this '(' is never closed"),
    ("`(` > 1 and (b > 2", "            ^", "this '(' is never closed"),
    ("l = '(' and (b > 2", "            ^", "this '(' is never closed"),
    ("(a > 1))", "       ^", "this ')' has no matching '('"),
    ("rank(a > 0.5", "    ^", "this '(' is never closed"),
    ("a > 1 & b > 1", "      ^", "unexpected '&': write AND"),
    ("top 130% of odf", "    ^", "130% is not a valid share: a percentage is between 0 and 100"),
    ("top -1% of odf", "    ^", "-1% is not a valid share"),
    ("top 0.5 of odf", "    ^", "0.5 is not a whole number of rows; for a share write top 50%"),
    ("bottom -3 of odf", "       ^", "-3 is not a valid number of rows"),
    ("top many of odf", "    ^", "expected a percentage or a number of rows, not 'many'"),
    ("top 2,000 of odf", "     ^", "write numbers without thousands separators"),
    ("top 5 odf", "      ^", "expected % or of, not 'odf'"),
    ("top 5 of a per", "              ^", "expected a column, but the rule ends"),
    (
        "top 5 of a, at least 9",
        "            ^",
        "the groups are missing: write at least 1000 per column",
    ),
    (
        "top 5 of a per b, at least 0.5",
        " " * 27 + "^",
        "0.5 is not a valid number of rows; write, for example, at least 1000",
    ),
    ("top 5 of a > 3", "           ^", "expected per, AND, OR or the end, not '>'"),
    ("datacomp 0.3 of a", "         ^", "DataComp's rule takes a share: write datacomp 30%"),
    ("datacomp 100% of a", "         ^", "DataComp's rule has no threshold for 100%"),
    ("a: b: c > 3", "    ^", "expected a comparison"),
    ("a > 1\nand b >> 2", "       ^", "expected a number or a column, not '>'"),
    ("a > 1e999", "    ^", "1e999 is too large"),
    ("top 1e-99999999999% of a", "    ^", "at most 18 decimals"),
    ("top 1e99999999999999999999 of a", "    ^", "1e99999999999999999999 is not a valid amount"),
    ("NOT " * 60 + "a > 1", "^", "the rule has more than 50 levels"),
    ("(" * 3000 + "a > 1", " " * 2999 + "^", "this '(' is never closed"),
    ("a" * 5000 + " > 1", "^", "the rule is longer than 4000 characters"),
    ("+".join("a" * 150) + " > 1", "^", "a sum or product of more than 100 parts"),
    ("a>1 or " * 500 + "a>1", "^", "the rule has more than 1000 parts"),
    ('l = "en"', "    ^", "unexpected '\"': put text in single quotes"),
    ("l = 'en", "    ^", "the closing single quote of the text is missing"),
    ("l like en", "       ^", "expected text in single quotes, not 'en'"),
    ("l like 'a\\b'", "       ^", "a backslash in a pattern must come before %, _ or"),
    ("l in 'en'", "     ^", "expected '(', not"),
    ("l in ()", "      ^", "expected a number or text in single quotes, not ')'"),
    ("rnak(a) > 0", "^", "no function 'rnak'; did you mean rank?"),
    ("rank(a, b) > 0", "^", "rank takes 1 value, not 2"),
    ("least(a) > 0", "^", "least takes 2 to 20 values, not 1"),
    ("rank() > 0", "^", "rank takes 1 value, not 0"),
    (
        "quantile(a, 70) > 0",
        "            ^",
        "70 is not a valid share: quantile takes a number from 0 to 1",
    ),
    ("quantile(a, b) > 0", "            ^", "b is not a valid share"),
    ("'a' + 1 > 2", "^", "'a' is text, but a number is needed here"),
    ("rank(l = 'en') > 0", "     ^", "l = 'en' is true or false, but a number is needed here"),
    ("top 3 of 'a'", "         ^", "'a' is text, but a number is needed here"),
    ("a > 1 and 5", "          ^", "5 is a number, but a condition is needed here"),
    (
        "NOT a + 1",
        "    ^",
        "a + 1 is a number, but a condition is needed here: compare it, as in a +",
    ),
    ("1 = 'a'", "    ^", "cannot compare 1 (a number) with 'a' (text)"),
    ("'a' > 'b'", "^", "> compares numbers; compare text with = or !="),
    ("l in ('en', 3)", "            ^", "cannot compare 'en' (text) with 3 (a number)"),
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


COLUMNS = [
    *numeric("odf", "itm", "clip-score"),
    NamedColumn("uid", SCORES, "uid", "text", "string"),
    NamedColumn("scored_at", SCORES, "scored_at", None, "timestamp"),
    NamedColumn("odf", "clip", "clip.odf", "number", "float"),
    NamedColumn("width", "clip", "clip.width", "number", "int"),
    NamedColumn("width", "sizes", "sizes.width", "number", "int"),
    NamedColumn("duplicate", "sizes", "sizes.duplicate", "truth", "boolean"),
    NamedColumn("itm", "pairs", "pairs.itm", "text", "string", is_fallback=True),
]


def test_signals_are_spelled_as_the_columns() -> None:
    rule = parse_rule("ITM >= 66 and top 5 of Itm and itm < 90 and NOT Duplicate or top 5 of itm")
    bound = rule.on_columns(COLUMNS)
    assert [str(signal) for signal in bound.signals()] == ["itm", "duplicate"]
    assert bound.bests() == [parse_rule("top 5 of itm").condition]
    rule = parse_rule("CLIP.width > 1 and pairs.itm = 'x'").on_columns(COLUMNS)
    assert [signal.column for signal in rule.signals()] == ["clip.width", "pairs.itm"]


def test_a_name_of_several_tables_means_the_one_with_values() -> None:
    rule = parse_rule("odf > 1")
    (signal,) = rule.on_columns(COLUMNS, lambda columns: columns[1:]).signals()
    assert signal.column == "clip.odf"
    (signal,) = rule.on_columns(COLUMNS, lambda columns: []).signals()
    assert signal.column == "odf"


@pytest.mark.parametrize(
    ("text", "caret", "message"),
    [
        ("itm > 1 and odff > 1", "            ^", "no column 'odff'; did you mean 'odf'?"),
        ("clip-score > 1", "^", "no column 'clip'; write `clip-score` in backquotes"),
        ("odf > 1", "^", "'odf' is in several tables; write scores.odf or clip.odf"),
        ("itm > width", "      ^", "'width' is in several tables; write clip.width or sizes.width"),
        ("clop.odf > 1", "^", "no table 'clop'; did you mean clip?"),
        ("sizes.odf > 1", "^", "no column 'odf'; there are width, duplicate"),
        ("top 5 of UID", "         ^", "column 'uid' holds text, but a number is needed here"),
        (
            "itm >= 'a'",
            "       ^",
            "cannot compare column 'itm' (a number) with 'a' (text)",
        ),
        ("uid > 3", "^", "cannot compare column 'uid' (text) with 3 (a number)"),
        (
            "itm",
            "^",
            "column 'itm' holds a number, but a condition is needed here: compare it, as in"
            " itm >= 1",
        ),
        ("uid < 'a'", "^", "< compares numbers; compare text with = or !="),
        (
            "scored_at > 3",
            "^",
            "column 'scored_at' holds timestamp: a signal is a number, text or true/false",
        ),
    ],
)
def test_what_does_not_fit_a_column_is_pointed_at(text: str, caret: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rule(text).on_columns(COLUMNS)
    assert str(caught.value) == f"{message}\n  {text}\n  {caret}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("3 WHERE itm>=90", "3 where itm >= 90"),
        ("1 + 2*rank(itm), at most 3", "1 + 2 * rank(itm), at most 3"),
        ("itm/30 where top 5% of odf at most 2", "itm / 30 where top 5% of odf, at most 2"),
    ],
)
def test_repetitions(text: str, canonical: str) -> None:
    assert str(parse_repetition(text)) == canonical
    assert parse_repetition(canonical) == parse_repetition(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("itm > 3", "expected"),
        ("'a' where itm > 3", "'a' is text, but a number is needed"),
        ("2 where itm", "a condition is needed"),
        ("2, at most 0", "a kept row appears at least once"),
        ("2, at most 0.5", "0.5 is not a valid number of rows"),
    ],
)
def test_repetitions_that_mean_nothing(text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        parse_repetition(text).on_columns(COLUMNS)
