"""Every family's scores are those of plain sequences, by the way that is expected of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tiny_families
import torch
from pictures import encoded, noise
from PIL import Image

from udfs.models import mlm
from udfs.models.model_config import DType, ModelConfig
from udfs.scoring import prompts
from udfs.scoring.mlm_scorer import Scorer
from udfs.scoring.prompts import Prompt

Array = npt.NDArray[np.float64]

WAYS = {
    "llava": "one_pass",
    "qwen2_5_vl": "one_pass",
    "internvl": "one_pass",
    "idefics3": "one_pass",
    "llava_siglip_qwen": "one_pass",
    "llava_next": "one_pass",
    "llava_onevision": "one_pass",
    "internvl_qwen3": "one_pass",
    "smolvlm": "one_pass",
    "qwen2_vl": "one_pass",
    "qwen3_vl": "one_pass",
    "gemma3": "one_pass",
    "mistral3": "one_pass",
    "qwen3_vl_moe": "one_pass",
    "qwen3_5": "prefix_cache",
    "qwen3_5_moe": "prefix_cache",
    "gemma3_wide_window": "one_pass",
    "gemma4": "one_pass",
    "gemma4_bidirectional": "one_pass",
    "gemma4_shared_keys": "one_pass",
    "paligemma": "question_passes",
    "paligemma2": "question_passes",
    "molmo2": "one_pass",
    "lfm2_vl": "prefix_cache",
    "glm4v": "one_pass",
    "ovis2": "one_pass",
    "deepseek_vl": "one_pass",
    "aya_vision": "one_pass",
    "cohere2_vision": "one_pass",
    "idefics2": "one_pass",
    "pixtral": "one_pass",
    "llama4": "one_pass",
}
OF_EACH_WAY = ("qwen2_5_vl", "idefics3", "gemma3", "molmo2", "qwen3_5", "lfm2_vl", "paligemma")
"""Families of each way, and those that lay pictures out in a batch each in their own manner."""
LARGEST_GAPS = {"float32": 1e-4, "bfloat16": 0.1}  # points
SAME = 1e-5  # points: rounding in float32
SPREAD = 0.05  # points: less, and agreement would say little
GAP_OF_SPREAD = 0.2  # of the spread of scores over pairs
PROMPT = Prompt(
    before="Caption: ",
    after="\nRate it from 0 to 100.\n",
    questions=("Does it match?", "Are all the details right?", "Is it well put?", "More?"),
)
"""Shorter than the default one, which makes the tests twice as fast."""
BEGUN = [f"{digit}0" for digit in range(1, 10)]
"""Sequences of the same length that hold every beginning of a number: no token sees those after."""
SIZES = [
    (40, 30),
    (100, 100),
    (20, 90),
    (64, 64),
    (24, 20),
    (30, 160),
    (160, 30),
    (96, 64),
    (64, 96),
    (33, 47),
    (200, 180),
    (50, 20),
]
CAPTIONS = [
    "a cat",
    "two dogs on a red sofa beside a window",
    "x",
    "ein längerer Satz, der über fünfzig Zeichen hat: äöü",
    "one",
    "a very tall picture",
    "a cat and a wide one",
    "b" * 30,
    "c" * 50,
    "dd dd" * 7,
    "e e e" * 9,
    "ffff",
]
PICTURES = [noise(*size, seed) for seed, size in enumerate(SIZES)]
IMAGES = [encoded(picture) for picture in PICTURES]


@pytest.fixture(scope="module", params=list(tiny_families.FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model, called like its family."""
    folder: Path = tmp_path_factory.mktemp("family") / request.param
    tiny_families.FAMILIES[request.param](folder)
    prompts.save_prompt(PROMPT, folder)
    return folder


@pytest.fixture(scope="module", params=list(LARGEST_GAPS))
def scorer(request: pytest.FixtureRequest, folder: Path) -> Scorer:
    dtype: DType = request.param
    return mlm.load(ModelConfig(str(folder), dtype=dtype))


def scores(scorer: Scorer, images: list[bytes], captions: list[str]) -> Array:
    """Expectations (B, 4)."""
    answers = scorer.score(images, captions)
    assert [answer.reason for answer in answers] == [None] * len(images)
    return np.array([answer.expectation for answer in answers])


