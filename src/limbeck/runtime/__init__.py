"""Running a student: the same face for torch, ONNX Runtime and other engines."""

from limbeck.runtime._base import Arrays, Runner, Tensors
from limbeck.runtime.card import CARD, Card, read_card, write_card

__all__ = ["CARD", "Arrays", "Card", "Runner", "Tensors", "read_card", "write_card"]
