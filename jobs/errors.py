"""What a job raises on purpose."""


class UsageError(Exception):
    """Bad usage or bad input: the command line prints its text as one line and exits with 2."""
