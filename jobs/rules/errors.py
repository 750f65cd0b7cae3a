"""Messages for rules that cannot be parsed: one line, the rule, and a caret below it."""

import re
from collections.abc import Callable, Iterator
from typing import cast

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from ..core.errors import UsageError

_BEFORE_AMOUNT = re.compile(r"\b(top|bottom|datacomp)\s*[+-]?\s*$", re.IGNORECASE)
_THOUSANDS = re.compile(r"\d$"), re.compile(r",\d")
_TERMINAL_PHRASES = {  # in the order in which an error message names them
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
_STRAY_CHARACTER_HINTS = {
    "&": "write AND",
    "|": "write OR",
    "!": "write NOT",
    "`": "the closing backquote of the name is missing",
    "'": "the closing single quote of the text is missing",
    '"': "put text in single quotes",
}


class RuleError(UsageError):
    """A rule that cannot be parsed; ``str()`` shows it with a caret under ``position``."""

    def __init__(self, message: str, text: str, position: int) -> None:
        self.message, self.text, self.position = message, text, position
        start = text.rfind("\n", 0, position) + 1
        line = text[start:].split("\n", 1)[0].expandtabs(1)
        super().__init__(f"{message}\n  {line}\n  {' ' * (position - start)}^")

    @property
    def lines(self) -> list[str]:
        """The message, the rule and the caret: all of it the user's own text."""
        return str(self).split("\n")


def unexpected_character(text: str, error: UnexpectedCharacters) -> RuleError:
    """The error for a character that no token begins with."""
    position = cast("int", error.pos_in_stream)
    hint = _STRAY_CHARACTER_HINTS.get(
        text[position], "put names with such characters in backquotes"
    )
    return RuleError(f"unexpected {text[position]!r}: {hint}", text, position)


def unexpected_token(
    text: str, error: UnexpectedToken, lex: Callable[[str], Iterator[Token]]
) -> RuleError:
    """The error for a token that cannot come where it does."""
    expected = error.accepts or error.expected
    ended = error.token.type == "$END"
    position = len(text.rstrip()) if ended else error.token.start_pos or 0
    if error.token.type == "RPAR" and not _open_brackets(text[:position], lex):
        return RuleError("this ')' has no matching '('", text, position)
    if ended and "RPAR" in expected:
        return RuleError("this '(' is never closed", text, _open_brackets(text, lex)[-1])
    before, after = _THOUSANDS
    if before.search(text[:position]) and after.match(text, position):
        return RuleError("write numbers without thousands separators", text, position)
    found = "but the rule ends" if ended else f"not {str(error.token)!r}"
    phrase = _expected_phrase(text, position, set(expected))
    return RuleError(f"expected {phrase}, {found}", text, position)


def _expected_phrase(text: str, position: int, expected: set[str]) -> str:
    """What could come at ``position``, in words."""
    if _BEFORE_AMOUNT.search(text, 0, position):
        return "a percentage or a number of rows"
    if "TOP" in expected:
        return "a condition, such as itm >= 66 or top 30% of odf"
    if {"NAME", "NUMBER"} <= expected:
        return "a number or a column"
    if "COMPARATOR" in expected:  # after a value; more arithmetic could follow as well
        return _TERMINAL_PHRASES["COMPARATOR"]
    if {"NUMBER", "TEXT"} <= expected:
        return "a number or text in single quotes"
    phrases = [phrase for terminal, phrase in _TERMINAL_PHRASES.items() if terminal in expected]
    return " or ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))


def _open_brackets(text: str, lex: Callable[[str], Iterator[Token]]) -> list[int]:
    """The positions of the brackets that are never closed, the innermost last."""
    opened: list[int] = []
    for token in lex(text):
        if token.type == "LPAR":
            opened.append(token.start_pos or 0)
        elif token.type == "RPAR":
            opened.pop()
    return opened
