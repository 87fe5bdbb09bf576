"""Who sees whom, in memory that is linear in the length.

Shapes: T tokens, S tokens of a segment, m summary vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.models.compact import segments
from limbeck.models.compact.positions import RelativeBias, buckets
from limbeck.models.compact.segments import Layout, segmented_attention
from tests.models.compact.conftest import Made, hidden, ids

S = 4


def seen(model: Any, length: int) -> Tensor:
    """[T, T]: does the output at a row depend on the embedding at a column? By gradients."""
    embeddings = torch.randn(1, length, 8, dtype=torch.float64, requires_grad=True)
    out = model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state[0]
    rows = [torch.autograd.grad(row.sum(), embeddings, retain_graph=True)[0][0].abs().sum(1) for row in out]
    return torch.stack(rows) > 1e-14


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 13, 18])
def test_a_decoder_sees_no_later_token_and_every_earlier_one(make: Callable[..., Any], length: int) -> None:
    assert torch.equal(seen(make(), length), torch.ones(length, length).tril().bool())


@pytest.mark.parametrize("length", [1, 4, 13, 18])
def test_an_encoder_sees_every_token(make: Callable[..., Any], length: int) -> None:
    assert seen(make(is_decoder=False), length).all()


def test_without_summaries_a_layer_sees_two_segments(make: Callable[..., Any]) -> None:
    found = seen(make(summary_tokens=0, num_hidden_layers=1), 14)
    segment = torch.arange(14) // S
    near = segment[:, None] - segment[None, :] <= 1
    assert torch.equal(found, near & torch.ones(14, 14).tril().bool())


@pytest.mark.parametrize("is_decoder", [True, False])
def test_a_short_text_is_seen_as_by_full_attention(make: Callable[..., Any], is_decoder: bool) -> None:
    one, full = make(is_decoder, segment_length=9), make(is_decoder, segment_length=0)
    full.load_state_dict(one.state_dict(), strict=False)
    for length in (1, 5, 9):
        assert torch.equal(hidden(one, ids(2, length)), hidden(full, ids(2, length)))
    assert not torch.allclose(hidden(one, ids(2, 28)), hidden(full, ids(2, 28)), atol=1e-3)


def plain(q: Tensor, k: Tensor, v: Tensor, near: RelativeBias, far: RelativeBias, pooled: Any, causal: bool) -> Tensor:
    """The same attention, a query and a key at a time; one row, one head to each key head."""
    length, heads, width = q.shape
    segment = torch.arange(length) // S
    out = torch.zeros_like(q)
    for t in range(length):
        for h in range(heads):
            scores, values = [], []
            for s in range(length):
                apart = int(segment[t] - segment[s])
                if (s <= t and apart <= 1) if causal else abs(apart) <= 1:
                    scores.append(q[t, h] @ k[s, h] / width**0.5 + near(torch.tensor(t - s))[h])
                    values.append(v[s, h])
            for j in range(int(segment[-1]) + 1):
                if j < segment[t] if causal else j != segment[t]:
                    for i in range(pooled.keys_BnGmd.shape[3]):
                        score = q[t, h] @ pooled.keys_BnGmd[0, j, h, i] / width**0.5
                        scores.append(score + far(segment[t] - j)[h])
                        values.append(pooled.values_BnGmd[0, j, h, i])
            out[t, h] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return out


@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_the_plain_form(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.models.compact.attention import SummaryPool

    torch.manual_seed(0)
    monkeypatch.setattr(segments, "BLOCK", 2 * S)  # two segments to a block, the last one alone
    q, k, v = torch.randn(3, 1, 11, 2, 3, dtype=torch.float64)
    near, far = (RelativeBias(8, 16, 2, both_ways=not causal).double() for _ in range(2))
    layout = Layout.of(11, S, causal, None)
    pool = SummaryPool(2, 2, 3).double()
    torch.nn.init.normal_(pool.query)
    packed = [layout.pack(x) for x in (q, k, v)]
    pooled = pool(*packed[1:], layout.valid_BnS(q.device))
    bias = near(layout.distances_SK(q.device)), far(torch.arange(1 - layout.count, layout.count))
    ours = layout.unpack(segmented_attention(*packed, pooled, *bias, layout))[0]
    for j, part in enumerate(k[0].split(S)):  # summaries are means by a softmax over the segment's valid keys
        weights = torch.einsum("hmd,shd->hms", pool.query / 3**0.5, part).softmax(-1)
        torch.testing.assert_close(pooled.keys_BnGmd[0, j], torch.einsum("hms,shd->hmd", weights, part))
    torch.testing.assert_close(ours, plain(q[0], k[0], v[0], near, far, pooled, causal))


def padded(tokens: Tensor, lengths: list[int], side: str) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Rows cut to lengths, with padding (token 7) on a side, and where their tokens stand."""
    width = 17
    batch, mask = torch.full((len(lengths), width), 7), torch.zeros(len(lengths), width, dtype=torch.long)
    torch.manual_seed(3)
    places = []
    for i, n in enumerate(lengths):
        where = {"right": torch.arange(n), "left": torch.arange(width - n, width)}
        places.append(where[side] if side in where else torch.randperm(width)[:n].sort().values)
        batch[i, places[i]], mask[i, places[i]] = tokens[i, :n], 1
    return batch, mask, places


