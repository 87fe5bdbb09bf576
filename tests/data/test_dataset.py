import json
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from limbeck.core.errors import DataError
from limbeck.core.recipe import Data
from limbeck.data.dataset import Splits, fingerprint, load_splits
from limbeck.tasks.causal_lm import CausalLM


@dataclass
class Texts:
    """A reader as small as can be."""

    roles: ClassVar = {"text": True, "text_pair": False, "label": True}

    def read(self, fields, where):
        if not isinstance(fields["text"], str):
            raise DataError(f"{where}: the text is no string", got=repr(fields["text"]))
        return (
            {k: fields[k] for k in ("text", "text_pair") if k in fields},
            fields["label"],
            {"letters": len(fields["text"])},
        )


class Talks:
    roles: ClassVar = {"messages": False, "prompt": False, "answer": False}

    def read(self, fields, where):
        return {"prompt": fields["prompt"]}, fields["answer"], {}


class Pictures:
    roles: ClassVar = {"image": True, "label": True}

    def read(self, fields, where):
        return {"image": np.asarray(fields["image"])}, fields["label"], {}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(count, classes=2, start=0):
    return [{"text": f"text {i}", "label": f"c{i % classes}", "steps": i % 3} for i in range(start, start + count)]


@pytest.fixture
def job(tmp_path):
    """Make `Data` from lists of rows by split, and anything else."""

    def make(train, test=None, validation=None, **more):
        found = {"train": train, "test": test, "validation": validation}
        files = {k: write(tmp_path / f"{k}.jsonl", v) if isinstance(v, list) else v for k, v in found.items()}
        return Data(**{k: v for k, v in files.items() if v is not None}, **more)

    return make


def failure(data, task=None, **options):
    with pytest.raises(DataError) as caught:
        load_splits(data, task or Texts(), **options)
    return str(caught.value)


# Columns


def test_columns_by_name_of_the_role_or_of_the_recipe(job):
    train = [
        {"text": "no", "sentence": "yes", "label": "a", "kind": i, "id": 1, "deep": {"x": 1}, "no": None}
        for i in range(4)
    ]
    found = load_splits(job(train, text="sentence", label="kind", validation=0.5), Texts(), need_test=False)
    sample = found.train[0]
    assert sample.inputs == {"text": "yes"}
    assert sample.target in {"0", "1", "2", "3"}
    assert sample.meta == {"text": "no", "label": "a", "id": 1, "letters": 3}
    assert found.label_names == ("0", "1", "2", "3")


def test_columns_that_do_not_exist(job):
    message = failure(job(rows(4), rows(2), label="lable"))
    assert "train.jsonl has no column 'lable'" in message
    assert "allowed: text, label, steps" in message
    assert "fix: did you mean data.label=label?" in message
    assert "fix: data.label=COLUMN" in failure(job(rows(4), rows(2), label="zzzz"))
    assert "test.jsonl have no column for `label`" in failure(job(rows(4), [{"text": "a"}]))
    message = failure(job([{"sentence": "a", "label": "b"}] * 2, rows(2)))
    assert "train.jsonl have no column for `text`\n  allowed: sentence, label\n  fix: data.text=COLUMN" in message


def test_roles_that_the_task_does_not_have(job):
    message = failure(job(rows(4), rows(2), image="text"))
    assert "data.image names a column, but the task has no use for it" in message
    assert "allowed: text, text_pair, label, id" in message


def test_tasks_of_which_no_role_is_there(job):
    message = failure(job(rows(4), rows(2)), Talks())
    assert "have no column for any of `messages`, `prompt`, `answer`" in message


def test_rows_that_lack_a_cell(job):
    train = rows(4)
    del train[2]["text"]
    data = job(train, rows(2), validation=rows(2))
    assert "train.jsonl, row 3 has no `text`" in failure(data)
    train[2]["text"] = None
    assert "train.jsonl, row 3: the text is no string\n  got: None" in failure(job(train, rows(2), validation=rows(2)))
    train[2]["text"] = "x"
    train[3]["comment"] = "only here"
    found = load_splits(job(train, rows(2), validation=rows(2)), Texts()).train
    assert [s.meta.get("comment") for s in found] == [None, None, None, "only here"]


