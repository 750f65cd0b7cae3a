"""The Spark session of a job: the active one, else a new local one that reads and writes Delta.

Environment variables for the local session: MLM_FILTER_MASTER (default local[*]),
MLM_FILTER_DRIVER_MEMORY (default half of the machine's memory, at most 4g), MLM_FILTER_CACHE.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pyspark
from pyspark.accumulators import AccumulatorTCPServer
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from udfs.core.cache_folder import cache_folder
from udfs.core.file_locks import lock
from udfs.processes.memory_size import machine_memory

from . import java, scratch_folder
from .errors import UsageError

# Set where something else (spark-submit, Databricks, Spark Connect) decides how sessions are made.
_MANAGED = (
    "PYSPARK_GATEWAY_PORT",
    "DATABRICKS_RUNTIME_VERSION",
    "SPARK_REMOTE",
    "SPARK_CONNECT_MODE_ENABLED",
)

_LOCAL = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "2",  # else 50 tasks to read a tiny table
    "spark.sql.shuffle.partitions": "4",
    # Adaptive execution begins with more and merges small ones: large shuffles stay in memory.
    "spark.sql.adaptive.coalescePartitions.initialPartitionNum": "32",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "16",  # VACUUM uses all 10000
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.catalogImplementation": "in-memory",  # no Derby files in the working directory
    # Rows carry images: a batch of Spark's usual size would be hundreds of MB in several buffers.
    "spark.sql.parquet.columnarReaderBatchSize": "256",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    "spark.sql.execution.arrow.maxBytesPerBatch": "32m",
    # With columnar input, Python UDFs ignore the limit in bytes (Spark 4.2).
    "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled": "false",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}

# What fails a job reaches the driver as an exception; Spark's own log of it fills two screens.
# PySpark sets the root logger to the gateway's level, and prints a message if they differ.
_LOG4J = """
rootLogger.level = {level}
rootLogger.appenderRef.stderr.ref = stderr
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = {level}
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{{HH:mm:ss}} %p %c{{1}}: \
%replace{{%m%n%ex}}{{[\\\\x00-\\\\x08\\\\x0b-\\\\x1f\\\\x7f-\\\\x9f]}}{{?}}
"""

# Runs in a process of its own, so that the resolver's two pages of output can be hidden.
_RESOLVE_SCRIPT = """
from delta import configure_spark_with_delta_pip
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
print(configure_spark_with_delta_pip(builder).getOrCreate().conf.get("spark.jars"))
"""


def get_spark(app: str) -> tuple[SparkSession, bool]:
    """The Spark session to work in, and whether it was created here (then the caller stops it).

    Raises UsageError if a local session is needed and there is no Java for it.
    """
    try:
        return SparkSession.active(), False
    except PySparkRuntimeError:
        pass
    if any(os.environ.get(name) for name in _MANAGED):
        return SparkSession.builder.appName(app).getOrCreate(), False
    return _local_session(app), True


def _local_session(app: str) -> SparkSession:
    home = java.home()
    if home is None:
        raise UsageError(java.HOW_TO_INSTALL)
    os.environ["JAVA_HOME"] = str(home)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    scratch = scratch_folder.of_this_process(Path(tempfile.gettempdir()))
    log4j = scratch / "log4j2.properties"
    log4j.write_text(_LOG4J.format(level="warn" if _debug() else "off"))

    builder = SparkSession.builder.appName(app)
    builder = builder.master(os.environ.get("MLM_FILTER_MASTER", "local[*]"))
    settings = _LOCAL | {
        "spark.jars": ",".join(path.as_uri() for path in _delta_jars()),
        "spark.driver.memory": os.environ.get("MLM_FILTER_DRIVER_MEMORY") or _driver_memory(),
        # Spark's local folder is the JVM's temp folder, unless the user has set another.
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log4j.as_uri()}"
        f" {_java_option('java.io.tmpdir', str(scratch))}",
        "spark.sql.warehouse.dir": (scratch / "warehouse").as_uri(),
        "spark.executorEnv.PYTHONPATH": _python_path(),
    }
    for key, value in settings.items():
        builder = builder.config(key, value)
    with _temporary_files_in(scratch), _stdout_as_stderr():
        session = builder.getOrCreate()
    if not _debug():
        _quiet_python_logs()
    if threading.current_thread() is threading.main_thread():
        # PySpark's handler calls Java amid a call to Java, which fails with pages of traces.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return session


@contextmanager
def _temporary_files_in(scratch: Path) -> Iterator[None]:
    """Start Spark here, and its temporary files are in scratch folders: PySpark's in `scratch`,
    Spark's in one inside each folder of SPARK_LOCAL_DIRS, if set. Removes those of killed runs."""
    default_folder, local_dirs = tempfile.tempdir, os.environ.get("SPARK_LOCAL_DIRS")
    scratch_folder.remove_abandoned(scratch.parent)
    folders = [Path(folder) for folder in (local_dirs or "").split(",") if folder]
    for folder in folders:
        scratch_folder.remove_abandoned(folder)
    try:
        tempfile.tempdir = str(scratch)
        if folders:
            own = [str(scratch_folder.of_this_process(folder)) for folder in folders]
            os.environ["SPARK_LOCAL_DIRS"] = ",".join(own)
        yield
    finally:
        tempfile.tempdir = default_folder
        if local_dirs is not None:
            os.environ["SPARK_LOCAL_DIRS"] = local_dirs


@contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """Programs that are started here print to stderr: VACUUM prints, and stdout is for JSON."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def _java_option(name: str, value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"-D{name}={quoted}"'


def _quiet_python_logs() -> None:
    """Keep off the terminal what is told in a line of this project's own: PySpark's records of
    errors in queries, JSON with a Java stack trace, and py4j's traces of an interrupted call."""
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger", "py4j.clientserver"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # And the trace of the server to which Java, which may have been killed, sends its counts.
    AccumulatorTCPServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    logging.getLogger().addFilter(lambda record: "while sending command" not in record.getMessage())


def _debug() -> bool:
    return os.environ.get("MLM_FILTER_DEBUG", "") not in ("", "0")


def _python_path() -> str:
    """The folder that holds `udfs`, for the Python workers; empty unless this is a checkout."""
    spec = find_spec("udfs")
    roots = [Path(location).parent for location in (spec and spec.submodule_search_locations) or ()]
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    return os.pathsep.join(str(root) for root in roots if root not in installed)


def _driver_memory() -> str:
    return f"{max(1024, min(4096, machine_memory() // 2 >> 20))}m"


def _delta_jars() -> list[Path]:
    """Delta Lake's JARs: downloaded once, then found by a list in the cache folder."""
    name = f"delta-jars-{version('delta-spark')}-spark-{pyspark.__version__}.txt"
    jar_list = cache_folder() / name
    jars = _read_jar_list(jar_list)
    if jars:
        return jars
    # Two processes that fill Ivy's cache at the same time break each other's download.
    with lock(jar_list.with_suffix(".lock")):
        jars = _read_jar_list(jar_list)
        if not jars:
            jars = _download_jars()
            jar_list.write_text("\n".join(map(str, jars)))
    return jars


def _read_jar_list(jar_list: Path) -> list[Path]:
    """The JARs in the list; none if the list or one of them is missing."""
    if not jar_list.is_file():
        return []
    jars = [Path(line) for line in jar_list.read_text().splitlines()]
    return jars if all(jar.is_file() for jar in jars) else []


def _download_jars() -> list[Path]:
    print("Downloading Delta Lake for Spark (once, about 40 s) ...", file=sys.stderr, flush=True)
    completed = subprocess.run(
        [sys.executable, "-c", _RESOLVE_SCRIPT], capture_output=True, text=True
    )
    if completed.returncode:
        raise UsageError(f"cannot download Delta Lake's JARs (Maven): {_reason(completed.stderr)}")
    uris = completed.stdout.strip().splitlines()[-1].split(",")
    jars = [Path(uri.removeprefix("file://")) for uri in uris]
    # Spark ships newer versions of some of them: these are left out.
    shipped = {_artifact(jar.name) for jar in Path(pyspark.__path__[0], "jars").glob("*.jar")}
    return [jar for jar in jars if _artifact(jar.name.partition("_")[2]) not in shipped]


def _artifact(jar: str) -> str:
    """The name without version: `jts-core` of `jts-core-1.20.0.jar`."""
    return jar.rpartition("-")[0]


def _reason(log: str) -> str:
    problems = [line for line in log.splitlines() if "unresolved dependency" in line.lower()]
    lines = problems or [line for line in log.splitlines() if line.strip()] or ["no message"]
    return lines[-1].rpartition("Exception: ")[2].strip()


@contextmanager
def session_settings(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Change settings of the session within a `with` block, and restore them afterwards."""
    previous = {key: spark.conf.get(key, None) for key in values}
    try:
        for key, value in values.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, old in previous.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)
