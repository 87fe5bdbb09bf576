"""Feature terms inside of a distiller: texts and pictures, equal and different architectures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from limbeck.core.parts import build
from limbeck.core.types import Batch
from limbeck.models.heads import signal
from limbeck.training.distiller import Distiller
from limbeck.training.matching import find_pairs, match_table

LABELS = torch.arange(8) % 3
IDS = tuple("abcdefgh")


def bert(width: int, layers: int, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=width,
        max_position_embeddings=8,
        num_labels=3,
        attn_implementation="eager",
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        initializer_range=0.3,
    )
    return BertForSequenceClassification(config)


def vit(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=16,
        patch_size=4,
        num_labels=3,
        initializer_range=0.3,
    )
    return ViTForImageClassification(config)


def resnet(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=3, num_channels=3
    )
    return ResNetForImageClassification(config)


def texts() -> Batch:
    mask = (torch.arange(6) < torch.tensor([6, 5, 4, 3, 6, 2, 6, 1])[:, None]).long()
    return Batch(IDS, {"input_ids": torch.randint(1, 50, (8, 6)), "attention_mask": mask}, LABELS)


def pictures() -> Batch:
    return Batch(IDS, {"pixel_values": torch.randn(8, 3, 16, 16)}, LABELS)


def train(student: PreTrainedModel, teacher: PreTrainedModel, batch: Batch, config: dict[str, Any]) -> list[float]:
    """The term's value over a few steps, under bf16 autocast; every parameter on its way learns."""
    term = build("objective", config)
    teacher.eval()
    torch.manual_seed(0)
    distiller = Distiller(student, [term], layers=find_pairs(student, teacher, [term], batch))
    assert len(match_table(distiller)) == len(distiller.layers[term.label])
    distiller.train()
    optimizer = torch.optim.Adam(distiller.parameters(), 3e-3)
    values: list[float] = []
    for _ in range(12):
        with torch.no_grad():
            told = signal(teacher, batch, distiller.asks_teacher)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = distiller(batch, told, [1.0])
        assert loss.dtype == torch.float32
        optimizer.zero_grad()
        loss.backward()
        assert all(_moves(p.grad) for p in distiller.losses.parameters())
        optimizer.step()
        values.append(float(loss.detach()))
    return values


def _moves(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(torch.isfinite(gradient).all())


LAYERS = {"encoder.layer.{0,1}": "encoder.layer.{1,3}"}
ATTENTION = {"encoder.layer.1.attention.self": "encoder.layer.3.attention.self"}


@pytest.mark.parametrize(
    "config",
    [
        {"type": "hidden", "match": LAYERS},
        {"type": "hidden", "match": {"bert.pooler": "bert.pooler"}},
        {"type": "fitnets", "match": LAYERS},
        {"type": "attention_maps", "match": LAYERS},
        {"type": "attention_maps", "source": "maps", "loss": "kl", "match": ATTENTION},
        {"type": "relations", "match": LAYERS},
        {"type": "value_relations", "match": ATTENTION},
        {"type": "nst", "match": LAYERS},
        {"type": "multilevel", "match": LAYERS},
        {"type": "multilevel", "match": LAYERS, "weighting": "uncertainty", "layer_map": "attention"},
        *({"type": kind, "match": LAYERS} for kind in ("rkd", "similarity_preserving", "pkt", "cka", "crd")),
    ],
    ids=lambda config: config["type"],
)
def test_texts(config: dict[str, Any]) -> None:
    values = train(bert(16, 2, 0), bert(24, 4, 1), texts(), config)
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("kind", ["hidden", "fitnets", "attention_transfer", "nst", "multilevel", "cka"])
@pytest.mark.parametrize("student", ["vit", "resnet"])
def test_pictures_across_architectures(kind: str, student: str) -> None:
    layers = ("vit.layers.1", "resnet.encoder.stages.0")
    models = (vit(0), resnet(1)) if student == "vit" else (resnet(1), vit(0))
    match = dict([layers if student == "vit" else layers[::-1]])
    values = train(*models, pictures(), {"type": kind, "match": match})
    assert values[-1] < 0.95 * values[0]
