"""What tests share: one Spark session with Delta, made the way that the jobs make theirs, and what
several files about training begin with."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import tiny_pairs
import tiny_scores
from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A local session of two cores; jobs that a test calls find it active and leave it alone."""
    os.environ.setdefault("MLM_FILTER_MASTER", "local[2]")
    os.environ.setdefault("MLM_FILTER_DRIVER_MEMORY", "2g")
    # Many small queries: Java's second compiler costs more than it gives (measured: a third), and
    # so does Spark's code generation (a sixth).
    # With the first compiler alone Java keeps 48 MB for code; full, it compiles nothing any more.
    java = (
        "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
        " -Dspark.sql.codegen.wholeStage=false"
        " -Dspark.sql.codegen.factoryMode=NO_CODEGEN"
        " -Dspark.python.daemon.module=tests.support.warm_daemon"
    )
    os.environ.setdefault("JDK_JAVA_OPTIONS", java)
    from jobs.core.session import get_spark

    session, _ = get_spark("tests")
    yield session
    session.stop()


@pytest.fixture
def write(spark: SparkSession, tmp_path: Path) -> tiny_scores.Write:
    """write(name, rows, schema) -> path of a Delta table."""
    return tiny_scores.writer(spark, tmp_path)


@pytest.fixture(scope="module")
def scoring_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model that scores."""
    return str(tiny_models.llava(tmp_path_factory.mktemp("llava")))


@pytest.fixture
def run_score(spark: SparkSession, scoring_model: str) -> tiny_pairs.Score:
    """The score job with `scoring_model`."""
    from jobs.score import job as score
    from jobs.score.settings import ScoreConfig

    def run(**options: Any) -> dict[str, Any]:
        return score.run(spark, ScoreConfig(**({"model": scoring_model} | options)))

    return run


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A forked child cannot use its parent's threads, and another number of them sums in another
    order: the last bits of a loss differ."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def internvl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    return tiny_models.internvl(tmp_path_factory.mktemp("internvl"))
