"""KL and entropy at each token against whole logits."""

from __future__ import annotations

import pytest
import torch

from limbeck.core.types import IGNORE
from limbeck.evaluation.interpretability.divergence import at_tokens
from tests.evaluation.interpretability.rows import language, model_for, plain, view_of


@pytest.mark.parametrize("chunk_bytes", [1, 20_000, 2**20])
@pytest.mark.parametrize("fewer", [0, 5])
def test_each_tokens_divergence_is_that_of_the_whole_logits(chunk_bytes: int, fewer: int) -> None:
    """Also where the student's vocabulary lacks the last rows: then over what both have."""
    rows, codec = language()
    size = len(codec.processor)
    models = [model_for("llama", codec, seed, vocab_size=size + more) for seed, more in ((1, 0), (2, fewer))]
    student, teacher = (view_of(model, rows, codec, name) for model, name in zip(models, ("s", "t"), strict=True))
    found = at_tokens(student, teacher, "3", torch.arange(size) if fewer else None, chunk_bytes)
    labels = student.batch(["3"]).labels[0]
    q, p = (plain(m, student, "3").logits[0, labels != IGNORE, :size].log_softmax(-1) for m in models)
    torch.testing.assert_close(torch.tensor(found["kl"]).double(), (p.exp() * (p - q)).sum(-1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(found["entropy"]).double(), -(p.exp() * p).sum(-1), rtol=1e-5, atol=1e-6)
    assert max(found["kl"]) > 0.1
    assert "".join(found["tokens"]) == rows[3].target + "<eos>"


def test_a_student_like_its_teacher_is_nowhere_apart() -> None:
    rows, codec = language()
    model = model_for("qwen3", codec)
    view = view_of(model, rows, codec)
    found = at_tokens(view, view, "0", None)
    assert max(found["kl"]) < 1e-9
    assert len(found["kl"]) == len(found["tokens"]) == len(found["entropy"])
