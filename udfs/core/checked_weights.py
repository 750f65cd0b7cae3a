"""Loads a model's weights, and refuses those that are not its own: the one way for every model.

`transformers` draws random weights for tensors that are missing or wrongly shaped and passes over
those that it has no place for. It only warns, and the scores look like any others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from udfs.core.error_lines import one_line
from udfs.core.weight_files import WeightsError, check_config, check_model_folder

HARMLESS_UNUSED = {
    r"(^|\.)position_ids$": "the numbers from 0 on, which older CLIP and BERT checkpoints saved",
    r"(^|\.)rotary_emb\.inv_freq$": "computed from the configuration; older checkpoints saved it",
    r"(^|\.)relative_position_index$": "computed from the image size; older checkpoints saved it",
    r"(^|\.)attn\.(masked_)?bias$": "the causal mask, as GPT-2's kind saved it",
    r"^(model\.)?mtp\.": "predicts several tokens at once (Qwen3.5); no score comes from it",
}
"""Tensors that a checkpoint may hold although the model has no place for them, and why. What a
family itself declares unused (`_keys_to_ignore_on_load_unexpected`), transformers leaves out."""

HARMLESS_MISSING = {
    r"(^|\.)num_batches_tracked$": "counts training steps; evaluation does not read it",
    r"(^|\.)position_ids$": "the numbers from 0 on, which the model fills in itself",
    r"(^|\.)relative_position_index$": "computed from the image size",
}
"""Tensors that a checkpoint may lack, and why. Weights that are tied to others are not missing."""

NAMED = 3
"""How many tensors a message names; one of each kind where it tells of several."""

_UNFIT = {
    "CONVERSION": "lacks parts of tensors",
    "MISSING": "lacks tensors",
    "MISMATCH": "has tensors of the wrong shape",
    "UNEXPECTED": "has tensors that its model does not use",
}
"""What transformers calls tensors that do not fit."""

FOREIGN = "the weights are another model's"


def load_checked(model_class: Any, folder: str | Path, **options: Any) -> Any:
    """`model_class.from_pretrained(folder)` with every weight from the folder's safetensors.

    `options` are those of `from_pretrained`; `folder` may be a hub id. A model's own code is never
    run, and pickles are never read. Raises WeightsError for missing, unused, wrongly shaped,
    damaged or infinite tensors; and what transformers raises for the configuration.
    """
    from transformers.utils.hub import cached_file

    if Path(folder).is_dir():
        check_model_folder(Path(folder))
    else:
        revision = options.get("revision")
        check_config(Path(str(cached_file(folder, "config.json", revision=revision))).parent)
    owner = f"the model {folder}"
    with _load_report() as report:
        try:
            model, info = model_class.from_pretrained(
                folder,
                trust_remote_code=False,
                use_safetensors=True,  # loading pickled weights would run code
                ignore_mismatched_sizes=True,  # so that they are named below, in one line
                output_loading_info=True,
                **options,
            )
        except Exception as error:
            # Where tensors do not fit, transformers may also fail on its way to say so.
            rows = re.findall(rf"^(\S.*?) +\| ({'|'.join(_UNFIT)})\b", report(), re.MULTILINE)
            # The order of the rows differs from run to run: the first by name is named.
            first = {kind: name for name, kind in sorted(rows, reverse=True)}
            if not first:
                raise
            faults = [
                f"{what} ({_short(first[kind])}, ...)"
                for kind, what in _UNFIT.items()
                if kind in first
            ]
            raise WeightsError(f"{owner} {', '.join(faults)}: {FOREIGN}") from error
    refuse_misfits(
        owner,
        missing=_harmful(info["missing_keys"], HARMLESS_MISSING),
        unused=_harmful(info["unexpected_keys"], HARMLESS_UNUSED),
        misshaped=info["mismatched_keys"],
        tensors=len(model.state_dict()),
    )
    refuse_infinite(owner, model.named_parameters())
    return model


def refuse_misfits(
    owner: str,
    *,
    missing: Iterable[str] = (),
    unused: Iterable[str] = (),
    misshaped: Iterable[tuple[str, Sequence[int], Sequence[int]]] = (),
    tensors: int | None = None,
) -> None:
    """Raise WeightsError if any tensor of `owner` (a folder, as the message shall name it) is
    missing, unused or wrongly shaped; `tensors` is how many it needs."""
    missing, unused, misshaped = sorted(missing), sorted(unused), sorted(misshaped)
    named = NAMED if bool(missing) + bool(unused) + bool(misshaped) == 1 else 1
    faults = []
    if missing:
        of = f"its {tensors} tensors" if tensors else "its tensors"
        faults.append(f"lacks {len(missing)} of {of} ({_named(missing, named)})")
    if misshaped:
        name, found, needed = misshaped[0]
        shapes = f"{_short(name)} is {list(found)}, not {list(needed)}"
        others = [name for name, *_ in misshaped[1:named]]
        shapes += f"; {_named(others, named)}" if others else ""
        faults.append(f"has {_tensors(misshaped)} of the wrong shape ({shapes})")
    if unused:
        of = f"has {_tensors(unused)} that its model does not use"
        faults.append(f"{of} ({_named(unused, named)})")
    if faults:
        why = f"the download is broken, or {FOREIGN}" if missing and not unused else FOREIGN
        raise WeightsError(f"{owner} {', '.join(faults)}: {why}")


def refuse_infinite(owner: str, tensors: Iterable[tuple[str, Any]]) -> None:
    """Raise WeightsError if a tensor holds NaN or infinity: all its scores would be NaN."""
    import torch

    for name, tensor in tensors:
        if tensor.is_meta or not tensor.is_floating_point() or tensor.element_size() < 2:
            continue
        # The sum is cheap and finite as good as always; only where it is not, each number counts.
        total = tensor.detach().sum(dtype=torch.float32)
        if not torch.isfinite(total) and not torch.isfinite(tensor).all():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise WeightsError(f"{owner}: {_short(name)} holds NaN or infinity (as {kind})")


def _harmful(names: Iterable[str], harmless: dict[str, str]) -> list[str]:
    return [name for name in names if not any(re.search(pattern, name) for pattern in harmless)]


def _named(names: Sequence[str], most: int) -> str:
    listed = ", ".join(_short(name) for name in names[:most])
    return f"{listed}, ..." if len(names) > most else listed


def _tensors(found: Sequence[object]) -> str:
    return f"{len(found)} tensor{'s' * (len(found) != 1)}"


def _short(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= 100 else f"{name[:97]}..."


@contextmanager
def _load_report() -> Iterator[Callable[[], str]]:
    """Keep what transformers logs about tensors (a table, and more) off the terminal: it is told in
    one line. Yields a function that returns it."""
    logged: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        logged.append(record.getMessage())
        return record.levelno >= logging.ERROR

    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    # Also where transformers is told to be quiet; at WARNING, it would check things of no use here.
    logger.setLevel(logging.INFO)
    logger.addFilter(keep)
    try:
        yield lambda: re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(logged))  # without colours
    finally:
        logger.removeFilter(keep)
        logger.setLevel(level)
