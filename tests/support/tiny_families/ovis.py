"""Alibaba's Ovis 2."""

from __future__ import annotations

from pathlib import Path

from tiny_models import CHAT, TILES, VISION, save, text_config, tokenizer

MARKS = ("<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")


def ovis2(folder: Path) -> Path:
    """Ovis 2: pictures are spelled with a vocabulary of their own."""
    from transformers import (
        Ovis2Config,
        Ovis2ForConditionalGeneration,
        Ovis2ImageProcessor,
        Ovis2Processor,
        Qwen2Config,
    )

    tok = tokenizer(MARKS)
    atom, *indicators = map(tok.convert_tokens_to_ids, MARKS)
    vision = VISION | {"image_size": 32, "patch_size": 8, "vocab_size": 64, "hidden_stride": 2}
    config = Ovis2Config(
        vision_config=vision,
        text_config=text_config(Qwen2Config, tok).to_dict(),
        image_token_id=atom,
        visual_indicator_token_ids=indicators,
        vocab_size=len(tok),
        hidden_size=32,
    )
    processor = Ovis2Processor(
        image_processor=Ovis2ImageProcessor(**TILES),
        tokenizer=tok,
        image_seq_length=4,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return save(Ovis2ForConditionalGeneration, config, processor, folder)
