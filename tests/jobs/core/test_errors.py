"""The one line that an error is cut down to names its cause."""

import pytest

from jobs.core.errors import first_line

PY4J = """An error occurred while calling o248.save.
: org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] Encountered error while reading file \
file:///data/b.parquet.  SQLSTATE: KD001
\tat org.apache.spark.sql.errors.QueryExecutionErrors$.cannotReadFilesError(Q.scala:940)
Caused by: java.io.IOException: can not read class org.apache.parquet.format.PageHeader: don't know
\tat org.apache.parquet.format.Util.read(Util.java:366)
Caused by: shaded.parquet.org.apache.thrift.protocol.TProtocolException: don't know what type: 15
\tat shaded.parquet.TCompactProtocol.getTType(TCompactProtocol.java:931)
"""
WRITE = """An error occurred while calling o9.save.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 1.0 failed
Caused by: org.apache.spark.SparkException: [TASK_WRITE_FAILED] Task failed while writing rows to \
file:/data/out.  SQLSTATE: 58030
Caused by: java.io.IOException: No space left on device
"""
WORKER = """An error occurred while calling o1.collect.
: org.apache.spark.SparkException: Job aborted
Traceback (most recent call last):
  File "worker.py", line 1, in main
ValueError: the model is gone

\tat org.apache.spark.api.python.BasePythonRunner
Caused by: org.apache.spark.api.python.PythonException: Traceback
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            PY4J,
            "[FAILED_READ_FILE.NO_HINT] Encountered error while reading file"
            " file:///data/b.parquet: don't know what type: 15",
        ),
        (
            WRITE,
            "[TASK_WRITE_FAILED] Task failed while writing rows to file:/data/out:"
            " No space left on device",
        ),
        (WORKER, "ValueError: the model is gone"),
        ("[PARSE_SYNTAX_ERROR] Syntax error at or near 'SELEC'. SQLSTATE: 42601", None),
        ("one\ntwo", "RuntimeError: one"),
        ("", "RuntimeError"),
        ("x\nCaused by: java.io.EOFException\n", "EOFException"),
    ],
)
def test_the_line_names_the_cause(text: str, line: str | None) -> None:
    assert first_line(RuntimeError(text)) == (text if line is None else line)
