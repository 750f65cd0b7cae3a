"""The error for bad usage or bad input, and the one line that any other error is cut down to."""

import re

_NAMES_SOMETHING = re.compile(r"\w:/|\.(parquet|json|tar)\b(?!\.)|\bcolumn\b|`")
"""Of an error: it names a file or a column."""


class UsageError(Exception):
    """Bad usage or bad input: the job prints this text and exits with 2."""

    @property
    def lines(self) -> list[str]:
        """The text as it is printed: one line, whatever text from data it has."""
        return [str(self)]


RUN_AGAIN = "the same command again starts from what the tables hold now"


class ConflictError(Exception):
    """Another run has changed a table meanwhile: the job prints this text and exits with 1, as the
    same command may succeed later."""


def first_line(error: BaseException) -> str:
    """The line of an error's text that names the cause.

    Spark's errors run to pages, with a Java and a Python traceback. For an error in a Python worker
    it is the last line of the worker's own traceback; for one in Java the deepest cause, after the
    error above it that names a file or a column.
    """
    if isinstance(error, ConflictError):
        return str(error)
    text = str(error)
    lines = [line for line in text.splitlines() if line.strip()]
    name = type(error).__name__
    if not lines:
        return name
    tracebacks = [
        n for n, line in enumerate(lines) if line.startswith("Traceback (most recent call")
    ]
    if tracebacks:
        following = lines[tracebacks[-1] + 1 :]
        return next((line for line in following if not line[0].isspace()), lines[0])
    top = lines[0] if lines[0].startswith("[") else f"{name}: {lines[0]}"
    if lines[0].startswith("An error occurred while calling") and len(lines) > 1:
        top = lines[1].removeprefix(": ")  # py4j: the Java error comes next
    causes = re.findall(r"^Caused by: (.+)$", text, re.MULTILINE)
    if not causes:
        return top
    *above, deepest = [_message(line) for line in (top, *causes)]
    naming = [line for line in above if _NAMES_SOMETHING.search(line) and line not in deepest]
    return f"{naming[-1]}: {deepest}" if naming else deepest


def _message(line: str) -> str:
    """A line of a Java error without the name of its class and the code at its end."""
    said = re.sub(r"^[\w.$]+\.([\w$]+)(: |$)", lambda m: "" if m[2] == ": " else m[1], line)
    return re.sub(r"\s*SQLSTATE: \w+$", "", said).rstrip(". ")
