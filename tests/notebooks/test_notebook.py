"""The notebook runs from top to bottom, in its own kernel and Spark session."""

import ast
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny_report
from deltalake import DeltaTable, write_deltalake
from pictures import encoded, picture

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "walkthrough.ipynb"


def test_it_is_stored_without_outputs_and_defines_nothing() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for cell in code:
        tree = ast.parse("".join(cell["source"]))
        assert not [node for node in ast.walk(tree) if isinstance(node, defined)]


@pytest.mark.spark
@pytest.mark.slow
def test_it_runs_on_the_tables_of_a_quickstart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    rows = tiny_report.rows()
    write_tables(rows, tmp_path)
    settings = {
        "MLM_FILTER_TABLES": str(tmp_path),
        "MLM_FILTER_MASTER": "local[2]",
        "MLM_FILTER_DRIVER_MEMORY": "1g",
        "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()

    codes = [
        (cell["source"].split(".main(")[0], output["data"]["text/plain"])
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "execute_result" and ".main(" in cell["source"]
    ]
    assert codes == [
        *(("query", "0"), ("filter", "0"), ("filter", "2"), ("filter", "0")),
        *(("export", "0"), ("report", "0")),
    ]
    output = tmp_path / "walkthrough"
    selection = DeltaTable(output / "selection").to_pyarrow_table().to_pylist()
    kept_uids = {row["uid"] for row in selection if row["keep"]}
    exported = np.load(output / "uids.npy")
    assert {f"{high:016x}{low:016x}" for high, low in exported} == kept_uids
    page = (output / "report.html").read_text(encoding="utf-8")
    assert f"{len(kept_uids)}</em> of {len(rows)} pairs are kept" in page
    assert "data:image/webp" in page


def write_tables(rows: list[tiny_report.Row], folder: Path) -> None:
    """Pairs and scores as the quickstart leaves them, without a Spark session."""
    images = {row["file"]: encoded(picture(seed=n)) for n, row in enumerate(rows)}
    digests = {file: hashlib.sha256(image).hexdigest() for file, image in images.items()}
    keys = [
        {
            "uid": row["uid"],
            "image_sha": digests[row["file"]],
            "caption_sha": hashlib.sha256(row["caption"].encode()).hexdigest(),
        }
        for row in rows
    ]
    pairs = [
        {
            **key,
            "image": images[row["file"]],
            "caption": row["caption"],
            "source_path": row["file"],
        }
        for key, row in zip(keys, rows, strict=True)
    ]
    write_deltalake(folder / "pairs", pa.Table.from_pylist(pairs))
    string, float32, int32 = pa.string(), pa.float32(), pa.int32()
    schema = pa.schema(
        [
            *((name, string) for name in ("uid", "scorer", "image_sha", "caption_sha")),
            ("copy", int32),
            *((name, float32) for name in tiny_report.METRICS),
            *((f"{name}_mode", int32) for name in tiny_report.METRICS),
            *((f"{name}_entropy", float32) for name in tiny_report.METRICS),
            *(("clip_score", float32), ("status", string), ("reason", string), ("attempts", int32)),
            *(("run_id", string), ("scored_at", pa.timestamp("us", "UTC"))),
        ]
    )
    scores = [
        {
            **{name: row.get(name) for name in schema.names},
            **key,
            **{"copy": 0, "scorer": "s1", "attempts": 1, "run_id": "r1", "clip_score": None},
        }
        for key, row in zip(keys, rows, strict=True)
    ]
    write_deltalake(folder / "scores", pa.Table.from_pylist(scores, schema))
