"""What every feature term must compute, written down a second time: in loops over samples and positions, float64.

A new feature term needs an entry in `ORACLES` here, and one in `SPECS` of `test_features.py`.

A layer's value is a list over taps of tensors [B, ...]; `real` says which positions of each text are real, and is None
for pictures. An oracle gives one pair's value; `naive` averages over the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from tests.contracts import relational_oracles as relational
from tests.contracts.feature_cases import Case, Layers, Real
from tests.contracts.relational_oracles import one_minus_cka, pooled
from tests.contracts.vectors import kl, normalised, project, softmax, unit

Oracle = Callable[[Case, int], Any]
"""(case, number of the pair) -> a scalar."""


def as_map(x: Tensor) -> Tensor:
    """One sample's layer as [C, H, W]; patches are the last square number of positions."""
    if x.ndim == 3:
        return x
    side = math.isqrt(len(x))
    return torch.stack([x[len(x) - side * side + i] for i in range(side * side)], 1).reshape(-1, side, side)


def shrunk(x: Tensor, height: int, width: int) -> Tensor:
    """Means over areas."""

    def span(i: int, small: int, large: int) -> range:
        return range(i * large // small, -(-(i + 1) * large // small))

    out = []
    for i, j in product(range(height), range(width)):
        area = [x[:, k, n] for k in span(i, height, x.shape[1]) for n in span(j, width, x.shape[2])]
        out.append(sum(area) / len(area))
    return torch.stack(out, 1).reshape(-1, height, width)


def one_size(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps at the smaller size."""
    height, width = min(x.shape[1], y.shape[1]), min(x.shape[2], y.shape[2])
    return shrunk(x, height, width), shrunk(y, height, width)


def pixels(x: Tensor) -> list[Tensor]:
    """A map's channels at each place."""
    return [x[:, i, j] for i, j in product(range(x.shape[1]), range(x.shape[2]))]


def rows(loss: Any, place: int, student: Tensor, teacher: Tensor, real: Real, sample: int) -> list[tuple[Any, ...]]:
    """Of one sample: projected row of the student, row of the teacher, and what it counts."""
    x, y, module = student[sample], teacher[sample], loss.projectors[place]
    size = 1 if real is None else len(real[sample])
    if student.ndim == 2:
        return [(project(module, x), y, size)]
    if 4 in (student.ndim, teacher.ndim):
        x, y = one_size(as_map(x), as_map(y))
        count = size / (x.shape[1] * x.shape[2])
        return [(project(module, a), b, count) for a, b in zip(pixels(x), pixels(y), strict=True)]
    if real is None:
        return [(project(module, a), b, 1 / len(x)) for a, b in zip(x, y, strict=True)]
    return [(project(module, x[i]), y[i], 1) for i in real[sample]]


def row_distance(kind: str, x: Tensor, y: Tensor) -> Tensor:
    """Of two rows."""
    if kind == "cosine":
        return 1 - (unit(x) * unit(y)).sum()
    x, y = (normalised(x), normalised(y)) if kind == "layer_norm" else (x, y)
    return ((x - y) ** 2).sum() / len(x)


def hidden(case: Case, place: int) -> Any:
    part, loss, s, t, real, w = case.of(place)
    return sum(
        w[b] * count * row_distance(part.distance, x, y)
        for b in range(len(w))
        for x, y, count in rows(loss, place, s[0], t[0], real, b)
    )


def fitnets(case: Case, place: int) -> Any:
    _part, loss, s, t, real, w = case.of(place)
    total, module = 0.0, loss.projectors[place]
    for b in range(len(w)):
        if s[0].ndim < 4:
            found = rows(loss, place, s[0], t[0], real, b)
        else:
            x, y, kernel = s[0][b], t[0][b], module.weight.double()
            height, width = kernel.shape[2:]
            out = torch.stack(
                [
                    (kernel * x[:, i : i + height, j : j + width]).sum((1, 2, 3)) + module.bias.double()
                    for i, j in product(range(x.shape[1] - height + 1), range(x.shape[2] - width + 1))
                ],
                1,
            ).reshape(len(kernel), x.shape[1] - height + 1, -1)
            x, y = one_size(out, y)
            found = [(a, c, 1 / (x.shape[1] * x.shape[2])) for a, c in zip(pixels(x), pixels(y), strict=True)]
        total = total + sum(w[b] * count * row_distance("mse", x, y) / 2 for x, y, count in found)
    return total


def _relation(x: Tensor, head: int, heads: int, query: int, keys: Sequence[int]) -> Tensor:
    size = x.shape[1] // heads
    part = x[:, head * size : (head + 1) * size]
    return softmax([part[query] @ part[key] / math.sqrt(size) for key in keys])


def relations(case: Case, place: int) -> Any:
    _part, loss, s, t, real, w = case.of(place)
    heads, total = loss.heads[place], 0.0
    for b, x, y in ((b, x[b], y[b]) for x, y in zip(s, t, strict=True) for b in range(len(w))):
        seen = range(len(x)) if real is None else real[b]
        for query, head in product(seen, range(heads)):
            p, q = (_relation(z, head, heads, query, seen) for z in (y, x))
            total = total + w[b] * kl(p, q) / heads / len(s) / (len(seen) if real is None else 1)
    return total


def attention_maps(case: Case, place: int) -> Any:
    part, _loss, s, t, real, w = case.of(place)
    total, (one, other) = 0.0, case.heads
    for b in range(len(w)):
        seen = range(s[0].shape[-2]) if real is None else real[b]
        for query in seen:
            keys = [k for k in seen if not part.causal or k <= query]
            mine, theirs = (
                [_attention(part, z, b, h, n, query, keys) for h in range(n)] for z, n in ((s, one), (t, other))
            )
            if one != other:
                mine, theirs = [sum(mine) / one], [sum(theirs) / other]
            for x, y in zip(mine, theirs, strict=True):
                value = kl(y, x) if part.loss == "kl" else ((x - y) ** 2).sum() / len(keys)
                total = total + w[b] * value / len(mine)
    return total


def _attention(part: Any, taps: Layers, b: int, head: int, heads: int, query: int, keys: Sequence[int]) -> Tensor:
    if part.source == "maps":
        return torch.stack([taps[0][b, head, query, k] for k in keys])
    size = taps[0].shape[-1] // heads
    place, shared = slice(head * size, (head + 1) * size), head * (taps[1].shape[-1] // size) // heads
    other = slice(shared * size, (shared + 1) * size)
    scores = [taps[0][b, query, place] @ taps[1][b, k, other] / math.sqrt(size) for k in keys]
    return softmax(scores) if part.loss == "kl" else torch.stack(scores)


def attention_transfer(case: Case, place: int) -> Any:
    part, _loss, s, t, _real, w = case.of(place)
    total = 0.0
    for b in range(len(w)):
        x, y = (sum(abs(c) ** part.power for c in as_map(z[0][b]))[None] for z in (s, t))
        x, y = one_size(x, y)
        total = total + w[b] * ((unit(x.flatten()) - unit(y.flatten())) ** 2).sum()
    return total


def nst(case: Case, place: int) -> Any:
    _part, _loss, s, t, real, w = case.of(place)
    total = 0.0
    for b in range(len(w)):
        if 4 in (s[0].ndim, t[0].ndim):
            x, y = (z.flatten(1) for z in one_size(as_map(s[0][b]), as_map(t[0][b])))
            count = 1
        else:
            x, y = (torch.stack([z[0][b][i] for i in real[b]], 1) for z in (s, t))
            count = len(real[b])
        x, y = ([unit(channel) for channel in z] for z in (x, y))
        means = [sum((a @ c) ** 2 for a, c in product(p, q)) / len(p) / len(q) for p, q in ((x, x), (y, y), (x, y))]
        total = total + w[b] * count * (means[0] + means[1] - 2 * means[2])
    return total


def multilevel(case: Case) -> Any:
    """All pairs at once."""
    part, loss, s, t, real, w = case.part, case.loss, case.student, case.teacher, case.real, case.weights
    pairs, size = range(len(s)), [1 if real is None else len(each) for each in real or w]
    counts = [size[b] * w[b] for b in range(len(w))]
    found = [[rows(loss, m, s[m][0], t[m][0], real, b) for b in range(len(w))] for m in pairs]

    def mean(m: int, f: Callable[[Tensor, Tensor], Any]) -> Any:
        return sum(w[b] * c * f(x, y) for b in range(len(w)) for x, y, c in found[m][b]) / sum(counts)

    def middle(m: int, b: int, which: int) -> Tensor:
        return sum(each[which] * each[2] for each in found[m][b]) / sum(each[2] for each in found[m][b])

    def layer(m: int) -> Any:
        total = 0.0
        for b in range(len(w)):
            own, keys = middle(m, b, 0), [middle(k, b, 1) for k in pairs]
            shares = softmax([normalised(own) @ normalised(key) / math.sqrt(len(own)) for key in keys])
            distances = [row_distance("layer_norm", own, key) for key in keys]
            attended = sum(share * d for share, d in zip(shares, distances, strict=True))
            total = total + counts[b] * (attended if part.layer_map == "attention" else distances[m]) / sum(counts)
        return total

    def batch(m: int) -> Any:
        x, y = (torch.stack([z if z.ndim == 1 else as_map(z).flatten(1).mean(1) for z in v]) for v in _plain(m))
        return one_minus_cka(x, y)

    def _plain(m: int) -> tuple[Any, Any]:
        if 4 in (s[m][0].ndim, t[m][0].ndim):
            return s[m][0], t[m][0]
        return pooled(s[m][0], real, "mean"), pooled(t[m][0], real, "mean")

    values = {
        "token": lambda m: mean(m, lambda x, y: row_distance("layer_norm", x, y)),
        "layer": layer,
        "global": batch,
    }
    with torch.no_grad():
        behind = softmax([mean(m, lambda x, y: row_distance("cosine", x, y)) / part.temperature for m in pairs])
    total = 0.0
    for i, (level, share) in enumerate((name, share) for name, share in part.levels.items() if share):
        for m in pairs:
            value = values[level](m)
            if part.weighting == "uncertainty":
                u = loss.log_variances[i * len(s) + m].double()
                value = (torch.exp(-u) * value + u) / 2
            weight = behind[m] if part.weighting == "dissimilarity" else 1 / len(s)
            total = total + sum(counts) * share * weight * value
    return total


ORACLES: dict[str, Oracle] = {
    "attention_maps": attention_maps,
    "attention_transfer": attention_transfer,
    "cka": relational.cka,
    "crd": relational.crd,
    "fitnets": fitnets,
    "hidden": hidden,
    "multilevel": lambda case, place: multilevel(case),
    "nst": nst,
    "pkt": relational.pkt,
    "relations": relations,
    "rkd": relational.rkd,
    "similarity_preserving": relational.similarity_preserving,
    "value_relations": relations,
}


def naive(case: Case) -> Any:
    """A term's value; samples of weight zero are left out."""
    case = case.told()
    if case.part.type() == "multilevel":
        return multilevel(case)
    values = [ORACLES[case.part.type()](case, i) for i in range(len(case.student))]
    return sum(values) / len(values)
