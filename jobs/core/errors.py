"""What a job raises on purpose."""


class UsageError(Exception):
    """Bad usage or bad input: the command line prints its text as one line and exits with 2."""


def first_line(error: BaseException) -> str:
    """The line of an error's text that says why: Spark's run to pages, with two languages' traces.

    Of an error in a Python worker it is the last line of the worker's own trace.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    if not lines:
        return name
    traces = [n for n, line in enumerate(lines) if line.startswith("Traceback (most recent call")]
    if traces:
        after = lines[traces[-1] + 1 :]
        return next((line for line in after if not line[0].isspace()), lines[0])
    if lines[0].startswith("An error occurred while calling") and len(lines) > 1:
        return lines[1].removeprefix(": ")  # py4j: the Java error comes next
    return lines[0] if lines[0].startswith("[") else f"{name}: {lines[0]}"
