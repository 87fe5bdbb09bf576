"""Compression of a trained student: parts of the kind `compressor`, and how much each layer suffers."""

from limbeck.compression._base import Compressor

__all__ = ["Compressor"]
