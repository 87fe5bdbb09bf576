"""The step `generate`: from prompts to training rows, each answer paid for once."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from limbeck.core import artifacts
from limbeck.core.errors import DataError, LimbeckError, RecipeError
from limbeck.core.recipe import load_recipe
from limbeck.pipeline._job import RunJob
from limbeck.pipeline.generate import GeneratedJob, generate, with_generated
from limbeck.pipeline.plan import plan, read_batches, write_batches
from limbeck.pipeline.prepare import prepare
from limbeck.pipeline.run import run_recipe
from tests.pipeline.endpoint import Endpoint, completion, serving
from tests.pipeline.recipes import BERT, QUICK, language, qwen

ROWS = [{"prompt": f"Ann has {i} pens and buys {i + 1} more. How many?", "answer": f"#### {2 * i + 1}"}
        for i in range(2, 8)]  # fmt: skip
HELD = [{"prompt": "Bo has 1 pen. How many?", "answer": "#### 1"}, {"prompt": "Cy has 3 pens?", "answer": "#### 3"}]


def right(question: str) -> str:
    """The sum of the numbers of a question, worked out."""
    return f"<think>\nadd\n</think>\n\nSo it is #### {sum(map(int, re.findall(r'[0-9]+', question)))}"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint that adds up the numbers of the question, and errs in every second answer."""

    def reply(body: dict[str, Any]) -> str:
        question = body["messages"][-1]["content"]
        return "It is #### 0" if body["seed"] % 2 else right(question)

    with serving(reply) as found:
        yield found


