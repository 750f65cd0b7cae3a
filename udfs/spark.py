"""Thin shells around the scorers: the only module here that knows Spark.

    from udfs.spark import mlm_scores
    pairs.select("uid", mlm_scores("image", "caption").alias("s")).select("uid", "s.*")

    register_functions(spark)
    spark.sql("SELECT uid, mlm_score(image, caption) AS s, mlm_ctq(image, caption) FROM pairs")

Each call of a function runs the model once a row: take several scores from one `mlm_score`. Write
such scores to a table before filtering on them: Spark may otherwise run the model twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas import functions

from udfs.core.arrow_values import python_values
from udfs.core.metrics import METRIC_NAMES, METRICS
from udfs.inputs.image_files import read_path
from udfs.models import loaded_model
from udfs.models.model_config import ModelConfig
from udfs.scoring.batching import PairScorer
from udfs.scoring.results import Scored
from udfs.scoring.stream import Meter, score_stream

if TYPE_CHECKING:
    import pandas as pd

STAGES = ("load", "decode", "wait", "model")
_ARROW = {
    "float": pa.float32(),
    "double": pa.float64(),
    "integer": pa.int32(),
    "string": pa.string(),
}


def _field(name: str, kind: T.DataType, comment: str) -> T.StructField:
    return T.StructField(name, kind, True, {"comment": comment})


SCORES = T.StructType(
    [
        *(
            _field(m, T.FloatType(), f"{METRIC_NAMES[m]}, 0..100: mean over the model's numbers")
            for m in METRICS
        ),
        *(
            _field(f"{m}_mode", T.IntegerType(), f"{m}: the likeliest number, 0..100")
            for m in METRICS
        ),
        *(
            _field(f"{m}_entropy", T.FloatType(), f"{m}: bits of doubt, 0 (sure) to 6.66")
            for m in METRICS
        ),
        _field("clip_score", T.FloatType(), "cosine of image and caption by a dual encoder, -1..1"),
        _field("status", T.StringType(), "ok or caption_truncated (scored), or why not scored"),
        _field("reason", T.StringType(), "in words, what the status means for this pair"),
    ]
)
"""What the model says of one pair; all scores are null where the status says so. An MLM leaves
`clip_score` null, a dual encoder everything else."""

_SECONDS = [T.StructField(f"seconds_{stage}", T.DoubleType()) for stage in STAGES]


def mlm_scores(
    image: Column | str, caption: Column | str, config: ModelConfig | None = None
) -> Column:
    """One struct (`SCORES`) for each image (binary) and caption (string), as a column."""
    # As bytes: text that is not valid UTF-8 would end the task on its way to Python.
    text = F.col(caption) if isinstance(caption, str) else caption
    column: Column = scores_udf(config or ModelConfig())(image, text.cast("binary"))
    return column


def register(
    spark: SparkSession, config: ModelConfig | None = None, name: str = "mlm_scores"
) -> None:
    """Make `name(image, caption)` known to SQL. Captions of doubtful encoding: CAST(... AS
    BINARY)."""
    spark.udf.register(name, scores_udf(config or ModelConfig()))


def register_functions(spark: SparkSession, config: ModelConfig | None = None) -> list[str]:
    """Make these known to SQL, each of (image, caption); returns their names.

    `mlm_score`: a struct of the four scores, 0..100, null where the pair cannot be scored;
    `mlm_itm`, `mlm_odf`, `mlm_ctq`, `mlm_su`: one of them;
    `mlm_scores`: the whole of `SCORES`, with status and reason.
    """
    config = config or ModelConfig()
    functions_of = {"mlm_scores": SCORES.fieldNames(), "mlm_score": list(METRICS)}
    for name, columns in functions_of.items():
        spark.udf.register(name, scores_udf(config, columns))
    for metric in METRICS:
        spark.udf.register(f"mlm_{metric}", score_udf(config, metric))
    return [*functions_of, *(f"mlm_{metric}" for metric in METRICS)]


def scores_udf(config: ModelConfig, columns: Sequence[str] = ()) -> Any:
    """The iterator-form pandas UDF behind `mlm_scores`: a struct of these columns of `SCORES`."""
    fields = [field for field in SCORES if field.name in (columns or SCORES.fieldNames())]
    # Spark 4.2 takes a struct with comments for another type than the same one without.
    plain = T.StructType([T.StructField(field.name, field.dataType) for field in fields])

    def frame(answers: Sequence[Scored]) -> pd.DataFrame:
        import pandas as pd

        values = columns_of(answers)
        return pd.DataFrame({name: values[name] for name in plain.names}, columns=plain.names)

    import pandas as pd

    return _udf(config, frame, plain, pd.DataFrame)


def score_udf(config: ModelConfig, metric: str) -> Any:
    """The pandas UDF behind `mlm_itm` and its like: one score, a number."""
    import pandas as pd

    def series(answers: Sequence[Scored]) -> pd.Series:
        import pandas as pd

        return pd.Series(columns_of(answers)[metric], dtype="float32")

    return _udf(config, series, SCORES[metric].dataType, pd.Series)


def _udf(
    config: ModelConfig, shape: Callable[[Sequence[Scored]], Any], kind: T.DataType, made: type
) -> Any:
    import pandas as pd

    def score(batches: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[Any]:
        meter = Meter()
        pairs = ((images.array, captions.array) for images, captions in batches)
        for answers in score_stream(_scorer(config, meter), pairs, meter):
            yield shape(answers)

    # pandas_udf reads the annotations, which are text here (PEP 563) and name a local import.
    score.__annotations__ = {
        "batches": Iterator[tuple[pd.Series, pd.Series]],
        "return": Iterator[made],  # type: ignore[valid-type]
    }
    # Not deterministic for the optimizer: it then does not evaluate the model twice.
    make: Any = functions.pandas_udf  # its overloads know no annotations that are set by hand
    return make(score, kind).asNondeterministic()


def score_batches(
    config: ModelConfig, keys: Sequence[str], image: str, device: str = "auto"
) -> tuple[Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]], T.StructType]:
    """A function for `DataFrame.mapInArrow`, and the schema of what it returns.

    Its input has the string columns `keys`, the column `image` (binary, or a string with paths) and
    `caption` (binary); it returns `keys`, `SCORES`, and on the first row of each batch the seconds
    by stage since the last one. mapInArrow holds to Spark's limit on bytes a batch where pandas
    UDFs over a Parquet scan do not.
    """
    schema = T.StructType([*(T.StructField(k, T.StringType()) for k in keys), *SCORES, *_SECONDS])

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        meter = Meter()
        scorer = _scorer(config, meter, device)
        kept: list[list[pa.Array]] = []

        def pairs() -> Iterator[tuple[Any, Any]]:
            for batch in batches:
                kept.append([batch.column(key) for key in keys])
                yield python_values(batch.column(image)), python_values(batch.column("caption"))

        paths = image == "image_path"
        for answers in score_stream(scorer, pairs(), meter, read=read_path if paths else None):
            values = columns_of(answers)
            seconds = meter.take()
            for stage in STAGES:
                values[f"seconds_{stage}"] = [seconds[stage]] + [0.0] * (len(answers) - 1)
            arrays = [
                *kept.pop(0),
                *(_array(values[f.name], f.dataType) for f in schema.fields[len(keys) :]),
            ]
            if answers:
                yield pa.RecordBatch.from_arrays(arrays, names=schema.fieldNames())

    return score, schema


def columns_of(answers: Sequence[Scored]) -> dict[str, list[Any]]:
    """Answers as columns in the order of `SCORES`."""
    values: dict[str, list[Any]] = {}
    for suffix, attribute in (("", "expectation"), ("_mode", "mode"), ("_entropy", "entropy")):
        found = [getattr(answer, attribute) or [None] * len(METRICS) for answer in answers]
        for i, metric in enumerate(METRICS):
            values[metric + suffix] = [four[i] for four in found]
    values["clip_score"] = [answer.clip_score for answer in answers]
    values["status"] = [answer.status for answer in answers]
    values["reason"] = [answer.reason for answer in answers]
    return values


def device_of(addresses: Sequence[str], visible: str | None) -> str:
    """The device of a task whose GPU addresses Spark gives: "cpu" without any, else "cuda:i".

    Where a cluster manager has narrowed CUDA_VISIBLE_DEVICES to `visible`, CUDA counts within it.
    """
    if not addresses:
        return "cpu"
    first = addresses[0]
    listed = [entry.strip() for entry in visible.split(",")] if visible else []
    index = listed.index(first) if first in listed else int(first)
    return f"cuda:{index}"


def _scorer(config: ModelConfig, meter: Meter, device: str = "auto") -> PairScorer:
    """This process's scorer, on the device and with the CPU threads of this task."""
    context = TaskContext.get()
    gpu = context.resources().get("gpu") if context else None
    threads = context.cpus() if context else None
    if device == "auto":
        addresses = gpu.addresses if gpu else []
        device = device_of(addresses, os.environ.get("CUDA_VISIBLE_DEVICES"))
    elif device == "cuda":  # local mode: Spark counts no GPUs there, so share them out by partition
        import torch

        partition = context.partitionId() if context else 0
        device = f"cuda:{partition % max(1, torch.cuda.device_count())}"
    started = time.perf_counter()
    scorer = loaded_model.scorer(config, device, threads)
    meter.load += time.perf_counter() - started
    return scorer


def _array(values: list[Any], kind: T.DataType) -> pa.Array:
    return pa.array(values, type=_ARROW[kind.typeName()])
