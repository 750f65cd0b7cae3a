"""Spark UDFs around the scorers; the only module in udfs/ that imports Spark.

    from udfs.spark import mlm_scores
    pairs.select("uid", mlm_scores("image", "caption").alias("s")).select("uid", "s.*")

    register_functions(spark)
    spark.sql("SELECT uid, mlm_score(image, caption) AS s, mlm_ctq(image, caption) FROM pairs")

Each function call runs the model once for each row, so take several scores from one `mlm_score`.
Write scores to a table before filtering on them: Spark may otherwise run the model twice.
Images must be binary, captions strings or binary: other types fail with a line that names them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas import functions

from udfs.core.arrow_values import BYTES, TEXT, check_values, python_values
from udfs.core.metrics import METRIC_NAMES, METRICS
from udfs.inputs.image_roots import ImageRoots
from udfs.models import model_process
from udfs.models.model_config import ModelConfig
from udfs.models.model_process import Place
from udfs.scoring.results import Scored
from udfs.scoring.stream import Meter

if TYPE_CHECKING:
    import pandas as pd

STAGES = ("load", "decode", "wait", "model")
_ARROW_TYPES = {
    "float": pa.float32(),
    "double": pa.float64(),
    "integer": pa.int32(),
    "string": pa.string(),
}


def _field(name: str, spark_type: T.DataType, comment: str) -> T.StructField:
    return T.StructField(name, spark_type, True, {"comment": comment})


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
"""The result for one pair; all scores are null if the status says that it was not scored. An MLM
leaves `clip_score` null, a dual encoder leaves the other scores null."""

_SECONDS = [T.StructField(f"seconds_{stage}", T.DoubleType()) for stage in STAGES]


def mlm_scores(
    image: Column | str, caption: Column | str, config: ModelConfig | None = None
) -> Column:
    """A column with one struct (`SCORES`) for each image (binary) and caption (string)."""
    # As bytes: text that is not valid UTF-8 would make the task fail on its way to Python.
    text = F.col(caption) if isinstance(caption, str) else caption
    column: Column = scores_udf(config or ModelConfig())(image, text.cast("binary"))
    return column


def register(
    spark: SparkSession, config: ModelConfig | None = None, name: str = "mlm_scores"
) -> None:
    """Register `name(image, caption)` for SQL. CAST captions AS BINARY if their encoding may be
    broken."""
    spark.udf.register(name, scores_udf(config or ModelConfig(), name=name))


def register_functions(spark: SparkSession, config: ModelConfig | None = None) -> list[str]:
    """Register these functions of (image, caption) for SQL; returns their names.

    `mlm_score`: a struct of the four scores, 0..100, null where the pair cannot be scored;
    `mlm_itm`, `mlm_odf`, `mlm_ctq`, `mlm_su`: one score each;
    `mlm_scores`: all of `SCORES`, with status and reason.
    """
    config = config or ModelConfig()
    functions_of = {"mlm_scores": SCORES.fieldNames(), "mlm_score": list(METRICS)}
    for name, columns in functions_of.items():
        spark.udf.register(name, scores_udf(config, columns, name))
    for metric in METRICS:
        spark.udf.register(f"mlm_{metric}", score_udf(config, metric))
    return [*functions_of, *(f"mlm_{metric}" for metric in METRICS)]


def scores_udf(config: ModelConfig, columns: Sequence[str] = (), name: str = "mlm_scores") -> Any:
    """The iterator-form pandas UDF behind `mlm_scores`: a struct of these columns of `SCORES`.

    `name` is what its errors call it."""
    fields = [field for field in SCORES if field.name in (columns or SCORES.fieldNames())]
    # Spark 4.2 treats a struct with comments as another type than the same one without.
    uncommented = T.StructType([T.StructField(field.name, field.dataType) for field in fields])

    def to_frame(answers: Sequence[Scored]) -> pd.DataFrame:
        import pandas as pd

        names, values = uncommented.names, columns_of(answers)
        return pd.DataFrame({name: values[name] for name in names}, columns=names)

    import pandas as pd

    return _udf(config, to_frame, uncommented, pd.DataFrame, name)


def score_udf(config: ModelConfig, metric: str) -> Any:
    """The pandas UDF behind `mlm_itm` and the other single scores: one number."""
    import pandas as pd

    def to_series(answers: Sequence[Scored]) -> pd.Series:
        import pandas as pd

        return pd.Series(columns_of(answers)[metric], dtype="float32")

    return _udf(config, to_series, SCORES[metric].dataType, pd.Series, f"mlm_{metric}")


def _udf(
    config: ModelConfig,
    to_pandas: Callable[[Sequence[Scored]], Any],
    spark_type: T.DataType,
    pandas_type: type,
    name: str,
) -> Any:
    import pandas as pd

    def score(batches: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[Any]:
        pairs = (
            (_values(images, f"{name}: image", BYTES), _values(captions, f"{name}: caption", TEXT))
            for images, captions in batches
        )
        for answers in model_process.score(config, _place(), pairs, Meter()):
            yield to_pandas(answers)

    # pandas_udf reads the annotations, which are text here (PEP 563) and name a local import.
    score.__annotations__ = {
        "batches": Iterator[tuple[pd.Series, pd.Series]],
        "return": Iterator[pandas_type],  # type: ignore[valid-type]
    }
    # Declared nondeterministic so that the optimizer does not evaluate the model twice.
    pandas_udf: Any = functions.pandas_udf  # its overloads reject annotations set by hand
    return pandas_udf(score, spark_type).asNondeterministic()


def _values(column: Any, name: str, needs: str) -> Sequence[Any]:
    """The values of a column from pandas. Raises TypeError if they are not of the type `needs`: SQL
    binds a function to columns of any type."""
    if column.ndim > 1:
        raise TypeError(f"{name} is struct<{','.join(map(str, column.columns))}>; it needs {needs}")
    values: Sequence[Any] = column.array
    check_values(values, name, needs)
    return values


def score_batches(
    config: ModelConfig,
    keys: Sequence[str],
    image: str,
    device: str = "auto",
    roots: ImageRoots | None = None,
) -> tuple[Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]], T.StructType]:
    """A function for `DataFrame.mapInArrow`, and the schema of what it returns.

    Its input has the string columns `keys`, the column `image` (binary, or with `roots` a string
    with paths below them) and `caption` (binary). It returns `keys`, `SCORES` and, on the first row
    of each batch, the seconds by stage since the batch before. mapInArrow respects Spark's limit on
    the bytes of a batch; pandas UDFs over a Parquet scan do not.
    """
    schema = T.StructType([*(T.StructField(k, T.StringType()) for k in keys), *SCORES, *_SECONDS])

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        meter = Meter()
        waiting_keys: list[list[pa.Array]] = []  # of the batches that are being scored

        def pairs() -> Iterator[tuple[Any, Any]]:
            for batch in batches:
                waiting_keys.append([batch.column(key) for key in keys])
                yield _arrow_values(batch, image), _arrow_values(batch, "caption")

        for answers in model_process.score(config, _place(device), pairs(), meter, roots):
            values = columns_of(answers)
            seconds = meter.take()
            for stage in STAGES:
                values[f"seconds_{stage}"] = [seconds[stage]] + [0.0] * (len(answers) - 1)
            arrays = [
                *waiting_keys.pop(0),
                *(_array(values[f.name], f.dataType) for f in schema.fields[len(keys) :]),
            ]
            if answers:
                yield pa.RecordBatch.from_arrays(arrays, names=schema.fieldNames())

    return score, schema


def _arrow_values(batch: pa.RecordBatch, name: str) -> list[Any]:
    values = python_values(batch.column(name))
    check_values(values, name, BYTES if name == "image" else TEXT)
    return values


def explain_model(
    config: ModelConfig, device: str = "auto"
) -> tuple[Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]], T.StructType]:
    """As `score_batches`, for a table of one row: loads the model and returns a row for each line
    of what it says of itself (`PairScorer.explain`)."""
    schema = T.StructType([T.StructField("line", T.StringType())])

    def explain(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if sum(batch.num_rows for batch in batches):
            lines = model_process.explain(config, _place(device))
            yield pa.RecordBatch.from_pydict({"line": lines})

    return explain, schema


def columns_of(answers: Sequence[Scored]) -> dict[str, list[Any]]:
    """Answers as columns, in the order of `SCORES`."""
    values: dict[str, list[Any]] = {}
    for suffix, attribute in (("", "expectation"), ("_mode", "mode"), ("_entropy", "entropy")):
        rows = [getattr(answer, attribute) or [None] * len(METRICS) for answer in answers]
        for i, metric in enumerate(METRICS):
            values[metric + suffix] = [row[i] for row in rows]
    values["clip_score"] = [answer.clip_score for answer in answers]
    values["status"] = [answer.status for answer in answers]
    values["reason"] = [answer.reason for answer in answers]
    return values


def device_of(addresses: Sequence[str], visible: str | None) -> str:
    """The device for a task with these GPU addresses from Spark: "cpu" if none, else "cuda:i".

    If a cluster manager has set CUDA_VISIBLE_DEVICES to `visible`, CUDA counts within that list.
    """
    if not addresses:
        return "cpu"
    first = addresses[0]
    devices = [entry.strip() for entry in visible.split(",")] if visible else []
    index = devices.index(first) if first in devices else int(first)
    return f"cuda:{index}"


def _place(device: str = "auto") -> Place:
    """The device and the CPU threads of this task."""
    context = TaskContext.get()
    if context is None:
        return Place(device_of([], None) if device == "auto" else device)
    if device == "auto":
        gpu = context.resources().get("gpu")
        device = device_of(gpu.addresses if gpu else [], os.environ.get("CUDA_VISIBLE_DEVICES"))
    # In local mode Spark knows no GPUs: "cuda" assigns them by partition.
    return Place(device, context.cpus(), context.partitionId())


def _array(values: list[Any], spark_type: T.DataType) -> pa.Array:
    return pa.array(values, type=_ARROW_TYPES[spark_type.typeName()])
