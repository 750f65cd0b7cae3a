"""Tiny randomly initialised models of further families, built on the spot like `tiny_models`.

cohere.py        Aya Vision, Command A Vision
deepseek.py      DeepSeek-VL
gemma.py         Gemma 3 with a narrow and a wide window; Gemma 4, causal and not
glm.py           GLM-4V
hugging_face.py  Idefics2 and SmolVLM; SmolVLM's processor needs num2words (the extra `smolvlm`)
internvl.py      InternVL 3.5
liquid.py        LFM2-VL
llama.py         Llama 4
llava.py         LLaVA with SigLIP and Qwen2, LLaVA-NeXT, LLaVA-OneVision
mistral.py       Mistral 3, Pixtral
molmo.py         Molmo 2
ovis.py          Ovis 2
paligemma.py     PaliGemma and PaliGemma 2
qwen.py          Qwen2-VL, Qwen3-VL, Qwen3.5, and the last two with experts
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tiny_models

from tiny_families import (
    cohere,
    deepseek,
    gemma,
    glm,
    hugging_face,
    internvl,
    liquid,
    llama,
    llava,
    mistral,
    molmo,
    ovis,
    paligemma,
    qwen,
)

Builder = Callable[[Path], Path]

TRAINED: dict[str, Builder] = tiny_models.FAMILIES | {
    make.__name__: make
    for make in (
        llava.llava_siglip_qwen,
        llava.llava_next,
        llava.llava_onevision,
        internvl.internvl_qwen3,
        hugging_face.smolvlm,
        qwen.qwen2_vl,
        qwen.qwen3_vl,
        gemma.gemma3,
        mistral.mistral3,
        gemma.gemma4_bidirectional,
        molmo.molmo2,
        paligemma.paligemma,
        qwen.qwen3_5,
    )
}
"""The families that tests fine-tune, by name."""

FAMILIES: dict[str, Builder] = TRAINED | {
    make.__name__: make
    for make in (
        qwen.qwen3_vl_moe,
        qwen.qwen3_5_moe,
        gemma.gemma3_wide_window,
        gemma.gemma4,
        gemma.gemma4_shared_keys,
        paligemma.paligemma2,
        liquid.lfm2_vl,
        glm.glm4v,
        ovis.ovis2,
        deepseek.deepseek_vl,
        cohere.aya_vision,
        cohere.cohere2_vision,
        hugging_face.idefics2,
        mistral.pixtral,
        llama.llama4,
    )
}
"""Every family that this project can build without a hub, by name."""
