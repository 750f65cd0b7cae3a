"""The filter job: messages for mistakes, dry runs, and the shipped configurations."""

import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from tiny_scores import FUNNEL, Write, row, writer

from jobs.core.settings import conf_file, parse
from jobs.filter.job import main
from jobs.filter.settings import FilterConfig

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def table_folder(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scores table S of two scorers, and a table of another kind."""
    folder = tmp_path_factory.mktemp("tables")
    write = writer(spark, folder)
    write("S", [row("a", 1.0), row("a", 1.0, scorer="s2")])
    write("other", [{"uid": "a"}], "uid string")
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rule", "itmm >= 3"], "no column 'itmm'; did you mean 'itm'?\n  itmm >= 3\n  ^"),
        (
            ["--rule", "uid > 3"],
            "cannot compare column 'uid' (text) with 3 (a number)\n  uid > 3\n  ^",
        ),
        (["--what-if", "top 3 of uid"], "column 'uid' holds text, but a number is needed here\n"),
        (["--rule", "itm > 3", "--repeat", "2 wher itm"], "not 'wher'\n  2 wher itm\n    ^"),
        (["--rule", "top 130% of itm"], "a percentage is between 0 and 100"),
        (["--rule", "(itm > 3"], "this '(' is never closed\n  (itm > 3\n  ^"),
        (["--rule", ""], "the rule is empty"),
        ([], "missing --rule"),
        (["--rule", "itm > 3", "--rule", "itm>3"], "two rules are named 'itm > 3'"),
        (["--rule", "itm > 3"], "s1 (1 rows, 2025-01-31 to 2025-01-31), s2 (1 rows, 2025"),
        (["--rule", "itm > 3", "--scorer", "s3"], "has no scores of scorer s3; it has s1 (1 rows"),
        (["--rule", "itm > 3", "--limit", "3"], "--limit"),
        (["--rule", "itm > 3", "--pairs", "P"], "--pairs and --output go together"),
        (["--rule", "itm > 3", "--selection", "S"], "S is named twice"),
        (["--rule", "itm > 3", "--signals", "SEL"], "SEL is named twice"),
        (
            ["--rule", "itm > 3", "--signals", "nothing"],
            "--signals nothing: there is no such table",
        ),
        (["--rule", "itm > 3", "--signals", "other on sha"], "the scores table has no column sha"),
        (["--rule", "itm > 3", "--signals", "other on uid=key"], "the table has no column key"),
        (
            ["--rule", "itm > 3", "--signals", "a=S", "--signals", "A=S"],
            "are called a: name one",
        ),
        (
            ["--rule", "itm > 3", "--signals", "S"],
            'has several scorers; choose one: --signals "S=S',
        ),
        (["--rule", "o.itm > 3", "--signals", "o=other"], "no table 'o'"),
        (["--rule", "itm > 3", "--selection", "other"], "other is a table of another kind"),
        (
            ["--rule", "itm > 3", "--scores", "other"],
            "other is not a scores table: it has no column",
        ),
        (["--rule", "itm > 3", "--scores", "nothing"], "nothing: there is no Delta table"),
    ],
)
def test_bad_usage_exits_with_2_and_writes_nothing(
    table_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(table_folder)
    before = sorted(path for path in table_folder.rglob("*") if path.is_file())
    assert main(["--scores", "S", "--selection", "SEL", *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert json.loads(printed.out)["status"] == "usage_error"
    assert sorted(path for path in table_folder.rglob("*") if path.is_file()) == before


def test_dry_run_counts_and_writes_nothing(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write("S", FUNNEL)
    conf = tmp_path / "conf.yaml"
    conf.write_text("filter:\n  rule:\n  - match: itm >= 66\n  - top 2 of odf\n")
    argv = ["--conf", str(conf), "--scores", scores, "--selection", str(tmp_path / "SEL")]
    assert main([*argv, "--dry-run"]) == 0
    printed = capsys.readouterr()
    done = json.loads(printed.out)
    assert (done["dry_run"], done["kept"], done["rows"]) == (True, 1, 7)
    assert done["thresholds"][0]["threshold"] == 90.0
    assert "match: itm >= 66" in printed.err
    assert not (tmp_path / "SEL").exists()


def config_of(name: str, *options: str) -> FilterConfig:
    given = ["--conf", str(conf_file(name)), "--scores", "S", "--selection", "SEL", *options]
    return parse(FilterConfig, given, "filter")


def test_shipped_configurations_are_valid() -> None:
    assert [rule.name for rule in config_of("filter.yaml").parsed_rules()] == ["match", "detail"]
    (rule,) = config_of("datacomp_clip_score.yaml").parsed_rules()
    assert str(rule) == "datacomp 30% of clip_l14_similarity_score"
