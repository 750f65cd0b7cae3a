"""Features of the stand-in's frozen towers, each image and caption once, kept between trainings.

features(model.towers(), pairs, cache=Path("cache"))
"""

from __future__ import annotations

import copy
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from udfs.baseline import model as baseline_model
from udfs.inputs import captions, images
from udfs.scoring.batching import padded
from udfs.scoring.results import BAD_IMAGE, EMPTY_CAPTION

if TYPE_CHECKING:
    import torch

Say = Callable[[str], None]
Pair = tuple[bytes | None, str | bytes | None, str | None]
"""An image's bytes, a caption that matches it, and its group (None: it stands for itself)."""

Floats = npt.NDArray[np.float32]

BATCH_ROWS = 16
SAVE_SECONDS = 60.0  # what a kill may cost
VERSION = 1  # of the cache: raise it with every change that changes a feature


@dataclass(frozen=True)
class Features:
    """Pairs as features: caption `text[p]` stands under image `image[p]`, each pair once.

    Attributes:
        images: (I, 2 * 384) float32, one row for each distinct image.
        texts: (T, 384) float32, one row for each distinct caption.
        image, text: (P,) rows of `images` and `texts`.
        groups: (I,) names of the images' groups; the image's own hash where it has none.
        left_out: status -> pairs that cannot be used.
    """

    images: Floats
    texts: Floats
    image: npt.NDArray[np.int64]
    text: npt.NDArray[np.int64]
    groups: list[str]
    left_out: dict[str, int]


def features(
    towers: baseline_model.Towers,
    pairs: Iterable[Pair],
    *,
    cache: Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    say: Say = lambda text: None,
) -> Features:
    """Features of `pairs` (image bytes, caption, group), in an order of their own: by content.

    On a CPU that knows bfloat16, `dtype` "bfloat16" takes half the time. Images are read one after
    the other and not kept. Of several groups of an image the first in the alphabet counts.
    """
    import torch

    run = _Runner(towers, getattr(torch, dtype), device)
    seen = _Store(cache and cache / f"standin-images-{run.key}.npz")
    read = _Store(cache and cache / f"standin-texts-{run.key}.npz")
    left_out: Counter[str] = Counter()
    known: dict[str, str] = {}  # image -> group
    wanted: set[tuple[str, str]] = set()
    texts: dict[str, str] = {}
    waiting: dict[str, Any] = {}
    started = time.monotonic()
    computed = 0

    def look() -> None:
        nonlocal computed
        seen.add(list(waiting), run.images(list(waiting.values())))
        computed += len(waiting)
        waiting.clear()
        if seen.save_now():
            say(f"features of {computed:,} images in {time.monotonic() - started:.0f} s")

    for image, caption, group in pairs:
        text = captions.clean(caption)
        if not text:
            left_out[EMPTY_CAPTION] += 1
            continue
        name = name_of(image or b"")
        if name not in known and name not in seen:
            try:
                waiting[name] = images.decode(image)
            except images.ImageError:
                left_out[BAD_IMAGE] += 1
                continue
        own = group if group is not None else name
        known[name] = min(own, known.get(name, own))
        text_name = name_of(text.encode())
        texts[text_name] = text
        wanted.add((name, text_name))
        if len(waiting) >= BATCH_ROWS:
            look()
    look()
    seen.save_now(always=True)
    _read(run, {n: t for n, t in texts.items() if n not in read}, read, say)

    image_names, text_names = sorted(known), sorted(texts)
    image_rows = {name: row for row, name in enumerate(image_names)}
    text_rows = {name: row for row, name in enumerate(text_names)}
    ordered = sorted(wanted)
    return Features(
        images=seen.rows(image_names, run.widths[0]),
        texts=read.rows(text_names, run.widths[1]),
        image=np.array([image_rows[image] for image, _ in ordered], dtype=np.int64),
        text=np.array([text_rows[text] for _, text in ordered], dtype=np.int64),
        groups=[known[name] for name in image_names],
        left_out=dict(sorted(left_out.items())),
    )


def name_of(content: bytes) -> str:
    """What an image or a (clean) caption goes by: the SHA-256 of its bytes in hex."""
    return hashlib.sha256(content).hexdigest()


