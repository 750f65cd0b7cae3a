"""The scorer: image bytes and captions in, four distributions over 0..100 a pair out.

    scorer = models.scorer(ModelConfig("starter"))
    for scored in scorer.score([jpeg], ["A cat on a sofa."]):
        print(scored.status, scored.expectation)      # four floats, 0..100: itm, odf, ctq, su

Every pair gets an answer: scores, or a status with a reason. A pair's scores do not depend on its
batch, its neighbours or their order.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from udfs import captions, images, readout, template
from udfs.packing import Batch, Row, build_suffix, collate
from udfs.passes import PASSES, fastest_true_pass
from udfs.prompts import Prompt
from udfs.readout import Distributions
from udfs.results import BAD_IMAGE, CAPTION_TRUNCATED, EMPTY_CAPTION, MODEL_ERROR, OK, Scored

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

# A tokenizer never needs to see more of a caption than this many characters a token kept: it bounds
# the time that a caption of a million characters takes.
CHARACTERS_PER_TOKEN = 16
MAX_HEAD_TOKENS = 16_384
# Prefixes are padded to a multiple of this, and only rows of one padded length share a batch. So
# the shapes that a row is computed with depend on the row alone, and so does its score, to the last
# bits: padding to the longest neighbour moved scores by up to 1.4e-4 points (float32, starter).
BUCKET = 16


@dataclass(frozen=True)
class Prepared:
    """A pair that is ready for the model, or (`row` None) its final answer."""

    row: Row | None
    answer: Scored
    length: int = 0


class Scorer:
    """A loaded model with its processor and prompt.

    `batch_rows` and `batch_tokens` bound a micro-batch by rows and by padded tokens; after an
    out-of-memory error the bound on rows is halved, and doubled again after some batches without
    one. `how` is a key of `PASSES`, or "auto": the fastest that gives this model's plain answers,
    found by a check on one small batch.
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
        self.template = template.build(processor, prompt)
        self.suffix = build_suffix(self.template)
        self.limits = Limits(batch_rows, batch_tokens)
        # A copy of its own: the setting below changes a tokenizer's state, and the processor's
        # tokenizer is in use by other threads.
        self._caption_tokenizer = copy.deepcopy(processor.tokenizer)
        self._image_tokens = _image_token_ids(processor)
        self.how = self._fastest_true_pass() if how == "auto" else how

    def score(self, images: Sequence[bytes | None], texts: Sequence[str | None]) -> list[Scored]:
        """Score pairs in the order given; see the module's docstring. Never raises for a pair."""
        prepared = [self.prepare(image, text) for image, text in zip(images, texts, strict=True)]
        return self.score_prepared(prepared)

    def prepare(self, image: Any, caption: Any) -> Prepared:
        """Decode, clean and encode one pair; safe to call from several threads at once."""
        text = captions.clean(caption)
        try:
            picture = images.decode(image, self.prompt.image_fit)
        except images.ImageError as error:
            return Prepared(None, Scored(BAD_IMAGE, str(error)))
        if not text:
            reason = "null caption" if caption is None else "blank caption"
            return Prepared(None, Scored(EMPTY_CAPTION, reason))
        try:
            ids, truncated = self._encode_caption(text)
            row = self._row(picture, ids)
        except Exception as error:  # a processor may refuse a picture in ways of its own
            return Prepared(None, Scored(MODEL_ERROR, f"processor: {_one_line(error)}"))
        if truncated:
            reason = f"caption of {len(text)} characters cut at {len(ids)} tokens"
            return Prepared(row, Scored(CAPTION_TRUNCATED, reason), len(row.ids))
        return Prepared(row, Scored(OK, None), len(row.ids))

    def score_prepared(self, prepared: Sequence[Prepared]) -> list[Scored]:
        """Score prepared pairs in length-sorted micro-batches; answers in the order given."""
        answers = [pair.answer for pair in prepared]
        waiting = sorted(
            (i for i, pair in enumerate(prepared) if pair.row is not None),
            key=lambda i: prepared[i].length,
        )
        while waiting:
            lengths = [padded(prepared[i].length) for i in waiting]
            count = self.limits.fit(lengths, len(self.suffix.ids))
            batch, waiting = waiting[:count], waiting[count:]
            rows = [row for i in batch if (row := prepared[i].row) is not None]
            for i, outcome in zip(batch, self._score_rows(rows), strict=True):
                answers[i] = answers[i].with_outcome(outcome)
        return answers

    def distributions(self, rows: list[Row], how: str | None = None) -> Distributions:
        """Distributions (B, 4, 101) of prepared rows in one batch; raises what the model raises."""
        import torch

        with torch.inference_mode():
            run = PASSES[how or self.how]
            logits = run(self.model, self._batch(rows), self.template, self.suffix)
            return readout.distributions(logits, self.template.tree)

    def _batch(self, rows: list[Row]) -> Batch:
        length = padded(max(len(row.ids) for row in rows))
        return collate(rows, length, self.model.device, self.model.dtype)

    def _score_rows(self, rows: list[Row]) -> list[Distributions | str]:
        """Distributions (4, 101) of each row, or why there are none. A batch that does not fit is
        halved; one that fails is taken apart until the row that fails stands alone."""
        try:
            found = self.distributions(rows)
        except Exception as error:
            no_memory = _is_out_of_memory(error)
            if not no_memory and _is_fatal(error):
                raise  # the device is lost: let Spark start this task anew in another process
            if no_memory:
                _free_memory()
                self.limits.shrink(len(rows))
            if len(rows) == 1:
                return ["out of memory for a single pair" if no_memory else _one_line(error)]
            log.warning("batch of %d failed, halving it: %s", len(rows), _one_line(error))
            half = len(rows) // 2
            return self._score_rows(rows[:half]) + self._score_rows(rows[half:])
        self.limits.grow()
        return [d if np.isfinite(d).all() else "the model's output is not finite" for d in found]

    def _encode_caption(self, text: str) -> tuple[list[int], bool]:
        """Tokens of a caption, at most `max_caption_tokens`, and whether some were cut."""
        bound = self.max_caption_tokens * CHARACTERS_PER_TOKEN
        cut = len(text) > bound
        encoded = self._caption_tokenizer(
            text[:bound], add_special_tokens=False, split_special_tokens=True
        )
        ids = [i for i in encoded["input_ids"] if i not in self._image_tokens]
        return ids[: self.max_caption_tokens], cut or len(ids) > self.max_caption_tokens

    def _row(self, picture: Any, caption_ids: list[int]) -> Row:
        import torch

        out = self.processor(
            text=[self.template.head],
            images=[[picture]],
            return_tensors="pt",
            add_special_tokens=self.template.begins,
        )
        head = out["input_ids"][0]
        if len(head) > MAX_HEAD_TOKENS:
            raise ValueError(f"the picture takes {len(head)} tokens")
        rest = torch.tensor([*caption_ids, *self.template.after], dtype=head.dtype)
        per_token: dict[str, Tensor] = {}
        pixels: dict[str, Tensor] = {}
        for name, value in out.items():
            if name in ("input_ids", "attention_mask"):
                continue
            if value.shape == out["input_ids"].shape:
                per_token[name] = torch.cat([value[0], value.new_zeros(len(rest))])
            else:
                pixels[name] = value
        return Row(torch.cat([head, rest]), per_token, pixels)

    def _fastest_true_pass(self) -> str:
        import torch
        from PIL import Image

        rows = [
            self._row(Image.new("RGB", size, images.GREY), self._encode_caption(text)[0])
            for size, text in (((96, 64), "a cat"), ((64, 96), "two dogs on a red sofa"))
        ]
        with torch.inference_mode():
            how = fastest_true_pass(self.model, self._batch(rows), self.template, self.suffix)
        log.info("model is scored by %s", how)
        return how


