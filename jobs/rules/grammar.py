"""The grammar of the rule language: text -> syntax tree, or a :class:`RuleError` with a caret.

One grammar covers values and conditions, as in SQL; ``rules/column_types.py`` tells them apart.
``rules/tree_builder.py`` builds the tree while lark parses (LALR), so that even a deeply nested
rule causes no recursion.
"""

from typing import Any

from lark import Lark
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from .errors import RuleError, unexpected_character, unexpected_token
from .tree_builder import InvalidValueError, tree_builder

GRAMMAR = r"""
    rule: [label] any_of
    repetition: sum [_WHERE any_of] [_AT_MOST NUMBER]
    label: (NAME | QUOTED | TOP | BOTTOM | DATACOMP) ":"

    ?any_of: all_of (_OR all_of)*
    ?all_of: _unary (_AND _unary)*
    _unary: negation | _test
    negation: NOT _unary
    _test: comparison | one_of | like | between | is_null | best | datacomp | sum
    comparison: sum COMPARATOR sum
    one_of: sum [NOT] _IN "(" _literal ("," _literal)* ")"
    like: sum [NOT] _LIKE text
    between: sum [NOT] _BETWEEN sum _AND sum
    is_null: sum _IS [NOT] _NULL

    best: (TOP | BOTTOM) amount _OF sum [_PER groups] [at_least]
    datacomp: DATACOMP amount _OF sum
    amount: [SIGN] NUMBER [PERCENT]
    at_least: AT_LEAST NUMBER [_PER groups]
    groups: signal ("," signal)*

    ?sum: product (SIGN product)*
    ?product: _signed ((STAR | SLASH) _signed)*
    _signed: sign | _atom
    sign: SIGN _signed
    _atom: _literal_without_sign | signal | call | "(" any_of ")"
    _literal: _literal_without_sign | sign
    _literal_without_sign: number | text | truth
    number: NUMBER
    text: TEXT
    truth: TRUE | FALSE
    call: NAME "(" [any_of ("," any_of)*] ")"
    signal: [(NAME | QUOTED) "."] (NAME | QUOTED)

    _AND.2: /and\b/i
    _OR.2: /or\b/i
    NOT.2: /not\b/i
    _OF.2: /of\b/i
    _PER.2: /per\b/i
    _IN.2: /in\b/i
    _IS.2: /is\b/i
    _NULL.2: /null\b/i
    _LIKE.2: /like\b/i
    _BETWEEN.2: /between\b/i
    _WHERE.2: /where\b/i
    AT_LEAST.3: /(,\s*)?at\s+least\b/i
    _AT_MOST.3: /(,\s*)?at\s+most\b/i
    TOP.2: /top\b/i
    BOTTOM.2: /bottom\b/i
    DATACOMP.2: /datacomp\b/i
    TRUE.2: /true\b/i
    FALSE.2: /false\b/i
    COMPARATOR: />=|<=|==|!=|<>|>|<|=/
    SIGN: /[+-]/
    STAR: "*"
    SLASH: "/"
    NUMBER: /([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?/i
    PERCENT: "%"
    TEXT: /'([^']|'')*'/
    NAME: /[^\W\d]\w*/
    QUOTED: /`[^`]+`/
    %ignore /\s+/
"""
MAX_LENGTH = 4_000  # characters


def parse(text: str, start: str) -> Any:
    """Parse a text by the grammar's start symbol ``start``: ``rule`` or ``repetition``.

    Returns what the callback of that name in ``rules/tree_builder.py`` returns.

    Raises:
        RuleError: the text is empty, too long, not in the grammar, or has a number out of range.
    """
    if not text.strip():
        raise RuleError("the rule is empty", "", 0)
    if len(text) > MAX_LENGTH:
        raise RuleError(f"the rule is longer than {MAX_LENGTH} characters", text[:60], 0)
    try:
        return _PARSER.parse(text, start=start)
    except UnexpectedCharacters as error:
        raise unexpected_character(text, error) from None
    except UnexpectedToken as error:
        raise unexpected_token(text, error, _PARSER.lex) from None
    except InvalidValueError as error:
        raise RuleError(error.message, text, error.position) from None


_PARSER = Lark(
    GRAMMAR,
    parser="lalr",
    lexer="basic",
    start=["rule", "repetition"],
    transformer=tree_builder(),
    maybe_placeholders=True,
)
