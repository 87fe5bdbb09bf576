"""What a recipe may say, how mistakes are told, and what its sections hand on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import Optimization, Recipe, TrainTokenizer, dump_recipe, load_recipe
from limbeck.data.sources.csv import CSV
from limbeck.data.sources.digits import Digits
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.objectives.temperature import Fixed
from tests.core.recipes import ROOT, SHIPPED, recipe, refusal, with_value


def test_a_valid_recipe_becomes_parts_and_sections() -> None:
    made = load_recipe(recipe())
    assert made.task.type() == "image_classification"
    assert made.output == Path("runs/x")
    assert isinstance(made.data.train, Digits)
    hard, soft = made.stages[0].terms
    assert isinstance(hard, CrossEntropy)
    assert hard.weight(0.5) == pytest.approx(0.5)
    assert (soft.type(), soft.temperature.value) == ("kl", 2.0)
    assert made.teacher is not None
    assert made.teacher.finetune is not None
    assert [term.type() for term in made.teacher.finetune.terms] == ["cross_entropy"]


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(recipe()).seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("sede", "seed"),
        ("zzzz", None),
        ("task.max_lenght", "max_length"),
        ("data.lable", "label"),
        ("data.train.test_sise", "test_size"),
        ("data.validation.test_sise", "test_size"),
        ("data.test.test_sise", "test_size"),
        ("teacher.modle", "model"),
        ("teacher.finetune.epohcs", "epochs"),
        ("teacher.finetune.terms.0.lable_smoothing", "label_smoothing"),
        ("teacher.finetune.terms.0.weight.strat", "start"),
        ("teacher.tokenizer.vocab_sise", "vocab_size"),
        ("student.layer", "layers"),
        ("training.learning_rat", "learning_rate"),
        ("stages.0.epoch", "epochs"),
        ("stages.0.terms.0.wieght", "weight"),
        ("stages.0.terms.1.temprature", "temperature"),
        ("stages.0.terms.0.weight.ned", "end"),
        ("stages.0.data.trian", "train"),
        ("stages.0.data.train.test_sise", "test_size"),
        ("evaluate.splt", "split"),
        ("report.titel", "title"),
    ],
)
def test_an_unknown_key_is_named_with_its_path_and_the_nearest_one(path: str, meant: str | None) -> None:
    raw = _with_openings()
    *inner, last = path.split(".")
    node: Any = raw
    for key in inner:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    node[last] = 1
    lines = refusal(raw).splitlines()[1:]
    hint = f"did you mean '{meant}'?" if meant else f"allowed: {', '.join(Recipe.model_fields)}"
    assert lines == [f"  {path}: unknown key; {hint}"]


def _with_openings() -> dict[str, Any]:
    """The recipe with every place where a mistake can be made spelled out as a mapping."""
    raw = recipe(task={"type": "causal-lm"})
    digits = {"type": "digits"}
    raw["data"] = {"train": dict(digits), "validation": dict(digits), "test": dict(digits)}
    raw["stages"][0]["data"] = {"train": dict(digits)}
    raw["teacher"]["tokenizer"] = {"train": "bpe", "vocab_size": 300}
    weight = {"type": "linear", "start": 0, "end": 1}
    raw["teacher"]["finetune"]["terms"] = [{"type": "cross_entropy", "weight": weight}]
    return raw


def test_every_mistake_is_told_at_once() -> None:
    raw = with_value("data.lable", "x")
    raw["stages"][0]["epochs"] = 0
    raw["training"] = {"learning_rat": 1}
    found = refusal(raw)
    for path in ("data.lable", "stages.0.epochs", "training.learning_rat"):
        assert f"  {path}: " in found


def test_a_wrong_value_of_training_is_told_once_and_not_for_every_heir() -> None:
    lines = refusal(with_value("training.learning_rate", -1)).splitlines()[1:]
    assert lines == ["  training.learning_rate: Input should be greater than 0, got -1"]
    both = with_value("training.learning_rate", -1)
    both["stages"][0]["warmup_ratio"] = 2
    assert len(refusal(both).splitlines()) == 3


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("task", "causal-ml", "did you mean 'causal_lm'?"),
        ("task", {"type": "causal-ml"}, "did you mean 'causal_lm'?"),
        ("task", {"max_length": 3}, "a task needs its `type:`"),
        ("task", 3, "this names no task"),
        ("data.train", "digitz", "did you mean 'digits'?"),
        ("data.train", {"type": "csv"}, "data.train.path: Field required"),
        ("data.validation", 1.0, "between 0 and 1"),
        ("data.validation", 0, "between 0 and 1"),
        ("data.validation", math.nan, "between 0 and 1"),
        ("data.validation", True, "data.validation: this names no source"),
        ("data.validation", "0.1", "data.validation: this names no source"),
        ("data.max_samples", 0, "data.max_samples"),
        ("data", "digits", "data: a mapping of keys to values is wanted, got 'digits'"),
        ("training.learning_rate", math.inf, "finite"),
        ("training.report_to", "wandb", "training.report_to"),
        ("training.report_to", ["wandbb"], "training.report_to.0: Input should be 'tensorboard', 'wandb'"),
        ("seed", -1, "seed: Input should be greater than or equal to 0"),
        ("data.seed", -1, "data.seed: Input should be greater than or equal to 0"),
        ("stages", [], "at least 1 item"),
        ("stages", ["distil"], "stages.0: a mapping of keys to values is wanted"),
        ("stages.0.terms", [], "stages.0.terms"),
        ("stages.0.epochs", math.inf, "finite"),
        ("stages.0.terms.1.temperature", 0, "greater than 0"),
        ("stages.0.terms.1.temperature", math.inf, "finite"),
        ("stages.0.terms.0.weight", True, "this names no schedule"),
        ("stages.0.terms.0.weight", math.nan, "finite"),
        ("stages.0.terms.0.weight", {"type": "linear", "start": 1}, "stages.0.terms.0.weight.end: Field required"),
        ("teacher.finetune", True, "teacher.finetune: a mapping of keys to values is wanted, got True"),
        ("teacher.tokenizer", 3, "teacher.tokenizer: a name, a folder or {train: bpe} is wanted, got 3"),
        ("student", {}, "exactly one of `model` and `config`"),
        ("student", {"model": "a", "config": {"model_type": "bert"}}, "exactly one of `model` and `config`"),
        ("student", {"config": {"hidden_size": 3}}, "a config needs `model_type`"),
        ("evaluate.confidence", 0.5, "evaluate.confidence"),
        ("output", 3, "output"),
    ],
)
def test_a_wrong_value_is_refused_at_its_path(path: str, value: Any, said: str) -> None:
    found = refusal(with_value(path, value))
    assert said in found
    assert f"  {path.split('.')[0]}" in found
    assert "function-" not in found
    assert len([line for line in found.splitlines() if line.startswith("  ") and line[2] != " "]) == 1


def test_missing_sections_are_named() -> None:
    found = refusal({"task": "causal-lm"})
    for key in ("output", "student", "data", "stages"):
        assert f"  {key}: Field required" in found


def test_braces_in_a_key_do_not_break_the_message() -> None:
    assert "stages.0.terms.1.{key}: unknown key" in refusal(with_value("stages.0.terms.1.{key}", 1))


class TestTeacher:
    def test_may_be_left_out_while_nobody_asks(self) -> None:
        stage = {"name": "alone", "terms": [{"type": "cross_entropy"}]}
        assert load_recipe({**recipe(stages=[stage]), "teacher": None}).teacher is None

    def test_is_needed_by_kl(self) -> None:
        found = refusal({**recipe(), "teacher": None})
        assert "the recipe has no `teacher`, but these terms need one: kl" in found

    def test_has_no_teacher_of_its_own(self) -> None:
        found = refusal(with_value("teacher.finetune.terms", [{"type": "kl"}]))
        assert "teacher.finetune: the teacher has no teacher of its own" in found

    def test_that_is_new_must_be_trained(self) -> None:
        found = refusal(recipe(teacher={"config": {"model_type": "resnet"}}))
        assert "  teacher: a new teacher knows nothing; add `finetune`" in found

    def test_cannot_be_from_teacher(self) -> None:
        assert "`from-teacher` is for the student" in refusal(recipe(teacher={"model": "from-teacher"}))


class TestFromTeacher:
    def test_keeps_layers(self) -> None:
        made = load_recipe(recipe(student={"model": "from-teacher", "layers": [0, 2]}))
        assert made.student.layers == [0, 2]

    def test_needs_a_teacher(self) -> None:
        stage = {"name": "alone", "terms": [{"type": "cross_entropy"}]}
        raw = {**recipe(student={"model": "from-teacher", "layers": [0]}, stages=[stage]), "teacher": None}
        assert "the student is `from-teacher`, but the recipe has no `teacher`" in refusal(raw)

    @pytest.mark.parametrize("student", [{"model": "from-teacher"}, {"model": "other", "layers": [0]}])
    def test_goes_with_layers_and_layers_with_it(self, student: dict[str, Any]) -> None:
        told = refusal(recipe(student=student))
        assert "what is kept, for instance `layers: [0, 5]`" in told or "only with `model: from-teacher`" in told

    @pytest.mark.parametrize("layers", [[], [-1], ["top"]])
    def test_refuses_layers_that_no_model_has(self, layers: list[Any]) -> None:
        assert "student.layers" in refusal(recipe(student={"model": "from-teacher", "layers": layers}))


def test_stages_and_terms_are_told_apart_by_name() -> None:
    stage = recipe()["stages"][0]
    assert "stage names must differ; given twice: distil" in refusal(recipe(stages=[stage, stage]))
    twice = with_value("stages.0.terms", [{"type": "kl"}, {"type": "kl", "temperature": 4}])
    assert "stages.0: two terms are called kl" in refusal(twice)
    twice["stages"][0]["terms"][1]["name"] = "soft_kl"
    assert [term.label for term in load_recipe(twice).stages[0].terms] == ["kl", "soft_kl"]


class TestInheritance:
    def test_stages_and_finetune_start_from_training(self) -> None:
        made = load_recipe(recipe(training={"learning_rate": 0.5, "global_batch_size": 7, "save_steps": 9}))
        assert made.teacher is not None
        assert made.teacher.finetune is not None
        for heir in (made.stages[0], made.teacher.finetune):
            assert (heir.learning_rate, heir.global_batch_size) == (0.5, 7)

    def test_what_they_set_themselves_holds(self) -> None:
        raw = recipe(training={"learning_rate": 0.5, "warmup_ratio": 0.2})
        raw["stages"][0]["learning_rate"] = 0.25
        raw["teacher"]["finetune"]["warmup_ratio"] = 0
        made = load_recipe(raw)
        assert made.teacher is not None
        assert made.teacher.finetune is not None
        assert (made.stages[0].learning_rate, made.stages[0].warmup_ratio) == (0.25, 0.2)
        assert (made.teacher.finetune.learning_rate, made.teacher.finetune.warmup_ratio) == (0.5, 0)

    @pytest.mark.parametrize("field", sorted(Optimization.model_fields))
    def test_every_field_of_optimization_is_handed_on(self, field: str) -> None:
        other = {"lr_scheduler_type": "linear", "group_by_length": False}.get(field, 3)
        if field in ("warmup_ratio", "adam_beta1", "adam_beta2"):
            other = 0.25
        made = load_recipe(recipe(training={field: other}))
        assert getattr(made.training, field) == getattr(made.stages[0], field) == other

    def test_the_mapping_given_is_left_as_it_was(self) -> None:
        raw = recipe(training={"learning_rate": 0.5})
        before = recipe(training={"learning_rate": 0.5})
        load_recipe(raw, ["stages.distil.epochs=9", "training.save_steps=1"])
        assert raw == before


@pytest.mark.parametrize("section", ["training", "evaluate", "report"])
def test_a_section_with_all_lines_commented_out_is_left_out(section: str) -> None:
    assert load_recipe({**recipe(), section: None}) == load_recipe(recipe())


def test_a_tokenizer_is_a_name_or_trained() -> None:
    assert load_recipe(with_value("teacher.tokenizer", "gpt2")).teacher.tokenizer == "gpt2"  # type: ignore[union-attr]
    trained = load_recipe(with_value("teacher.tokenizer", {"vocab_size": 300}))
    assert trained.teacher.tokenizer == TrainTokenizer(vocab_size=300)  # type: ignore[union-attr]


def test_a_tilde_is_the_users_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    made = load_recipe(recipe(teacher={"model": "~/models/a", "tokenizer": "~/b"}, student={"model": "org/x~y"}))
    assert made.teacher is not None
    assert (made.teacher.model, made.teacher.tokenizer) == ("/home/someone/models/a", "/home/someone/b")
    assert made.student.model == "org/x~y"


def test_validation_is_a_share_or_a_source() -> None:
    assert load_recipe(with_value("data.validation", 0.25)).data.validation == 0.25
    assert load_recipe(with_value("data.validation", "v.csv")).data.validation == CSV(path=Path("v.csv"))
    assert load_recipe(with_value("data.validation", None)).data.validation is None


def test_numbers_are_numbers_inside_a_config(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "task: causal-lm\noutput: o\ndata: {train: t.jsonl}\ntraining: {learning_rate: 3e-4}\n"
        "student: {config: {model_type: qwen3, rms_norm_eps: 1e-5, rope_theta: 3e4, nested: {deep: [1E+3, .5e1]}}}\n"
        "stages: [{name: a, terms: [cross_entropy]}]\n"
    )
    made = load_recipe(path)
    assert made.stages[0].learning_rate == 3e-4
    assert made.student.config == {
        "model_type": "qwen3",
        "rms_norm_eps": 1e-5,
        "rope_theta": 3e4,
        "nested": {"deep": [1e3, 5.0]},
    }


class TestRoundTrip:
    @pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
    def test_shipped_recipes_parse_and_survive(self, path: Path) -> None:
        made = load_recipe(path)
        assert load_recipe(dump_recipe(made)) == made
        assert dump_recipe(load_recipe(dump_recipe(made))) == dump_recipe(made)

    def test_every_default_is_spelled_out(self) -> None:
        dumped = dump_recipe(load_recipe(recipe()))
        assert set(dumped) == set(Recipe.model_fields)
        assert dumped["stages"][0]["terms"][1]["weight"] == {"type": "constant", "value": 1.0}
        assert dumped["training"]["learning_rate"] == 1e-3

    @given(
        seed=st.integers(0, 2**31 - 1),
        rate=st.floats(1e-8, 10),
        epochs=st.floats(0.01, 1e3),
        weight=st.floats(-5, 5),
        share=st.floats(0.01, 0.99),
        layers=st.lists(st.integers(0, 99), min_size=1, max_size=4),
        title=st.none() | st.text(max_size=20),
    )
    def test_any_values_survive(
        self, seed: int, rate: float, epochs: float, weight: float, share: float, layers: list[int], title: str | None
    ) -> None:
        stage = {"name": "s", "epochs": epochs, "terms": [{"type": "kl", "weight": weight}]}
        made = load_recipe(
            recipe(
                seed=seed,
                student={"model": "from-teacher", "layers": layers},
                data={"train": "rows.jsonl", "validation": share},
                training={"learning_rate": rate},
                stages=[stage],
                report={"title": title},
            )
        )
        assert load_recipe(dump_recipe(made)) == made

    def test_a_loaded_recipe_takes_overrides(self) -> None:
        made = load_recipe(load_recipe(recipe()), ["stages.distil.terms.kl.temperature=7"])
        assert made.stages[0].terms[1].temperature == Fixed(value=7)

    def test_the_stored_json_is_a_recipe_file(self, tmp_path: Path) -> None:
        from limbeck.core.artifacts import write_json

        made = load_recipe(recipe(training={"learning_rate": 1e-5}))
        write_json(tmp_path / "recipe.json", dump_recipe(made))
        assert load_recipe(tmp_path / "recipe.json") == made


def test_there_are_recipes_to_look_at() -> None:
    assert any(path.parent.name == "recipes" for path in SHIPPED)
    assert len([path for path in SHIPPED if path.parent.name == "templates"]) == 3


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("task: causal-lm\n")
    with pytest.raises(RecipeError, match=r"mine\.yaml is not a valid recipe"):
        load_recipe(path)


def test_a_gate_cannot_go_by_what_the_teacher_says() -> None:
    assert "weighted_kl, by: loss_ratio" in refusal(with_value("stages.0.gate", {"by": "loss_ratio", "share": 0.5}))


@pytest.mark.parametrize("name", ["", "a/b", "a.b", " a", "-a", "ä"])
def test_a_terms_name_is_plain(name: str) -> None:
    """It is a key of the log, of modules and of files."""
    assert "stages.0.terms.1" in refusal(with_value("stages.0.terms.1.name", name))


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_has_bounds(seed: int) -> None:
    assert "seed" in refusal(with_value("seed", seed))
    assert load_recipe(with_value("seed", 2**31 - 1)).seed == 2**31 - 1
