"""What all tests share: one Spark session with Delta, made the way that the jobs make theirs."""

import os
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A local session of two cores; jobs that a test calls find it active and leave it alone."""
    os.environ.setdefault("MLM_FILTER_MASTER", "local[2]")
    os.environ.setdefault("MLM_FILTER_DRIVER_MEMORY", "2g")
    # Many small queries: Java's second compiler costs more than it gives (measured: a third).
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    from jobs.session import get_spark

    session, _ = get_spark("tests")
    yield session
    session.stop()
