"""`transformers.Trainer` with this project's loss and evaluation; the rest is the library's."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor  # noqa: TID253 - as above
from transformers import (  # noqa: TID253 - as above
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from udfs.agreement.correlation import spearman
from udfs.core.metrics import METRICS
from udfs.scoring.mlm_scorer import Scorer
from udfs.scoring.readout import log_probabilities
from udfs.training.checkpoints import COMPLETE
from udfs.training.collator import PackedDataset, collate
from udfs.training.examples import Examples
from udfs.training.expectation_error import expectation_error
from udfs.training.forward import packed_logits, separate_logits
from udfs.training.number_cross_entropy import number_cross_entropy
from udfs.training.ranknet import ranknet
from udfs.training.reason_likelihood import reason_likelihood
from udfs.training.settings import TrainingSettings

Floats = NDArray[np.float64]
SCORED_AT_ONCE = 64  # held-out pairs, decoded and in memory


class ScoreTrainer(Trainer):
    """Trains a model to score.

    With `packed` an item is one sequence, else it is taken apart into plain ones. `held_out` are
    the examples that evaluations score, exactly as the score job would.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        dataset: PackedDataset,
        settings: TrainingSettings,
        held_out: Examples | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=dataset,
            data_collator=collate,
            eval_dataset=dataset if held_out else None,
            callbacks=callbacks,
        )
        self.settings, self.dataset, self.held_out = settings, dataset, held_out
        self.packed = False
        self.loss_is_scaled_for_ga = False  # a mean over the batch
        self._losses: dict[str, list[Tensor]] = defaultdict(list)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return dataset.sampler if isinstance(dataset, PackedDataset) else None

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the objectives."""
        unwrapped = self.accelerator.unwrap_model(model)
        logits = packed_logits if self.packed else separate_logits
        numbers, tokens = logits(model, unwrapped, inputs)
        parts = self._objectives(numbers, tokens, inputs)
        weights = self.settings.objectives.model_dump()
        loss = sum(
            (weights[name] * value for name, value in parts.items()),
            start=0 * (numbers.sum() + tokens.sum()),  # processes that train together all need one
        )
        for name, value in parts.items():
            self._losses[name].append(value.detach())
        return (loss, parts) if return_outputs else loss

    def _objectives(
        self, numbers: Tensor, tokens: Tensor, inputs: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Each objective that has a weight and something to learn from."""
        weights, found = self.settings.objectives, dict[str, Tensor]()
        if len(numbers):
            log_p = log_probabilities(numbers, self.dataset.template.tree)
            scores = inputs["scores"]
            if weights.number_cross_entropy:
                spread = inputs["spreads"].nan_to_num(self.settings.spread)
                found["number_cross_entropy"] = number_cross_entropy(log_p, scores, spread)
            if weights.expectation_error:
                found["expectation_error"] = expectation_error(log_p, scores)
            if weights.ranknet:
                found["ranknet"] = ranknet(log_p, scores, inputs["groups"])
        if len(tokens) and weights.reason_likelihood:
            found["reason_likelihood"] = reason_likelihood(tokens, inputs["tokens"])
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each objective since the last log."""
        if "loss" in logs:
            logs |= {
                name: float(sum(values) / len(values)) for name, values in self._losses.items()
            }
            self._losses.clear()
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Spearman's correlation with the teacher on held-out pairs, by metric and their mean.

        Every process scores the same pairs: models that are sharded need that.
        """
        started = time.monotonic()
        _, scores, ratings = self.predict_scores(self.settings.eval_pairs)
        found = {
            metric: value
            for m, metric in enumerate(METRICS)
            if (value := spearman(scores[:, 0, m], ratings[:, m])) is not None
        }
        metrics = {f"{metric_key_prefix}_spearman_{name}": value for name, value in found.items()}
        metrics[f"{metric_key_prefix}_spearman"] = float(np.mean([*found.values()] or [0.0]))
        metrics[f"{metric_key_prefix}_seconds"] = round(time.monotonic() - started, 1)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def predict_scores(self, most: int | None = None) -> tuple[list[str], Floats, Floats]:
        """What the model and the teacher say of the held-out pairs, the first `most` by uid.

        Returns the uid of each of P pairs; the model's expectation and mode for the four metrics,
        (P, 2, 4), NaN where it gives none; and the teacher's scores (P, 4), likewise.
        """
        assert self.held_out is not None
        images, rated = self.held_out.images, dict[tuple[int, str], list[float]]()
        for row in self.held_out.instructions:
            ratings = rated.setdefault((row.image, row.caption), [np.nan] * len(METRICS))
            ratings[row.metric] = row.score
        pairs = sorted(rated)[:most]
        model = self.accelerator.unwrap_model(self.model)
        training = model.training
        longest = self.settings.max_caption_tokens
        scorer = Scorer(
            model.eval(), self.dataset.processor, self.dataset.prompt, max_caption_tokens=longest
        )
        scores = np.full((len(pairs), 2, len(METRICS)), np.nan)
        with self.compute_loss_context_manager():
            for start in range(0, len(pairs), SCORED_AT_ONCE):
                some = pairs[start : start + SCORED_AT_ONCE]
                answers = scorer.score([images[i] for i, _ in some], [text for _, text in some])
                for index, answer in enumerate(answers, start):
                    if answer.distributions is not None:
                        scores[index] = answer.expectation, answer.mode
        model.train(training)
        return [images.uids[i] for i, _ in pairs], scores, np.array([rated[p] for p in pairs])


class CompleteMarker(TrainerCallback):
    """Marks each checkpoint as whole once it is."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called when all files of a checkpoint are written."""
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()
