"""The shipped recipes, run small, and their reports driven in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.recipe import load_recipe
from limbeck.pipeline.gallery import gallery
from limbeck.pipeline.run import run_recipe
from tests.report.drive import opened, plots, sideways, started, walk

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LIMBECK_DATA", ROOT.parent / "shared" / "data")) / "banking77"
SMALL = (
    *("evaluate.max_samples=60", "evaluate.resamples=200", "evaluate.latency_runs=3", "evaluate.speed.seconds=0.05"),
    *("evaluate.robustness.max_samples=20", "evaluate.interpretability.max_samples=16"),
)
ENCODER = (
    "{model_type: bert, hidden_size: 48, num_hidden_layers: 6, num_attention_heads: 4, intermediate_size: 96,"
    " max_position_embeddings: 64}"
)
OVERRIDES = {
    "quickstart": ("teacher.finetune.epochs=3", "stages.distil.epochs=20"),
    "reasoning": ("teacher.finetune.max_steps=60", "stages.distil.max_steps=40", "stages.distil.eval_steps=20"),
    "banking77": (
        *(f"data.train={DATA / 'train.csv.gz'}", f"data.test={DATA / 'test.csv.gz'}", "data.label=category"),
        *("teacher.model=null", f"teacher.config={ENCODER}", "teacher.tokenizer={train: bpe, vocab_size: 600}"),
        *("teacher.finetune.max_steps=40", "stages.distil.max_steps=30", "training.precision=fp32"),
        "training.save_steps=15",
    ),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as made:
        yield made


@pytest.fixture(scope="module", params=list(OVERRIDES))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a shipped recipe: every step that it has, a few seconds of each."""
    if request.param == "banking77" and not DATA.is_dir():
        pytest.skip("no Banking77 where LIMBECK_DATA says")
    output = tmp_path_factory.mktemp("runs") / request.param
    overrides = [f"output={output}", *SMALL, *OVERRIDES[request.param]]
    run_recipe(load_recipe(ROOT / "recipes" / f"{request.param}.yaml", overrides))
    return output


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")], ids=["desk", "phone"])
def test_the_report_of_a_run_is_driven(browser: Any, run: Path, width: int, scheme: str) -> None:
    with opened(browser, run / "report" / "index.html", width, scheme) as (page, did):
        assert len(plots(page)) >= 6
        assert sideways(page) <= 0
        assert walk(page) > 8
        assert did == []
        if run.name == "quickstart":
            assert page.locator("td img").count() > 0


def test_the_gallery_leads_to_the_report(browser: Any, run: Path, tmp_path: Path) -> None:
    index = gallery(tmp_path / "gallery", [run])
    with opened(browser, index, 390) as (page, did):
        assert sideways(page) <= 0
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**/index.html", wait_until="load")
        page.wait_for_function("() => document.querySelector('.headline')")
        assert page.locator("p.headline").inner_text()
        assert [url for url in did if not url.startswith(index.parent.as_uri())] == []
