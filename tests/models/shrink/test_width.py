"""A narrower stream: equal where nothing was lost, and honest about what is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.core.errors import ModelError
from limbeck.models.shrink import project_width
from limbeck.models.shrink.draft import Draft
from limbeck.models.shrink.heads import cut_heads
from limbeck.models.shrink.width import cut_width, principal, project, stream_basis
from tests.models.conftest import inputs_of, new
from tests.models.shrink.test_heads import SAME, stir


def confine(model: Any, basis: torch.Tensor) -> None:
    """Let everything that is written to the stream lie in the span of the basis [D, d]."""
    onto, draft = (basis @ basis.mT).float(), Draft.of(model)
    with torch.no_grad():
        for table in draft.anatomy.embeddings:
            weight = model.get_parameter(f"{draft.body}{table}.weight")
            weight.copy_(weight @ onto)
        for name in draft.names(draft.anatomy.out, draft.anatomy.down):
            module = model.get_submodule(name)
            module.weight.copy_(onto @ module.weight)
            if module.bias is not None:
                module.bias.copy_(onto @ module.bias)


@pytest.mark.parametrize("name", ["llama", "qwen3", "qwen2"])
def test_another_basis_of_full_width_changes_nothing(name: str) -> None:
    teacher = stir(new("llama", model_type=name))
    draft = Draft.of(teacher)
    project(draft, torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))[0], 1.0)
    turned, inputs = draft.build().eval(), inputs_of(teacher)
    torch.testing.assert_close(turned(**inputs).logits, teacher(**inputs).logits, **SAME)
    assert not torch.allclose(turned.model.embed_tokens.weight, teacher.model.embed_tokens.weight)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_a_decoder_whose_stream_is_narrow_loses_nothing(name: str, tmp_path: Path) -> None:
    teacher = stir(new("llama", model_type=name))
    confine(teacher, torch.linalg.qr(torch.randn(16, 6, dtype=torch.float64))[0])
    student, inputs = project_width(teacher, 6).eval(), inputs_of(teacher)
    assert student.config.hidden_size == 6
    assert student.model.layers[0].self_attn.head_dim == 8
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**inputs).logits, teacher(**inputs).logits, rtol=1e-3, atol=1e-3)


def test_an_encoder_whose_stream_is_narrow_loses_nothing() -> None:
    """With equal norm weights, which commute with a projection; a spare head and spare pooler units go."""
    teacher = stir(new("bert"))
    moment = torch.diag(torch.arange(1.0, 17, dtype=torch.float64))
    basis, _ = principal(moment, 8, mean_off=True)
    confine(teacher, basis)
    onto = (basis @ basis.mT).float()
    for name, module in teacher.named_modules():
        if name.endswith("LayerNorm"):
            module.weight.data.fill_(0.7)
            module.bias.data = onto @ module.bias.data
        if name.endswith("attention.output.dense"):
            module.weight.data[:, :8] = 0
    teacher.classifier.weight.data[:, ::2] = 0
    draft = Draft.of(teacher)
    cut_heads(draft, 1)
    cut_width(draft, 8)
    student, inputs = draft.build().eval(), inputs_of(teacher)
    assert student.config.hidden_size == 8
    assert [note for note in draft.notes if "keeps 100.0%" in note]
    torch.testing.assert_close(student(**inputs).logits, teacher(**inputs).logits, **SAME)


def test_the_basis_centres_alike() -> None:
    moment = torch.randn(12, 12, dtype=torch.float64)
    moment = moment @ moment.mT
    basis, kept = principal(moment, 5, mean_off=True)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(5, dtype=torch.float64))
    x = torch.randn(12, dtype=torch.float64)
    small = basis.mT @ x
    torch.testing.assert_close(small - small.mean(), basis.mT @ (x - x.mean()))
    assert 0 < kept < 1
    assert principal(moment, 12, mean_off=True)[1] == pytest.approx(1)


def test_the_basis_is_the_best_for_what_it_is_made_of() -> None:
    draft = Draft.of(new("llama"))
    rows = torch.randn(200, 16) * torch.linspace(0.1, 3, 16)
    basis, kept = stream_basis(draft, 4, rows)
    other, less = stream_basis(draft, 4)
    assert kept == pytest.approx(float((rows.double() @ basis).square().sum() / rows.double().square().sum()))
    assert kept > float((rows.double() @ other).square().sum() / rows.double().square().sum())
    assert 0 < less < 1


def test_a_tied_head_stays_tied() -> None:
    draft = Draft.of(stir(new("qwen3-tied")))
    cut_width(draft, 8)
    student = draft.build().eval()
    assert student.lm_head.weight is student.model.embed_tokens.weight
    assert "tied head" in " ".join(draft.notes)
    assert torch.isfinite(student(**inputs_of(student)).logits).all()


@pytest.mark.parametrize("name", ["bert", "roberta", "llama"])
def test_a_cut_keeps_more_than_chance(name: str) -> None:
    """Hidden states of the student are those of the teacher in the basis, far beyond those of a new model."""
    fields = {"pad_token_id": 1} if name == "roberta" else {}
    teacher = stir(new("llama" if name == "llama" else "bert", model_type=name, num_hidden_layers=1, **fields))
    ids = torch.randint(3, 40, (4, 7))
    student = project_width(teacher, 12).eval()
    basis, _ = stream_basis(Draft.of(teacher), 12)
    wanted = teacher.base_model(input_ids=ids).last_hidden_state.double() @ basis
    fresh = type(student)(student.config).eval()
    alike = [
        torch.cosine_similarity(m.base_model(input_ids=ids).last_hidden_state.double(), wanted, dim=-1).mean()
        for m in (student, fresh)
    ]
    if name != "llama":  # a decoder's last norm lies in the head: compare what the head says
        assert alike[0] > 0.6
        assert alike[0] > alike[1] + 0.3
    assert student(input_ids=ids).logits.shape == teacher(input_ids=ids).logits.shape


def test_widths_that_do_not_fit_are_refused() -> None:
    for size in (1, 17):
        with pytest.raises(ModelError, match="numbers from 2 to 16"):
            project_width(new("llama"), size)
    with pytest.raises(ModelError, match=r"not a multiple(.|\n)*hidden_size=6"):
        project_width(new("bert"), 7)
    masked = new("bert", num_hidden_layers=1).base_model
    import transformers

    model = transformers.BertForMaskedLM(masked.config)
    with pytest.raises(ModelError, match=r"does not know(.|\n)*cls\.predictions"):
        project_width(model, 8)
