"""Codecs: what is read is what was written, as near as the format says, and drawn classes have no bias."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.cache.bits import buckets_of, pack, unpack
from limbeck.cache.codecs import Codec, Drawn, Full, PackedTopK, PlainTopK, codec_from
from limbeck.cache.fit import Asked, Pilot, choose, total_variation
from limbeck.core.errors import ArtifactError, RecipeError
from limbeck.core.types import Dense, Sampled, TopK

V = 500
ROWS = np.array([3, 0, 40, 1, 20])


def logits(rows: int = 64, scale: float = 3.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(rows, V, generator=torch.Generator().manual_seed(seed))


def order() -> np.ndarray:
    return np.random.default_rng(1).permutation(V).astype(np.int32)


def there_and_back(codec: Codec, given: torch.Tensor, rows: np.ndarray = ROWS, seed: int = 0) -> Any:
    uniform = torch.rand(len(given), codec.draws, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    data = codec.write(codec.reduce(given, uniform if codec.draws else None), rows)
    again = codec_from(codec.config, getattr(codec, "order", None))
    return again.read([memoryview(each) for each in data], rows)


@pytest.mark.parametrize("classes", [1, 2, 300, 151_936, 2**25])
@pytest.mark.parametrize("bits", [1, 6, 8])
def test_bits_come_back(classes: int, bits: int) -> None:
    draw = np.random.default_rng(classes + bits)
    rows = draw.integers(0, 9, 20)
    counts = draw.integers(1, min(classes, 40) + 1, rows.sum())
    ranks = np.concatenate([np.sort(draw.choice(min(classes, 10**5), n, replace=False)) for n in counts])
    if classes > 10**5:
        ranks = ranks * (classes // 10**5)
    codes = draw.integers(0, 2**bits, len(ranks))
    data = pack(ranks, codes, counts, rows, bits)
    shuffled = draw.permutation(len(rows))
    for which in (np.arange(len(rows)), shuffled):
        read = unpack([data[i] for i in which], rows[which], bits)
        cut = lambda values, by: np.split(values, np.cumsum(by)[:-1])  # noqa: E731
        row_counts = cut(counts, rows)
        per = [int(each.sum()) for each in row_counts]
        for got, wanted in ((read[0], cut(ranks, per)), (read[1], cut(codes, per)), (read[2], row_counts)):
            np.testing.assert_array_equal(got, np.concatenate([wanted[i] for i in which]))


def test_buckets_are_exact() -> None:
    edges = np.array([2**b + d - 1 for b in range(1, 40) for d in (-1, 0, 1)])
    np.testing.assert_array_equal(buckets_of(edges), [(int(e) + 1).bit_length() - 1 for e in edges])


def test_no_samples() -> None:
    assert [len(each) for each in unpack([], np.zeros(0, int), 4)] == [0, 0, 0]


def test_bytes_of_another_form_are_refused() -> None:
    (data,) = pack(np.arange(9), np.zeros(9, int), np.array([9]), np.array([1]), 4)
    with pytest.raises(ArtifactError, match="index says"):
        unpack([data[:5] + bytes(len(data) - 5)], np.array([1]), 4)
    with pytest.raises(ArtifactError, match="index says"):
        PlainTopK(4).read([b"1234"], np.array([1]))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_full_logits(dtype: str) -> None:
    given = logits()
    told = there_and_back(Full(V, dtype), given)
    assert isinstance(told, Dense)
    wanted, error = torch.log_softmax(given, 1), 0 if dtype == "float32" else 1e-2
    torch.testing.assert_close(torch.log_softmax(told.logits, 1), wanted, atol=error, rtol=0)


def test_top_k_of_all_classes_is_the_distribution() -> None:
    given = logits()
    told = there_and_back(PlainTopK(V, "float32"), given)
    assert isinstance(told, TopK)
    wanted = torch.log_softmax(given, 1).gather(1, told.ids)
    torch.testing.assert_close(told.logprobs, wanted, atol=4e-6, rtol=0)
    assert (told.tail == -torch.inf).all()


def test_the_tail_is_what_is_left() -> None:
    given = logits()
    told = there_and_back(PlainTopK(5), given)
    probs = torch.softmax(given.double(), 1)
    rest = 1 - probs.gather(1, told.ids).sum(1)
    torch.testing.assert_close(told.tail.double().exp(), rest, rtol=2e-3, atol=0)
    whole = told.logprobs.double().exp().sum(1) + told.tail.double().exp()
    torch.testing.assert_close(whole, torch.ones_like(whole), atol=1e-6, rtol=0)


def packed(bound: float = -5.0, bits: int = 6) -> PackedTopK:
    levels = tuple(np.linspace(bound, 0, 2**bits).round(5).tolist())
    return PackedTopK(order=order(), bound=bound, levels=levels)


def test_packed_rows_name_all_classes_above_the_bound() -> None:
    given = torch.cat([logits(63), torch.zeros(1, V)])  # of the even row, no class reaches it
    told, codec = there_and_back(packed(), given), packed()
    logs = torch.log_softmax(given, 1)
    for row in range(64):
        named = told.ids[row][told.ids[row] >= 0].tolist()
        wanted = (logs[row] >= codec.bound).nonzero().squeeze(1).tolist()
        assert sorted(named) == wanted if wanted else len(named) == 1
        values = dict(zip(told.ids[row].tolist(), told.logprobs[row].tolist(), strict=True))
        if row < 63:
            for i in wanted:
                assert values[i] == pytest.approx(float(logs[row, i]), abs=0.09)
    kept = told.ids >= 0
    whole = (told.logprobs.double().exp() * kept).sum(1) + told.tail.double().exp()
    torch.testing.assert_close(whole, torch.ones_like(whole), atol=1e-5, rtol=0)
    rest = 1 - (torch.softmax(given.double(), 1) * 1).gather(1, told.ids.long().clamp(min=0)).masked_fill(~kept, 0).sum(
        1
    )
    torch.testing.assert_close(told.tail.double().exp(), rest, rtol=0.035, atol=1e-7)


def test_a_row_of_one_certain_class() -> None:
    given = torch.zeros(64, V)
    given[:, 7] = 200.0
    told = there_and_back(packed(), given)
    assert told.ids.tolist() == [[7]] * 64
    assert (told.logprobs.abs() < 1e-6).all()
    assert (told.tail == -torch.inf).all()


def test_what_is_read_does_not_depend_on_the_company() -> None:
    given, codec = logits(), packed()
    whole: Any
    data = codec.write(codec.reduce(given), ROWS)
    whole = codec.read(data, ROWS)
    starts = np.cumsum(ROWS) - ROWS
    for i in (0, 2, 3, 4):
        alone: Any = codec.read([data[i]], ROWS[i : i + 1])
        rows = slice(starts[i], starts[i] + ROWS[i])
        width = alone.ids.shape[1]
        assert torch.equal(whole.ids[rows, :width], alone.ids)
        assert torch.equal(whole.logprobs[rows, :width], alone.logprobs)
        assert torch.equal(whole.tail[rows], alone.tail)


def test_drawn_classes_are_unbiased() -> None:
    """The mean of many draws meets the probabilities within five standard errors."""
    given, codec, rounds = logits(rows=2), Drawn(order=order(), count=50), 400
    total = torch.zeros(2, V)
    for seed in range(rounds):
        told = there_and_back(codec, given, np.array([2]), seed)
        assert isinstance(told, Sampled)
        assert (told.counts.sum(1) == 50).all()
        total.scatter_add_(1, told.ids.long().clamp(min=0), told.counts.float())
    probs = torch.softmax(given, 1)
    error = (probs * (1 - probs) / (50 * rounds)).sqrt()
    assert ((total / (50 * rounds) - probs).abs() < 5 * error + 1e-4).all()


def pilot(scale: float = 3.0) -> Pilot:
    made = Pilot(V)
    made.add(logits(256, scale, seed=5))
    return made


@pytest.mark.parametrize("budget", [8, 16, 40, 80])
def test_a_budget_is_kept_and_spent(budget: float) -> None:
    codec = choose(Asked(bytes_per_token=budget, type="top_k"), pilot(), 2.0, True)
    given = logits(300, seed=6)
    spent = sum(map(len, codec.write(codec.reduce(given), np.array([100, 100, 100])))) / 300 + 2
    assert 0.85 * budget < spent < 1.02 * budget


@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("budget", [6, 8, 12, 40])
def test_a_budget_of_drawn_classes_is_kept(budget: float, scale: float) -> None:
    """Also where most draws fall outside the likeliest classes, and on rows that the ranks were not made from."""
    codec = choose(Asked(bytes_per_token=budget, type="sampled"), pilot(scale), 2.0, True)
    given = logits(300, scale, seed=6)
    uniform = torch.rand(300, codec.draws, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    spent = sum(map(len, codec.write(codec.reduce(given, uniform), np.array([100, 100, 100])))) / 300 + 2
    assert 0.7 * budget < spent < 1.02 * budget


@pytest.mark.parametrize("budget", [8, 40, 80])
def test_classes_of_one_probability_keep_the_budget(budget: float) -> None:
    """No bound can tell them apart: some of them are kept, the same ones each time."""
    even = torch.zeros(256, V)
    seen = Pilot(V)
    seen.add(even)
    codec = choose(Asked(bytes_per_token=budget, type="top_k"), seen, 2.0, True)
    data = codec.write(codec.reduce(even), np.array([256]))
    assert 0.7 * budget < len(data[0]) / 256 + 2 < 1.02 * budget
    assert data == codec.write(codec.reduce(even), np.array([256]))
    told: Any = codec.read(data, np.array([256]))
    kept = (told.ids >= 0).sum(1)
    torch.testing.assert_close(told.tail.double().exp(), 1 - kept.double() / V, rtol=0.035, atol=1e-3)


def test_all_logits_must_fit_with_their_index() -> None:
    assert isinstance(choose(Asked(bytes_per_token=2 * V + 3), pilot(), 3.0, True), Full)
    assert isinstance(choose(Asked(bytes_per_token=2 * V + 2), pilot(), 3.0, True), PackedTopK)


def test_more_bytes_come_nearer() -> None:
    given, before = logits(200, seed=6), 1.0
    for budget in (8, 16, 32, 64, 128):
        codec = choose(Asked(bytes_per_token=budget, type="top_k"), pilot(), 2.0, True)
        found = float(total_variation(given, there_and_back(codec, given, np.array([200]))).mean())
        assert found < before
        before = found
    assert before < 0.04


@pytest.mark.parametrize(
    ("asked", "drawable", "kind"),
    [
        (Asked(bytes_per_token=2000), True, Full),
        (Asked(), True, PackedTopK),
        (Asked(bytes_per_token=30), True, Drawn),
        (Asked(bytes_per_token=30), False, PackedTopK),
        (Asked(k=7), True, PlainTopK),
        (Asked(type="sampled", bytes_per_token=60), True, Drawn),
    ],
)
def test_what_a_budget_buys(asked: Asked, drawable: bool, kind: type) -> None:
    assert isinstance(choose(asked, pilot(), 2.0, drawable), kind)


@pytest.mark.parametrize("kind", ["top_k", "sampled"])
def test_a_hopeless_budget_is_refused_and_the_least_named(kind: str) -> None:
    with pytest.raises(RecipeError, match=r"(?s)so few bytes.*of which 3\.0 go to the index") as refused:
        choose(Asked(bytes_per_token=4, type=kind), pilot(), 3.0, True)
    found = re.search(r"([\d.]+) or more", str(refused.value))
    assert found is not None
    least = float(found.group(1))
    assert choose(Asked(bytes_per_token=least, type=kind), pilot(), 3.0, True).type.endswith(kind)


def test_what_is_drawn_without_bias_alone_may_be_drawn() -> None:
    with pytest.raises(RecipeError, match="without bias"):
        choose(Asked(type="sampled"), pilot(), 3.0, False)
