"""B5: a training step from the recording beside a step of plain cross-entropy.

    python benchmarks/b05_cached_step.py [--vocab 32000] [--hidden 256] [--layers 4] [--rounds 5] [--json OUT]

A student takes the same optimizer steps on the same batches of ragged lengths: with cross-entropy alone, and with
cross-entropy and KL to a recorded teacher (packed top-k and sampled). The steps are taken in turns; given are the
median over rounds of CPU seconds per step, their ratio to cross-entropy, and what the teacher's answer takes by itself.
The recording is made of random distributions of the asked width: what a step costs does not depend on what they say.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from limbeck.cache.fit import Asked
from limbeck.cache.record import Source, fit, record
from limbeck.cache.store import Cache, Facts, Format, describe
from limbeck.core import artifacts
from limbeck.core.parts import build
from limbeck.core.types import IGNORE, Batch, Head, Needs, Signal
from limbeck.teachers.cached import CachedTeacher
from limbeck.training.distiller import Distiller


@dataclass
class Texts:
    """Rows of random tokens, of lengths as answers have."""

    rows: list[torch.Tensor]

    def batch(self, which: Any) -> Batch:
        """Padded on the right; every position has a label."""
        rows = [self.rows[i] for i in which]
        width = max(map(len, rows)) - 1
        ids, mask = torch.zeros(2, len(rows), width, dtype=torch.long)
        labels = torch.full((len(rows), width), IGNORE)
        for i, row in enumerate(rows):
            ids[i, : len(row) - 1], labels[i, : len(row) - 1], mask[i, : len(row) - 1] = row[:-1], row[1:], 1
        return Batch(tuple(map(str, which)), {"input_ids": ids, "attention_mask": mask}, labels)


def recorded(folder: Path, texts: Texts, vocab: int, kind: str, budget: float) -> CachedTeacher:
    """A recording of random distributions that are as certain as a language model's."""
    draw = torch.Generator().manual_seed(1)
    table, weight = torch.randn(vocab, 32, generator=draw), torch.randn(vocab, 32, generator=draw)

    def signal(batch: Batch) -> Signal:
        return Signal(Head(0.6 * table[batch.inputs["input_ids"]], weight))

    source = Source([len(row) - 1 for row in texts.rows], texts.batch, signal, 8)
    made = Format(fit(source, Asked(budget, kind)).codec)
    folder.mkdir()
    made.save(folder)
    record(folder, source, made)
    facts = Facts("random", "random", "random", vocab)
    artifacts.seal(folder, {"kind": "cache", "cache": describe(folder, facts, len(source.shards()))})
    return CachedTeacher(Cache(folder, facts))


def main() -> None:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("vocab", 32_000),
        ("hidden", 256),
        ("layers", 4),
        ("rounds", 5),
        ("batch", 8),
        ("longest", 256),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = torch.randint(given.longest // 4, given.longest + 1, (8 * given.batch,)).tolist()
    texts = Texts([torch.randint(1, given.vocab, (size,)) for size in sizes])
    sizes_of = {"hidden_size": given.hidden, "intermediate_size": 3 * given.hidden, "num_hidden_layers": given.layers}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": given.hidden // 4}
    config = AutoConfig.for_model("qwen3", vocab_size=given.vocab, tie_word_embeddings=True, **sizes_of, **heads)
    student = AutoModelForCausalLM.from_config(config)
    with tempfile.TemporaryDirectory() as folder:
        teachers: dict[str, CachedTeacher | None] = {"cross_entropy": None}
        for name, kind, budget in (("top_k, 100 bytes", "top_k", 100.0), ("sampled, 36 bytes", "sampled", 36.0)):
            teachers[name] = recorded(Path(folder) / kind, texts, given.vocab, kind, budget)
        table = measure(student, teachers, texts, given)
    print(f"{'loss':>20}  {'ms a step':>10}  {'ratio':>7}  {'ms the teacher':>14}  {'bytes':>6}")
    for row in table:
        cells = f"{row['ms']:>10.1f}  {row['ratio']:>7.3f}  {row['teacher_ms']:>14.2f}  {row['bytes']:>6.1f}"
        print(f"{row['loss']:>20}  {cells}")
    if given.json:
        plain = {name: str(value) for name, value in vars(given).items() if name != "json"}
        given.json.write_text(json.dumps({"torch": torch.__version__, "arguments": plain, "rows": table}, indent=2))


def measure(student: Any, teachers: dict[str, CachedTeacher | None], texts: Texts, given: Any) -> list[dict[str, Any]]:
    """Steps with each teacher in turn."""
    optimizer = torch.optim.AdamW(student.parameters(), 1e-4)
    plain, both = (
        [build("objective", name) for name in names] for names in (["cross_entropy"], ["cross_entropy", "kl"])
    )
    spent: dict[str, list[float]] = {name: [] for name in teachers}
    answered: dict[str, list[float]] = {name: [] for name in teachers}
    for turn in range(given.rounds + 1):
        batches = [texts.batch(range(at, at + given.batch)) for at in range(0, len(texts.rows), given.batch)]
        for batch in batches:
            for name, teacher in teachers.items():
                distiller = Distiller(student, plain if teacher is None else both)  # type: ignore[arg-type]
                began = time.process_time()
                told = Signal() if teacher is None else teacher.signal(batch, Needs(dist=True))
                middle = time.process_time()
                loss, _ = distiller(batch, told, [1.0] * len(distiller.terms))
                (loss / int((batch.labels != IGNORE).sum())).backward()
                optimizer.step()
                optimizer.zero_grad()
                if turn:  # the first round warms up
                    spent[name].append(time.process_time() - began)
                    answered[name].append(middle - began)
    table = []
    first = statistics.median(spent["cross_entropy"])
    for name, teacher in teachers.items():
        pairs = [a / b for a, b in zip(spent[name], spent["cross_entropy"], strict=True)]
        table.append(
            {
                "loss": name,
                "ms": 1e3 * statistics.median(spent[name]),
                "ratio": statistics.median(pairs),
                "to_median": statistics.median(spent[name]) / first,
                "teacher_ms": 1e3 * statistics.median(answered[name]),
                "bytes": 0.0 if teacher is None else teacher.cache.figures()["bytes_per_token"],
            }
        )
    return table


if __name__ == "__main__":
    main()
