"""The command line as a whole: help, version, speed, errors, and what it does not import."""

from __future__ import annotations

import logging
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from limbeck._version import __version__
from limbeck.cli import app, main
from limbeck.core.errors import DataError
from tests.cli.command import limbeck, refused

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
HEAVY = ("torch", "transformers", "accelerate", "datasets", "pydantic", "yaml", "numpy", "scipy", "pyarrow", "sklearn")

CHEAP = f"""
import sys
{{action}}
heavy = sorted(set({HEAVY!r}) & set(sys.modules))
assert not heavy, heavy
"""
HELP = """
from limbeck.cli import app
try:
    app(["--help"])
except SystemExit as end:
    assert not end.code, end.code
"""


def test_help_lists_every_command() -> None:
    done = limbeck("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"│ {command} " in done.stdout
    assert "limbeck init" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert re.search(rf"Examples?: limbeck {command}\b", done.output)


def test_no_words_are_answered_with_help() -> None:
    done = limbeck()
    assert "Commands" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_torchao_does_not_tell_of_kernels_when_a_recipe_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("torchao")
    monkeypatch.setattr(log, "level", logging.NOTSET)
    assert CliRunner().invoke(app, ["init", "text-classification"]).exit_code == 0
    assert not log.isEnabledFor(logging.WARNING)


def test_version() -> None:
    done = limbeck("--version")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_the_installed_command_is_the_same() -> None:
    script = Path(sys.executable).with_name("limbeck")
    assert (
        subprocess.run([script, "--version"], check=True, capture_output=True, text=True).stdout == f"{__version__}\n"
    )


def test_help_is_quick() -> None:
    """Under half a second of the processor's time: a busy machine makes the clock say more."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "limbeck", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5, seconds


@pytest.mark.parametrize("action", ["import limbeck", "import limbeck.cli", "import limbeck.core.artifacts", HELP])
def test_nothing_heavy_is_imported_for_it(action: str) -> None:
    done = subprocess.run([sys.executable, "-c", CHEAP.format(action=action)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["recipe", "parts", "schedules", "types", "yaml", "errors", "progress", "artifacts"])
def test_core_does_not_import_torch(module: str) -> None:
    code = f"import sys, limbeck.core.{module}; assert not {{'torch', 'transformers', 'accelerate'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run"], "Missing argument"),
        (["run", "--froce", "x.yaml"], "No such option"),
        (["init", "causal-ml"], "'causal-lm'"),
        (["list", "things"], "objectives"),
    ],
)
def test_wrong_words_are_explained(words: list[str], said: str) -> None:
    refused(limbeck(*words), said)


def test_an_error_of_ours_is_its_message_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise DataError("a row is empty", got="row 3", fix="fill it")

    monkeypatch.setattr("limbeck.cli.app", fail)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: a row is empty\n  got: row 3\n  fix: fill it\n"


def test_an_error_of_the_system_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        Path("/nowhere/at/all").read_text()

    monkeypatch.setattr("limbeck.cli.app", fail)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: No such file or directory: /nowhere/at/all\n"
