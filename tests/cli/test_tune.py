"""`limbeck tune`: arguments go where they should, the table is honest, mistakes are told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.pipeline.tune import Trial, TuneReport
from tests.cli.command import inside, refused

KEY = "stages.distil.terms.kl.temperature"
ROOT = Path(__file__).parents[2]


def trial(number: int, temperature: float, accuracy: float | None) -> Trial:
    metrics = None if accuracy is None else {"accuracy": accuracy, "loss": 0.5}
    reason = None if metrics else "the loss is not finite"
    return Trial(number, {KEY: temperature}, metrics, 100, reason, 1.0, f"trials/{number}")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the search was asked for; it does nothing."""
    seen: dict[str, Any] = {}
    trials = (trial(1, 1, 0.8), trial(2, 2, 0.9), trial(3, 3, 0.88), trial(4, 4, None))

    def search(recipe: Path, overrides: list[str], *, trials: int | None) -> TuneReport:
        seen.update(recipe=recipe, overrides=overrides, trials=trials)
        return TuneReport(tmp_path / "my tune", "accuracy", found, found[1], 0.03)

    found = trials
    monkeypatch.setattr("limbeck.pipeline.tune.tune", search)
    return seen


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The quickstart with a search."""
    given = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    given["tune"] = {"space": {KEY: {"choices": [1, 2, 3, 4]}}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def test_the_trials_are_shown_best_first(asked: dict[str, Any], recipe: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["tune", str(recipe), "seed=3", "--trials", "7"])
    assert done.exit_code == 0, done.output
    assert asked == {"recipe": recipe, "overrides": ["seed=3"], "trials": 7}
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[:5] == [
        ["trial", "temperature", "accuracy", "loss"],
        ["2", "2", "0.9000", "0.5000", "best"],
        ["3", "3", "0.8800", "0.5000", "as", "good"],
        ["1", "1", "0.8000", "0.5000"],
        ["4", "4", "-", "-", "failed:", "the", "loss", "is", "not", "finite"],
    ]
    said = " ".join(done.stdout.split())
    assert "standard error of the best accuracy on 100 validation rows: 0.0300" in said
    assert f"next: limbeck run '{tmp_path}/my tune/best.yaml'" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.yaml"], "there is no recipe at nowhere.yaml"),
        (["quickstart.yaml"], "the recipe has no `tune` section"),
        (["mine.yaml", "tune.sapce=1"], "did you mean 'space'?"),
        (["mine.yaml", "tune.sampler=random"], "tune.sampler: Input should be 'grid' or 'tpe', got 'random'"),
        (["mine.yaml", "--trials", "3"], "`trials` goes with `sampler: tpe`"),
        (
            ["mine.yaml", "tune.space={stages.distil.terms.kl.temprature: {choices: [1]}}"],
            "did you mean 'temperature'?",
        ),
    ],
)
def test_a_mistake_is_one_message(
    words: list[str], said: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quickstart.yaml").write_text((ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    refused(inside(monkeypatch, "tune", *words), said)
    assert sorted(tmp_path.iterdir()) == before


def test_no_trials_are_too_few(recipe: Path) -> None:
    assert CliRunner().invoke(app, ["tune", str(recipe), "--trials", "0"]).exit_code == 2


def test_help_has_an_example() -> None:
    done = CliRunner().invoke(app, ["tune", "--help"])
    assert done.exit_code == 0
    assert "Example: limbeck tune" in done.output
