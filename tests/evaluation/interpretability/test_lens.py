"""The logit lens against norm and head written out; what is asked of a language model."""

from __future__ import annotations

import pytest
import torch

from limbeck.core.errors import ModelError
from limbeck.core.types import IGNORE
from limbeck.evaluation.interpretability.lens import asked_for, path_of
from tests.evaluation.interpretability.rows import language, model_for, pictures, plain, texts, view_of


@torch.no_grad()
def test_a_language_models_layers_through_norm_and_head() -> None:
    rows, codec = language()
    model = model_for("llama", codec)
    view = view_of(model, rows, codec)
    for sample in ("0", "3"):
        place = asked_for(codec, view.batch([sample]).labels[0])
        said = plain(model, view, sample, output_hidden_states=True)
        found = path_of(view, sample)
        assert [step["layer"] for step in found] == [f"model.layers.{i}" for i in range(4)]
        for i, step in enumerate(found):
            last = i == len(found) - 1
            logits = (
                said.logits[0, place] if last else model.lm_head(model.model.norm(said.hidden_states[i + 1]))[0, place]
            )
            assert step["answer"] == codec.processor.decode([int(logits.argmax())])
            assert step["probability"] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-8)
    assert len({step["answer"] for step in found}) > 1


@pytest.mark.parametrize("name", ["bert", "vit"])
@torch.no_grad()
def test_a_classifiers_layers_through_its_own_head(name: str) -> None:
    rows, codec = texts() if name == "bert" else pictures()
    model = model_for(name, codec)
    view = view_of(model, rows, codec)
    said = plain(model, view, "2", output_hidden_states=True)
    found = path_of(view, "2")
    for i, step in enumerate(found):
        state = said.hidden_states[i + 1]
        if i == len(found) - 1:
            logits = said.logits[0]
        elif name == "bert":
            logits = model.classifier(model.bert.pooler(state))[0]
        else:
            logits = model.classifier(model.vit.layernorm(state)[:, 0])[0]
        assert step["answer"] == "xy"[int(logits.argmax())]
        assert step["probability"] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-8)


def test_stages_of_different_shapes_have_no_path_and_no_hook_stays() -> None:
    rows, codec = pictures()
    model = model_for("resnet", codec)
    with pytest.raises(ModelError, match="different shapes"):
        path_of(view_of(model, rows, codec), "0")
    rows, codec = texts()
    model = model_for("bert", codec)
    path_of(view_of(model, rows, codec), "0")
    assert not any(part._forward_hooks for part in model.modules())


def test_the_final_answer_is_asked_for_where_one_can_be_told() -> None:
    _, codec = language(answer_pattern=r"#(\d+)")
    ids = codec.processor("ab #7 or rather #31.")["input_ids"]
    labels = torch.tensor([IGNORE, IGNORE, *ids])
    place = asked_for(codec, labels)
    before = codec.processor.decode(ids[: place - 2])
    assert before.rstrip("#").endswith("rather ")
    assert codec.processor.decode(ids[place - 2 :]).lstrip("#").startswith("31")
    none = torch.tensor([IGNORE, *codec.processor("no answer")["input_ids"]])
    assert asked_for(codec, none) == 1
    assert asked_for(language()[1], labels) == 2
