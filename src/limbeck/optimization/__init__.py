"""Optimization of a student as it is run: parts of the kind `optimization`, and what they cost and save."""

from limbeck.optimization._base import Optimization

__all__ = ["Optimization"]
