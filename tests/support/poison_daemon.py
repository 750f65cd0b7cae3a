"""`warm_daemon` whose workers have rows that end, hold or fill the process that works on them."""

from pyspark.daemon import manager

from tests.support import (
    poison,
    warm_daemon,  # noqa: F401 - for what it imports
)

poison.install()

if __name__ == "__main__":
    manager()