def test_a_second_text_is_never_dropped_in_silence(job):
    def pairs(count):
        return [{**row, "text_pair": "b"} for row in rows(count)]

    found = load_splits(job(pairs(4), pairs(2), pairs(2)), Texts())
    assert {s.inputs["text_pair"] for s in found.train + found.test} == {"b"}
    some = pairs(4)
    del some[2]["text_pair"]
    assert "train.jsonl, row 3 has no `text_pair`" in failure(job(some, pairs(2), pairs(2)))
    assert "test.jsonl, row 3 has no `text_pair`" in failure(job(pairs(4), some, pairs(2)))
    for train, test in ((pairs(4), rows(2)), (rows(4), pairs(2))):
        message = failure(job(train, test))
        assert "has a column for `text_pair`" in message
        assert "train.jsonl (train)" in message
        assert "test.jsonl (test)" in message
    assert "validation.jsonl (validation) has none" in failure(job(pairs(4), pairs(2), rows(2)))


def test_of_competing_columns_the_one_that_is_named_counts(job):
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "from messages"}]
    both = [{"messages": turns, "prompt": f"{i}+1=", "answer": str(i)} for i in range(4)]
    for named in ({"prompt": "prompt"}, {"answer": "answer"}, {"prompt": "prompt", "answer": "answer"}):
        found = load_splits(job(both, validation=both, **named), CausalLM(), need_test=False)
        assert [s.target for s in found.train] == ["0", "1", "2", "3"]
    for row in both[2:]:
        del row["prompt"], row["answer"]
    found = load_splits(job(both, validation=both, messages="messages"), CausalLM(), need_test=False)
    assert [s.target for s in found.train] == ["from messages"] * 4


def test_a_conversation_may_be_written_otherwise_in_another_split(job):
    turns = [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]
    found = load_splits(job([{"messages": turns}] * 4, [{"prompt": "1+1=", "answer": "2"}]), CausalLM())
    assert (found.test[0].inputs, found.test[0].target) == (found.train[0].inputs, found.train[0].target)


def test_tasks_without_labels(job):
    talk = [{"prompt": f"{i}+1=", "answer": str(i + 1), "steps": 1} for i in range(20)]
    found = load_splits(job(talk, talk[:3]), Talks())
    assert found.label_names is None
    assert found.counts["validation_from"] == "0.1 of the training rows, drawn from all alike"
    assert found.test[2].target == "3"
    assert found.test[2].meta == {"steps": 1}
    assert "classes_without_training_rows" not in found.counts


# Ids


def test_ids_by_place_do_not_change_with_the_draw(job):
    whole = load_splits(job(rows(30), rows(3)), Texts())
    part = load_splits(job(rows(30), rows(3), max_samples=5, validation=0.3), Texts())
    texts = {s.id: s.inputs["text"] for s in whole.train + whole.validation}
    assert texts == {f"train/{i}": f"text {i}" for i in range(30)}
    assert all(texts[s.id] == s.inputs["text"] for s in part.train + part.validation)
    assert [s.id for s in part.test] == ["test/0", "test/1", "test/2"]


def test_ids_from_a_column(job):
    named = [{**row, "key": i} for i, row in enumerate(rows(6))]
    found = load_splits(job(named[:4], named[4:], validation=0.5, id="key"), Texts())
    assert sorted(s.id for s in found.train + found.validation) == ["0", "1", "2", "3"]
    assert "key" not in found.train[0].meta
    assert "two rows have the id '1'" in failure(job(named[:4], named[1:2], id="key"))
    for wrong in (None, "", True, 1.5, [1]):
        named[5]["key"] = wrong
        assert f"test.jsonl, row 2: `key` is no id\n  got: {wrong!r}" in failure(job(named[:4], named[4:], id="key"))
    assert "has no column 'kex'" in failure(job(named, id="kex"), need_test=False)


# Labels


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([10, 9, 10, 9], ("9", "10")),
        (["10", "9", "10", "9"], ("9", "10")),
        (["b", "a", "B", "a"], ("B", "a", "b")),
        ([True, False, True, True], ("false", "true")),
        ([1, "x", 1, "x"], ("1", "x")),
    ],
)
def test_class_lists(job, values, classes):
    train = [{"text": f"{i}", "label": value} for i, value in enumerate(values)]
    assert load_splits(job(train), Texts(), need_test=False).label_names == classes


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_missing_labels(job, value):
    train = rows(4)
    train[2]["label"] = value
    assert "train.jsonl, row 3: the label in column `label` is missing" in failure(job(train), need_test=False)
    del train[2]["label"]
    assert "train.jsonl, row 3: the label in column `label` is missing" in failure(job(train), need_test=False)


