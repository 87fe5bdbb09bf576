"""A student cut from its teacher: layers, heads, units, width, vocabulary, embeddings."""

from __future__ import annotations

from limbeck.models.shrink.embeddings import factorise_embeddings
from limbeck.models.shrink.heads import keep_heads, keep_units
from limbeck.models.shrink.layers import keep_layers
from limbeck.models.shrink.plan import ShrinkPlan, Shrunk, shrink
from limbeck.models.shrink.table import as_markdown, as_rich, count_parameters, parameter_table
from limbeck.models.shrink.vocabulary import (
    Trimmed,
    load_token_map,
    save_token_map,
    teacher_ids,
    trim_vocabulary,
)
from limbeck.models.shrink.width import project_width

__all__ = [
    "ShrinkPlan",
    "Shrunk",
    "Trimmed",
    "as_markdown",
    "as_rich",
    "count_parameters",
    "factorise_embeddings",
    "keep_heads",
    "keep_layers",
    "keep_units",
    "load_token_map",
    "parameter_table",
    "project_width",
    "save_token_map",
    "shrink",
    "teacher_ids",
    "trim_vocabulary",
]
