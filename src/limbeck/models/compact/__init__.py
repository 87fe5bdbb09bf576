"""compact: limbeck's own small student, known to transformers' Auto classes once this package is imported."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from limbeck.models.compact.config import CompactConfig
from limbeck.models.compact.modeling import CompactForCausalLM, CompactForSequenceClassification, CompactModel

__all__ = ["CompactConfig", "CompactForCausalLM", "CompactForSequenceClassification", "CompactModel"]

AutoConfig.register(CompactConfig.model_type, CompactConfig, exist_ok=True)
AutoModel.register(CompactConfig, CompactModel, exist_ok=True)
AutoModelForCausalLM.register(CompactConfig, CompactForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(CompactConfig, CompactForSequenceClassification, exist_ok=True)
