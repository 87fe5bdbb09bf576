"""What is known to fail is refused before the teacher's training; and what redoes which step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import limbeck
from limbeck.core import artifacts
from limbeck.core.errors import DataError, LimbeckError, ModelError
from limbeck.core.recipe import Teacher, load_recipe
from limbeck.core.types import Sample
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._student import make_student
from limbeck.pipeline._teaching import HOW, how_it_teaches, load_teachers, routes, what_it_is
from limbeck.pipeline.prepare import prepare
from tests.pipeline.recipes import images, language, resnet, stage, texts

CUT = {"model": "from-teacher"}
HINT = {"type": "fitnets", "match": {"encoder.stages.7": "encoder.stages.1"}}


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ({"num_attention_heads": 3}, r"num_attention_heads does not fit(.|\n)*up to 2"),
        ({"num_attention_heads": 1}, "hidden_size=8"),
        ({"hidden_size": 5}, "hidden_size=4"),
        ({"compact": {"segment_lenght": 4}}, "segment_length"),
        ({"compact": {"summary_tokens": -1}}, "summary_tokens is negative"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_cut_that_cannot_work(tmp_path: Path, student: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        limbeck.run(texts(tmp_path / "run", tmp_path / "rows.csv", student={**CUT, **student}))
    assert not (tmp_path / "run" / "prepare").exists()


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (stage(terms=[HINT]), r"encoder\.stages\.7"),
        (stage(terms=[{**HINT, "match": {"encoder.stages.*": "encoder.stages.0"}}]), "different numbers of layers"),
        (stage(terms=[{"type": "dkd"}], augment=[{"type": "mixup"}]), r"one true class(.|\n)*mixup"),
        (
            stage(
                terms=[{"type": "crd", "negatives": "other_class", "match": {"pooler": "pooler"}}],
                augment=[{"type": "cutmix"}],
            ),
            r"'crd' tells one true class(.|\n)*cutmix",
        ),
    ],
    ids=["layer", "numbers", "dkd-mixup", "crd-cutmix"],
)
def test_terms_that_cannot_work(tmp_path: Path, plan: dict[str, Any], said: str) -> None:
    with pytest.raises(LimbeckError, match=said):
        limbeck.run(images(tmp_path / "run", stages=[plan]))
    assert not (tmp_path / "run" / "prepare").exists()


def test_how_a_teacher_teaches_is_no_part_of_what_it_is() -> None:
    plain = Teacher(config=resnet(4), finetune={"max_steps": 2})
    changed = {"decay": 0.5, "remember": True, "combine": "weighted", "weight": 2.0, "domain": "d", "domains": ["u"]}
    assert set(changed) == set(HOW)
    for name, value in changed.items():
        other = plain.model_copy(update={name: value})
        assert what_it_is(other) == what_it_is(plain), name
        assert how_it_teaches(other) != how_it_teaches(plain), name
    another = plain.model_copy(update={"config": resnet(6)})
    assert what_it_is(another) != what_it_is(plain)
    assert how_it_teaches(another) == how_it_teaches(plain)


def test_the_student_is_trained_again_but_not_the_teacher(tmp_path: Path) -> None:
    def run(width: int = 4, **first: Any) -> list[int]:
        one = {"config": resnet(width), "finetune": {"max_steps": 1}}
        teacher = {**one, "also": [one], **first}
        limbeck.run(images(tmp_path / "run", teacher=teacher, stages=[stage(max_steps=1)]), until="train")
        return [(tmp_path / "run" / s / "manifest.json").stat().st_mtime_ns for s in ("prepare", "train")]

    plain, weighed = run(), run(combine="weighted", weight=3)
    assert weighed[0] == plain[0]
    assert weighed[1] != plain[1]
    wider = run(width=6, combine="weighted", weight=3)
    assert wider[0] != plain[0]
    assert wider[1] != weighed[1]


def test_a_cut_student_begins_alike_whatever_was_drawn_before(tmp_path: Path) -> None:
    """A factorised or compact student has new weights, and the teacher's training draws."""
    student = {**CUT, "compact": {"embedding_size": 8, "segment_length": 8, "summary_tokens": 2}}
    recipe = load_recipe(texts(tmp_path / "run", tmp_path / "rows.csv", student=student))
    recipe.output.mkdir()
    found = []
    for draws in (0, 5):
        job = RunJob(recipe)
        read = load_teachers(job, prepare(job))
        torch.rand(draws + 1)
        found.append(make_student(job, read, "train").model.state_dict())
    assert found[0].keys() == found[1].keys()
    assert all(value.equal(found[1][name]) for name, value in found[0].items())


def test_one_id_with_two_domains_is_refused() -> None:
    second = {"config": resnet(4), "finetune": {"max_steps": 1}, "domains": ["u"]}
    spec = Teacher(**{**second, "domains": ["k"]}, combine="domain", domain="d", also=[second])

    def rows(*domains: str) -> list[Sample]:
        return [Sample("same", {}, 0, meta={"d": each}) for each in domains]

    assert routes(spec, rows("u", "u")) == {"same": 1}
    with pytest.raises(DataError, match=r"one id(.|\n)*same(.|\n)*data\.id"):
        routes(spec, rows("u", "k"))


def test_tokens_that_a_task_adds_do_not_go_with_lora(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    limbeck.run(language(tmp_path / "first"), until="train")
    ready = str(tmp_path / "first" / "train" / "student")
    task = {"type": "structured-reasoning", "max_length": 128}
    recipe = language(tmp_path / "run", task=task, teacher=None, stages=[stage(terms=[{"type": "cross_entropy"}])])
    recipe["student"] = {"model": ready, "lora": {"r": 2}}
    with pytest.raises(ModelError, match="beside LoRA"):
        limbeck.run(recipe, until="train")


def test_a_stage_that_reads_layers_alone_keeps_its_last_weights(tmp_path: Path) -> None:
    """Its validation score, from answers that are not learned, says nothing."""
    hint = stage(max_steps=4, eval_steps=1, terms=[{**HINT, "match": {"encoder.stages.1": "encoder.stages.1"}}])
    limbeck.run(images(tmp_path / "run", stages=[hint]), until="train")
    assert artifacts.load(tmp_path / "run" / "train").manifest["best"][0]["best_step"] == 4
