"""LoRA: added, trained, merged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.core.errors import MissingExtra, ModelError
from limbeck.core.recipe.models import Lora
from limbeck.models.adapters import add_lora, merge_lora
from limbeck.models.heads import check_head
from tests.models.conftest import batch_of, inputs_of, new

SMALL = Lora(r=2, lora_alpha=4)
HEADED = ("bert", "vit")


@pytest.fixture
def peft() -> None:
    pytest.importorskip("peft", reason="the extra `lora` is not installed")


def trained(model: Any, steps: int = 3) -> Any:
    """The model after some steps in which whatever can learn does learn."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    for _ in range(steps):
        model(**inputs_of(model)).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.usefixtures("peft")
@pytest.mark.parametrize("name", ["qwen3", "qwen3-tied", "gpt2", "bert", "vit"])
def test_a_merged_model_says_the_same_and_is_plain(name: str, tmp_path: Path) -> None:
    model, plain = new(name), new(name)
    plain.load_state_dict(model.state_dict())
    before, inputs = {k: v.clone() for k, v in model.state_dict().items()}, inputs_of(model)
    first = model(**inputs).logits
    assert add_lora(model, SMALL) is model
    torch.testing.assert_close(model(**inputs).logits, first, rtol=0, atol=0)
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n in learning if "lora_" not in n} == (
        {"classifier.weight", "classifier.bias"} if name in HEADED else set()
    )
    adapted = trained(model)(**inputs).logits.detach()
    assert not torch.allclose(adapted, first, atol=1e-3)
    merged = merge_lora(model)
    torch.testing.assert_close(merged(**inputs).logits, adapted, rtol=1e-5, atol=1e-5)
    assert {k: v.shape for k, v in merged.state_dict().items()} == {k: v.shape for k, v in before.items()}
    assert all(p.requires_grad for p in merged.parameters())
    merged.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} <= {"config.json", "generation_config.json", "model.safetensors"}
    again = type(merged).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**inputs).logits, adapted, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("peft")
def test_the_head_of_a_language_model_can_still_be_asked_for() -> None:
    model = add_lora(new("qwen3"), SMALL)
    check_head(model, batch_of(model), "the student")
    assert not [n for n, _ in model.named_parameters() if "lm_head" in n and "lora" in n]
    assert len([n for n, _ in model.named_parameters() if n.endswith("lora_A.default.weight")]) == 4 * 7


@pytest.mark.usefixtures("peft")
def test_the_layers_can_be_chosen() -> None:
    model = add_lora(new("qwen3"), Lora(r=2, target_modules=["q_proj", "1.mlp.up_proj"]))
    names = {n.partition(".lora_")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert names == {*(f"model.layers.{i}.self_attn.q_proj" for i in range(4)), "model.layers.1.mlp.up_proj"}
    with pytest.raises(ModelError, match=r"called q_prj(.|\n)*down_proj, gate_proj"):
        add_lora(new("qwen3"), Lora(target_modules=["q_prj"]))


@pytest.mark.usefixtures("peft")
def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(ModelError, match="no LoRA was added to this Qwen3"):
        merge_lora(new("qwen3"))
    model = add_lora(new("qwen3"), SMALL)
    next(p for n, p in model.named_parameters() if "lora_B" in n).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="cannot be merged"):
        merge_lora(model)


def test_without_peft_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"limbeck\[lora\]"):
        add_lora(new("qwen3"), SMALL)