@pytest.mark.parametrize("value", [1.0, [1], {"a": 1}])
def test_labels_that_are_no_classes(job, value):
    train = rows(4)
    train[1]["label"] = value
    assert "train.jsonl, row 2: the label in column `label` is neither a name nor" in failure(
        job(train), need_test=False
    )


def test_labels_that_training_does_not_know(job):
    test = rows(3)
    test[1]["label"] = "c9"
    message = failure(job(rows(10), test))
    assert "test.jsonl, row 2: 'c9' in column `label` is no class of the training data" in message
    assert "allowed: c0, c1" in message
    assert "validation.jsonl, row 2" in failure(job(rows(10), rows(2), validation=test))


def test_integers_take_the_names_that_their_source_knows(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    def parquet(name, names, labels):
        features = Features({"text": Value("string"), "label": ClassLabel(names=names), "stars": Value("int64")})
        columns = {"text": [f"{name}{i}" for i in range(len(labels))], "label": labels, "stars": [5] * len(labels)}
        Dataset.from_dict(columns, features).to_parquet(str(tmp_path / f"{name}.parquet"))
        return str(tmp_path / f"{name}.parquet")

    train = parquet("train", ["sports", "arts", "news"], [0, 1, 0, 1])
    test = parquet("test", ["news", "sports"], [0, 1])
    found = load_splits(Data(train=train, test=test, validation=0.5), Texts())
    assert found.label_names == ("sports", "arts", "news")
    assert [s.target for s in found.test] == ["news", "sports"]
    assert found.counts["classes_without_training_rows"] == ["news"]
    # A column of other numbers is not named by them.
    stars = load_splits(Data(train=train, test=test, label="stars"), Texts())
    assert (stars.label_names, stars.train[0].target) == (("5",), "5")
    # A file that knows no names takes those of the training rows.
    plain = write(tmp_path / "plain.jsonl", [{"text": "a", "label": 2}])
    assert load_splits(Data(train=train, test=plain), Texts()).test[0].target == "news"
    secret = write(tmp_path / "secret.jsonl", [{"text": "a", "label": -1}])
    message = failure(Data(train=train, test=secret))
    assert (
        "secret.jsonl, row 1: the label in column `label` stands for no class\n  got: -1\n  allowed: 0 to 2" in message
    )


# Splits


def test_a_share_is_held_out_in_proportion(job):
    found = load_splits(job(rows(100, classes=4), validation=0.2), Texts(), need_test=False)
    assert (len(found.train), len(found.validation), found.test) == (80, 20, [])
    assert Counter(s.target for s in found.validation) == dict.fromkeys(("c0", "c1", "c2", "c3"), 5)
    assert found.counts["validation_from"] == "0.2 of the training rows, stratified by label"
    assert found.counts["held_out"] == 20
    other = load_splits(job(rows(100, classes=4), validation=0.2, seed=1), Texts(), need_test=False)
    assert [s.id for s in other.validation] != [s.id for s in found.validation]
    lonely = load_splits(job([*rows(20), {"text": "x", "label": "one"}]), Texts(), need_test=False)
    assert lonely.counts["validation_from"] == "0.1 of the training rows, drawn from all alike"
    assert "too few rows to hold some out" in failure(job(rows(1)), need_test=False)


def test_a_source_for_validation_gives_all_its_rows(job):
    found = load_splits(job(rows(10), rows(2, start=20), rows(5, start=10)), Texts())
    assert [len(x) for x in (found.train, found.validation, found.test)] == [10, 5, 2]
    assert found.validation[0].id == "validation/0"
    assert (found.counts["validation_from"], found.counts["held_out"]) == ("data.validation", 0)


def test_splits_of_the_training_source(tmp_path):
    shades = iter(range(100))
    for split, count in {"train": 4, "validation": 2, "test": 3}.items():
        for name in ("cat", "dog"):
            for i in range(count):
                file = tmp_path / "pets" / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (2, 2), next(shades)).save(file)
    found = load_splits(Data(train=str(tmp_path / "pets")), Pictures())
    assert [len(x) for x in (found.train, found.validation, found.test)] == [8, 4, 6]
    assert found.counts["validation_from"] == "the training source's own split"
    assert found.test[0].meta == {"file": "test/cat/0.png"}
    assert found.counts["train_rows_also_in_test"] == 0
    held = load_splits(Data(train=str(tmp_path / "pets"), validation=0.25), Pictures())
    assert [len(x) for x in (held.train, held.validation)] == [6, 2]
    (tmp_path / "pets" / "test" / "cat" / "0.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"test/cat/0\.png is not an image"):
        load_splits(Data(train=str(tmp_path / "pets")), Pictures())


def test_digits_end_to_end():
    found = load_splits(Data(train="digits", max_samples=50), Pictures())
    assert [len(x) for x in (found.train, found.validation, found.test)] == [50, 135, 449]
    assert found.label_names == tuple("0123456789")
    assert found.train[0].inputs["image"].shape == (8, 8)


def test_test_rows(job):
    assert "there are no test rows" in failure(job(rows(10)))
    assert "fix: data.test=..." in failure(job(rows(10)))
    assert load_splits(job(rows(10)), Texts(), need_test=False).test == []


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_empty_splits(job, split):
    data = {"train": rows(4), "validation": rows(4), "test": rows(4), split: []}
    assert f"{split}.jsonl has no rows for the split '{split}'" in failure(job(**data))


def test_rows_that_are_in_two_splits_are_counted(job):
    train = [*rows(8), {"text": "text 0", "label": "c1"}]
    found = load_splits(job(train, rows(2), rows(3, start=7)), Texts())
    assert found.counts["train_rows_also_in_test"] == 3
    assert found.counts["train_rows_also_in_validation"] == 1


def test_counts(job):
    counts = load_splits(job(rows(20), rows(3, start=30), max_samples=10), Texts()).counts
    assert counts == {
        "train": 10,
        "validation": 2,
        "test": 3,
        "train_rows": 20,
        "validation_from": "0.1 of the training rows, stratified by label",
        "held_out": 2,
        "left_out_by_max_samples": 8,
        "train_rows_also_in_validation": 0,
        "train_rows_also_in_test": 0,
        "classes_without_training_rows": [],
    }
    json.dumps(counts)


def ids(samples):
    return [s.id for s in samples]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.integers(4, 40), st.integers(1, 3), st.integers(0, 99), st.data())
