"""The search: it finds the best, never reads test rows, repeats nothing, and refuses early what it cannot try."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import limbeck
from limbeck.core.artifacts import Artifact
from limbeck.core.errors import LimbeckError, MissingExtra, RecipeError, TrainingError
from limbeck.core.recipe import Recipe, load_recipe
from limbeck.core.types import Rows
from limbeck.data.sources.digits import Digits
from limbeck.pipeline import tune as tuning
from limbeck.pipeline.train import train_student
from limbeck.pipeline.tune import Trial, TuneReport, standard_error, tune
from limbeck.pipeline.tuning.candidates import Candidates, TrialJob
from limbeck.training.validate import validate
from tests.pipeline.recipes import images, language, resnet, stage, texts

T, W, LR = "stages.distil.terms.kl.temperature", "stages.distil.terms.kl.weight", "training.learning_rate"
DOCS = Path(__file__).parents[2] / "docs" / "tune.md"


def searched(output: Path, space: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Digits with little to do, and a search."""
    return images(output, tune={"space": space, **fields})


def temperature(recipe: Recipe) -> float:
    """What the last stage's KL has."""
    found = recipe.model_dump(mode="json")["stages"][-1]["terms"][1]["temperature"]
    return float(found["value"] if isinstance(found, dict) else found)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Recipes whose students were in fact trained, in order; the validation says 1 - |temperature - 2| / 10."""
    ran: list[Recipe] = []

    def counted(job: TrialJob, prepared: Artifact | None) -> Artifact:
        made = job.step

        def step(name: str, inputs: Any, parents: Any, work: Any, together: bool = False) -> Artifact:
            def noted(folder: Path) -> Any:
                ran.append(job.recipe)
                return work(folder)

            return made(name, inputs, parents, noted, together)

        job.step = step  # type: ignore[method-assign]
        return train_student(job, prepared)

    def injected(*args: Any) -> dict[str, float]:
        found = validate(*args)
        if ran and "accuracy" in found:
            found["accuracy"] = 1 - abs(temperature(ran[-1]) - 2) / 10
        return found

    monkeypatch.setattr(tuning, "train_student", counted)
    monkeypatch.setattr("limbeck.training.loop.validate", injected)
    return ran


def test_a_grid_finds_the_best_of_its_points(tmp_path: Path, trained: list[Recipe]) -> None:
    space = {T: {"start": 1, "stop": 3, "step": 0.5}}
    found = tune(searched(tmp_path / "run", space))
    assert [trial.values[T] for trial in found.trials] == [1, 1.5, 2, 2.5, 3]
    assert found.best.values == {T: 2.0}
    assert found.best.metrics is not None
    assert found.best.metrics["accuracy"] == 1.0
    assert found.ranked()[0] is found.best
    assert len(trained) == 5
    assert len({recipe.output for recipe in trained}) == 5
    assert len(list((tmp_path / "run").rglob("teacher/config.json"))) == 1, "one teacher for all"
    _check_files(found, 5)


def _check_files(found: TuneReport, count: int) -> None:
    told = json.loads((found.output / "trials.json").read_text())
    assert told["metric"] == "accuracy"
    assert [trial["values"] for trial in told["trials"]] == [dict(trial.values) for trial in found.trials]
    rows = list(csv.DictReader((found.output / "trials.csv").read_text().splitlines()))
    assert len(rows) == count
    assert [float(row[T]) for row in rows] == [trial.values[T] for trial in found.trials]
    picture = ElementTree.fromstring((found.output / "tune.svg").read_text())
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    text = "".join(picture.itertext())
    assert "temperature" in text
    assert f"{count} trials" in text
    unset = set(re.findall(r"var\((--[\w-]+)\)", ElementTree.tostring(picture, encoding="unicode"))) - set(
        re.findall(r"(--[\w-]+):", text)
    )
    assert unset == set(), "colours that the file does not bring along"


def test_a_killed_search_repeats_no_finished_trial(
    tmp_path: Path, trained: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = searched(tmp_path / "run", {T: {"choices": [1, 2, 3]}})
    once = tuning.train_student

    def killed(job: TrialJob, prepared: Artifact | None) -> Artifact:
        if len(trained) == 2:
            raise KeyboardInterrupt  # as kill -9 would, it leaves no time to write anything
        return once(job, prepared)

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "train_student", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(recipe)
    assert [temperature(r) for r in trained] == [1, 2]
    found = tune(recipe)
    assert [temperature(r) for r in trained] == [1, 2, 3]
    assert len(found.trials) == 3
    assert tune(recipe) == found
    assert len(trained) == 3
    tune(recipe, ["tune.space={" + T + ": {choices: [3, 4]}}"])
    assert [temperature(r) for r in trained] == [1, 2, 3, 4]


def test_test_rows_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    load: Callable[[Digits, str], Rows] = Digits.load

    def noted(self: Digits, split: str) -> Rows:
        read.append(split)
        return load(self, split)

    monkeypatch.setattr(Digits, "load", noted)
    own = {"max_steps": 1, "data": {"train": "digits"}}
    recipe = searched(tmp_path / "run", {T: {"choices": [1, 2]}})
    recipe["stages"] = [stage(**own)]
    found = tune({**recipe, "data": {"train": "digits", "test": {"type": "csv", "path": "there/is/none.csv"}}})
    assert len(found.trials) == 2
    assert set(read) == {"train"}
    assert found.best.rows == 135, "a tenth of the training rows, held out"


def test_the_best_recipe_keeps_its_text(tmp_path: Path, trained: list[Recipe]) -> None:
    text = f"""\
