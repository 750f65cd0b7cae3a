"""Chat templates and prompt files that fail, never end or are none: one line each, in seconds."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from udfs.core import child_process
from udfs.models import identity
from udfs.scoring import prompts


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 1/0 }}", "ZeroDivisionError: division by zero"),
        ("{{ raise_exception('one\ntwo') }}", "TemplateError: one two"),
        ("{% for %}", "TemplateSyntaxError: Expected an expression"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError: access to attribute '__class__'"),
        ("{% for i in range(10**9) %}{% endfor %}", "OverflowError: Range too big"),
        ("{{ '<image>' * 10**10 }}", "it takes more than 1 GiB of memory"),
        ("{{ '<image>' * 10**6 }}", "it writes more than 1 MiB"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "RecursionError"),
    ],
)
def test_a_chat_template_that_fails(
    copy: Path, template: str, said: str, refused: Callable[..., str]
) -> None:
    (copy / "chat_template.jinja").write_text(template)
    assert f"cannot load model 'X': the chat template fails: {said}" in refused(copy)


def test_a_chat_template_that_never_ends(
    copy: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    loop = "{% for i in range(99999) %}"
    (copy / "chat_template.jinja").write_text(loop * 3 + "{% endfor %}" * 3)
    monkeypatch.setattr(child_process, "CPU_SECONDS", 1)
    started = time.monotonic()
    said = refused(copy)
    assert said.endswith("the chat template fails: it does not end within 1 seconds")
    assert time.monotonic() - started < 30
    (copy / "chat_template.jinja").write_text("no caption")
    assert "the chat template must put one image before the text" in refused(copy)


def test_a_process_that_waits_or_dies_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "WALL_SECONDS", 0.5)
    with pytest.raises(child_process.ChildError, match="does not end"):
        child_process.call_in_child(lambda: str(Event().wait(60)))
    with pytest.raises(child_process.ChildError, match="its process died"):
        child_process.call_in_child(lambda: str(os._exit(3)))
    assert child_process.call_in_child(lambda: "ä\n" * 100_000) == "ä\n" * 100_000


GOOD_PROMPT = {"before": "a", "after": "b", "questions": ["1", "2", "3", "4"]}


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "[]",
        "5",
        "[" * 100_000,
        json.dumps(GOOD_PROMPT | {"before": 5}),
        json.dumps(GOOD_PROMPT | {"questions": "abcd"}),
        json.dumps(GOOD_PROMPT | {"questions": [1, 2, 3, 4]}),
        json.dumps(GOOD_PROMPT | {"unknown": 1}),
        json.dumps(GOOD_PROMPT | {"max_reason_tokens": "5"}),
    ],
)
def test_a_prompt_file_that_is_none(copy: Path, prompt: str, refused: Callable[..., str]) -> None:
    (copy / prompts.PROMPT_FILE).write_text(json.dumps(GOOD_PROMPT))
    assert prompts.load_prompt(copy).before == "a"
    (copy / prompts.PROMPT_FILE).write_text(prompt)
    said = "X/mlm_filter.json: not a prompt file of this version ("
    assert said in refused(copy)
    identity.identity.cache_clear()
    assert said in refused(copy, identity.scorer_id)  # on the driver, before anything is loaded
