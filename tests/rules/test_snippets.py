"""The recipe snippets in docs: each one is read as a recipe, and its terms are evaluated.

A snippet is a ```yaml block: sections of a recipe, or the list of a stage's terms. What it leaves out is taken from a
recipe that is valid as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from limbeck.core.parts import names
from limbeck.core.recipe import Recipe, load_recipe
from limbeck.core.types import Dense
from limbeck.objectives import DistributionTerm, distribution_loss
from limbeck.objectives.temperature import Tempered
from tests.contracts.cases import NAMES
from tests.core.recipes import ROOT, recipe

DOCS = ROOT / "docs"
PAGES = [
    *sorted((DOCS / "objectives").glob("*.md")),
    *(DOCS / f"{name}.md" for name in ("any-pair", "cache", "craft", "curriculum", "generate")),
    *(DOCS / f"{name}.md" for name in ("compress", "on-policy", "teachers", "traces", "verify")),
    *(DOCS / f"{name}.md" for name in ("evaluate", "efficiency", "robustness", "interpretability", "report")),
]
DISTRIBUTION = ROOT / "docs" / "objectives" / "distribution.md"


def blocks(page: Path) -> list[tuple[int, str]]:
    """Every YAML block of a page, with its line."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```ya?ml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start()].count("\n") + 1, match[1]) for match in found]


SNIPPETS = [pytest.param(text, id=f"{page.name}:{line}") for page in PAGES for line, text in blocks(page)]


def as_recipe(text: str) -> Recipe:
    said: Any = yaml.safe_load(text)
    if isinstance(said, list):
        said = {"stages": [{"name": "distil", "terms": said}]}
    return load_recipe(recipe(**said))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_shows_a_recipe(page: Path) -> None:
    assert blocks(page)


@pytest.mark.parametrize("text", SNIPPETS)
def test_a_snippet_is_a_recipe(text: str) -> None:
    assert as_recipe(text).stages


@pytest.mark.parametrize("text", SNIPPETS)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_its_distribution_terms_work(text: str, progress: float) -> None:
    student, teacher = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    student.requires_grad_()
    for stage in as_recipe(text).stages:
        terms = [term for term in stage.terms if isinstance(term, DistributionTerm)]
        learned = {
            term.label: module(progress)
            for term in terms
            if isinstance(term, Tempered) and (module := term.temperature.module()) is not None
        }
        if not terms:
            continue
        weights = [term.weight(progress) for term in terms]
        total, _ = distribution_loss(
            Dense(student), Dense(teacher), torch.arange(4), terms, weights, progress=progress, learned=learned
        )
        assert torch.isfinite(total)
        assert torch.isfinite(torch.autograd.grad(total, student)[0]).all()


@pytest.mark.parametrize("kind", ["objective", "temperature"])
def test_the_page_names_every_term_and_temperature(kind: str) -> None:
    text = DISTRIBUTION.read_text(encoding="utf-8")
    wanted = NAMES if kind == "objective" else names(kind)
    assert not {name for name in wanted if f"| `{name}` |" not in text}
