"""Examples to fine-tune on, made on the spot: pictures of one colour, captions that name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pictures import encoded
from PIL import Image

from udfs.core.metrics import METRICS
from udfs.training import examples
from udfs.training.run import Run
from udfs.training.settings import TrainingSettings

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (30, 40, 220),
    "yellow": (230, 220, 40),
}
PROMPT: dict[str, Any] = {
    "before": "C: ",
    "after": "\nR:",
    "questions": [" match", " detail", " quality", " sense"],
    "image_fit": "pad",
}


def name(i: int) -> str:
    """The colour of picture number `i`."""
    return list(COLOURS)[i % len(COLOURS)]


def image(i: int) -> bytes:
    """The picture of number `i`: its colour, with noise and a shape of its own."""
    noise = np.random.default_rng(i).integers(-25, 26, (30 + i % 3 * 16, 40, 3))
    pixels = (np.array(COLOURS[name(i)]) + noise).clip(0, 255)
    return encoded(Image.fromarray(pixels.astype(np.uint8)))


def instructions(numbers: range) -> list[dict[str, Any]]:
    """What a teacher says of a right and a wrong caption of each picture."""
    rows = []
    for i in numbers:
        for caption, right in ((f"{name(i)} it is", True), (f"{name(i + 1)} it is", False)):
            for m, metric in enumerate(METRICS):
                score = 80 + (i + m) % 20 if right else 10 + (3 * i + m) % 30
                rows.append(
                    {
                        "uid": f"u{i:03}",
                        "caption": caption,
                        "metric": metric,
                        "score": float(score),
                        "spread": None if i % 2 else 3.0,
                        "reason": f"it {'is' if right else 'is not'} {name(i)}" if i % 2 else None,
                    }
                )
    return rows


def write(folder: Path, numbers: range = range(8)) -> Path:
    """A folder of examples, with two conversations: one about the first picture, one about none."""
    folder.mkdir(parents=True, exist_ok=True)
    images: dict[str, Any] = {
        "uid": [f"u{i:03}" for i in numbers],
        "image": [image(i) for i in numbers],
    }
    table = pa.table(images, schema=examples.IMAGE_SCHEMA)
    with (
        pa.OSFile(str(folder / examples.IMAGES), "wb") as file,
        pa.ipc.new_file(file, examples.IMAGE_SCHEMA) as writer,
    ):
        writer.write_table(table)
    said = [("user", "what colour?"), ("assistant", name(numbers[0])), ("user", "sure?")]
    talks: list[dict[str, Any]] = [
        {"uid": images["uid"][0], "turns": [*said, ("assistant", "yes")]},
        {"uid": None, "turns": [("user", "hello"), ("assistant", "hi there")]},
    ]
    rows = [
        talk | {"turns": [{"role": role, "text": text} for role, text in talk["turns"]]}
        for talk in talks
    ]
    for file_name, found, schema in (
        (examples.INSTRUCTIONS, instructions(numbers), examples.INSTRUCTION_SCHEMA),
        (examples.CONVERSATIONS, rows, examples.CONVERSATION_SCHEMA),
    ):
        pq.write_table(pa.Table.from_pylist(found, schema=schema), folder / file_name)
    return folder


def write_with_held_out(folder: Path) -> Path:
    """The same, and four more pictures that are held out."""
    write(folder / examples.HELD_OUT, range(8, 12))
    return write(folder)


def settings(**more: Any) -> TrainingSettings:
    """Settings for tiny models."""
    return TrainingSettings(**({"prompt": PROMPT, "lora": {"rank": 4, "alpha": 8}} | more))


def run(base: Path, folder: Path, work: Path, steps: int = 4, **more: Any) -> Run:
    """A training of a tiny model; `settings` and `trainer` are over those for tiny models."""
    chosen = more.pop("settings", settings())
    trainer = {
        "max_steps": steps,
        "learning_rate": 5e-3,
        "gradient_accumulation_steps": 1,
        "logging_steps": 1,
        "save_steps": steps,
        "eval_steps": steps,
        "disable_tqdm": True,
    }
    return Run(
        examples=str(folder),
        work=str(work),
        output=more.pop("output", str(work / "model")),
        base=str(base),
        base_name=str(base),
        identity="tiny",
        settings=chosen.model_dump_json(),
        trainer=trainer | more.pop("trainer", {}),
        **more,
    )
