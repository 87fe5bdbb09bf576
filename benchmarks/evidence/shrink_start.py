"""What cuts of a student cost before any training: a linear classifier on the features of each cut model.

    python benchmarks/evidence/shrink_start.py --teacher path/to/all-MiniLM-L6-v2 --data path/to/banking77

Features are mean-pooled last hidden states, standardised; the classifier is a logistic regression (C = 1) on
`--train` rows of Banking77's training split, scored on `--test` rows of its test split. The cut models see no
training; `new` has the config of `all` and random weights. The basis of the width comes from the weights, in the
rows marked `hidden` from hidden states on 500 training rows.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
import transformers
from sklearn.linear_model import LogisticRegression

from limbeck.models.load import parameters
from limbeck.models.shrink import ShrinkPlan, as_markdown, parameter_table, shrink

ALL: dict[str, Any] = {
    "layers": [0, 5],
    "hidden_size": 192,
    "num_attention_heads": 6,
    "intermediate_size": 768,
    "vocabulary": "trim",
    "embedding_size": 64,
}
FIRST = ("layers", "vocabulary")
"""Cut in every row, so that the rows tell of the other cuts."""


def main() -> None:
    options = arguments()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(options.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.teacher)
    kind = transformers.AutoModelForSequenceClassification
    teacher = kind.from_pretrained(options.teacher, num_labels=77).eval()
    whole = pandas.read_csv(options.data / "train.csv.gz")
    used = {i for row in tokenizer(list(whole.text), padding=False, truncation=False)["input_ids"] for i in row}
    train = whole.sample(options.train, random_state=options.seed)
    test = pandas.read_csv(options.data / "test.csv.gz").sample(options.test, random_state=options.seed)
    hidden_ND = states(teacher, tokenizer, list(train.text[:500]))
    plans: dict[str, tuple[Sequence[str], bool]] = {
        "layers, vocabulary": (FIRST, False),
        "+ MLP": ((*FIRST, "intermediate_size"), False),
        "+ embeddings": ((*FIRST, "embedding_size"), False),
        "+ width, heads": ((*FIRST, "hidden_size", "num_attention_heads"), False),
        "+ width, heads (hidden)": ((*FIRST, "hidden_size", "num_attention_heads"), True),
        "all": (tuple(ALL), False),
        "all (hidden)": (tuple(ALL), True),
    }
    rows = [row("teacher", teacher, tokenizer, train, test)]
    for name, (fields, by_hidden) in plans.items():
        plan = ShrinkPlan(**{field: ALL[field] for field in fields})
        done = shrink(teacher, tokenizer, plan, used, hidden_ND if by_hidden else None)
        rows.append(row(name, done.model, done.tokenizer, train, test))
    fresh = kind.from_config(done.model.config)
    rows.append(row("new", fresh, done.tokenizer, train, test))
    print("\n" + as_markdown(parameter_table(teacher, done.model)))
    result = {
        "benchmark": "linear probe of cut models before training",
        "plan": ALL,
        "rows": rows,
        "seed": options.seed,
    }
    if options.results is not None:
        path = options.results / f"{time.strftime('%Y-%m-%d')}-shrink-start.json"
        path.write_text(json.dumps({**result, "torch": torch.__version__}, indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    data = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[3] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="folder or hub name of a MiniLM encoder")
    parser.add_argument("--data", type=Path, default=data / "banking77", help="folder with train.csv.gz, test.csv.gz")
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="folder for a dated JSON")
    return parser.parse_args()


def row(name: str, model: Any, tokenizer: Any, train: Any, test: Any) -> dict[str, Any]:
    """Probe a model, print a line of the table, and return it."""
    model.eval()
    first, second = (features(model, tokenizer, list(split.text)) for split in (train, test))
    mean, spread = first.mean(0), first.std(0).clip(1e-6)  # one dimension of MiniLM never changes
    probe = LogisticRegression(max_iter=300).fit((first - mean) / spread, train.category)
    told = {
        "model": name,
        "parameters": parameters(model),
        "accuracy": probe.score((second - mean) / spread, test.category),
    }
    print(f"{name:26} {told['parameters']:12,} {told['accuracy']:.3f}", flush=True)
    return told


@torch.no_grad()
def features(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Mean-pooled last hidden states [rows, D]."""
    order, found = sorted(range(len(texts)), key=lambda i: len(texts[i])), []  # like lengths together: less padding
    for start in range(0, len(texts), 64):
        some = [texts[i] for i in order[start : start + 64]]
        inputs = tokenizer(some, padding=True, return_tensors="pt")
        mask = inputs["attention_mask"][..., None].float()
        found.append((model.base_model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.cat(found)[torch.tensor(order).argsort()].numpy()


@torch.no_grad()
def states(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Hidden states of all layers at all tokens [N, D]."""
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    layers = model.base_model(**inputs, output_hidden_states=True).hidden_states
    return torch.cat([hidden[inputs["attention_mask"].bool()] for hidden in layers])


if __name__ == "__main__":
    main()
