"""The settings of the finetune job: from the command line, from YAML, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.core.errors import UsageError
from jobs.core.settings import parse
from jobs.finetune.settings import FinetuneConfig

ROOT = Path(__file__).parents[3]


def test_settings_from_the_command_line_and_from_yaml(tmp_path: Path) -> None:
    words = ["--instructions", "I", "--output", "O"]
    shipped = parse(FinetuneConfig, ["--conf", str(ROOT / "conf/finetune.yaml"), *words])
    plain = parse(FinetuneConfig, words)
    assert shipped.model_copy(update={"trainer": {}}) == plain
    conf = tmp_path / "conf.yaml"
    conf.write_text("train: {language: full}\ntrainer: {learning_rate: 1.0e-5, bf16: true}\n")
    given = ["--train", "vision=full", "--trainer", "learning_rate=2e-5"]
    config = parse(FinetuneConfig, ["--conf", str(conf), *words, *given])
    assert config.train.model_dump() == {"language": "full", "projector": "full", "vision": "full"}
    assert config.trainer == {"learning_rate": "2e-5", "bf16": True} or config.trainer == {
        "learning_rate": 2e-5,
        "bf16": True,
    }
    for wrong, message in (
        (["--train", "langage=full"], "unknown key langage; did you mean language"),
        (["--train", "language=all"], "--train language: 'all' is not allowed"),
        (["--train", "full"], "expected KEY=VALUE"),
        (["--hold-out", "a"], "--group-column is missing"),
        (["--mix", "0.5"], "--conversations, which is missing"),
        (["--prompt", "befor=x"], "--prompt: got an unexpected keyword argument 'befor'"),
        (["--prompt", "questions=[a, b]"], "--prompt: a prompt needs 4 questions"),
    ):
        with pytest.raises(UsageError, match=message):
            parse(FinetuneConfig, [*words, *wrong], "finetune")
