"""What every relational term must compute, in loops over samples, pairs and triples of samples; float64.

Shapes are those of `feature_oracles.py`.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor

from tests.contracts.feature_cases import Case, Real
from tests.contracts.vectors import kl, project, softmax, unit


def pooled(x: Tensor, real: Real, pool: str) -> list[Tensor]:
    """A row for each sample."""
    if x.ndim == 2:
        return list(x)
    if x.ndim == 4:
        return [z.flatten() if pool == "none" else z.flatten(1).mean(1) for z in x]
    chosen = [range(x.shape[1])] * len(x) if real is None else real
    if pool == "mean":
        return [sum(z[i] for i in which) / len(which) for z, which in zip(x, chosen, strict=True)]
    return [z[which[0 if pool == "first" else -1]] for z, which in zip(x, chosen, strict=True)]


def huber(x: Tensor, y: Tensor) -> Tensor:
    """Quadratic up to 1, linear from there on."""
    gap = abs(x - y)
    return gap**2 / 2 if gap < 1 else gap - 0.5


def rkd(case: Case, place: int) -> Any:
    part, _loss, s, t, real, w = case.of(place)
    x, y = (pooled(z[0], real, part.pool) for z in (s, t))
    n, total = len(x), 0.0
    couples = [(i, j) for i, j in product(range(n), repeat=2) if i != j]
    means = [sum(torch.dist(z[i], z[j]) for i, j in couples) / len(couples) for z in (x, y)]
    for i, j in couples:
        one, other = (torch.dist(z[i], z[j]) / mean for z, mean in zip((x, y), means, strict=True))
        total = total + part.distance * math.sqrt(w[i] * w[j]) * huber(one, other) / len(couples)
    triples = [each for each in product(range(n), repeat=3) if len(set(each)) == 3]
    for i, j, k in triples:
        one, other = (unit(z[i] - z[j]) @ unit(z[k] - z[j]) for z in (x, y))
        total = total + part.angle * (w[i] * w[j] * w[k]) ** (1 / 3) * huber(one, other) / len(triples)
    return total


def similarity_preserving(case: Case, place: int) -> Any:
    part, _loss, s, t, real, w = case.of(place)
    x, y = (pooled(z[0], real, part.pool) for z in (s, t))
    total = 0.0
    for i in range(len(x)):
        one, other = (unit(torch.stack([z[i] @ row for row in z])) for z in (x, y))
        total = total + w[i] * ((one - other) ** 2).sum() / len(x) ** 2
    return total


def pkt(case: Case, place: int) -> Any:
    part, _loss, s, t, real, w = case.of(place)
    x, y = (pooled(z[0], real, part.pool) for z in (s, t))
    total = 0.0
    for i in range(len(x)):
        kernels = [torch.stack([(1 + unit(z[i]) @ unit(z[j])) / 2 for j in range(len(z)) if j != i]) for z in (y, x)]
        total = total + w[i] * kl(*(kernel / kernel.sum() for kernel in kernels)) / len(x)
    return total


def hsic(k: Tensor, m: Tensor) -> Tensor:
    """HSIC_1 of two Gram matrices, in the form of Song et al."""
    n = len(k)
    k, m = k - torch.diag(k.diag()), m - torch.diag(m.diag())
    one = torch.ones(n, dtype=k.dtype)
    middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (torch.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def one_minus_cka(x: Tensor, y: Tensor) -> Tensor:
    """1 - CKA of two sets of rows."""
    k, m = x @ x.T, y @ y.T
    return 1 - hsic(k, m) / torch.sqrt(hsic(k, k) * hsic(m, m))


def cka(case: Case, place: int) -> Any:
    part, _loss, s, t, real, w = case.of(place)
    x, y = (torch.stack(pooled(z[0], real, part.pool)) for z in (s, t))
    return one_minus_cka(x, y) * sum(w) / len(w)


def crd(case: Case, place: int) -> Any:
    part, loss, s, t, real, w = case.of(place)
    x, y = (pooled(z[0], real, part.pool) for z in (s, t))
    contrast = loss.contrasts[place]
    bank = [(row.double(), key, label) for row, key, label in zip(*_queue(contrast), strict=True) if key >= 0]
    keys, labels = case.keys, case.labels
    total = 0.0
    for i in range(len(x)):
        anchor, others = unit(project(contrast.student, x[i])), []
        candidates = [(y[j], keys[j], labels[j]) for j in range(len(y)) if j != i] + bank
        for row, key, label in candidates:
            other = key != keys[i] if part.negatives == "other_sample" else key != keys[i] and label != labels[i]
            if other:
                others.append(anchor @ unit(project(contrast.teacher, row)) / part.temperature)
        own = anchor @ unit(project(contrast.teacher, y[i])) / part.temperature
        total = total - w[i] * torch.log(softmax([own, *others])[0]) / len(x)
    return total


def _queue(contrast: Any) -> tuple[Tensor, list[int], list[int]]:
    return contrast.queue_KE, contrast.keys_K.tolist(), contrast.labels_K.tolist()