def _read(run: _Runner, texts: dict[str, str], store: _Store, say: Say) -> None:
    """Features of captions, those of one padded length together."""
    encoded = {name: run.encode(text) for name, text in texts.items()}
    names = sorted(encoded, key=lambda name: (len(encoded[name]), name))
    done = 0
    while done < len(names):
        length = padded(len(encoded[names[done]]))
        room = names[done : done + 2 * BATCH_ROWS]
        batch = [name for name in room if padded(len(encoded[name])) == length]
        store.add(batch, run.texts([encoded[name] for name in batch], length))
        done += len(batch)
        if store.save_now():
            say(f"features of {done:,} of {len(names):,} captions")
    store.save_now(always=True)


class _Runner:
    """The two towers, ready to run; `key` names what they and their numbers are."""

    def __init__(self, towers: baseline_model.Towers, dtype: torch.dtype, device: str) -> None:
        vision, self._image_processor, text, self._tokenizer = towers
        # Copies: the towers are saved with the heads as they are.
        self._vision, self._text = (
            copy.deepcopy(model).to(device, dtype) for model in (vision, text)
        )
        self._dtype, self._device = dtype, device
        self.widths = (2 * vision.config.hidden_size, text.config.hidden_size)
        digest = hashlib.sha256(f"{VERSION} {dtype}".encode())
        for model in (vision, text):
            for name, tensor in sorted(model.state_dict().items()):
                digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        self.key = digest.hexdigest()[:12]

    def images(self, pictures: Sequence[Any]) -> Floats:
        """(B, 2 * 384) of B pictures."""
        import torch

        if not pictures:
            return np.empty((0, self.widths[0]), np.float32)
        pixels = self._image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            found = baseline_model.image_features(
                self._vision, pixels.to(self._device, self._dtype)
            )
        return np.asarray(found.float().cpu().numpy())

    def encode(self, text: str) -> list[int]:
        """Tokens of a caption with the special ones around them, cut to what the tower takes."""
        return list(self._tokenizer(text[: 16 * 512], truncation=True)["input_ids"])

    def texts(self, ids: Sequence[list[int]], length: int) -> Floats:
        """(B, 384) of B captions, padded to `length` tokens."""
        import torch

        tokens, mask = baseline_model.padded_texts(ids, length, self._tokenizer.pad_token_id)
        with torch.inference_mode():
            found = baseline_model.text_features(
                self._text, tokens.to(self._device), mask.to(self._device)
            )
        return np.asarray(found.float().cpu().numpy())


class _Store:
    """Vectors by name, in memory and (where there is a path) in a file of half precision."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._vectors: dict[str, npt.NDArray[np.float16]] = {}
        self._saved, self._saved_at = 0, time.monotonic()
        if path is not None and path.is_file():
            with np.load(path) as found:
                names = [str(name) for name in found["names"]]
                self._vectors = dict(zip(names, found["vectors"], strict=True))
            self._saved = len(self._vectors)

    def __contains__(self, name: str) -> bool:
        return name in self._vectors

    def add(self, names: Sequence[str], vectors: Floats) -> None:
        """Keep a vector for each name."""
        self._vectors |= dict(zip(names, vectors.astype(np.float16), strict=True))

    def rows(self, names: Sequence[str], width: int) -> Floats:
        """The vectors of these names, (N, width)."""
        found = [self._vectors[name] for name in names]
        return np.stack(found).astype(np.float32) if found else np.empty((0, width), np.float32)

    def save_now(self, always: bool = False) -> bool:
        """Write the file if there is something new and it is time; tell whether it was time."""
        due = always or time.monotonic() - self._saved_at > SAVE_SECONDS
        if due and self._path is not None and len(self._vectors) > self._saved:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch = self._path.with_suffix(f".{os.getpid()}.tmp")
            with scratch.open("wb") as file:
                names = np.array(list(self._vectors))
                np.savez(file, names=names, vectors=np.stack(list(self._vectors.values())))
            scratch.replace(self._path)
            self._saved = len(self._vectors)
        if due:
            self._saved_at = time.monotonic()
        return due
