"""Computes the features of the baseline's frozen towers, and caches them for further trainings.

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

Progress = Callable[[str], None]
Pair = tuple[bytes | None, str | bytes | None, str | None]
"""An image's bytes, a caption that matches it, and its group (None: a group of its own)."""

Floats = npt.NDArray[np.float32]

BATCH_ROWS = 16
SAVE_SECONDS = 60.0  # between two saves: the work that an interruption may lose
VERSION = 1  # of the cache: raise it with every change that changes a feature


@dataclass(frozen=True)
class Features:
    """Pairs as features: pair p has the image `image[p]` and the caption `text[p]`, each pair once.

    Attributes:
        images: (I, 2 * 384) float32, one row for each distinct image.
        texts: (T, 384) float32, one row for each distinct caption.
        image, text: (P,) rows of `images` and `texts`.
        groups: (I,) names of the images' groups; the image's own hash if it has none.
        left_out: status -> number of pairs that cannot be used.
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
    progress: Progress = lambda text: None,
) -> Features:
    """Features of `pairs` (image bytes, caption, group), sorted by content hash.

    On a CPU with bfloat16 support, `dtype` "bfloat16" takes half the time. Images are read one by
    one and not held in memory. An image with several groups gets the alphabetically first one.
    """
    import torch

    encoder = _TowerEncoder(towers, getattr(torch, dtype), device)
    image_store = _FeatureStore(cache and cache / f"standin-images-{encoder.key}.npz")
    text_store = _FeatureStore(cache and cache / f"standin-texts-{encoder.key}.npz")
    left_out: Counter[str] = Counter()
    group_of: dict[str, str] = {}  # image hash -> group
    matches: set[tuple[str, str]] = set()  # image hash, caption hash
    texts: dict[str, str] = {}  # caption hash -> caption
    waiting: dict[str, Any] = {}  # image hash -> picture
    started = time.monotonic()
    computed = 0

    def encode_waiting() -> None:
        nonlocal computed
        image_store.add(list(waiting), encoder.images(list(waiting.values())))
        computed += len(waiting)
        waiting.clear()
        if image_store.save_if_due():
            progress(f"features of {computed:,} images in {time.monotonic() - started:.0f} s")

    for image, caption, group in pairs:
        text = captions.clean(caption)
        if not text:
            left_out[EMPTY_CAPTION] += 1
            continue
        image_hash = sha256(image or b"")
        if image_hash not in group_of and image_hash not in image_store:
            try:
                waiting[image_hash] = images.decode(image)
            except images.ImageError:
                left_out[BAD_IMAGE] += 1
                continue
        group = group if group is not None else image_hash
        group_of[image_hash] = min(group, group_of.get(image_hash, group))
        text_hash = sha256(text.encode())
        texts[text_hash] = text
        matches.add((image_hash, text_hash))
        if len(waiting) >= BATCH_ROWS:
            encode_waiting()
    encode_waiting()
    image_store.save_if_due(always=True)
    new_texts = {key: text for key, text in texts.items() if key not in text_store}
    _encode_texts(encoder, new_texts, text_store, progress)

    image_hashes, text_hashes = sorted(group_of), sorted(texts)
    image_rows = {key: row for row, key in enumerate(image_hashes)}
    text_rows = {key: row for row, key in enumerate(text_hashes)}
    ordered = sorted(matches)
    return Features(
        images=image_store.rows(image_hashes, encoder.widths[0]),
        texts=text_store.rows(text_hashes, encoder.widths[1]),
        image=np.array([image_rows[image] for image, _ in ordered], dtype=np.int64),
        text=np.array([text_rows[text] for _, text in ordered], dtype=np.int64),
        groups=[group_of[key] for key in image_hashes],
        left_out=dict(sorted(left_out.items())),
    )


def sha256(content: bytes) -> str:
    """The hash by which an image or a clean caption is identified, in hex."""
    return hashlib.sha256(content).hexdigest()


def _encode_texts(
    encoder: _TowerEncoder, texts: dict[str, str], store: _FeatureStore, progress: Progress
) -> None:
    """Add the features of captions to the store, in batches of one padded length."""
    tokens = {key: encoder.tokenize(text) for key, text in texts.items()}
    keys = sorted(tokens, key=lambda key: (len(tokens[key]), key))
    done = 0
    while done < len(keys):
        length = padded(len(tokens[keys[done]]))
        candidates = keys[done : done + 2 * BATCH_ROWS]
        batch = [key for key in candidates if padded(len(tokens[key])) == length]
        store.add(batch, encoder.texts([tokens[key] for key in batch], length))
        done += len(batch)
        if store.save_if_due():
            progress(f"features of {done:,} of {len(keys):,} captions")
    store.save_if_due(always=True)


class _TowerEncoder:
    """Runs the two towers; `key` is a hash of their weights, the dtype and VERSION."""

    def __init__(self, towers: baseline_model.Towers, dtype: torch.dtype, device: str) -> None:
        vision, self._image_processor, text, self._tokenizer = towers
        # Copies, because the original towers are saved with the heads.
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
        """Features (B, 2 * 384) of B pictures."""
        import torch

        if not pictures:
            return np.empty((0, self.widths[0]), np.float32)
        pixels = self._image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            features = baseline_model.image_features(
                self._vision, pixels.to(self._device, self._dtype)
            )
        return np.asarray(features.float().cpu().numpy())

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a caption with special tokens, cut to the length that the tower takes."""
        return list(self._tokenizer(text[: 16 * 512], truncation=True)["input_ids"])

    def texts(self, ids: Sequence[list[int]], length: int) -> Floats:
        """Features (B, 384) of B captions, padded to `length` tokens."""
        import torch

        tokens, mask = baseline_model.padded_texts(ids, length, self._tokenizer.pad_token_id)
        with torch.inference_mode():
            features = baseline_model.text_features(
                self._text, tokens.to(self._device), mask.to(self._device)
            )
        return np.asarray(features.float().cpu().numpy())


class _FeatureStore:
    """Vectors by hash, in half precision: in memory and, if there is a path, in a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._vectors: dict[str, npt.NDArray[np.float16]] = {}
        self._saved_count, self._saved_at = 0, time.monotonic()
        if path is not None and path.is_file():
            with np.load(path) as arrays:
                keys = [str(key) for key in arrays["names"]]
                self._vectors = dict(zip(keys, arrays["vectors"], strict=True))
            self._saved_count = len(self._vectors)

    def __contains__(self, key: str) -> bool:
        return key in self._vectors

    def add(self, keys: Sequence[str], vectors: Floats) -> None:
        """Store a vector for each key."""
        self._vectors |= dict(zip(keys, vectors.astype(np.float16), strict=True))

    def rows(self, keys: Sequence[str], width: int) -> Floats:
        """The vectors of these keys, (N, width)."""
        vectors = [self._vectors[key] for key in keys]
        return np.stack(vectors).astype(np.float32) if vectors else np.empty((0, width), np.float32)

    def save_if_due(self, always: bool = False) -> bool:
        """Write the file if a save is due and there are new vectors; return whether it was due."""
        due = always or time.monotonic() - self._saved_at > SAVE_SECONDS
        if due and self._path is not None and len(self._vectors) > self._saved_count:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch = self._path.with_suffix(f".{os.getpid()}.tmp")
            with scratch.open("wb") as file:
                keys = np.array(list(self._vectors))
                np.savez(file, names=keys, vectors=np.stack(list(self._vectors.values())))
            scratch.replace(self._path)
            self._saved_count = len(self._vectors)
        if due:
            self._saved_at = time.monotonic()
        return due
