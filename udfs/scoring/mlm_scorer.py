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

from udfs.inputs import captions
from udfs.processes.activity import Record, unrecorded
from udfs.scoring import batching, chat_template, readout
from udfs.scoring.batching import Limits, Prepared, padded
from udfs.scoring.packing import Batch, Row, build_suffix, collate, encode_head
from udfs.scoring.passes.chain_of_thought import chain_of_thought
from udfs.scoring.passes.forward_passes import IN_WORDS, PASSES
from udfs.scoring.passes.pass_selection import Selection, padding_within, select_pass
from udfs.scoring.prompts import Prompt
from udfs.scoring.readout import Distributions
from udfs.scoring.results import Scored

log = logging.getLogger(__name__)

TRIED_SIZES = ((96, 64), (64, 128), (150, 150))
TRIED_CAPTIONS = ("a cat", "two dogs on a red sofa beside a window", "x")
"""What a model's way of running is tried on: pictures and captions of unlike size, together."""


class Scorer(batching.PairScorer):
    """A loaded MLM with its processor and prompt.

    `batch_rows` and `batch_tokens` limit a micro-batch by rows and by padded tokens; after an
    out-of-memory error the limit on rows is halved, and doubled again after some successful
    batches. `how` is a key of `PASSES`, or "auto": the fastest pass that gives the same result as
    plain sequences, found by a check on one small batch (`udfs.scoring.passes.pass_selection`).
    `how` is ignored for a prompt with a chain of thought.

    Raises ValueError for a model that cannot be run in the way that `how` or the prompt asks for.
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
        self.selection = self._select_pass(how)
        self.how = self.selection.way
        log.info("model is scored by %s", self.how)

    def explain(self) -> list[str]:
        """How this model runs pairs, and why not faster, in lines for people."""
        name, dtype = type(self.model).__name__, str(self.model.dtype).removeprefix("torch.")
        return [
            f"{name} in {dtype} on {self.model.device}: four scores",
            f"{self.how}: {IN_WORDS[self.how]}",
            *(f"not {reason}" for reason in self.selection.refused),
            f"{len(self.suffix.ids)} tokens a pair for questions and numbers, besides those of"
            " image and caption",
        ]

    def prepare(self, image: Any, caption: Any) -> Prepared:
        """Decode, clean and encode one pair. Thread-safe."""
        return batching.prepare(image, caption, self.prompt.image_fit, self._encode)

    def score_prepared(
        self, prepared: Sequence[Prepared], record: Record = unrecorded
    ) -> list[Scored]:
        """Score prepared pairs in length-sorted micro-batches; answers in the original order."""
        suffix = len(self.suffix.ids)
        return batching.score_prepared(prepared, self.limits, self.distributions, suffix, record)

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

    def _select_pass(self, how: str) -> Selection:
        """The fastest way to run this model that is right, tried on pictures of unlike size; or the
        way `how`, if it is. Raises ValueError if it is not."""
        if how == "four_passes" and self.template.thinking is None:
            return Selection(how, ())  # what the others are compared with
        rows = [
            self._row(_texture(*size), self._caption_tokens(text, 64)[0])
            for size, text in zip(TRIED_SIZES, TRIED_CAPTIONS, strict=True)
        ]
        parts = self.model, rows, self.template, self.suffix
        if self.template.thinking is not None:
            # Reasons are written after the prefix's cache; lines that are done go on as padding.
            why = padding_within(self.model)
            if why is None:
                found = select_pass(*parts, ("prefix_cache",))
                if not found.refused:
                    return Selection("chain_of_thought", ())
                why = found.refused[0]
            raise ValueError(f"this model's cache cannot be used for a chain of thought: {why}")
        if how == "auto":
            return select_pass(*parts)
        found = select_pass(*parts, (how,))
        if found.refused:
            raise ValueError(f"--how {how} would give wrong scores with it: {found.refused[0]}")
        return found


def _texture(width: int, height: int) -> Any:
    """A picture of noise: one of a single colour would hide which of its parts goes where."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)