def padded(length: int) -> int:
    """The length to which a prefix of `length` tokens is padded."""
    return -(-length // BUCKET) * BUCKET


class Limits:
    """How large a micro-batch may be: by padded tokens, and by rows as memory has shown."""

    GROW_AFTER = 16  # batches without an error before trying a larger one again

    def __init__(self, rows: int, tokens: int) -> None:
        self.most_rows = rows
        self.rows = rows
        self.tokens = tokens
        self._good = 0

    def fit(self, lengths: Sequence[int], suffix: int) -> int:
        """How many of the rows, shortest first, go into the next batch: at least one, and only
        such as have the first one's padded length."""
        room = max(1, min(self.rows, self.tokens // (lengths[0] + suffix)))
        return sum(length == lengths[0] for length in lengths[:room])

    def shrink(self, failed: int) -> None:
        """After an out-of-memory error with `failed` rows."""
        self.rows = max(1, min(self.rows, failed) // 2)
        self._good = 0

    def grow(self) -> None:
        """After a batch that worked."""
        self._good += 1
        if self._good >= self.GROW_AFTER and self.rows < self.most_rows:
            self.rows = min(self.rows * 2, self.most_rows)
            self._good = 0


def _image_token_ids(processor: Any) -> frozenset[int]:
    """Placeholders of pictures: a caption must never smuggle one in."""
    names = ("image_token_id", "video_token_id", "start_image_token_id", "end_image_token_id")
    ids = {getattr(processor, name, None) for name in names}
    token = getattr(processor, "image_token", None)
    ids.add(processor.tokenizer.convert_tokens_to_ids(str(getattr(token, "content", token))))
    return frozenset(i for i in ids if isinstance(i, int))


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).split(chr(10))[0][:200]}"


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _is_fatal(error: BaseException) -> bool:
    """A CUDA error that is not about memory leaves the process's device context unusable."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
