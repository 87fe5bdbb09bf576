"""Feature terms on layers of real models, and the errors for layers that cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from limbeck.core.errors import LimbeckError, ModelError, RecipeError
from limbeck.core.parts import build
from limbeck.core.types import Batch
from limbeck.models.taps import Taps
from limbeck.objectives import Context, Layer, Pair
from limbeck.objectives.features._common import map_shape, unit

IDS = torch.arange(12).reshape(3, 4) + 1
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
BATCH = Batch(("a", "b", "c"), {"input_ids": IDS, "attention_mask": MASK}, torch.tensor([0, 1, 0]))


def term(kind: str, **fields: Any) -> Any:
    return build("objective", {"type": kind, "match": {"s": "t"}, **fields})


def bert(width: int = 8, heads: int = 2, attention: str = "eager", dropout: float = 0.0, seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=20,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        intermediate_size=8,
        max_position_embeddings=8,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.7,
        attn_implementation=attention,
    )
    return BertModel(config)


def layer(model: Any, path: str, taps: tuple[str, ...]) -> tuple[Layer, list[Tensor]]:
    with Taps(model, taps) as read:
        model(**BATCH.inputs)
    features = read.features()
    return Layer(path, taps, tuple(features[tap].shape for tap in taps), model.config), [features[t] for t in taps]


def value(part: Any, student: Any, teacher: Any, mine: str, theirs: str) -> Tensor:
    one, x = layer(student, mine, part.taps(mine, student))
    other, y = layer(teacher, theirs, part.taps(theirs, teacher))
    return part.build([Pair(one, other)])([x], [y], Context(BATCH))


def made(student: tuple[int, ...], teacher: tuple[int, ...], taps: int = 1, heads: tuple[int, int] = (2, 2)) -> Pair:
    def side(name: str, shape: tuple[int, ...], count: int) -> Layer:
        config = SimpleNamespace(num_attention_heads=count)
        return Layer(name, (name,) * taps, (torch.Size((2, *shape)),) * taps, config)

    return Pair(side("mine.0", student, heads[0]), side("theirs.1", teacher, heads[1]))


SELF = "encoder.layer.1.attention.self"


@pytest.mark.parametrize("heads", [(2, 2), (2, 4)])
def test_computed_attention_is_the_models_own(heads: tuple[int, int]) -> None:
    student, teacher = bert(8, heads[0]).eval(), bert(16, heads[1], seed=1).eval()
    maps = value(term("attention_maps", source="maps", loss="kl"), student, teacher, SELF, SELF)
    computed = value(term("attention_maps", source="qk", loss="kl"), student, teacher, SELF, "encoder.layer.1")
    assert maps > 0.01
    torch.testing.assert_close(computed, maps)


def test_attention_dropout_is_refused() -> None:
    student, part = bert(dropout=0.3).train(), term("attention_maps", source="maps", loss="kl")
    with pytest.raises(ModelError, match="attention_probs_dropout_prob"):
        value(part, student, bert(seed=1).eval(), SELF, SELF)
    assert torch.isfinite(value(term("attention_maps"), student, bert(seed=1).eval(), SELF, SELF))


def test_maps_need_eager_attention() -> None:
    with pytest.raises(ModelError, match="attn_implementation: eager"):
        term("attention_maps", source="maps", loss="kl").taps(SELF, bert(attention="sdpa"))
    with pytest.raises(ValueError, match="source: qk"):
        term("attention_maps", source="maps", loss="mse")


def test_relations_between_different_architectures() -> None:
    torch.manual_seed(1)
    teacher = DistilBertModel(DistilBertConfig(vocab_size=20, dim=12, n_heads=3, n_layers=1, hidden_dim=8))
    part = term("relations", relation_heads=4)
    taps = part.taps("transformer.layer.0", teacher)
    assert taps == tuple(f"transformer.layer.0.attention.{name}" for name in ("q_lin", "k_lin", "v_lin"))
    found = value(part, bert(), teacher, "encoder.layer.0", "transformer.layer.0")
    assert found > 0
    with pytest.raises(RecipeError, match="relation_heads: 1, 2, 4"):
        value(term("relations"), bert(), teacher, "encoder.layer.0", "transformer.layer.0")
    with pytest.raises(RecipeError, match=r"relations: \[value\]"):
        value(term("value_relations"), bert(), teacher, "encoder.layer.0", "transformer.layer.0")


def test_projections_that_are_not_there() -> None:
    fused = GPT2Model(GPT2Config(vocab_size=9, n_embd=4, n_layer=1, n_head=1))
    with pytest.raises(ModelError, match=r"attn\.c_attn"):
        term("relations").taps("h.0", fused)
    with pytest.raises(ModelError, match=r"2 attention modules"):
        term("relations").taps("encoder", bert())
    with pytest.raises(ModelError, match="not its input or output"):
        term("relations").taps(f"{SELF}:input", bert())


def test_positions_inside_of_scores_are_refused() -> None:
    small: dict[str, Any] = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    rotary = Qwen3Model(Qwen3Config(**small, num_key_value_heads=1, head_dim=4, intermediate_size=8))
    relative = T5EncoderModel(T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    for model, path, why in ((rotary, "layers.0.self_attn", "rope"), (relative, "encoder.block.0", "relative")):
        assert len(term("relations").taps(path, model)) == 3
        with pytest.raises(ModelError, match=why):
            term("attention_maps").taps(path, model)


@pytest.mark.parametrize(
    ("kind", "fields", "pair", "message"),
    [
        ("hidden", {}, made((4, 3), (5, 3)), "different lengths"),
        ("hidden", {"projector": "none"}, made((4, 3), (4, 5)), "projector: linear"),
        ("hidden", {"projector": "conv"}, made((4, 3), (4, 5)), "projector: linear"),
        ("hidden", {"projector": "linear"}, made((3, 2, 2), (5, 2, 2)), "projector: conv"),
        ("hidden", {}, made((3,), (4, 3)), "different forms"),
        ("hidden", {}, made((7, 3), (3, 2, 2)), "square"),
        ("fitnets", {"regressor": "conv"}, made((4, 3), (4, 3)), "regressor: linear"),
        ("nst", {}, made((4, 3), (6, 3)), "different lengths"),
        ("attention_transfer", {}, made((3,), (3,)), r"\[B, T, D\] or \[B, C, H, W\]"),
        ("attention_maps", {}, made((4, 6), (5, 6), taps=2), "different lengths"),
        ("attention_maps", {}, made((4, 5), (4, 6), taps=2), "heads"),
        ("relations", {}, made((4, 6), (5, 6), taps=3), "different lengths"),
        ("relations", {"relation_heads": 4}, made((4, 6), (4, 8), taps=3), "relation_heads: 1, 2"),
        ("rkd", {"pool": "first"}, made((3, 2, 2), (3, 2, 2)), "pool: mean"),
    ],
)
def test_layers_that_cannot_be_compared(kind: str, fields: dict[str, Any], pair: Pair, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        term(kind, **fields).build([pair])
    text = str(caught.value)
    assert "mine.0" in text
    assert "theirs.1 [2" in text or message == "heads"  # the student's alone


def test_nothing_is_matched() -> None:
    for kind in ("hidden", "relations", "rkd", "crd", "multilevel", "nst", "attention_transfer", "fitnets"):
        with pytest.raises(RecipeError, match="no layers"):
            term(kind).build([])


def test_attention_over_layers_of_different_widths() -> None:
    pairs = [made((4, 3), (4, 5)), made((4, 3), (4, 6))]
    with pytest.raises(RecipeError, match="layer_map: matched"):
        term("multilevel", layer_map="attention").build(pairs)
    with pytest.raises(ValueError, match="levels"):
        term("multilevel", levels={"token": 0})


def run(part: Any, pair: Pair, batch: Batch, length: int = 4) -> Tensor:
    x, y = torch.randn(3, length, 3), torch.randn(3, length, 3)
    if len(pair.student.shapes[0]) == 4:
        x = torch.randn(3, 3, 2, 2)
    return part.build([pair])([[x]], [[y]], Context(batch))


@pytest.mark.parametrize(
    ("kind", "fields", "batch", "message"),
    [
        ("hidden", {}, replace(BATCH, teacher=BATCH, spans=torch.zeros(2, 4)), "cka, rkd"),
        ("hidden", {}, Batch(BATCH.ids, {"attention_mask": MASK[:, :3]}, BATCH.labels), "4 positions for 3 tokens"),
        ("attention_transfer", {}, BATCH, "for pictures"),
        ("rkd", {"pool": "none"}, BATCH, "pool: mean"),
        ("cka", {}, BATCH, "per_device_train_batch_size"),
        ("crd", {"negatives": "other_class"}, Batch(BATCH.ids, BATCH.inputs, IDS), "negatives: other_sample"),
    ],
)
def test_batches_that_do_not_fit(kind: str, fields: dict[str, Any], batch: Batch, message: str) -> None:
    with pytest.raises(LimbeckError, match=message):
        run(term(kind, **fields), made((4, 3), (4, 3)), batch)


def test_a_mask_of_single_tokens_says_what_is_padding() -> None:
    seen = MASK[:, None, None, :].bool() & torch.ones(4, 4).tril().bool()
    added = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    found = []
    for mask in (MASK, added):
        torch.manual_seed(0)
        found.append(
            run(term("hidden"), made((4, 3), (4, 3)), Batch(BATCH.ids, {"attention_mask": mask}, BATCH.labels))
        )
    torch.testing.assert_close(*found)


def test_whole_samples_are_compared_across_tokenizers() -> None:
    """Each side is pooled over its own real positions."""
    longer = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    other = Batch(BATCH.ids, {"attention_mask": longer}, BATCH.labels)
    batch = Batch(BATCH.ids, BATCH.inputs, BATCH.labels, teacher=other)
    loss = term("rkd").build([made((4, 3), (5, 2))])
    x, y = torch.randn(3, 4, 3), torch.randn(3, 5, 2)
    found = loss([[x]], [[y]], Context(batch))
    spoilt = y.masked_fill(longer[..., None] == 0, 1e6)
    torch.testing.assert_close(loss([[x]], [[spoilt]], Context(batch)), found, rtol=0, atol=0)


def test_what_stands_between_is_said() -> None:
    sequences, maps = made((4, 3), (4, 5)), made((3, 4, 4), (5, 2, 2))
    assert term("hidden").build([sequences, maps, made((4, 3), (4, 3))]).between() == [
        "linear 3 -> 5",
        "conv 1x1 3 -> 5",
        "none",
    ]
    assert term("fitnets").build([maps]).between() == ["conv 3x3 3 -> 5"]
    assert term("crd").build([maps]).between() == ["linear 3 -> 128, teacher linear 5 -> 128"]
    assert term("relations").build([made((4, 4), (4, 6), taps=3)]).between() == ["2 relation heads"]


def test_queue_keeps_the_latest_and_leaves_out_the_same_sample() -> None:
    loss = term("crd", queue_size=5, embedding_size=2).build([made((3,), (2,))])
    for start in (0, 4, 8):
        rows = torch.arange(start, start + 4.0)[:, None].expand(4, 2)
        batch = Batch(tuple(f"{n}" for n in range(start, start + 4)), {}, torch.zeros(4))
        loss([[torch.randn(4, 3)]], [[rows]], Context(batch))
    contrast: Any = loss.contrasts[0]
    assert sorted(contrast.queue_KE[:, 0].tolist()) == [7, 8, 9, 10, 11]
    alone = Batch(("11",), {}, torch.zeros(1))
    loss.eval()
    x, y = [[torch.randn(1, 3)]], [[torch.randn(1, 2)]]
    mine = unit(contrast.student(x[0][0]))
    scores = mine @ unit(contrast.teacher(torch.cat([y[0][0], contrast.queue_KE]))).T / 0.07
    keep = torch.tensor([True, *(contrast.queue_KE[:, 0] != 11).tolist()])
    torch.testing.assert_close(loss(x, y, Context(alone)), -torch.log_softmax(scores[:, keep], 1)[0, 0])
    assert sorted(contrast.queue_KE[:, 0].tolist()) == [7, 8, 9, 10, 11], "evaluation does not move the queue"


def test_tokens_before_the_patches_are_left_out() -> None:
    pair = made((4, 3), (4, 3))
    assert [map_shape((2, n, 3), pair)[1] for n in (4, 5, 6, 9, 10, 11)] == [2, 2, 2, 3, 3, 3]


def test_parameters_of_a_term_learn() -> None:
    """A projector alone can bring an LN-ed linear teacher to zero."""
    torch.manual_seed(0)
    loss = term("hidden").build([made((4, 3), (4, 5))])
    x = torch.randn(3, 4, 3)
    y = nn.Linear(3, 5)(x).detach()
    optimizer = torch.optim.Adam(loss.parameters(), 0.05)
    values = []
    for _ in range(150):
        values.append(loss([[x]], [[y]], Context(BATCH)))
        optimizer.zero_grad()
        values[-1].backward()
        optimizer.step()
    assert values[-1] < 0.01 * values[0]
