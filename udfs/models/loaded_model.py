"""This process's model, loaded at the first call.

`torch` and `transformers` take seconds to import, and a loaded model takes gigabytes: so nothing
happens at import, only when the first pair needs the model. The cache holds one model, keyed by the
frozen configuration; a worker that is reused for many tasks loads it once.
"""

from __future__ import annotations

import threading

from udfs.models import dual_encoder, identity, mlm
from udfs.models.model_config import ModelConfig, ModelError
from udfs.models.model_files import is_folder
from udfs.scoring.batching import PairScorer

RUN_AGAIN = "what this run has written is of the model as it was; run the same command again"

_lock = threading.Lock()
_loaded: tuple[ModelConfig, str, PairScorer] | None = None


def scorer(config: ModelConfig, device: str = "cpu", threads: int | None = None) -> PairScorer:
    """Return this process's scorer for `config`, for an MLM or a dual encoder, and load it at the
    first call.

    `device` is "cpu" or an explicit "cuda:i" ("cuda" alone would put all tasks on the first GPU);
    `threads` is how many CPU threads the model may use. Raises ModelError.
    """
    global _loaded
    with _lock:
        if _loaded is not None and _loaded[:2] == (config, device):
            return _loaded[2]
        _loaded = None  # free the old model before loading the new one
        if config.content is not None and not is_folder(config.model):
            raise ModelError(f"the folder of model {config.model!r} is gone: {RUN_AGAIN}")
        load = (
            dual_encoder.load
            if dual_encoder.is_dual_encoder(config.model, config.revision)
            else mlm.load
        )
        loaded: PairScorer = load(config, device, threads)
        if config.content is not None:
            content, _ = identity.identity(config.model, config.revision)
            if content != config.content:
                raise ModelError(f"the files of model {config.model!r} have changed: {RUN_AGAIN}")
        _loaded = (config, device, loaded)
        return loaded
