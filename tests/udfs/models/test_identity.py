"""Ids of models and scorers, one model in each process, and missing models."""

from pathlib import Path

import pytest
import tiny_models

from udfs.models import identity, loaded_model, mlm
from udfs.models.model_config import ModelConfig, ModelError
from udfs.scoring import prompts


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llava(tmp_path_factory.mktemp("llava"))


def test_a_models_own_prompt_is_used_and_changes_the_scorer(llava: Path, tmp_path: Path) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(llava, model)
    identity.identity.cache_clear()
    before = identity.scorer_id(ModelConfig(str(model)))
    assert before == identity.scorer_id(ModelConfig(str(llava)))
    prompts.save_prompt(prompts.Prompt(before="Caption: ", image_fit="pad"), model)
    identity.identity.cache_clear()
    assert identity.scorer_id(ModelConfig(str(model))) != before
    assert identity.scorer_id(ModelConfig(str(model), batch_rows=3)) == identity.scorer_id(
        ModelConfig(str(model))
    )
    assert mlm.load(ModelConfig(str(model))).prompt.image_fit == "pad"
    (model / prompts.PROMPT_FILE).write_text("{}")
    with pytest.raises(ModelError, match="not a prompt file"):
        mlm.load(ModelConfig(str(model)))


def test_a_family_that_was_scored_wrongly_is_another_scorer_now(
    llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identity.scorer_id(ModelConfig(str(llava)))
    monkeypatch.setitem(identity.VERSIONS, "llava", "2")
    assert identity.scorer_id(ModelConfig(str(llava))) != before
    assert {"gemma3", "gemma4", "lfm2_vl", "molmo2", "qwen3_5"} <= identity.VERSIONS.keys()
    assert identity.scorer_id(ModelConfig("starter")) == "abf3075bad98"


def test_files_that_describe_a_model_are_not_part_of_its_id(llava: Path, tmp_path: Path) -> None:
    import shutil

    def scorer_id() -> str:
        identity.identity.cache_clear()
        return identity.scorer_id(ModelConfig(str(model)))

    model = tmp_path / "model"
    shutil.copytree(llava, model)
    before = scorer_id()
    # The model card, and what finetune (earlier ones too) and evaluate write beside weights.
    for name in ("README.md", "history.json", "losses.png", "matching.json", "recipe.json"):
        (model / name).write_text("{}")
    for name in ("evaluation.json", "evaluation.md", "evaluation.png"):  # of the job `evaluate`
        (model / name).write_text("another")
    assert scorer_id() == before

    ids = {before}
    scoring_files = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    scoring_files |= {"chat_template.jinja", "processor_config.json"}
    assert scoring_files <= {file.name for file in model.iterdir()}
    (model / "part").mkdir()
    for name in (*sorted(scoring_files), prompts.PROMPT_FILE, "unknown.json", "part/recipe.json"):
        original = (model / name).read_bytes() if (model / name).is_file() else b"{}"
        if name == prompts.PROMPT_FILE:
            prompts.save_prompt(prompts.Prompt(before="Another: "), model)
        else:
            (model / name).write_bytes(original + b" ")
        ids.add(scorer_id())
        (model / name).write_bytes(original) if name in scoring_files else (model / name).unlink()
    assert len(ids) == 1 + len(scoring_files) + 3
    assert scorer_id() == before


def test_each_process_loads_a_model_once(llava: Path) -> None:
    config = ModelConfig(str(llava))
    assert loaded_model.scorer(config) is loaded_model.scorer(ModelConfig(str(llava)))
    assert loaded_model.scorer(ModelConfig(str(llava), batch_rows=2)) is not loaded_model.scorer(
        config
    )


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        identity.identity(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty has no config.json"):
        mlm.load(ModelConfig(str(tmp_path / "empty")))
