"""Settings: where they come from, and the messages when they are wrong."""

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from jobs.core.errors import UsageError
from jobs.core.settings import JobConfig, conf_file, parse


class Sizes(BaseModel):
    """Keys of a setting that holds several."""

    model_config = ConfigDict(extra="forbid")
    height: int = 3
    width: int = 4


class ScoreConfig(JobConfig):
    """Score pairs."""

    pairs: str = Field(description="pairs table")
    rows: int = Field(default=8, ge=1, le=64, description="rows in a slice, 100 % of them")
    mode: Literal["error", "append"] = Field(default="error", description="what if it exists")
    where: list[str] = Field(default=[], description="a rule; may be repeated")
    fast: bool = Field(default=True, description="one pass")
    sizes: Sizes = Field(default=Sizes(), description="limits")
    extra: dict[str, Any] = Field(default={}, description="passed on")
    api_key: SecretStr = Field(default=SecretStr("hunter2"), description="key of the service")


def conf(folder: Path, text: str) -> str:
    path = folder / "job.yaml"
    path.write_text(text)
    return str(path)


def test_the_command_line_wins_over_the_file_and_that_over_the_default(tmp_path: Path) -> None:
    file = conf(tmp_path, "pairs: from-file\nrows: 16\nwhere: itm > 5\nfast: false\n")
    config = parse(ScoreConfig, ["--conf", file, "--rows", "32"], "score")
    assert (config.pairs, config.rows, config.mode) == ("from-file", 32, "error")
    assert (config.where, config.fast) == (["itm > 5"], False)


def test_a_file_can_hold_a_section_for_each_job(tmp_path: Path) -> None:
    file = conf(tmp_path, "ingest:\n  output: P\nscore:\n  pairs: P\n  rows: 3\n")
    assert parse(ScoreConfig, ["--conf", file], "score").rows == 3
    with pytest.raises(UsageError, match="no section 'filter'; it has ingest, score"):
        parse(ScoreConfig, ["--conf", file], "filter")
    old = conf(tmp_path, "standin:\n  pairs: P\n")  # what the job baseline was called
    assert parse(ScoreConfig, ["--conf", old], "baseline").pairs == "P"


def test_a_setting_can_hold_keys_of_its_own(tmp_path: Path) -> None:
    file = conf(tmp_path, "pairs: P\nsizes: {height: 7}\nextra: {a: 1, b: [2]}\n")
    words = ["--conf", file, "--sizes", "width=9", "--extra", "a=x", "--extra", "c=1e-3"]
    config = parse(ScoreConfig, words, "score")
    assert config.sizes == Sizes(height=7, width=9)
    assert config.extra == {"a": "x", "b": [2], "c": "1e-3"}
    for wrong, message in (
        (["--sizes", "heigth=1"], "--sizes: unknown key heigth; did you mean height"),
        (["--sizes", "height=tall"], "--sizes height: 'tall' is not allowed"),
        (["--sizes", "height"], "--sizes: expected KEY=VALUE, not height"),
    ):
        with pytest.raises(UsageError, match=message):
            parse(ScoreConfig, ["--pairs", "P", *wrong], "score")


def test_options_repeat_and_switch_off() -> None:
    line = ["--pairs", "P", "--where", "itm > 1", "--where", "odf > 2", "--no-fast", "--limit=5"]
    config = parse(ScoreConfig, line)
    assert (config.where, config.fast, config.limit) == (["itm > 1", "odf > 2"], False, 5)
    with pytest.raises(ValidationError):
        config.limit = 6  # type: ignore[misc]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--rwos", "5"], "unknown option --rwos; did you mean --rows?"),
        (["--rwos=5"], "unknown option --rwos; did you mean --rows?"),
        (["--row", "5"], "unknown option --row; did you mean --rows?"),
        (["P"], "unknown argument P; see --help"),
        ([], "missing --pairs (pairs table)"),
        (["--rows"], "--rows: expected one argument"),
        (["--rows", "many"], "--rows: 'many' is not allowed: it should be a valid integer"),
        (["--rows", "65"], "--rows: '65' is not allowed: it should be less than or equal to 64"),
        (["--limit", "0"], "--limit: '0' is not allowed: it should be greater than or equal to 1"),
        (["--mode", "apend"], "--mode: 'apend' is not allowed: it should be 'error' or 'append'"),
    ],
)
def test_a_wrong_command_line_gives_one_line(line: list[str], message: str) -> None:
    required = ["--pairs", "P"] if line else []
    with pytest.raises(UsageError) as caught:
        parse(ScoreConfig, line + required)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pairs: P\nrwos: 5\n", "line 2: unknown key rwos; did you mean rows?"),
        ("pairs: P\nrows: many\n", "line 2: rows: 'many' is not allowed"),
        ("score:\n  pairs: P\n  rows: many\n", "line 3: rows: 'many' is not allowed"),
        ("score:\n  pairs: P\ningset:\n  output: P\n", "did you mean ingest?"),
        ("pairs: P\nrows: 5\npairs: Q\n", "line 3: pairs is set twice"),
        ("- pairs\n", "expected `key: value` lines"),
        ("pairs: [P\n", "line 2: expected ',' or ']'"),
    ],
)
def test_a_wrong_file_gives_its_line_number(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(ScoreConfig, ["--conf", conf(tmp_path, text)], "score")
    assert message in str(caught.value)


def test_a_missing_file_is_bad_usage() -> None:
    with pytest.raises(UsageError, match="there is no file none.yaml"):
        parse(ScoreConfig, ["--conf", "none.yaml"], "score")


def test_help_gives_every_option_its_text_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(ScoreConfig, ["--help"], "score")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Score pairs." in text
    assert "--rows N rows in a slice, 100 % of them (default: 8)" in text
    assert "--mode {error,append} what if it exists (default: error)" in text
    assert "--limit N use at most this many rows" in text


def test_secrets_are_never_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        parse(ScoreConfig, ["--help"])
    file = conf(tmp_path, "pairs: P\napi_key: [s3cret]\n")
    with pytest.raises(UsageError) as caught:
        parse(ScoreConfig, ["--conf", file])
    assert "hunter2" not in capsys.readouterr().out
    assert "s3cret" not in str(caught.value)


def test_conf_files_are_found() -> None:
    assert conf_file("sample_pairs.yaml").is_file()
