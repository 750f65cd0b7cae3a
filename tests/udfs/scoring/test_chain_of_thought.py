"""Scoring with a chain of thought gives what plain generation and a plain forward pass give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from pictures import encoded, picture

from udfs.models import mlm
from udfs.models.model_config import ModelConfig
from udfs.scoring import prompts, readout
from udfs.scoring.chat_template import Thinking
from udfs.scoring.mlm_scorer import Scorer
from udfs.scoring.prompts import CHAIN_OF_THOUGHT, RATIONALIZATION, Prompt

MAX_TOKENS = 7
PROMPT = Prompt(
    "C: ", "\nR:", (" m", " detail", " q", " sense"), "as_is", CHAIN_OF_THOUGHT, MAX_TOKENS
)
PAIRS = [
    (encoded(picture(40, 30, 1)), "a cat"),
    (encoded(picture(100, 100, 2)), "two dogs on a red sofa beside a window"),
    (encoded(picture(20, 90, 3)), "x"),
    (encoded(picture(64, 64, 4)), "an elephant"),
]


@pytest.fixture(scope="module", params=list(tiny_models.FAMILIES))
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    folder = tiny_models.FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    prompts.save_prompt(PROMPT, folder)
    return mlm.load(ModelConfig(str(folder)))


def rows_of(scorer: Scorer) -> list[Any]:
    return [scorer.prepare(image, caption).row for image, caption in PAIRS]


def generated(scorer: Scorer, row: Any, question: tuple[int, ...]) -> list[int]:
    """The MAX_TOKENS tokens that transformers' greedy generation writes after a question."""
    batch = scorer._batch([row])
    ids = torch.cat([row.ids, torch.tensor(question)])[None]
    extra = len(question)
    per_token = {
        name: torch.nn.functional.pad(value, (0, extra))[None]
        for name, value in row.per_token.items()
    }
    out = scorer.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=MAX_TOKENS,
        do_sample=False,
        eos_token_id=None,
        **per_token,
        **batch.pixels,
    )
    found: list[int] = out[0, ids.shape[1] :].tolist()
    return found


def plain(scorer: Scorer, rows: list[Any]) -> tuple[np.ndarray, list[int]]:
    """Distributions (B, 4, 101) by plain generation and plain sequences; lengths of the reasons."""
    from udfs.scoring.passes.forward_passes import four_passes

    result, lengths = [], []
    thinking = scorer.template.thinking
    assert thinking is not None
    for row in rows:
        questions = []
        for question in scorer.template.questions:
            with torch.inference_mode():
                reason = thinking.closed(generated(scorer, row, question))
            lengths.append(len(reason))
            questions.append((*question, *reason))
        template = replace(scorer.template, questions=tuple(questions))
        with torch.inference_mode():
            batch = scorer._batch([row])
            logits = four_passes(scorer.model, batch, template, scorer.suffix)
        result.append(readout.distributions(logits, template.tree)[0])
    return np.array(result), lengths


@pytest.fixture
def early_ends(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> Thinking:
    """Declares some tokens that this model writes as line breaks and end tokens."""
    thinking = scorer.template.thinking
    assert thinking is not None
    rows = rows_of(scorer)
    with torch.inference_mode():
        reasons = [generated(scorer, row, scorer.template.questions[0]) for row in rows]
    changed = replace(
        thinking,
        line_breaks=thinking.line_breaks | {reasons[0][2]},
        end_tokens=thinking.end_tokens | {reasons[1][4]},
    )
    monkeypatch.setattr(scorer, "template", replace(scorer.template, thinking=changed))
    return changed


def test_scores_are_those_of_plain_generation(scorer: Scorer, early_ends: Thinking) -> None:
    assert scorer.how == "chain_of_thought"
    rows = rows_of(scorer)
    expected, lengths = plain(scorer, rows)
    assert len(set(lengths)) > 1  # some end early, some are cut
    assert max(lengths) == MAX_TOKENS + len(early_ends.newline)
    found = scorer.distributions(rows)
    assert np.abs(found - expected).max() < 1e-5
    assert found.sum(-1) == pytest.approx(np.ones((len(rows), 4)))


def test_a_reason_does_not_depend_on_the_batch(scorer: Scorer, early_ends: Thinking) -> None:
    rows = rows_of(scorer)
    together = scorer.distributions(rows)
    alone = np.concatenate([scorer.distributions([row]) for row in rows])
    reversed_order = scorer.distributions(rows[::-1])[::-1]
    assert np.abs(together - alone).max() < 1e-6
    assert np.abs(together - reversed_order).max() < 1e-6
    answers = scorer.score([image for image, _ in PAIRS], [caption for _, caption in PAIRS])
    scores = np.array([answer.distributions for answer in answers])
    assert np.abs(scores - alone).max() < 1e-6


def test_the_style_is_part_of_the_prompt(tmp_path: Path) -> None:
    old = Prompt("before", "after", ("a", "b", "c", "d"), "pad")
    prompts.save_prompt(old, tmp_path)
    file = tmp_path / prompts.PROMPT_FILE
    text = file.read_text()
    assert '"style": "rationalization"' in text
    lines = [line for line in text.splitlines() if "style" not in line and "reason" not in line]
    file.write_text("\n".join(lines).replace('"pad",', '"pad"'))  # as in files from before styles
    assert prompts.load_prompt(tmp_path) == old
    with_reasons = replace(old, style=CHAIN_OF_THOUGHT)
    prompts.save_prompt(with_reasons, tmp_path)
    assert prompts.load_prompt(tmp_path) == with_reasons
    versions = {
        old.version(),
        with_reasons.version(),
        replace(with_reasons, max_reason_tokens=5).version(),
    }
    assert len(versions) == 3
    assert replace(old, style=RATIONALIZATION, max_reason_tokens=5).version() == old.version()
    with pytest.raises(prompts.PromptError, match="style"):
        replace(old, style="haiku")


def test_a_reason_ends_where_its_line_does() -> None:
    thinking = Thinking((9, 8), line_breaks=frozenset({7}), end_tokens=frozenset({0}), max_tokens=4)
    assert thinking.closed([1, 2, 7, 3]) == [1, 2, 7]
    assert thinking.closed([1, 0, 7]) == [1, 9, 8]
    assert thinking.closed([1, 2, 3, 4, 7]) == [1, 2, 3, 4, 9, 8]
    assert thinking.closed([]) == [9, 8]