def test_subsamples_are_nested_and_leave_the_rest_alone(job, count, classes, seed, data):
    small = data.draw(st.integers(1, count))
    large = data.draw(st.integers(small, count))

    def load(size) -> Splits:
        return load_splits(job(rows(count, classes), max_samples=size, seed=seed), Texts(), need_test=False)

    few, many, everything = load(small), load(large), load(None)
    assert few == load(small)
    assert ids(few.validation) == ids(many.validation) == ids(everything.validation)
    assert set(ids(few.train)) <= set(ids(many.train)) <= set(ids(everything.train))
    assert len(few.train) == min(small, len(everything.train))
    assert [i for i in ids(everything.train) if i in ids(many.train)] == ids(many.train)
    assert few.label_names == everything.label_names


# Fingerprints


def test_fingerprints_by_split(job, tmp_path):
    one = fingerprint(job(rows(4)))
    assert set(one) == {"train"}
    all_three = fingerprint(job(rows(4), rows(3), rows(2)))
    assert set(all_three) == {"train", "validation", "test"}
    assert all_three["train"] == one["train"]
    assert len(set(all_three.values())) == 3
    assert set(fingerprint(job(rows(4), validation=0.2))) == {"train"}
    with pytest.raises(DataError, match="there is no file at"):
        fingerprint(Data(train=str(tmp_path / "none.jsonl")))


def test_numpy_rows_become_plain_values(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, text=np.array(["a", "b", "c", "d"]), label=np.array([0, 1, 0, 1]), score=np.ones(4, np.float32))
    found = load_splits(Data(train=str(path), validation=0.5), Texts(), need_test=False)
    sample = found.train[0]
    assert [type(x) for x in (sample.inputs["text"], sample.target, sample.meta["score"])] == [str, str, float]