@pytest.mark.parametrize("is_decoder", [True, False])
@pytest.mark.parametrize("segment", [0, S])
@pytest.mark.parametrize("side", ["right", "left", "scattered"])
def test_padding_changes_nothing(make: Callable[..., Any], side: str, segment: int, is_decoder: bool) -> None:
    model, tokens, lengths = make(is_decoder, segment_length=segment), ids(4, 17), [15, 8, 3, 1]
    batch, mask, places = padded(tokens, lengths, side)
    together = hidden(model, batch, mask)
    for i, n in enumerate(lengths):
        alone = hidden(model, tokens[i : i + 1, :n])[0]
        torch.testing.assert_close(together[i, places[i]], alone, rtol=1e-9, atol=1e-9)
    if not is_decoder:
        alone = [model(tokens[i : i + 1, :n]).logits[0] for i, n in enumerate(lengths)]
        torch.testing.assert_close(model(batch, attention_mask=mask).logits, torch.stack(alone))


@pytest.mark.parametrize("is_decoder", [True, False])
def test_masked_places_get_no_gradient(make: Callable[..., Any], is_decoder: bool) -> None:
    model = make(is_decoder)
    _, mask, _ = padded(ids(4, 17), [15, 8, 3, 0], "left")
    embeddings = torch.randn(4, 17, 8, dtype=torch.float64, requires_grad=True)
    out = model.model(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state
    (out * mask[:, :, None]).square().sum().backward()
    assert embeddings.grad is not None
    assert torch.isfinite(out).all()
    assert torch.equal(embeddings.grad.abs().sum(2) > 0, mask.bool())


def test_recomputed_blocks_give_the_same_gradients(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for block, checkpointing in ((10**6, False), (S, False), (S, True)):
        monkeypatch.setattr(segments, "BLOCK", block)
        model = make().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        model(ids(2, 19), labels=ids(2, 19), use_cache=False).loss.backward()
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, whole in found[0].items():
        assert whole.abs().sum() > 0, name
        torch.testing.assert_close(found[1][name], whole)
        torch.testing.assert_close(found[2][name], whole)


@pytest.mark.parametrize("is_decoder", [True, False])
def test_short_batches_use_all_parameters(make: Callable[..., Any], is_decoder: bool) -> None:
    model = make(is_decoder).train()
    labels = ids(2, 3) if is_decoder else torch.tensor([0, 1])
    model(ids(2, 3), labels=labels).loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def made_by_a_step(model: Any, length: int) -> Made:
    with Made() as made:
        model.model(ids(1, length), use_cache=False).last_hidden_state.sum().backward()
    return made


@pytest.mark.parametrize("is_decoder", [True, False])
def test_no_tensor_is_quadratic_in_the_length(
    make: Callable[..., Any], is_decoder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "BLOCK", 32)
    model = make(is_decoder, segment_length=16, summary_tokens=1).train()
    model.activation_checkpointing_enable()
    largest = {length: made_by_a_step(model, length).largest for length in (256, 512)}
    assert largest[512] <= 2.1 * largest[256]
    assert largest[512] < 512 * 512 / 5
    full = make(is_decoder, segment_length=0)
    assert made_by_a_step(full, 256).largest >= 256 * 256 * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_finite(make: Callable[..., Any], dtype: torch.dtype) -> None:
    model = make(is_decoder=False, initializer_range=0.1).float().train()
    _, mask, _ = padded(ids(4, 17), [15, 8, 3, 0], "left")
    with torch.autocast("cpu", dtype):
        model(ids(4, 17), attention_mask=mask, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_buckets_are_exact_when_near_and_grow_when_far() -> None:
    one_way = buckets(torch.tensor([-3, 0, 1, 3, 4, 5, 8, 15, 16, 999]), 8, 16, both_ways=False)
    assert one_way.tolist() == [0, 0, 1, 3, 4, 4, 6, 7, 7, 7]
    both = buckets(torch.arange(-40, 41), 8, 16, both_ways=True)
    assert both[40] == 0
    assert both[41:].tolist() == (both[:40].flip(0) - 4).tolist()
    assert set(both.tolist()) == set(range(8)) - {4}
    assert (buckets(torch.arange(500), 32, 128, both_ways=False).diff() >= 0).all()
