"""Scores pairs with an MLM: image bytes and captions in, four distributions over 0..100 out.

    scorer = loaded_model.scorer(ModelConfig("starter"))
    for scored in scorer.score([jpeg], ["A cat on a sofa."]):
        print(scored.status, scored.expectation)      # four floats, 0..100: itm, odf, ctq, su

Every pair gets an answer: scores, or a status with a reason. A pair's scores do not depend on the
other pairs of its batch or on their order.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from udfs.inputs import captions, images
from udfs.scoring import batching, chat_template, readout
from udfs.scoring.batching import Limits, Prepared, padded
from udfs.scoring.chain_of_thought import chain_of_thought
from udfs.scoring.forward_passes import PASSES, fastest_exact_pass
from udfs.scoring.packing import Batch, Row, build_suffix, collate, encode_head
from udfs.scoring.prompts import Prompt
from udfs.scoring.readout import Distributions
from udfs.scoring.results import Scored

log = logging.getLogger(__name__)


class Scorer(batching.PairScorer):
    """A loaded MLM with its processor and prompt.

    `batch_rows` and `batch_tokens` limit a micro-batch by rows and by padded tokens; after an
    out-of-memory error the limit on rows is halved, and doubled again after some successful
    batches. `how` is a key of `PASSES`, or "auto": the fastest pass that gives the same result as
    plain sequences, found by a check on one small batch. `how` is ignored for a prompt with a chain
    of thought (`udfs.scoring.chain_of_thought`).
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        prompt: Prompt,
        *,
        how: str = "auto",
        max_caption_tokens: int = 512,
        batch_rows: int = 16,
        batch_tokens: int = 8192,
    ) -> None:
        self.model = model
        self.processor = processor
        self.prompt = prompt
        self.max_caption_tokens = max_caption_tokens
        self.template = chat_template.build(processor, prompt)
        self.suffix = build_suffix(self.template)
        self.limits = Limits(batch_rows, batch_tokens)
        self._caption_tokens = captions.encoder(processor)
        self.how = self._fastest_exact_pass() if how == "auto" or self.template.thinking else how

    def prepare(self, image: Any, caption: Any) -> Prepared:
        """Decode, clean and encode one pair. Thread-safe."""
        return batching.prepare(image, caption, self.prompt.image_fit, self._encode)

    def score_prepared(self, prepared: Sequence[Prepared]) -> list[Scored]:
        """Score prepared pairs in length-sorted micro-batches; answers in the original order."""
        suffix = len(self.suffix.ids)
        return batching.score_prepared(prepared, self.limits, self.distributions, suffix)

    def distributions(self, rows: list[Row], how: str | None = None) -> Distributions:
        """Distributions (B, 4, 101) of prepared rows in one batch; raises what the model raises."""
        import torch

        with torch.inference_mode():
            run = chain_of_thought if self.template.thinking else PASSES[how or self.how]
            logits = run(self.model, self._batch(rows), self.template, self.suffix)
            return readout.distributions(logits, self.template.tree)

    def _batch(self, rows: list[Row]) -> Batch:
        length = padded(max(len(row.ids) for row in rows))
        return collate(rows, length, self.model.device, self.model.dtype)

    def _encode(self, picture: Any, text: str) -> batching.Encoded:
        ids, truncated = self._caption_tokens(text, self.max_caption_tokens)
        row = self._row(picture, ids)
        return batching.Encoded(row, len(row.ids), len(ids) if truncated else None)

    def _row(self, picture: Any, caption_ids: list[int]) -> Row:
        import torch

        head = encode_head(self.processor, self.template, picture)
        rest = torch.tensor([*caption_ids, *self.template.after], dtype=head.ids.dtype)
        per_token = {
            name: torch.cat([value, value.new_zeros(len(rest))])
            for name, value in head.per_token.items()
        }
        return Row(torch.cat([head.ids, rest]), per_token, head.pixels)

    def _fastest_exact_pass(self) -> str:
        import torch
        from PIL import Image

        rows = [
            self._row(Image.new("RGB", size, images.GREY), self._caption_tokens(text, 64)[0])
            for size, text in (((96, 64), "a cat"), ((64, 96), "two dogs on a red sofa"))
        ]
        with torch.inference_mode():
            batch = self._batch(rows)
            if self.template.thinking:  # reasons are written after the prefix's cache
                candidates = ("prefix_cache",)
                how = fastest_exact_pass(self.model, batch, self.template, self.suffix, candidates)
                if how not in candidates:
                    raise ValueError("this model's cache cannot be used for a chain of thought")
                return "chain_of_thought"
            how = fastest_exact_pass(self.model, batch, self.template, self.suffix)
        log.info("model is scored by %s", how)
        return how
