"""Several teachers as one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from limbeck.core.errors import DataError
from limbeck.core.types import Batch, Dense, Mixture, Needs
from limbeck.teachers.ensemble import EnsembleTeacher
from limbeck.teachers.gated import GatedTeacher, difficulty
from limbeck.teachers.local import LocalTeacher
from tests.models.conftest import batch_of, new

ASK = Needs(dist=True)


def two(name: str = "bert") -> tuple[list[LocalTeacher], Batch]:
    torch.manual_seed(0)
    members = [LocalTeacher(new(name)), LocalTeacher(new(name))]
    batch = batch_of(members[0].model)
    return members, batch if name == "qwen3" else replace(batch, labels=torch.tensor([0, 1]))


def probabilities(member: LocalTeacher, batch: Batch) -> torch.Tensor:
    return member.model(**batch.inputs).logits.softmax(-1)


def test_mean_and_weighted_are_mixtures_of_probabilities() -> None:
    members, batch = two()
    one, other = (probabilities(m, batch) for m in members)
    mean = EnsembleTeacher(members).signal(batch, ASK).dist
    assert isinstance(mean, Dense)
    torch.testing.assert_close(mean.logits.exp(), (one + other) / 2)
    told = EnsembleTeacher(members, "weighted", [3.0, 1.0]).signal(batch, ASK).dist
    assert isinstance(told, Dense)
    torch.testing.assert_close(told.logits.exp(), 0.75 * one + 0.25 * other)


def test_confidence_listens_to_the_certain_one() -> None:
    members, batch = two()
    with torch.no_grad():
        members[1].model.classifier.weight.zero_()
        members[1].model.classifier.bias.zero_()  # knows nothing
    told = EnsembleTeacher(members, "confidence").signal(batch, ASK).dist
    assert isinstance(told, Dense)
    one, other = (probabilities(m, batch) for m in members)
    entropies = torch.stack([torch.special.entr(p).sum(1) for p in (one, other)], 1)
    weights = (-entropies).softmax(1)
    torch.testing.assert_close(told.logits.exp(), weights[:, :1] * one + weights[:, 1:] * other)
    assert (weights[:, 0] > weights[:, 1]).all()


def test_a_domain_is_the_business_of_one() -> None:
    members, batch = two()
    seen: list[tuple[str, ...]] = []
    for member in members:
        ask = member.signal
        member.signal = lambda b, n, ask=ask: (seen.append(b.ids), ask(b, n))[1]  # type: ignore[method-assign]
    routes = {batch.ids[0]: 1, batch.ids[1]: 0}
    told = EnsembleTeacher(members, "domain", routes=routes).signal(batch, ASK).dist
    assert isinstance(told, Dense)
    assert seen == [(batch.ids[1],), (batch.ids[0],)]
    torch.testing.assert_close(told.logits[0].exp(), probabilities(members[1], batch.rows(torch.tensor([0])))[0])
    torch.testing.assert_close(told.logits[1].exp(), probabilities(members[0], batch.rows(torch.tensor([1])))[0])
    with pytest.raises(DataError, match="no teacher"):
        EnsembleTeacher(members, "domain", routes={}).signal(batch, ASK)


def test_language_models_are_mixed_without_their_logits() -> None:
    members, batch = two("qwen3")
    told = EnsembleTeacher(members).signal(batch, ASK).dist
    assert isinstance(told, Mixture)
    assert len(told.members) == 2
    torch.testing.assert_close(told.log_weights.exp(), torch.full((2, 2), 0.5))


def test_layers_are_the_first_teachers() -> None:
    members, batch = two()
    need = Needs(features=frozenset({"bert.encoder.layer.0"}))
    told = EnsembleTeacher(members).signal(batch, need)
    assert told.dist is None
    wanted = members[0].signal(batch, need).features["bert.encoder.layer.0"]
    torch.testing.assert_close(told.features["bert.encoder.layer.0"], wanted)


@pytest.mark.parametrize("by", ["entropy", "margin", "loss"])
@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_difficulty_is_what_it_says(name: str, by: str) -> None:
    torch.manual_seed(0)
    teacher = LocalTeacher(new(name))
    batch = batch_of(teacher.model)
    labels = batch.labels.clone() if name == "qwen3" else torch.tensor([0, 1])
    if labels.ndim == 2:
        labels[0, :4] = -100
    logs = teacher.model(**batch.inputs).logits.log_softmax(-1)
    dist = teacher.signal(batch, ASK).dist
    assert dist is not None
    found = difficulty(dist, labels, by)
    for row in range(2):
        values = []
        for place in range(labels[row].numel()):
            label = int(labels[row].reshape(-1)[place])
            if label == -100:
                continue
            here = logs[row].reshape(-1, logs.shape[-1])[place]
            best = here.exp().sort(descending=True).values
            entropy = -(here.exp() * here).sum() / torch.log(torch.tensor(float(len(here))))
            values.append({"entropy": entropy, "margin": 1 - best[0] + best[1], "loss": -here[label]}[by])
        torch.testing.assert_close(found[row], torch.stack(values).mean())


def test_a_gate_leaves_the_easy_ones_out() -> None:
    members, batch = two()
    gate = GatedTeacher(members[0], members[1].model, "entropy", share=0.5)
    told = gate.signal(batch, Needs(True, frozenset({"bert.encoder.layer.0"})))
    mine = members[1].signal(batch, ASK).dist
    assert mine is not None
    hard = int(difficulty(mine, batch.labels, "entropy").argmax())
    assert told.weights is not None
    assert told.weights.tolist() == [float(i == hard) for i in range(2)]
    whole = members[0].signal(batch.rows(torch.tensor([hard])), ASK).dist
    torch.testing.assert_close(told.dist.logits[hard], whole.logits[0])  # type: ignore[union-attr]
    assert (told.dist.logits[1 - hard] == 0).all()  # type: ignore[union-attr]
    assert (told.features["bert.encoder.layer.0"][1 - hard] == 0).all()
    none = GatedTeacher(members[0], members[1].model, "entropy", threshold=2.0).signal(batch, ASK)
    assert none.weights is not None
    assert not none.weights.any()