@pytest.fixture
def recipe(tmp_path: Path, endpoint: Endpoint) -> Callable[..., dict[str, Any]]:
    """A recipe whose teacher is the endpoint; `generate` is given."""
    for name, rows in (("train", ROWS), ("held", HELD)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def make(**fields: Any) -> dict[str, Any]:
        sft = {"name": "sft", "max_steps": 1, "terms": ["cross_entropy"]}
        held = str(tmp_path / "held.jsonl")
        return {
            "task": {"type": "causal-lm", "max_length": 128},
            "output": str(tmp_path / "run"),
            "teacher": {"endpoint": endpoint.section()},
            "student": {"config": qwen(8), "tokenizer": {"train": "bpe", "vocab_size": 300}},
            "data": {"train": str(tmp_path / "train.jsonl"), "validation": held, "test": held},
            "training": {"global_batch_size": 4},
            "stages": [sft],
            "evaluate": {**QUICK, "max_new_tokens": 4},
            "generate": {"samples": 2, "verify": "math_answer"},
            **fields,
        }

    return make


def made(raw: dict[str, Any]) -> GeneratedJob:
    """The step done alone, and the run with its rows."""
    job = RunJob(load_recipe(raw))
    artifact = generate(job, prepare(job))
    found = with_generated(job, artifact)
    assert isinstance(found, GeneratedJob)
    return found


def table(job: RunJob, name: str = "rows") -> list[dict[str, Any]]:
    return pq.read_table(job.output / "generate" / f"{name}.parquet").to_pylist()


def told(job: GeneratedJob, stage: str = "basic") -> dict[str, Any]:
    return job.generated.manifest["stages"][stage]


def test_right_answers_become_rows_and_wrong_ones_are_counted(
    recipe: Callable[..., dict[str, Any]], endpoint: Endpoint
) -> None:
    job = made(recipe())
    rows, dropped = table(job), table(job, "dropped")
    assert [row["id"] for row in rows] == [f"basic/train/{i}#0" for i in range(6)]
    assert rows[0]["messages"][-1] == {"role": "assistant", "content": "So it is #### 5", "reasoning_content": "add"}
    assert {row["pass_rate"] for row in rows} == {0.5}
    assert [row["reason"] for row in dropped] == ["wrong"] * 6
    assert told(job)["dropped"] == {"wrong": 6}
    assert told(job)["pass_at"] == {"1": 0.5, "2": 1.0}
    spent = {"prompt_tokens": 120, "completion_tokens": 60, "currency": "USD", "cost": 240e-6}
    assert told(job)["spent"] == spent
    assert len(endpoint.bodies) == 12
    sample = job.splits.train[0]
    assert sample.target == "<think>\nadd\n</think>\n\nSo it is #### 5"
    assert sample.inputs == {"messages": [{"role": "user", "content": ROWS[0]["prompt"]}]}
    assert (sample.meta["stage"], sample.meta["pass_rate"]) == ("basic", 0.5)
    assert len(job.splits.train) == 6
    assert len(job.given.splits.train) == 6
    assert job.splits.validation is job.given.splits.validation


def test_the_whole_chain_trains_the_student_on_what_was_generated(recipe: Callable[..., dict[str, Any]]) -> None:
    result = run_recipe(load_recipe(recipe(baseline=True, generate={"samples": 3, "max_samples": 2})))
    assert {score["model"] for score in result.scores} == {"student", "baseline"}
    assert result.report is not None
    counts = {name: artifacts.load(result.output / name).manifest["counts"] for name in ("train", "baseline")}
    assert (counts["train"]["train"], counts["train"]["given_left_out"]) == (6, 6)
    lengths = artifacts.read_manifest(result.output / "train")["facts"]["sft"]["lengths"]
    assert (lengths["after"]["rows"], lengths["after"]["rows_with_reasoning"]) == (6, 4)
    assert counts["baseline"]["train"] == 6
    assert "generated" not in counts["baseline"]
    parents = artifacts.read_manifest(result.output / "train")["parents"]
    assert parents == {"generate": artifacts.load(result.output / "generate").digest}
    assert artifacts.read_manifest(result.output / "baseline")["parents"] == {}


def test_a_mixture_takes_given_rows_beside_generated_ones(recipe: Callable[..., dict[str, Any]]) -> None:
    sft = {"name": "sft", "max_steps": 2, "terms": ["cross_entropy"], "mixture": {"basic": 1, "given": 3}}
    asked = {"samples": 2, "verify": "math_answer", "add": True}
    result = run_recipe(load_recipe(recipe(stages=[sft], generate=asked)), until="train")
    (best,) = artifacts.read_manifest(result.output / "train")["best"]
    assert [(p["part"], p["rows"], p["samples"]) for p in best["mixture"]] == [("basic", 6, 2), ("given", 6, 6)]


def test_the_baseline_needs_no_column_of_generated_rows(recipe: Callable[..., dict[str, Any]]) -> None:
    sft = {"name": "sft", "max_steps": 1, "terms": ["cross_entropy"], "mixture": {"basic": 1}}
    result = run_recipe(load_recipe(recipe(stages=[sft], baseline=True)), until="train")
    counts = artifacts.load(result.output / "baseline").manifest["counts"]
    assert counts["train"] == 6


def test_nothing_is_asked_twice(recipe: Callable[..., dict[str, Any]], endpoint: Endpoint) -> None:
    first = made(recipe()).generated.digest
    assert made(recipe()).generated.digest == first
    assert len(endpoint.bodies) == 12
    job = RunJob(load_recipe(recipe()), force=True)
    generate(job, None)
    assert len(endpoint.bodies) == 12
    made(recipe(generate={"samples": 3, "verify": "math_answer"}))
    assert len(endpoint.bodies) == 18
    slower = recipe()
    slower["teacher"]["endpoint"] |= {"max_concurrency": 1, "timeout": 5}
    before = made(slower).generated.digest
    slower["teacher"]["endpoint"]["max_concurrency"] = 2
    assert made(slower).generated.digest == before
    assert len(endpoint.bodies) == 18


def test_a_run_that_broke_off_goes_on(recipe: Callable[..., dict[str, Any]], endpoint: Endpoint) -> None:
    good = endpoint.reply
    endpoint.reply = lambda body: 401 if len(endpoint.bodies) > 5 else good(body)
    raw = recipe()
    raw["teacher"]["endpoint"]["max_concurrency"] = 1
    with pytest.raises(LimbeckError, match="refuses to answer"):
        made(raw)
    assert not (Path(raw["output"]) / "generate").exists()
    endpoint.reply = good
    endpoint.bodies.clear()
    job = made(raw)
    assert len(endpoint.bodies) == 12 - 5
    assert len(table(job)) == 6


def test_a_budget_leaves_the_rest_unanswered(recipe: Callable[..., dict[str, Any]], endpoint: Endpoint) -> None:
    stage = {"samples": 2, "verify": "math_answer", "budget": {"tokens": 450}, "sampling": {"max_tokens": 50}}
    job = made(recipe(generate=stage))
    assert told(job)["dropped"]["budget"] > 0
    assert told(job)["dropped"]["budget"] == 12 - len(endpoint.bodies)
    assert told(job)["spent"]["prompt_tokens"] + told(job)["spent"]["completion_tokens"] <= 450


def test_system_and_template_are_for_the_writer_alone(
    recipe: Callable[..., dict[str, Any]], endpoint: Endpoint
) -> None:
    job = made(recipe(generate={"system": "Be brief.", "template": "Q: {prompt}\nA:", "max_samples": 1}))
    asked = endpoint.bodies[0]["messages"]
    assert asked[0] == {"role": "system", "content": "Be brief."}
    prompt = table(job)[0]["messages"][0]["content"]
    assert asked[1]["content"] == f"Q: {prompt}\nA:"
    assert [turn["role"] for turn in table(job)[0]["messages"]] == ["user", "assistant"]


def test_data_stages_have_prompts_and_writers_of_their_own(
    recipe: Callable[..., dict[str, Any]], endpoint: Endpoint, tmp_path: Path
) -> None:
    (tmp_path / "hard.jsonl").write_text(json.dumps({"prompt": "1 and 2 and 3?", "level": 9}))
    stages = [
        {"name": "basic", "max_samples": 2},
        {"name": "adversarial", "prompts": str(tmp_path / "hard.jsonl"), "add": True,
         "writer": {"endpoint": endpoint.section(model="other")}},
    ]  # fmt: skip
    job = made(recipe(generate=stages))
    assert Counter(row["stage"] for row in table(job)) == {"basic": 2, "adversarial": 1}
    assert Counter(body["model"] for body in endpoint.bodies) == {"tiny": 2, "other": 1}
    assert len(job.splits.train) == 6 + 3
    hard = job.splits.train[-1]
    assert (hard.id, hard.meta["level"], hard.meta["stage"]) == ("adversarial/adversarial/0#0", 9, "adversarial")


def test_prompts_are_changed_by_rule_and_by_the_writer(
    recipe: Callable[..., dict[str, Any]], endpoint: Endpoint
) -> None:
    plain = endpoint.reply

    def reply(body: dict[str, Any]) -> str | int:
        question = body["messages"][-1]["content"]
        if "<question>" not in question:
            return plain(body)
        told = question.rpartition("\n")[2]
        return f"<question>{told.replace('How many', 'What is the number')}</question>"

    endpoint.reply = reply
    stage = {
        "perturb": [{"type": "typos", "severity": 5}, "paraphrase"],
        "originals": False,
        "max_samples": 3,
        "verify": "math_answer",
    }
    job = made(recipe(generate=stage))
    assert told(job)["prompts"] == {"by typos": 3, "by paraphrase": 3}
    tags = Counter(sample.meta["perturbation"] for sample in job.splits.train)
    assert tags == {"typos": 3, "paraphrase": 3}
    assert any("What is the number" in row["messages"][0]["content"] for row in table(job))
    assert len(endpoint.bodies) == 9


def test_filters_see_the_evaluation_rows(
    recipe: Callable[..., dict[str, Any]], endpoint: Endpoint, tmp_path: Path
) -> None:
    long = "Dora counts all the red and blue and green pens that lie on her table at home, 4 and 5. How many?"
    for name in ("train", "held"):
        with (tmp_path / f"{name}.jsonl").open("a") as file:
            file.write("\n" + json.dumps({"prompt": long, "answer": "#### 9"}))
    solution = "Eve lays every red shell beside a blue one, and then she counts the pairs: there are #### 5"
    with (tmp_path / "held.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"prompt": "How many shells?", "answer": solution}))
    endpoint.reply = lambda body: solution if body["messages"][-1]["content"] == ROWS[0]["prompt"] else "#### 9"
    job = made(recipe(generate={"filters": ["decontaminate"]}))
    assert len(table(job)) == 5
    assert {row["question"] for row in table(job, "dropped")} == {long, ROWS[0]["prompt"]}


def test_new_prompts_are_written_and_their_answers_vote(
    recipe: Callable[..., dict[str, Any]], endpoint: Endpoint
) -> None:
    new = ["Ed has 20 red hats and 1 blue hat. How many hats?", "In a box are 30 nuts, beside it 4 nuts. Count all."]

    def reply(body: dict[str, Any]) -> str:
        question = body["messages"][-1]["content"]
        if "JSON list" in question:
            return json.dumps([*new, ROWS[0]["prompt"]])
        return "#### 1" if body["seed"] == 2 else right(question)

    endpoint.reply = reply
    stage = {
        "synthesize": {"by": "self_instruct", "count": 2, "rounds": 1, "per_request": 3},
        "originals": False,
        "samples": 3,
        "verify": "math_answer",
        "vote": True,
    }
    job = made(recipe(generate=stage))
    assert sorted(row["messages"][0]["content"] for row in table(job)) == sorted(new * 2)
    assert {row["final_answer"] for row in table(job)} == {"21", "34"}
    assert told(job)["dropped"] == {"outvoted": 2, "synthesized: surplus": 1}
    assert told(job)["pass_at"] == {}  # a vote does not say what is right


def test_texts_of_a_class_are_written_for_a_classifier(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"it is {'dim' if i % 2 else 'bright'} {i},c{i % 2}\n" for i in range(30)))

    def reply(body: dict[str, Any]) -> str:
        label = re.search(r'new texts of the class "(\w+)"', body["messages"][-1]["content"])
        assert label is not None
        return json.dumps(
            [f"{label[1]} {word} sky {label[1]} over {word} {label[1]} town" for word in ("red", "pale", "old")]
        )

    bert = {**BERT, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    with serving(reply) as endpoint:
        raw = {
            "task": {"type": "text-classification", "max_length": 32},
            "output": str(tmp_path / "run"),
            "student": {"config": bert, "tokenizer": {"train": "bpe", "vocab_size": 300}},
            "data": {"train": str(rows), "test": str(rows)},
            "stages": [{"name": "sft", "max_steps": 1, "terms": ["cross_entropy"]}],
            "evaluate": QUICK,
            "generate": {
                "writer": {"endpoint": endpoint.section()},
                "synthesize": {"by": "class", "count": 5, "rounds": 1},
            },
        }
        result = run_recipe(load_recipe(raw), until="train")
    texts = pq.read_table(result.output / "generate" / "rows.parquet").to_pylist()
    assert Counter(row["label"] for row in texts) == {"c0": 3, "c1": 2}
    assert all(row["text"].startswith(row["label"]) for row in texts)
    counts = artifacts.read_manifest(result.output / "train")["counts"]
    assert (counts["train"], counts["generated"]) == (27 + 5, 5)


def test_a_local_teacher_writes_the_same_again_and_from_the_ledger(tmp_path: Path) -> None:
    sft = [{"name": "sft", "max_steps": 1, "terms": ["cross_entropy"]}]
    stage = {"samples": 2, "sampling": {"max_tokens": 6}, "max_samples": 5}
    run = run_recipe(load_recipe(language(tmp_path / "run", generate=stage, stages=sft)), until="generate").output
    first = pq.read_table(run / "generate" / "rows.parquet")
    assert first.num_rows == 10
    job = RunJob(load_recipe(language(tmp_path / "run", generate=stage, stages=sft)))
    prepared = artifacts.load(run / "prepare")
    (run / "ledger.sqlite").rename(tmp_path / "kept.sqlite")
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (run / name).unlink(missing_ok=True)
    job.force = True
    again = generate(job, prepared)
    assert again is not None
    assert pq.read_table(again.file("rows.parquet")).equals(first)


def test_nothing_left_is_an_error(recipe: Callable[..., dict[str, Any]], endpoint: Endpoint) -> None:
    endpoint.reply = lambda body: "#### 0"
    with pytest.raises(DataError, match=r"(?s)nothing that was generated is left.*'wrong': 12"):
        made(recipe())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"generate": {"synthesize": {"by": "class", "count": 3}}}, "prompts have no classes"),
        ({"task": "image-classification"}, "nothing can be written for this task"),
        ({"task": "text-classification"}, "a classifier learns from texts with classes"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    recipe: Callable[..., dict[str, Any]], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        run_recipe(load_recipe(recipe(**fields)))


class TestPlan:
    def test_a_dry_run_asks_nothing_and_counts_what_is_left(
        self, recipe: Callable[..., dict[str, Any]], endpoint: Endpoint
    ) -> None:
        raw = recipe(generate={"samples": 2, "sampling": {"max_tokens": 100}})
        (before,) = plan(load_recipe(raw))
        assert endpoint.bodies == []
        assert (before.estimate.requests, before.estimate.done, before.currency) == (12, 0, "USD")
        assert before.estimate.worst.completion == 1200
        made(raw)
        (after,) = plan(load_recipe(raw))
        assert (after.estimate.done, after.estimate.worst.tokens) == (12, 0)
        assert after.estimate.spent.cost == pytest.approx(240e-6)

    def test_prompts_that_are_still_to_be_written_count(self, recipe: Callable[..., dict[str, Any]]) -> None:
        stage = {"synthesize": {"by": "self_instruct", "count": 10, "per_request": 5}, "samples": 2}
        (found,) = plan(load_recipe(recipe(generate=stage)))
        assert found.estimate.requests == 2 + (6 + 10) * 2

    def test_a_batch_takes_the_place_of_calls(
        self, recipe: Callable[..., dict[str, Any]], endpoint: Endpoint, tmp_path: Path
    ) -> None:
        raw = recipe(generate=[{"name": name, "samples": 2, "seed": i} for i, name in enumerate("ab")])
        raw["teacher"]["endpoint"]["price"]["batch_discount"] = 0.5
        paths = write_batches(load_recipe(raw), tmp_path / "batch")
        assert [path.parent.name for path in paths] == ["a", "b"]
        calls = [json.loads(line) for line in paths[0].read_text().splitlines()]
        assert len(calls) == 12
        results = tmp_path / "results.jsonl"
        with results.open("w") as file:
            for call in calls:
                body = completion(right(call["body"]["messages"][-1]["content"]))
                response = {"status_code": 200, "body": body}
                file.write(json.dumps({"custom_id": call["custom_id"], "response": response}) + "\n")
            file.write("no line\n" + json.dumps({"custom_id": "f" * 64, "response": {}}) + "\n")
        assert read_batches(load_recipe(raw), results) == {"done": 12, "malformed": 1, "unknown": 1}
        job = made(raw)
        assert len(endpoint.bodies) == 12  # those of the other data stage
        assert told(job, "a")["spent"]["cost"] == pytest.approx(120e-6)
        assert write_batches(load_recipe(raw), tmp_path / "batch") == []

    def test_a_local_model_knows_no_batch(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="a local model knows no Batch interface"):
            write_batches(load_recipe(language(tmp_path / "run", generate={})), tmp_path)
