"""A fine-tuning recipe in YAML, and errors that say the line and the nearest right key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from udfs.scoring.prompts import Prompt
from udfs.training.recipe import Lora, Recipe, Stage, Weights

from ..core.errors import UsageError
from ..core.settings import nearest

Place = tuple[str | int, ...]
"""Where in the file: keys and indices from the top."""

_MODELS: dict[str, type[BaseModel]] = {"weights": Weights, "lora": Lora, "stages": Stage}


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises UsageError for anything unknown, missing or out of range."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--recipe: cannot read {path}: {reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{at}: {getattr(error, 'problem', None) or 'not YAML'}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected `key: value` lines with stages: in it")
    lines = _lines(node, ())
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        items = error.errors(include_url=False)
        # Of a list whose entries are wrong, pydantic also says that it is too short.
        items = [item for item in items if item["type"] != "too_short"] or items
        problems = "; ".join(_problem(item, lines) for item in items[:3])
        raise UsageError(f"{path} {problems}") from None


def _lines(node: Any, place: Place) -> dict[Place, int]:
    """The line of each key and list entry."""
    found: dict[Place, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            found |= {inner: key.start_mark.line + 1} | _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            found |= {(*place, i): value.start_mark.line + 1} | _lines(value, (*place, i))
    return found


def _problem(item: Any, lines: dict[Place, int]) -> str:
    place: Place = tuple(item["loc"])
    known = place
    while known and known not in lines:  # of a missing key, where it is missing
        known = known[:-1]
    at = f"line {lines[known]}" if known else "line 1"
    name = ".".join(map(str, place))
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        guess = nearest(str(place[-1]), _keys(place))
        hint = f"did you mean {guess}?" if guess else f"there are {', '.join(_keys(place))}"
        return f"{at}: unknown key {name}; {hint}"
    if item["type"] == "missing":
        return f"{at}: {name} is missing"
    said = item["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    plain = isinstance(item["input"], str | int | float)
    return f"{at}: {name}: {said}" + (f", not {item['input']!r}" if plain else "")


def _keys(place: Place) -> list[str]:
    """The keys that there are beside the one at `place`."""
    names = [part for part in place[:-1] if isinstance(part, str)]
    if names and names[-1] == "prompt":
        return list(TypeAdapter(Prompt).json_schema()["properties"])
    return list((_MODELS[names[-1]] if names else Recipe).model_fields)
