"""What the sections hold: tables, examples, the Pareto front, JSON and the model card."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from limbeck.report.examples import divergence, example_rows, examples, side_by_side
from limbeck.report.facts import Facts
from limbeck.report.model_card import model_card
from limbeck.report.plots.inside import layer_names
from limbeck.report.plots.size import front
from limbeck.report.record import to_json
from limbeck.report.render import write_report
from limbeck.report.svg import house_style
from limbeck.report.tables import details, models
from limbeck.report.text import readable, squeezed
from tests.report.details import labelled, make_details, worked
from tests.report.html_check import Page
from tests.report.made import NO_LOGS, make_facts, score, without

HOSTILE = "</td><script>alert(1)</script> \u202eRTL\u202c \x00 \ud800 **bold** [x](javascript:alert(1)) | {{ 7*7 }}"


def with_details(**changes: Any) -> Facts:
    return make_facts(details=make_details(**changes), **NO_LOGS)


def side(pairs: list[Any], name: str) -> list[str]:
    return ["".join(piece.text for piece in getattr(pair, name)) for pair in pairs]


def test_steps_stand_beside_their_like() -> None:
    taught = "First, 4*12=48 pens. Then 48-5=43 are left. The answer is 43."
    said = "First, 4*12=48 pens. The answer is 43."
    pairs = side_by_side(taught, said)
    assert side(pairs, "teacher") == ["First, 4*12=48 pens.", "Then 48-5=43 are left.", "The answer is 43."]
    assert side(pairs, "student") == ["First, 4*12=48 pens.", "", "The answer is 43."]
    assert [piece.change for piece in pairs[0].teacher + pairs[0].student] == ["", ""]
    assert [piece.change for piece in pairs[1].teacher] == ["del"]


def test_only_what_differs_is_marked() -> None:
    pair = side_by_side("4*12=48", "4*12=44")[0]
    assert [(p.text, p.change) for p in pair.teacher] == [("4*12=", ""), ("48", "del")]
    assert [(p.text, p.change) for p in pair.student] == [("4*12=", ""), ("44", "ins")]


def test_chinese_is_compared_sign_by_sign() -> None:
    pair = side_by_side("一共有三个苹果", "一共有五个苹果")[0]
    assert [p.text for p in pair.teacher if p.change] == ["三"]
    assert [p.text for p in pair.student if p.change] == ["五"]


def test_endless_answers_are_cut_and_said_to_be() -> None:
    long = {"prediction": "1", "text": "word " * 200_000}
    found = examples(
        with_details(examples=[worked("row", "lost", teacher=long, student={**long, "text": "1+1=2. " * 9000})])
    )
    text = "".join(piece.text for pair in found.items[0].pairs for piece in pair.teacher)
    assert len(text) < 4_100
    assert "996,000 more characters" in text
    assert len(found.items[0].pairs) <= 80


def test_at_most_ten_examples() -> None:
    many = [worked(f"row-{i}", "lost") for i in range(30)]
    assert [each.id for each in examples(with_details(examples=many)).items] == [f"row-{i}" for i in range(10)]
    many = [labelled(f"row-{i}", "lost", "a", "a", "b") for i in range(30)]
    assert [line.cells[0].small for line in example_rows(with_details(examples=many)).lines] == [
        f"row-{i}" for i in range(10)
    ]


def test_answers_by_a_class_alone_stand_in_a_table() -> None:
    picture = "data:image/png;base64,AAAA"
    found = [
        {**labelled("a", "lost", "refund", "refund", "loan"), "image": picture, "input": None},
        {**labelled("b", "gained", "x", "y", "x"), "image": "data:text/html,<b>", "input": "long " * 400},
        worked("c", "lost"),
    ]
    facts = with_details(examples=found)
    one, other = example_rows(facts).lines
    assert (one.head, one.cells[0].image, one.cells[3].tone) == ("Lost", picture, "worse")
    assert one.cells[2].text == "refund (93.0\u00a0% sure)"
    assert (other.head, other.cells[0].image, other.cells[3].tone) == ("Gained", "", "better")
    assert "1,600 more characters" in other.cells[0].text
    assert [each.id for each in examples(facts).items] == ["c"]


def test_slices_that_lose_nothing_are_not_the_worst() -> None:
    rows = [{**make_details()["slices"][0], "difference": d} for d in (-0.1, 0.0, 0.2, None)]
    assert len(details.slices(with_details(slices=rows)).lines) == 1
    assert "Minus the teacher" in details.slices(with_details(slices=rows)).columns
    alone = replace(with_details(slices=rows), scores=without("teacher", names=("kept_of_teacher",)))
    assert "Minus the other rows" in details.slices(alone).columns


def test_figures_behind_the_curves_stand_side_by_side() -> None:
    table = details.severities(with_details())
    assert table.columns[3:] == ("Teacher", "Student", "Baseline")
    assert len(table.lines) == 3 * 4
    assert [line.cells[0].text for line in table.lines[:4]] == ["none", "1", "3", "5"]
    assert table.lines[1].cells[3].small.endswith("95.0\u00a0% unchanged")
    bins = details.reliability(with_details())
    assert len(bins.lines) == 10
    assert "20 rows" in bins.lines[0].cells[0].small


def test_throughputs_are_not_counted_in_requests() -> None:
    rows = [score(m, "efficiency", "throughput", 9.0, n=n, unit="rows/s") for m, n in (("teacher", 7), ("student", 8))]
    assert models.efficiency(make_facts(scores=rows)).lines[0].cells[-1].text == "\u2013"


def test_layers_go_by_what_tells_them_apart() -> None:
    assert layer_names([f"encoder.layer.{i}" for i in (0, 3, 5)]) == ("encoder.layer.*", ["0", "3", "5"])
    assert layer_names(["a.g.0.l.0", "a.g.1.l.0"]) == ("a.g.*.l.0", ["0", "1"])
    assert layer_names(["a.b"]) == ("a.*", ["b"])
    assert layer_names(["0", "1"]) == ("*", ["0", "1"])
    assert layer_names(["x.0", "x.0.y"]) == ("x.*", ["0", "0.y"])


def test_long_names_beside_an_axis_are_squeezed() -> None:
    assert squeezed("short", 22) == "short"
    assert squeezed("abcdefghij", 6) == "abc…ij"


def test_tokens_are_shaded_by_their_divergence() -> None:
    facts = with_details(
        divergence=[{"id": "a", "tokens": ["x", "y", "z"], "kl": [0.0, 0.6, None], "entropy": [1, 1, 1]}]
    )
    assert [token.degree for token in divergence(facts).items[0][1]] == [0, 3, 0]


def test_worst_slices_come_as_they_were_found() -> None:
    table = details.slices(with_details())
    assert [line.cells[0].text for line in table.lines] == ["refund", "charged", "4 to 20"]
    assert [line.cells[4].tone for line in table.lines] == ["worse", "worse", ""]
    assert table.lines[0].cells[4].text == "\u221231.0\u00a0points"


def test_the_worst_class_leads() -> None:
    assert details.classes(with_details()).lines[0].head == "refund"


def test_errors_are_counted_by_whose_they_are() -> None:
    lines = {line.head: line.cells[0] for line in details.errors(with_details()).lines}
    assert lines["Both wrong, the same answer"].text == "60"
    assert lines["Teacher right, student wrong"].small == "4.2\u00a0%"


def test_the_front_is_what_nothing_else_beats() -> None:
    def point(name: str, size: float, quality: float, measure: str = "accuracy") -> Any:
        return name, score(name, "efficiency", "parameters", size), score(name, "accuracy", measure, quality)

    points = [point("a", 10, 0.9), point("b", 5, 0.8), point("c", 6, 0.7), point("d", 10, 0.85), point("e", 20, 0.9)]
    assert [name for name, _, _ in front(points)] == ["b", "a"]
    worse = [point("a", 10, 3.0, "perplexity"), point("b", 5, 4.0, "perplexity"), point("c", 7, 5.0, "perplexity")]
    assert [name for name, _, _ in front(worse)] == ["b", "a"]


def test_what_steers_a_reader_is_made_visible() -> None:
    assert readable("a\x00b\u202ec\r\nd\te\ud800") == "a\ufffdb\ufffdc\nd\te\ufffd"


def test_hostile_answers_stay_text(tmp_path: Path) -> None:
    said = {"prediction": HOSTILE, "text": HOSTILE + " 1+1=2. So 3."}
    facts = with_details(
        examples=[
            worked(HOSTILE, HOSTILE, input=HOSTILE, target=HOSTILE, teacher=said, student={**said, "text": HOSTILE})
        ],
        divergence=[{"id": HOSTILE, "tokens": [HOSTILE], "kl": [1.0], "entropy": [1.0]}],
        slices=[{**make_details()["slices"][0], "column": HOSTILE, "value": HOSTILE}],
        lens=[{"id": HOSTILE, "model": HOSTILE, "layers": [{"layer": HOSTILE, "answer": HOSTILE, "probability": 0.5}]}],
        errors={HOSTILE: {"both_right": 1, "n": 2}},
        cka={"teacher_layers": [HOSTILE], "student_layers": [HOSTILE], "cka": [[0.5]], "n": 3},
        robustness=[{**row, "perturbation": HOSTILE} for row in make_details()["robustness"][:4]],
    )
    html, markdown, data, card = write_report(replace(facts, title=HOSTILE), tmp_path)
    text = html.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.root.all("script")
    assert page.loads() == []
    assert "alert(1)" in text
    assert not re.search("[\u202a-\u202e\x00]", text + markdown.read_text() + card.read_text())
    assert "<script" not in re.sub(r"\\<", "", markdown.read_text())
    assert json.loads(data.read_text())["title"].startswith("</td>")
    assert yaml.safe_load(card.read_text().split("---\n")[1])["library_name"] == "transformers"


def test_json_has_what_the_page_shows(tmp_path: Path) -> None:
    facts = make_facts(scores=[*make_facts().scores, score("student", "accuracy", "odd", float("nan"))])
    _, _, data, _ = write_report(facts, tmp_path)
    found = json.loads(data.read_text(), parse_constant=lambda name: 1 / 0)
    assert found["headline"].startswith("The student keeps 98.6")
    assert found["details"] == json.loads(json.dumps(dict(facts.details)))
    assert len(found["scores"]) == len(facts.scores)
    assert found["scores"][-1]["value"] is None
    assert list(found["training"]["student"]["loss"]) == ["total", "cross_entropy", "kl", "hidden"]
    assert [each["id"] for each in found["sections"]][:3] == ["about", "quality", "efficiency"]
    plots = [p for s in found["sections"] for b in s["blocks"] if b["kind"] == "figures" for p in b["plots"]]
    assert len(plots) == 11
    assert all(plot["description"] and "svg" not in plot for plot in plots)


def test_json_takes_any_text() -> None:
    assert json.loads(to_json({"a": "\ud800 \u6a21", 1: float("inf"), "s": {"b", "a"}})) == {
        "a": "\ud800 \u6a21",
        "1": None,
        "s": ["a", "b"],
    }


def test_the_model_card_is_one(tmp_path: Path) -> None:
    card = ModelCard(model_card(make_facts(), "# Title\n"))
    assert card.data.base_model == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "text-classification"
    [result] = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.9182, "test")
    assert result.dataset_name == "banking77"
    assert card.text.strip() == "# Title"


def test_the_model_card_claims_nothing_unknown() -> None:
    new = {"train": {"model": {"name": "new resnet", "revision": None, "licence": "none, new weights"}}}
    card = ModelCard(model_card(make_facts(scores=[], manifests=new), "x"))
    assert card.data.base_model is None
    assert card.data.license is None
    assert card.data.eval_results is None


def test_ten_thousand_rows_of_details_stay_small(tmp_path: Path) -> None:
    rows = [labelled(f"row-{i}", "lost", "a", "a", "b") for i in range(10_000)]
    tokens = {"tokens": ["t"] * 10_000, "kl": [0.1] * 10_000, "entropy": [0.1] * 10_000}
    slices = [{**make_details()["slices"][0], "value": str(i)} for i in range(10_000)]
    facts = with_details(examples=rows, slices=slices, divergence=[{"id": str(i), **tokens} for i in range(10)])
    page = write_report(facts, tmp_path)[0]
    assert page.stat().st_size < 800_000


def test_a_plot_is_drawn_the_same_twice() -> None:
    from limbeck.report.plots.inside import cka_plot

    with house_style():
        one, other = (cka_plot(with_details()) for _ in range(2))
    assert one is not None
    assert one == other
