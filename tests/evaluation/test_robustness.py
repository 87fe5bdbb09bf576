"""Accuracy against severity: who is fragile is told, who is not is left alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limbeck.core.errors import MissingExtra
from limbeck.core.recipe import Evaluate, Robustness
from limbeck.core.types import Sample
from limbeck.data.steps import canonical
from limbeck.evaluation.book import Book
from limbeck.evaluation.predict import classify
from limbeck.evaluation.robustness import measure
from tests.evaluation.interpretability.rows import model_for, pictures
from tests.evaluation.made import value

Says = Callable[[Sample], Any]


def shades(count: int = 120) -> list[Sample]:
    """Dark and bright pictures, grainy."""
    draw, rows = np.random.default_rng(0), []
    for i in range(count):
        levels = (70, 185)[i % 2] + draw.integers(-30, 30, (12, 12))
        rows.append(Sample(f"p{i}", {"image": Image.fromarray(levels.astype(np.uint8))}, ("dark", "bright")[i % 2]))
    return rows


def one_pixel(sample: Sample) -> str:
    return "bright" if np.asarray(sample.inputs["image"])[5, 5] > 127 else "dark"


def all_pixels(sample: Sample) -> str:
    return "bright" if np.asarray(sample.inputs["image"]).mean() > 127 else "dark"


def one_word(sample: Sample) -> str:
    return "good" if "excellent" in sample.inputs["text"].split() else "bad"


def looked_at(rows: Sequence[Sample], plan: Robustness, **models: Says) -> tuple[Book, list[str], list[int]]:
    """The book, the notes, and how many rows were asked each time."""
    asked: list[int] = []

    def predict(name: str, samples: Sequence[Sample]) -> dict[str, list[Any]]:
        asked.append(len(samples))
        said = [(s, models[name](s)) for s in samples]
        kept = [(s, p) for s, p in said if p != "unread"]
        return {
            "id": [s.id for s, _ in kept],
            "prediction": [p for _, p in kept],
            "correct": [p == s.target for s, p in kept],
        }

    book = Book(Evaluate(resamples=200))
    return book, measure(models, rows, plan, book, predict, seed=0), asked


def curve(book: Book, model: str, kind: str, figure: str = "score") -> dict[int, float]:
    rows = book.details["robustness"]
    return {r["severity"]: r[figure] for r in rows if (r["model"], r["perturbation"]) == (model, kind) and figure in r}


def test_who_looks_at_one_pixel_is_told_and_who_looks_at_all_is_not() -> None:
    plan = Robustness(perturbations=["gaussian_noise", "shot_noise"], severities=[1, 3, 5])  # type: ignore[list-item]
    book, notes, _ = looked_at(shades(), plan, fragile=one_pixel, stable=all_pixels)
    assert notes == []
    for kind in ("gaussian_noise", "shot_noise"):
        falls = curve(book, "fragile", kind)
        assert list(falls) == [0, 1, 3, 5]
        assert falls[0] == 1
        assert falls[0] >= falls[1] > falls[3] > falls[5]
        assert set(curve(book, "stable", kind).values()) == {1.0}
        assert value(book, "fragile", f"robustness_{kind}") == pytest.approx((falls[1] + falls[3] + falls[5]) / 3)
    scores = {(s.model, s.name): s for s in book.scores}
    for name in ("robustness_gaussian_noise", "robustness_shot_noise", "stability"):
        worse, better = scores["fragile", name], scores["stable", name]
        assert worse.high is not None
        assert better.low is not None
        assert worse.high < better.low
        assert (worse.axis, worse.unit, worse.n) == ("robustness", "share", 120)


def test_who_hangs_on_one_word_is_told() -> None:
    """Both answer every row as it is; a typo takes the one word away."""
    tail = ("seen before with the seven men of the west", "but it was on a cold dark day in June")
    texts = [f"The film was {('poor', 'excellent')[i % 2]} and {tail[1 - i % 2]} number {i}" for i in range(80)]
    rows = [Sample(f"t{i}", {"text": text}, ("bad", "good")[i % 2]) for i, text in enumerate(texts)]
    plan = Robustness(perturbations=["typos"])  # type: ignore[list-item]
    reference: Says = lambda s: ("bad", "good")[int(s.id[1:].split("~")[0]) % 2]  # noqa: E731
    book, _, _ = looked_at(rows, plan, fragile=one_word, stable=reference)
    falls = curve(book, "fragile", "typos")
    assert falls[0] == 1
    assert falls[5] < 0.9
    assert set(curve(book, "stable", "typos").values()) == {1.0}
    assert value(book, "fragile", "stability") < value(book, "stable", "stability") == 1


def test_every_severity_has_the_same_rows_and_no_row_is_asked_twice() -> None:
    """Few letters: at severity 1 most rows come out as they were, and are not asked about again."""
    rows = [Sample(f"t{i}", {"text": f"abcd efgh {i}"}, "x") for i in range(60)]
    plan = Robustness(perturbations=["typos"], severities=[5, 1])  # type: ignore[list-item]
    book, notes, asked = looked_at(rows, plan, student=lambda s: "x")
    found = book.details["robustness"]
    (n,) = {row["n"] for row in found}
    assert n < 60
    assert notes == [f"robustness: typos could not change {60 - n} rows (nothing_changed)"]
    assert asked[0] == 60
    assert n <= asked[1] < 2 * n
    assert [row["severity"] for row in found] == [0, 1, 5]


def halves(count: int = 30) -> list[Sample]:
    rows = []
    for i in range(count):
        n = 40 + 2 * i
        text = f"Mia has {n} clips and sells half of them. How many are sold?"
        rows.append(Sample(f"w{i}", {"prompt": text}, f"{n}/2={n // 2}. #### {n // 2}"))
    return rows


def test_changed_numbers_have_answers_of_their_own() -> None:
    old = {row.id: row.target for row in halves()}

    def calculates(sample: Sample) -> str:
        n = int(sample.inputs["prompt"].split()[2])
        return f"{n}/2={canonical(str(n // 2))}. #### {n // 2}"

    def recites(sample: Sample) -> str:
        return old[sample.id.split("~")[0]]

    plan = Robustness(perturbations=["change_numbers"])  # type: ignore[list-item]
    book, _, _ = looked_at(halves(), plan, calculates=calculates, recites=recites)
    assert curve(book, "calculates", "change_numbers") == {0: 1, 1: 1}
    assert curve(book, "recites", "change_numbers") == {0: 1, 1: 0}
    assert curve(book, "recites", "change_numbers", "stability") == {}
    assert {s.name for s in book.scores} == {"robustness_change_numbers"}


def test_left_out_means_all_that_fit_and_ask_no_model() -> None:
    book, notes, _ = looked_at(halves(), Robustness(max_samples=8), student=lambda s: s.target)
    kinds = {row["perturbation"] for row in book.details["robustness"]}
    assert {"typos", "distractor", "change_numbers"} <= kinds
    assert not kinds & {"paraphrase", "gaussian_noise", "gain"}
    assert {row["n"] for row in book.details["robustness"]} <= set(range(9))
    assert not any("no row can be changed by" in note for note in notes)  # nobody asked for pictures or sounds


def test_what_fits_no_row_is_noted_where_it_was_asked_for() -> None:
    plan = Robustness(perturbations=["gaussian_noise", "gain"])  # type: ignore[list-item]
    book, notes, _ = looked_at(halves(), plan, student=lambda s: s.target)
    assert notes == ["robustness: no row can be changed by gaussian_noise, gain"]
    assert book.scores == []


def test_a_package_that_is_missing_is_noted_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """English rows want none that reads Chinese."""

    def lacking(tones: bool) -> None:
        raise MissingExtra("the augmentation 'homophone'", "chinese")

    monkeypatch.setattr("limbeck.data.augmentation.homophone._common", lacking)
    english, chinese = (
        [Sample(f"t{i}", {"text": text}, "x") for i in range(4)] for text in ("A fine film", "这部电影很好看")
    )
    plan = Robustness(perturbations=["homophones"])  # type: ignore[list-item]
    _, notes, _ = looked_at(english, plan, student=lambda s: "x")
    assert notes == ["robustness: no row can be changed by homophones"]
    book, (note,), _ = looked_at(chinese, plan, student=lambda s: "x")
    assert note.startswith("robustness against homophones: the augmentation 'homophone'")
    assert "limbeck[chinese]" in note
    assert book.scores == []


def test_what_cannot_be_read_is_noted() -> None:
    rows = [*halves(4), Sample("s", {"prompt": "Add them up."}, "#### 1")]
    plan = Robustness(perturbations=["distractor"])  # type: ignore[list-item]
    long: Says = lambda s: "unread" if len(s.inputs["prompt"]) > 150 else s.target  # noqa: E731
    book, notes, _ = looked_at(rows, plan, student=long)
    assert notes == [
        "robustness: distractor could not change 1 rows (no_question)",
        "robustness: student could not read 4 of the rows changed by distractor",
    ]
    assert book.scores == []
    assert book.details == {}


def test_two_unreadable_answers_are_not_the_same_answer() -> None:
    plan = Robustness(perturbations=["distractor", "distractor"])  # type: ignore[list-item]
    book, _, _ = looked_at(halves(), plan, student=lambda s: None)
    assert value(book, "student", "stability") == 0
    assert {row["perturbation"] for row in book.details["robustness"]} == {"distractor", "distractor_2"}


def test_a_real_classifier_reads_changed_pictures() -> None:
    rows, codec = pictures(12)
    model = model_for("vit", codec)

    def predict(name: str, samples: Sequence[Sample]) -> Any:
        return classify(model, codec, codec.encode(samples).features, 8, name)

    book = Book(Evaluate(resamples=100))
    notes = measure(["student"], rows, Robustness(severities=[1, 5]), book, predict, seed=0)
    kinds = {row["perturbation"] for row in book.details["robustness"]}
    assert {"gaussian_noise", "jpeg", "haze", "motion_blur", "rotation"} <= kinds
    assert notes == []
    first = [row for row in book.details["robustness"] if row["severity"] == 0]
    assert len({row["score"] for row in first if row["n"] == 12}) == 1
