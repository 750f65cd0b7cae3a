"""The error for bad usage or bad input, and the one line that any other error is cut down to."""


class UsageError(Exception):
    """Bad usage or bad input: the job prints this text as one line and exits with 2."""


def first_line(error: BaseException) -> str:
    """The line of an error's text that names the cause.

    Spark's errors run to pages, with a Java and a Python traceback. For an error in a Python worker
    it is the last line of the worker's own traceback.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    if not lines:
        return name
    tracebacks = [
        n for n, line in enumerate(lines) if line.startswith("Traceback (most recent call")
    ]
    if tracebacks:
        following = lines[tracebacks[-1] + 1 :]
        return next((line for line in following if not line[0].isspace()), lines[0])
    if lines[0].startswith("An error occurred while calling") and len(lines) > 1:
        return lines[1].removeprefix(": ")  # py4j: the Java error comes next
    return lines[0] if lines[0].startswith("[") else f"{name}: {lines[0]}"
