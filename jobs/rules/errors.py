"""What is said of a rule that cannot be read: one line, the rule, and a caret below it."""

import re
from collections.abc import Callable, Iterator
from typing import cast

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from ..core.errors import UsageError

_BEFORE_AMOUNT = re.compile(r"\b(top|bottom|datacomp)\s*[+-]?\s*$", re.IGNORECASE)
_THOUSANDS = re.compile(r"\d$"), re.compile(r",\d")
_EXPECTED = {  # in the order in which an error message names them
    "NAME": "a column",
    "TEXT": "text in single quotes",
    "COMPARATOR": "a comparison (>= > <= < = !=)",
    "NUMBER": "a number",
    "PERCENT": "%",
    "_OF": "of",
    "_PER": "per",
    "_IN": "in",
    "_LIKE": "like",
    "_NULL": "null",
    "_AND": "AND",
    "_OR": "OR",
    "_WHERE": "where",
    "RPAR": "')'",
    "LPAR": "'('",
    "COMMA": "','",
    "$END": "the end",
}
_STRAY = {
    "&": "write AND",
    "|": "write OR",
    "!": "write NOT",
    "`": "a name in backquotes ends with another backquote",
    "'": "text in single quotes ends with another single quote",
    '"': "text stands in single quotes",
}


class RuleError(UsageError):
    """A rule that cannot be read; ``str()`` shows it with a caret under ``position``."""

    def __init__(self, message: str, text: str, position: int) -> None:
        self.message, self.text, self.position = message, text, position
        start = text.rfind("\n", 0, position) + 1
        line = text[start:].split("\n", 1)[0].expandtabs(1)
        super().__init__(f"{message}\n  {line}\n  {' ' * (position - start)}^")


def unexpected_character(text: str, error: UnexpectedCharacters) -> RuleError:
    """For a character that begins nothing."""
    position = cast("int", error.pos_in_stream)
    hint = _STRAY.get(text[position], "a name with such characters stands in backquotes")
    return RuleError(f"unexpected {text[position]!r}: {hint}", text, position)


def unexpected_token(
    text: str, error: UnexpectedToken, lex: Callable[[str], Iterator[Token]]
) -> RuleError:
    """For a word where none of its sort can stand."""
    expected = error.accepts or error.expected
    ended = error.token.type == "$END"
    position = len(text.rstrip()) if ended else error.token.start_pos or 0
    if error.token.type == "RPAR" and not _open_brackets(text[:position], lex):
        return RuleError("this ')' closes no '('", text, position)
    if ended and "RPAR" in expected:
        return RuleError("this '(' is never closed", text, _open_brackets(text, lex)[-1])
    before, after = _THOUSANDS
    if before.search(text[:position]) and after.match(text, position):
        return RuleError("numbers are written without separators", text, position)
    found = "but the rule ends" if ended else f"not {str(error.token)!r}"
    return RuleError(f"expected {_wanted(text, position, set(expected))}, {found}", text, position)


def _wanted(text: str, position: int, expected: set[str]) -> str:
    """What could stand at ``position``, in words."""
    if _BEFORE_AMOUNT.search(text, 0, position):
        return "a percentage or a number of rows"
    if "TOP" in expected:
        return "a condition, such as itm >= 66 or top 30% of odf"
    if {"NAME", "NUMBER"} <= expected:
        return "a number or a column"
    if "COMPARATOR" in expected:  # behind a value: arithmetic could go on as well
        return _EXPECTED["COMPARATOR"]
    if {"NUMBER", "TEXT"} <= expected:
        return "a number or text in single quotes"
    wanted = [name for terminal, name in _EXPECTED.items() if terminal in expected]
    return " or ".join(filter(None, [", ".join(wanted[:-1]), wanted[-1]]))


def _open_brackets(text: str, lex: Callable[[str], Iterator[Token]]) -> list[int]:
    """Where the brackets stand that are still open at the end, the innermost last."""
    opened: list[int] = []
    for token in lex(text):
        if token.type == "LPAR":
            opened.append(token.start_pos or 0)
        elif token.type == "RPAR":
            opened.pop()
    return opened
