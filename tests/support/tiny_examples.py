"""Examples to fine-tune on, made on the spot: pictures of one colour, captions that name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pictures import encoded
from PIL import Image

from udfs.core.metrics import METRICS
from udfs.scoring.prompts import Prompt
from udfs.training.recipe import Recipe

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (30, 40, 220),
    "yellow": (230, 220, 40),
}
PROMPT = Prompt("C: ", "\nR:", (" match", " detail", " quality", " sense"), image_fit="pad")


def image(i: int) -> bytes:
    """The picture of number `i`: its colour, with noise of its own."""
    colour = np.array(COLOURS[name(i)])
    noise = np.random.default_rng(i).integers(-25, 26, (30, 40, 3))
    return encoded(Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)))


def name(i: int) -> str:
    """The colour of picture number `i`."""
    return list(COLOURS)[i % len(COLOURS)]


def pairs(count: int) -> list[dict[str, Any]]:
    """Two captions each of `count` pictures of four groups; the second of some is missing."""
    rows = []
    for i in range(count):
        texts = [f"{name(i)} paint on a wall", f"number {i}, {name(i)}" if i % 3 else None]
        for text in texts:
            rows.append(
                {"uid": f"u{i:03}", "image": image(i), "caption": text, "group": f"book {i % 4}"}
            )
    return rows


def instructions(count: int) -> list[dict[str, Any]]:
    """What a teacher says of a right and a wrong caption of each picture."""
    rows = []
    for i in range(count):
        for caption, right in ((f"{name(i)} it is", True), (f"{name(i + 1)} it is", False)):
            for m, metric in enumerate(METRICS):
                score = 80 + (i + m) % 20 if right else 10 + (3 * i + m) % 30
                reason = f"it {'is' if right else 'is not'} {name(i)}" if i % 2 else None
                rows.append(
                    {
                        "uid": f"u{i:03}",
                        "caption": caption,
                        "metric": metric,
                        "score": float(score),
                        "reason": reason,
                    }
                )
    return rows


def write(folder: Path, count: int = 16) -> Path:
    """A folder of examples."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(pairs(count)), folder / "pairs.parquet")
    pq.write_table(pa.Table.from_pylist(instructions(count)), folder / "instructions.parquet")
    return folder


def recipe(*stages: dict[str, Any], **more: Any) -> Recipe:
    """A recipe in float32 for tiny models: a few quick steps of each stage given."""
    common = {"steps": 6, "learning_rate": 1e-2, "ranked": 3, "scored": 4}
    settings: dict[str, Any] = {"dtype": "float32", "prompt": PROMPT, "lora": {"rank": 4}} | more
    numbered = [{"name": f"stage {i}"} | common | stage for i, stage in enumerate(stages)]
    return Recipe(stages=numbered, **settings)
