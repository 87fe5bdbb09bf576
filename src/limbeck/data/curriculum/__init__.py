"""Curricula: in which order a stage sees its rows, from easy to difficult; one part a file."""

from __future__ import annotations

from limbeck.data.curriculum._base import Bucketed, Curriculum

__all__ = ["Bucketed", "Curriculum"]
