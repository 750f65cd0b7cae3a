"""Which Java is chosen, and that a trimmed runtime starts the way Spark starts it."""

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from jobs.core import java

VECTOR = "--add-modules=jdk.incubator.vector"


def fake_java(home: Path, version: str, has_vector: bool = True) -> Path:
    """A `java` that reports that version, and records the arguments it was called with."""
    refuse = "" if has_vector else f'case "$*" in *{VECTOR}*) exit 1;; esac\n'
    command = home / "bin" / "java"
    command.parent.mkdir(parents=True)
    command.write_text(
        f'#!/bin/sh\necho "$@" >> {home}/arguments\n{refuse}'
        f"echo '    java.specification.version = {version}' >&2\n"
        f"echo '    java.home = {home}' >&2\n"
    )
    command.chmod(0o755)
    return home


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Java in the environment, and no wheel with one."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/bin-that-is-not-there")
    monkeypatch.setattr(java, "find_spec", lambda name: None)


@pytest.mark.usefixtures("no_java")
def test_java_home_wins_over_path_if_spark_supports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, on_path = fake_java(tmp_path / "a", "21"), fake_java(tmp_path / "b", "17")
    monkeypatch.setenv("PATH", str(on_path / "bin") + os.pathsep + "/bin")
    monkeypatch.setenv("JAVA_HOME", str(chosen))
    assert java.home() == chosen
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "c", "25")))
    assert java.home() == on_path
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "d", "21", has_vector=False)))
    assert java.home() == on_path


@pytest.mark.usefixtures("no_java")
def test_without_java_the_message_says_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert java.main() == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{java.HOW_TO_INSTALL}\n")
    assert "\n" not in java.HOW_TO_INSTALL


def test_a_trimmed_runtime_starts_without_the_option_it_refuses(tmp_path: Path) -> None:
    runtime = fake_java(tmp_path / "it's trimmed", "21", has_vector=False)
    (runtime / "bin" / "java").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    home = java.write_java_home(runtime, tmp_path / "home")
    command = [str(home / "bin" / "java"), "-Xmx1g", VECTOR, "-Dname=two words", "Main"]
    passed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    arguments = [line for line in passed.splitlines() if "trustStore" not in line]
    assert arguments == ["-Xmx1g", "-Dname=two words", "Main"]


@pytest.mark.skipif(not shutil.which("keytool"), reason="needs a JDK's keytool")
def test_java_reads_the_certificates_of_this_machine(tmp_path: Path) -> None:
    home = java.write_java_home(fake_java(tmp_path / "runtime", "21"), tmp_path / "home")
    store = home / "cacerts"
    if not store.exists():
        pytest.skip("no bundle of certificates on this machine")
    bundle = next(filter(os.path.isfile, java._ca_bundles()))
    expected = len(ssl.create_default_context(cafile=bundle).get_ca_certs())
    command = ["keytool", "-list", "-keystore", str(store), "-storepass", "changeit"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"contains {expected} entries" in listed