# A comment at the top.
task: image-classification
output: {tmp_path}/run   # where to
teacher: {{config: {json.dumps(resnet(8))}, finetune: {{max_steps: 2}}}}
student: {{config: {json.dumps(resnet(4))}}}
data: {{train: digits}}

# What is searched.
tune:
  space:
    {T}: {{choices: [1, 2]}}
    {LR}: {{choices: [0.01, 0.02]}}

stages:
  - name: distil
    max_steps: 2
    terms:
      - {{type: cross_entropy, weight: 0.5}}
      - type: kl   # the teacher's part
        weight: 0.5
"""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    found = tune(path, ["seed=3"])
    assert found.best.values[T] == 2
    written = found.recipe.read_text()
    for comment in ("# A comment at the top.", "# where to", "# the teacher's part"):
        assert comment in written
    assert "tune" not in written.replace(f"{tmp_path}", "").replace("finetune", "")
    assert "What is searched" not in written
    best = load_recipe(found.recipe)
    assert best.tune is None
    assert best.seed == 3
    assert temperature(best) == 2
    assert best.stages[0].learning_rate == best.training.learning_rate == found.best.values[LR]
    assert best.teacher is not None
    assert best.teacher.finetune is not None
    assert best.teacher.finetune.learning_rate == 1e-3, "the teacher is the one that all trials had"
    (same,) = [r for r in trained if r.output.name == Path(found.best.folder).name]
    fields = {"output", "data", "evaluate"}
    assert best.model_dump(exclude=fields) == same.model_dump(exclude=fields)
    made = limbeck.run(found.recipe, until="train")
    assert made.output == tmp_path / "run"
    assert len(list((tmp_path / "run").rglob("teacher/config.json"))) == 1
    trial = json.loads((found.output / found.best.folder / "train" / "manifest.json").read_text())
    again = json.loads((made.output / "train" / "manifest.json").read_text())
    assert again["fingerprint"] == trial["fingerprint"]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"stages.distil.terms.kl.temprature": {"choices": [1]}}, "temprature(.|\n)*did you mean 'temperature'"),
        ({"stages.distil.terms.dkd.temperature": {"choices": [1]}}, "names no item of the list"),
        ({T: {"choices": [1, -1]}}, r"cannot try .*temperature=-1(.|\n)*greater than 0"),
        ({T: {"start": 1, "stop": 2, "step": 1}, W: {"choices": [0.5, "much"]}}, 'cannot try .*weight="much"'),
        ({"data.validation": {"choices": [0.1, 0.2]}}, "not a key to search(.|\n)*student"),
        ({"teacher.finetune.epochs": {"choices": [1, 2]}}, "not a key to search"),
        ({"seed": {"choices": [1, 2]}}, "not a key to search"),
        ({"training.save_steps": {"choices": [1, 2]}}, "changes nothing"),
        ({"training.precision": {"choices": ["fp32", "bf16"]}}, "would change the teacher"),
        ({T: {"low": 1, "high": 2}}, "a grid needs points"),
        ({T: {"start": 2, "stop": 1, "step": 1}}, "`stop` lies below `start`"),
        ({T: {"start": 1, "stop": 2}}, "step"),
        ({T: [1, 2]}, r"choices: \[...\]"),
        ({T: {"choices": []}}, "choices"),
        ({T: {"low": 2, "high": 1}}, "`low` must lie below"),
        ({T: {"start": 0, "stop": 1, "step": 1e-6}}, "at most"),
        ({}, "space"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_runs(tmp_path: Path, space: dict[str, Any], said: str) -> None:
    with pytest.raises(LimbeckError, match=said):
        tune(searched(tmp_path / "run", space))
    assert not (tmp_path / "run").exists()


def test_a_key_that_the_stages_set_themselves_is_no_key_of_training(tmp_path: Path) -> None:
    recipe = searched(tmp_path / "run", {LR: {"choices": [1e-3, 1e-2]}})
    recipe["stages"] = [stage(learning_rate=1e-3)]
    with pytest.raises(RecipeError, match="changes nothing"):
        tune(recipe)


def test_layers_that_the_teacher_has_not_are_refused(tmp_path: Path) -> None:
    recipe = texts(tmp_path / "run", tmp_path / "rows.csv", tune={"space": {"student.layers": {"choices": [[0], [7]]}}})
    with pytest.raises(RecipeError, match=r"student\.layers=\[7\](.|\n)*0 to 1"):
        tune(recipe)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"metric": "accuracy"}, "no accuracy"), ({"trials": 3}, "`trials` goes with")],
)
def test_a_plan_that_cannot_be_is_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        tune(language(tmp_path / "run", tune={"space": {T: {"choices": [1, 2]}}, **fields}))


def test_nothing_to_search(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no `tune` section"):
        tune(images(tmp_path / "run"), trials=3)
    with pytest.raises(RecipeError, match="every default spelled out"):
        tune(load_recipe(searched(tmp_path / "run", {T: {"choices": [1]}})))  # type: ignore[arg-type]


def test_a_trial_that_fails_is_told_and_the_others_go_on(tmp_path: Path, trained: list[Recipe]) -> None:
    recipe = searched(tmp_path / "run", {W: {"choices": [0.5, 1e38]}})
    found = tune(recipe)
    assert [trial.metrics is None for trial in found.trials] == [False, True]
    assert "finite" in str(found.trials[1].reason)
    assert found.best.number == 1
    assert found.ranked()[-1].number == 2
    assert len(trained) == 2
    assert tune(recipe) == found
    assert len(trained) == 2, "the same values would fail again"


def test_when_every_trial_fails_there_is_no_best(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"every trial failed(.|\n)*finite"):
        tune(searched(tmp_path / "run", {W: {"choices": [1e38]}}))
    assert not (tmp_path / "run" / "tune" / "best.yaml").exists()


def test_language_models_are_searched_by_loss(tmp_path: Path) -> None:
    found = tune(language(tmp_path / "run", tune={"space": {LR: {"choices": [1e-9, 1e-2]}}}))
    assert (found.metric, found.standard_error, found.best.values) == ("loss", None, {LR: 1e-2})


def test_what_lies_within_a_standard_error_is_a_tie(tmp_path: Path) -> None:
    scores = (0.8, 0.9, 0.872, 0.869)
    trials = tuple(Trial(i, {}, {"accuracy": s, "loss": 1.0}, 100, None, 1.0, "") for i, s in enumerate(scores))
    found = TuneReport(tmp_path, "accuracy", trials, trials[1], standard_error(trials[1], "accuracy"))
    assert found.standard_error == pytest.approx((0.9 * 0.1 / 100) ** 0.5)
    assert [found.tied(trial) for trial in trials] == [False, True, True, False]
    assert [trial.number for trial in found.ranked()] == [1, 2, 3, 0]


def test_tpe_in_a_run(tmp_path: Path, trained: list[Recipe]) -> None:
    space = {T: {"low": 1, "high": 8}, "student.config.embedding_size": {"choices": [4, 6]}}
    recipe = searched(tmp_path / "run", space, sampler="tpe", seed=2)
    found = tune(recipe, trials=3)
    assert len(found.trials) == len(trained) == 3
    more = tune(recipe, trials=4)
    assert more.trials[:3] == found.trials
    assert len(trained) == 4


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"pip install 'limbeck\[tune\]'"):
        tune(searched(tmp_path / "run", {T: {"low": 1, "high": 8}}, sampler="tpe"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("snippet", re.findall(r"```yaml\n(tune:.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL))
def test_the_page_shows_recipes_that_are_ones(snippet: str) -> None:
    given = images(Path("run"), **yaml.safe_load(snippet))
    recipe = load_recipe(given)
    assert recipe.tune is not None
    Candidates(given, recipe.tune).check()
