"""Entropy and agreement of attention against loops over single rows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from limbeck.core.errors import ModelError
from limbeck.evaluation.interpretability.attention import agreement, entropies, over_seen
from limbeck.evaluation.interpretability.view import View, examined
from tests.evaluation.interpretability.rows import language, model_for, pictures, plain, texts, view_of

LAYERS = {"gpt2": "n_layer", "vit": "num_hidden_layers"}
KINDS: dict[str, tuple[str, Any, bool, dict[str, Any]]] = {
    "bert": ("bert", texts, False, {}),
    "vit": ("vit", pictures, False, {}),
    "llama": ("llama", language, True, {}),
    "gpt2": ("gpt2", language, True, {}),
    "qwen3-window": (
        "qwen3",
        language,
        True,
        {
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 0,
            "layer_types": ["sliding_attention"] * 2,
        },
    ),
}


def made(kind: str) -> tuple[Any, View]:
    name, make, _, fields = KINDS[kind]
    rows, codec = make()
    model = model_for(name, codec, **{LAYERS.get(name, "num_hidden_layers"): 2}, **fields)
    if "window" in kind:
        model.float()  # in float64 a padded query within a window is undefined, and what follows it
    return model, view_of(model, rows, codec)


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_is_that_of_single_rows_over_what_they_see(kind: str) -> None:
    model, view = made(kind)
    window = KINDS[kind][3].get("sliding_window", 10**9)
    rounding = 1e-8 if model.dtype == torch.float64 else 1e-5
    with examined(model):
        view.find_maps()
        assert [place.layer for place in view.places] == view.layers
        look = view.look(list(view.features))
        for i, sample in enumerate(view.features):
            for layer, maps in zip(
                look.entropies, plain(model, view, sample, output_attentions=True).attentions, strict=True
            ):
                for head, rows in zip(layer[i], maps[0], strict=True):
                    seen = [min(t + 1, window) if KINDS[kind][2] else len(rows) for t in range(len(rows))]
                    shares = [entropy(p) / math.log(n) for p, n in zip(rows, seen, strict=True) if n > 1]
                    assert float(head) == pytest.approx(sum(shares) / len(shares), abs=rounding)


@torch.no_grad()
def test_what_decoders_see_that_do_not_say_that_they_are_causal() -> None:
    rows, codec = language()
    config = BloomConfig(vocab_size=len(codec.processor), hidden_size=16, n_layer=2, n_head=2)
    model = BloomForCausalLM(config).eval()
    view = view_of(model, rows, codec)
    with examined(model):
        view.find_maps()
        look = view.look(list(view.features))
        assert [place.causal for place in view.places] == [True, True]
        maps = plain(model, view, "2", output_attentions=True).attentions[1][0]
    for head, rows_T in zip(look.entropies[1][2], maps, strict=True):
        shares = [entropy(p) / math.log(t + 1) for t, p in enumerate(rows_T) if t]
        assert float(head) == pytest.approx(sum(shares) / len(shares), abs=1e-5)


@torch.no_grad()
def test_windows_that_look_both_ways() -> None:
    """Seen are `local_attention // 2` keys to either side, and its own."""
    rows, codec = texts()
    marks = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = ModernBertConfig(vocab_size=len(codec.processor), local_attention=6, **sizes, **marks)
    model = ModernBertForSequenceClassification(config).eval()
    view = view_of(model, rows, codec)
    with examined(model):
        view.find_maps()
        look = view.look(list(view.features))
        maps = plain(model, view, "5", output_attentions=True).attentions
    count = view.features["5"].length
    near = [min(t, 3) + 1 + min(count - 1 - t, 3) for t in range(count)]
    assert min(near) < max(near) < count
    for found, layer, seen in zip(look.entropies, maps, ([count] * count, near, near), strict=True):
        for head, rows_T in zip(found[5], layer[0], strict=True):
            shares = [entropy(p) / math.log(n) for p, n in zip(rows_T, seen, strict=True)]
            assert float(head) == pytest.approx(sum(shares) / count, abs=1e-5)


@pytest.mark.parametrize("kind", ["bert", "llama", "qwen3-window"])
def test_who_looks_at_all_keys_alike_has_entropy_one(kind: str) -> None:
    """Only if neither padding nor what comes later counts among the keys."""
    model, view = made(kind)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj" in name or "query" in name:
                weight.zero_()
    with examined(model):
        view.find_maps()
        look = view.look(list(view.features))
    for layer in look.entropies:
        torch.testing.assert_close(layer, torch.ones_like(layer))


def test_agreement_is_one_less_the_divergence_of_the_heads_mean() -> None:
    rows, codec = texts()
    views = []
    for name, seed, heads in (("student", 1, 4), ("teacher", 2, 2)):
        model = model_for("bert", codec, seed, num_hidden_layers=2, num_attention_heads=heads)
        views.append(view_of(model, rows, codec, name))
    looks = []
    for view in views:
        with examined(view.model):
            view.find_maps()
            looks.append(view.look(list(view.features)))
            view.alone = [  # type: ignore[attr-defined]
                [m[0].mean(0) for m in plain(view.model, view, i, output_attentions=True).attentions]
                for i in view.features
            ]
    counted = looks[0].counted_BT
    assert counted is not None
    found = agreement(looks[0].maps, looks[1].maps, counted)
    for i in range(len(rows)):
        for s in range(2):
            for t in range(2):
                pairs = zip(views[0].alone[i][s], views[1].alone[i][t], strict=True)  # type: ignore[attr-defined]
                each = [1 - jensenshannon(p, q, base=2) ** 2 for p, q in pairs]
                assert float(found[i, s, t]) == pytest.approx(sum(each) / len(each), abs=1e-8)
    torch.testing.assert_close(
        agreement(looks[0].maps, looks[0].maps, counted).diagonal(dim1=1, dim2=2), torch.ones(len(rows), 2).double()
    )


def test_maps_that_share_no_key_do_not_agree() -> None:
    left, right = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    left[..., :2], right[..., 2:] = 0.5, 0.5
    assert agreement([left], [right], torch.ones(1, 2).bool()).item() == pytest.approx(0, abs=1e-6)


def test_looking_where_nothing_may_be_seen_is_refused() -> None:
    maps = torch.full((1, 1, 2, 2), 0.5)
    seen, real = torch.ones(1, 2, 2).bool().tril(), torch.ones(1, 2).bool()
    with pytest.raises(ModelError, match=r"(?s)layer.3 looks at keys.*50%"):
        over_seen(maps, seen, real, "layer.3")
    kept = over_seen(torch.tensor([[[[1.0, 0.01], [0.5, 0.5]]]]), seen, real, "layer.3")
    assert kept[0, 0, 0].tolist() == [1, 0]
    assert entropies(kept, seen, torch.tensor([[False, True]])).item() == pytest.approx(1)
    assert entropies(kept, seen, torch.tensor([[False, False]])).isnan().all()


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    model, view = made("bert")
    model.set_attn_implementation("sdpa")
    model.train()
    model.bert.encoder.layer[1].eval()
    modes = [part.training for part in model.modules()]
    hooks = [len(part._forward_hooks) for part in model.modules()]
    try:
        with examined(model):
            assert model.config._attn_implementation == "eager"
            assert not any(part.training for part in model.modules())
            view.find_maps()
            view.look(list(view.features))
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert model.config._attn_implementation == "sdpa"
    assert [part.training for part in model.modules()] == modes
    assert [len(part._forward_hooks) for part in model.modules()] == hooks
