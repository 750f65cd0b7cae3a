"""What the vision tower says of images, computed once and kept on disk: what the projector reads.
The tower takes most of a step where it runs anew.

Works for any model whose projector is a module of that name (LLaVA, InternVL and their like): a
hook keeps what arrives at the projector. One array on disk, read by memory map.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from udfs.inputs import images
from udfs.training.image_views import views
from udfs.training.student import PROJECTOR, Student

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

log = logging.getLogger(__name__)
BATCH = 16


def cached(
    folder: str | Path,
    student: Student,
    pictures: Sequence[bytes],
    progress: Callable[[str], None] = log.info,
) -> Any:
    """Features (N, V, I, F) of N encoded images in as many views as the recipe has, as a memory map
    in `folder`, from there if they are there already for these images and this vision tower; a
    build that was cut short goes on.

    Float16, or float32 where the recipe is. Raises `images.ImageError` for an image that cannot be
    decoded, and ValueError for a model that takes images in a varying number of tiles.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.float32 if student.recipe.dtype == "float32" else np.float16
    made_of, recipe = key(student, pictures, dtype.__name__), student.recipe
    state, data = folder / "features.json", folder / "features.npy"
    have = json.loads(state.read_text()) if state.is_file() else {}
    done = have["done"] if have.get("key") == made_of and data.is_file() else 0
    array = np.lib.format.open_memmap(data, mode="r+") if done else None
    began, first = time.monotonic(), done
    for start in range(done, len(pictures), BATCH):
        batch = [images.decode(p, recipe.prompt.image_fit) for p in pictures[start : start + BATCH]]
        shown = [each for picture in batch for each in views(picture, recipe.views, recipe.seed)]
        found = np.concatenate(
            [_features(student, shown[i : i + BATCH]) for i in range(0, len(shown), BATCH)]
        )
        found = found.reshape(len(batch), recipe.views, *found.shape[1:])
        if array is None:
            state.unlink(missing_ok=True)  # it would vouch for what is overwritten now
            shape = (len(pictures), *found.shape[1:])
            array = np.lib.format.open_memmap(data, mode="w+", dtype=dtype, shape=shape)
        array[start : start + len(batch)] = found
        done = start + len(batch)
        if done % (BATCH * 32) == 0 or done == len(pictures):
            array.flush()
            state.write_text(json.dumps({"key": made_of, "done": done}))
            left = (time.monotonic() - began) / (done - first) * (len(pictures) - done)
            progress(f"vision features: {done} of {len(pictures)} images, {left / 60:.0f} min left")
    return np.lib.format.open_memmap(data, mode="r")


def means(features: Any) -> NDArray[np.float32]:
    """The mean (N, F) over the I features of each image, of (N, V, I, F), in its first view: as it
    is."""
    return np.stack([np.asarray(f[0], dtype=np.float32).mean(axis=0) for f in features])


def pixels(student: Student, pictures: Sequence[Image.Image]) -> Tensor:
    """What the vision tower reads of these pictures, (B, 3, H, W). Raises ValueError for a model
    that cuts them into tiles."""
    template = student.template
    out = student.processor(
        text=[template.head] * len(pictures),
        images=[[picture] for picture in pictures],
        return_tensors="pt",
        add_special_tokens=template.begins,
        padding=True,
    )
    tokens = (out["input_ids"] == student.image_token).sum(dim=1)
    if len(out["pixel_values"]) != len(pictures) or (tokens != len(student.head.image)).any():
        raise ValueError(
            "this model cuts some images into tiles, so that they take more tokens than others;"
            " fine-tuning needs the same for all (image_fit: pad, or a processor of one tile)"
        )
    found: Tensor = out["pixel_values"].to(student.model.device, student.base.dtype)
    return found


def _features(student: Student, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
    """What arrives at the projector for these pictures, (B, I, F)."""
    import torch

    seen: list[Any] = []
    hook = getattr(student.core, PROJECTOR).register_forward_pre_hook(
        lambda _, given: seen.append(given[0])
    )
    try:
        # The frozen tower is in the recipe's precision, the projector that learns in float32.
        with torch.inference_mode(), student.autocast():
            student.base.get_image_features(pixels(student, pictures))
    finally:
        hook.remove()
    found: NDArray[np.float32] = seen[0].float().cpu().numpy()
    return found.reshape(len(pictures), -1, found.shape[-1])


def key(student: Student, pictures: Sequence[bytes], kind: str) -> str:
    """Hex digits of all that what is kept of these encoded images depends on."""
    how = student.recipe
    digest = hashlib.sha256(f"{how.prompt.image_fit} {kind} {how.views} {how.seed}".encode())
    digest.update(str(student.processor.image_processor.to_json_string()).encode())
    for name, weight in student.core.vision_tower.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {float(weight.float().sum()):.6e}".encode())
    for picture in pictures:
        digest.update(hashlib.sha256(picture).digest())
    return digest.hexdigest()
