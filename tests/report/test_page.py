"""The page is whole, safe, accessible, and shows what there is and nothing else."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from limbeck.report.facts import Facts
from limbeck.report.render import escape_markdown, write_report
from tests.report.html_check import Page
from tests.report.made import NO_LOGS, RECIPE, changed, make_facts, score, without

EVIL = "<script>alert(1)</script> $x_{2 | a & 'b' \"c\" \u6a21\u578b"


def written(folder: Path, facts: Facts) -> tuple[Page, str, str]:
    html, markdown, *_ = (file.read_text() for file in write_report(facts, folder))
    return Page(html), html, markdown


def headings(page: Page) -> list[str]:
    return [e.text for e in page.elements() if e.tag == "h2"]


def test_the_page_is_well_formed_and_needs_nothing(page: Path) -> None:
    found = Page(page.read_text())
    assert found.loads() == []
    assert not [e for e in found.elements() if e.tag in ("script", "link", "iframe", "object", "img")]
    assert not re.search(r"url\((?!#)|@import", page.read_text())
    assert not [k for e in found.elements() for k in e.attrs if k.startswith("on")]
    assert page.stat().st_size < 400_000


def test_the_page_is_accessible(page: Path) -> None:
    found = Page(page.read_text())
    elements = found.elements()
    assert [len(found.root.all(tag)) for tag in ("h1", "header", "main", "footer")] == [1, 1, 1, 1]
    assert found.root.all("html")[0].attrs["lang"] == "en"
    levels = [int(e.tag[1]) for e in elements if re.fullmatch(r"h[1-6]", e.tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for table in found.root.all("table"):
        assert table.all("caption")[0].text
        assert all(cell.attrs.get("scope") in ("col", "row") for cell in table.all("th"))
    assert len(found.ids()) == len(set(found.ids()))
    for svg in found.root.all("svg"):
        if svg.attrs.get("aria-hidden") == "true":
            continue
        assert svg.attrs["role"] == "img"
        named = (svg.attrs["aria-labelledby"] or "").split()
        texts = {e.attrs.get("id"): e.text for e in svg.children if e.tag in ("title", "desc")}
        assert len(named) == 2
        assert all(texts[name] for name in named)
    for e in elements:
        assert "aria-labelledby" not in e.attrs or set((e.attrs["aria-labelledby"] or "").split()) <= set(found.ids())


def test_every_drawing_refers_to_what_it_has(page: Path) -> None:
    found = Page(page.read_text())
    for svg in found.root.all("svg"):
        inside = {e.attrs.get("id") for tag in ("path", "clippath", "g") for e in svg.all(tag)}
        assert {(u.attrs["href"] or "")[1:] for u in svg.all("use")} <= inside
    roles = set(re.findall(r"var\(--([\w-]+)\)", page.read_text()))
    assert roles <= set(re.findall(r"--([\w-]+):", page.read_text()))
    assert "#0c0d" not in page.read_text()


def test_sections(page: Path) -> None:
    found = Page(page.read_text())
    assert headings(found) == [
        "Key figures",
        "What was distilled",
        "Quality",
        "Size, speed and cost",
        "Where it errs",
        "Where student and teacher differ",
        "Calibration",
        "Robustness",
        "Inside the models",
        "Training",
        "Data",
        "Notes from the run",
        "How it was measured",
        "Where it comes from",
    ]
    drawn = [s.attrs.get("class") for s in found.root.all("svg") if "role" in s.attrs]
    assert [drawn.count(kind) for kind in ("wide", "narrow", None)] == [8, 8, 3]
    text = page.read_text()
    for told in (
        "98.6\u00a0%",
        "from the test split, 3,080 rows",
        "95\u00a0% bootstrap",
        "paired",
        "apache-2.0",
        "device cpu",
    ):
        assert told in text
    assert "Training rows whose inputs are in validation too" in text


def test_a_name_is_never_markup(tmp_path: Path) -> None:
    origin = {"name": EVIL, "licence": EVIL}
    facts = make_facts(
        title=EVIL,
        details={},
        recipe={**RECIPE, "student": {"model": EVIL}, "data": {"train": EVIL}},
        scores=[*without(), score(EVIL, "accuracy", EVIL, 0.5, unit=EVIL, split=EVIL)],
        steps=[{"step": i, "stage": EVIL, "terms": {EVIL: 1.0, "b": 2.0}, "loss": 3.0} for i in range(1, 9)],
        evals=[{"step": 4, "stage": EVIL, "metrics": {"accuracy": 0.4, EVIL: 1.0}, "best": True}],
        manifests={
            EVIL: {"model": origin, "counts": {EVIL: EVIL}, "notes": [EVIL], "versions": {EVIL: EVIL}, "digest": EVIL}
        },
    )
    page, html, markdown = written(tmp_path, facts)
    assert "<script" not in html
    assert page.root.all("h1")[0].text == EVIL
    assert "<script" not in re.sub(r"\\<", "", markdown)
    assert page.root.all("title")[0].text == EVIL


def test_markdown_is_escaped() -> None:
    assert escape_markdown("a|b <i> [x](y) *z* `c`\nd") == r"a\|b \<i> [x\](y) \*z\* \`c\` d"
    assert escape_markdown(3) == 3


def test_markdown_tables_are_regular(page: Path) -> None:
    markdown = page.with_name("report.md").read_text()
    widths = [re.sub(r"\\\|", "", line).count("|") for line in markdown.splitlines()]
    for block in markdown.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
        assert not rows or len(rows) > 2
    assert max(widths) > 4
    assert "2.1\u00a0points [0.9, 3.2] better" in markdown
    assert "\n\n\n" not in markdown
    assert not [line for line in markdown.splitlines() if line != line.rstrip()]


TEACHER = ("kept_of_teacher", "agreement_with_teacher", "size_ratio", "speedup")
DETAILS: dict[str, Any] = {"details": {}}


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        (
            {
                "scores": without("baseline", names=("student_minus_baseline",)),
                "baseline_steps": [],
                "baseline_evals": [],
                **DETAILS,
            },
            ">Baseline</th>",
        ),
        ({"scores": without("teacher", names=TEACHER), **DETAILS}, ">Teacher</th>"),
        (
            {"scores": without("teacher", "baseline", names=(*TEACHER, "student_minus_baseline"))},
            "Quality against size",
        ),
        (NO_LOGS, 'id="training"'),
        ({"scores": [], **DETAILS}, 'id="quality"'),
        ({"manifests": {}, **NO_LOGS, **DETAILS}, 'id="data"'),
        ({"recipe": {}, **NO_LOGS, **DETAILS}, "Resolved recipe"),
        ({"scores": [], "manifests": {}, "recipe": {}, **NO_LOGS, **DETAILS}, "<section"),
        ({"evals": [], **DETAILS}, "never there"),
        ({"steps": [], **DETAILS}, "Training loss"),
    ],
    ids=["baseline", "teacher", "both", "logs", "scores", "manifests", "recipe", "everything", "evals", "steps"],
)
def test_what_is_missing_is_not_shown(tmp_path: Path, changes: dict[str, Any], gone: str) -> None:
    page, html, markdown = written(tmp_path, make_facts(**changes))
    assert gone not in html.split("</style>")[1]
    assert "None" not in markdown
    for kind in ("section", "table", "ul", "figure", "dl", "tbody"):
        assert all(e.children for e in page.root.all(kind)), f"an empty <{kind}>"


def test_odd_values_do_not_break_the_page(tmp_path: Path) -> None:
    nan, none = float("nan"), None
    facts = make_facts(
        scores=[*changed("accuracy", value=nan), score("student", "accuracy", "perplexity", float("inf"), n=none)],
        steps=[
            {"step": 1, "stage": "a", "terms": {"ce": none}, "loss": none},
            {"step": 2, "stage": "a", "terms": {}, "loss": 0.0},
        ],
        evals=[{"step": 1, "stage": "a", "metrics": {"accuracy": nan, "loss": 1.0}, "best": True}],
        baseline_evals=[],
    )
    page, html, _ = written(tmp_path, facts)
    assert ">nan" not in html
    assert page.root.all("h1")


def test_the_same_facts_give_the_same_bytes(tmp_path: Path, page: Path) -> None:
    assert write_report(make_facts(), tmp_path / "new" / "folder")[0].read_bytes() == page.read_bytes()


def test_long_logs_stay_small(tmp_path: Path) -> None:
    terms = [f"t{i}" for i in range(8)]
    steps = [
        {"step": i, "stage": f"s{i // 4000}", "terms": dict.fromkeys(terms, 1 / i), "loss": 8 / i}
        for i in range(1, 20_001)
    ]
    _, html, _ = written(tmp_path, make_facts(steps=steps))
    assert len(html) < 500_000
    assert "Not drawn, for room: t6, t7." in html
    assert "mean of about 50 steps" in html


def test_validation_figures_carry_a_warning(tmp_path: Path) -> None:
    scores = [{**row, "split": "validation"} for row in without()]
    manifests = dict(make_facts().manifests)
    manifests["evaluate"] = {**manifests["evaluate"], "counts": {"rows": 1000, "rows_also_trained_on": 4}}
    _, html, markdown = written(tmp_path, make_facts(scores=scores, manifests=manifests, **DETAILS))
    for text in (html, markdown):
        assert "from the validation split" in text
        assert "chosen on the same split" in text
        assert "4 of these rows have the same inputs as a row that a model was trained on" in text


def test_other_axes_are_shown(tmp_path: Path) -> None:
    scores = [*without(), score("student", "robustness", "accuracy_under_noise", 0.7, low=0.6, high=0.8)]
    _, html, _ = written(tmp_path, make_facts(scores=scores, **NO_LOGS, **DETAILS))
    assert "Accuracy under noise" in html
    assert "70.0\u00a0%" in html
