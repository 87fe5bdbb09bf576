"""The recipe: one YAML file that says what is to be distilled, from what, into what, and how.

Each section is a pydantic model with a text under every field; `limbeck schema` hands them to editors.
Field names follow Hugging Face. There is no second configuration: the resolved recipe, every default
spelled out, is stored with the run.
"""

from __future__ import annotations

from limbeck.core.recipe.cache import CacheSection
from limbeck.core.recipe.data import Data
from limbeck.core.recipe.endpoint import Endpoint, Price
from limbeck.core.recipe.evaluate import Evaluate, Interpretability, Limits, Robustness, Speed
from limbeck.core.recipe.generate import Budget, Generate, Keep, Sampling, Synthesize, Writer
from limbeck.core.recipe.job import Recipe
from limbeck.core.recipe.load import load_recipe
from limbeck.core.recipe.models import Model, Student, Teacher, TrainTokenizer
from limbeck.core.recipe.optimize import Optimize
from limbeck.core.recipe.report import Report
from limbeck.core.recipe.section import AnyAugmentation, AnyObjective, AnySource, AnyTask, Section, dump_recipe
from limbeck.core.recipe.smaller import Prune, Quantize
from limbeck.core.recipe.training import Balance, Finetune, Gate, OnPolicy, Optimization, Stage, Training
from limbeck.core.recipe.tune import Between, Choices, Sweep, Tune

__all__ = [
    "AnyAugmentation",
    "AnyObjective",
    "AnySource",
    "AnyTask",
    "Balance",
    "Between",
    "Budget",
    "CacheSection",
    "Choices",
    "Data",
    "Endpoint",
    "Evaluate",
    "Finetune",
    "Gate",
    "Generate",
    "Interpretability",
    "Keep",
    "Limits",
    "Model",
    "OnPolicy",
    "Optimization",
    "Optimize",
    "Price",
    "Prune",
    "Quantize",
    "Recipe",
    "Report",
    "Robustness",
    "Sampling",
    "Section",
    "Speed",
    "Stage",
    "Student",
    "Sweep",
    "Synthesize",
    "Teacher",
    "TrainTokenizer",
    "Training",
    "Tune",
    "Writer",
    "dump_recipe",
    "load_recipe",
]