def plain_scores(scorer: Scorer, picture: Image.Image, caption: str) -> list[float]:
    """A pair's four expectations from whole sequences, without padding, positions, masks or caches.

    This is independent of the code under test: nothing of `udfs` is called. The model gets a
    processor's outputs for this picture alone and makes of them what it makes of any prompt; what
    the project packs, pads, masks, caches, selects and reads from a tree of numbers is not used.
    """
    prompt = scorer.prompt
    return [
        _expectation(*_digits(scorer, picture, f"{prompt.before}{caption}{prompt.after}{question}"))
        for question in prompt.questions
    ]


def _digits(scorer: Scorer, picture: Image.Image, text: str) -> tuple[Array, Array, Array]:
    """Probabilities of the ten digits where the number begins (10,), as if there were no other
    token; after each of 1 to 9 (9, 10); and after each of BEGUN (9, 10). The sequences are what the
    processor makes of the whole prompt, as often as needed, and the digits after it."""
    encode, model, copies = scorer.processor.tokenizer, scorer.model, len(BEGUN)
    content = [{"type": "image"}, {"type": "text", "text": text}]
    rendered = scorer.processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    out = scorer.processor(
        text=[rendered] * copies, images=[[picture]] * copies, return_tensors="pt"
    )
    rest = encode(BEGUN, add_special_tokens=False)["input_ids"]
    ids = torch.cat([out["input_ids"], torch.tensor(rest)], dim=1)
    inputs: dict[str, Any] = {"attention_mask": torch.ones_like(ids)}
    for name in set(out) - {"input_ids", "attention_mask", "labels"}:
        value = out[name]
        if value.shape == out["input_ids"].shape:  # types of tokens: 0 for text
            value = torch.nn.functional.pad(value, (0, len(rest[0])))
            value[:, -2:] = int(model.config.model_type == "paligemma")  # whose answers are causal
        inputs[name] = value.to(model.dtype) if value.is_floating_point() else value
    with torch.inference_mode():
        logits = model(input_ids=ids, **inputs).logits[:, -3:].double()
    digits = encode.convert_tokens_to_ids(list("0123456789"))
    first = logits[0, 0, digits].softmax(-1)
    second, third = (logits[:, at].softmax(-1)[:, digits] for at in (1, 2))
    return first.numpy(), second.numpy(), third.numpy()


def _expectation(first: Array, second: Array, third: Array) -> float:
    """The mean of the number, 0..100, from what `_digits` returns; any other token ends it."""
    expected = 0.0
    for digit in range(1, 10):
        goes_on = second[digit - 1]
        mean = digit * (1 - goes_on.sum()) + (10 * digit + np.arange(10)) @ goes_on
        if digit == 1:
            mean += goes_on[0] * third[0, 0] * (100 - 10)
        expected += first[digit] * mean
    return float(expected)


def test_scores_are_those_of_plain_sequences(scorer: Scorer, folder: Path) -> None:
    assert scorer.how == WAYS[folder.name], scorer.selection.refused
    found = scores(scorer, IMAGES, CAPTIONS)
    expected = [plain_scores(scorer, *pair) for pair in zip(PICTURES, CAPTIONS, strict=True)]
    gap = np.abs(found - expected).max()
    spread = np.ptp(expected, axis=0).max()
    assert gap < LARGEST_GAPS[str(scorer.model.dtype).removeprefix("torch.")]
    assert gap < GAP_OF_SPREAD * spread
    for axis in (0, 1):  # pairs differ, and so do questions: the agreement is not trivial
        assert np.ptp(expected, axis=axis).max() > SPREAD


@pytest.mark.parametrize("scorer", ["float32"], indirect=True)
@pytest.mark.parametrize("folder", OF_EACH_WAY, indirect=True)
def test_a_score_does_not_depend_on_the_batch(scorer: Scorer) -> None:
    together = scores(scorer, IMAGES, CAPTIONS)
    alone = [scores(scorer, [i], [c])[0] for i, c in zip(IMAGES, CAPTIONS, strict=True)]
    turned = scores(scorer, IMAGES[::-1], CAPTIONS[::-1])[::-1]
    assert np.abs(together - alone).max() < SAME
    assert np.abs(together - turned).max() < SAME
