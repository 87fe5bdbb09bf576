"""B4: one step of distilling a language model, limbeck's beside TRL's two, in one process.

    pip install -c constraints.txt trl==1.16.0
    python benchmarks/b04_step.py            # 8 layers x 512 teach 4 x 256, V = 32,000, ragged lengths
    python benchmarks/b04_step.py --quick    # a minute's check that everything runs; its figures mean nothing

What is timed is everything between two batches: teacher forward, student forward and backward, clipping, AdamW. The
loss is KL(teacher || student) at T = 1 over the answers' tokens: TRL's GKD trains at T = 1 whatever its `temperature`,
which it uses for sampling only.

    limbeck             `training.step.optimizer_step`: valid rows alone, a chunk at a time
    trl gkd             `GKDTrainer.compute_loss`: both models' logits for all positions, padded
    trl distillation    `DistillationTrainer._compute_loss`: tiles, on a CPU of all positions of the answers. Prompts
                        and answers are padded apart, as they are when it has sampled the answers itself

TRL's loss methods are called as they are, without its Trainer around them, which spares it the Trainer's own cost. All
forms have the same weights, the same samples, the same optimizer. Each is timed with batches as drawn (`random`, TRL's
default) and with samples of like length together (`grouped`, limbeck's default, an option of TRL's trainers).

Before any timing, value and gradients are compared on a batch, and the script ends if they differ. Forms take turns,
round by round, in another order each time. Peak memory is that of the longest batch, in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import _bench
import b04_forms
from b04_forms import Form, Makers, Sample, model, padded, show_comparison

FORMS = ("limbeck", "trl gkd", "trl distillation")
BATCHINGS = ("random", "grouped")


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    if options.peak_of is not None:
        print(json.dumps(peak(options)))
        return
    draws = samples(options)
    batches = {how: cut(draws, options.batch_size, grouped=how == "grouped") for how in BATCHINGS}
    bench = Bench(options)
    parity = b04_forms.parity(bench.forms, batches["random"][0], options.tolerance)
    result = {
        "benchmark": "B4: one optimizer step of KL(teacher || student), ragged lengths",
        "settings": {k: v for k, v in vars(options).items() if k not in ("results", "peak_of")},
        "data": shape_of(draws, batches),
        "model": bench.size(),
        "parity": parity,
        "forms": timed(bench, batches, options.rounds),
        "peak_mib": {form: spawn(form) for form in FORMS},
        "machine": _bench.machine("trl"),
    }
    result["ratios"] = ratios(result["forms"])
    show(result)
    if not options.quick:
        _bench.write(options.results, "b04-step" if options.precision == "fp32" else "b04-step-bf16", result)


def arguments(command: Sequence[str] | None = None) -> argparse.Namespace:
    parser = b04_forms.parser(__doc__)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batches", type=int, default=6, help="in a round")
    parser.add_argument("--longest", type=int, default=512, help="tokens of a sample")
    parser.add_argument("--peak-of", choices=FORMS, help="measure one form's memory (used by the script itself)")
    options = parser.parse_args(command)
    if options.quick:
        options.rounds, options.batches, options.batch_size = 2, 2, 4
        options.vocab_size, options.longest = 500, 64
    options.tolerance = 1e-4 if options.precision == "fp32" else 5e-2
    return options


class Bench:
    """Teacher, and the forms with equal students."""

    def __init__(self, options: argparse.Namespace, only: str | None = None):
        import torch

        self.teacher = model(options, 8, 512).eval().requires_grad_(False)
        if options.precision == "bf16":  # as it is stored; each form keeps it so
            self.teacher.to(torch.bfloat16)
        makers = Makers(self.teacher, "kl", 0.0, options.precision)
        makes = (makers.limbeck, partial(makers.gkd, lay_out=together), makers.distillation)
        start = model(options, 4, 256)
        self.forms: dict[str, Form] = {
            name: make(copy.deepcopy(start).train())
            for name, make in zip(FORMS, makes, strict=True)
            if only in (None, name)
        }

    def size(self) -> dict[str, Any]:
        """Parameters but for the input embeddings, which are looked up and not multiplied."""
        told = {}
        for name, each in (("teacher", self.teacher), ("student", next(iter(self.forms.values())).student)):
            head = each.get_output_embeddings().weight.numel()
            told[name] = {"body": sum(p.numel() for p in each.parameters()) - 2 * head, "head": head}
        return told


def together(rows: list[Sample]) -> tuple[Any, Any, Any]:
    """Ids, mask and labels of prompts with their answers behind them."""
    return padded([p + a for p, a in rows], [len(p) for p, _ in rows])


def samples(options: argparse.Namespace) -> list[Sample]:
    """Prompts and answers of random tokens; total lengths are log-normal, the median a quarter of the longest."""
    draw = random.Random(0)
    found = []
    for _ in range(options.batches * options.batch_size):
        length = int(min(options.longest, max(8, draw.lognormvariate(0, 0.7) * options.longest / 4)))
        prompt = max(2, int(length * draw.uniform(0.2, 0.5)))
        tokens = [draw.randrange(1, options.vocab_size) for _ in range(length)]
        found.append((tokens[:prompt], tokens[prompt:]))
    return found


def cut(draws: list[Sample], size: int, *, grouped: bool) -> list[list[Sample]]:
    """Batches, of samples as drawn or of samples of like length."""
    ordered = sorted(draws, key=lambda sample: -sum(map(len, sample))) if grouped else draws
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def shape_of(draws: list[Sample], batches: dict[str, list[list[Sample]]]) -> dict[str, Any]:
    lengths = [len(prompt) + len(answer) for prompt, answer in draws]
    padded = {
        how: sum(len(batch) * max(len(p) + len(a) for p, a in batch) for batch in each) for how, each in batches.items()
    }
    told = {"samples": len(draws), "tokens": sum(lengths), "answer_tokens": sum(len(a) for _, a in draws)}
    return {**told, "shortest": min(lengths), "longest": max(lengths), "positions_with_padding": padded}


def timed(bench: Bench, batches: dict[str, list[list[Sample]]], rounds: int) -> list[dict[str, Any]]:
    """Seconds and processor seconds of every form and batching, round by round."""
    pairs = [(form, how) for form in FORMS for how in BATCHINGS]
    for form in FORMS:  # what is made on first use is not the step's
        bench.forms[form].step(batches["random"][-1])
    wall: dict[Any, list[float]] = {pair: [] for pair in pairs}
    processor: dict[Any, list[float]] = {pair: [] for pair in pairs}
    for form, how in _bench.turns(pairs, rounds):
        began, before = time.perf_counter(), time.process_time()
        for rows in batches[how]:
            bench.forms[form].step(rows)
        wall[form, how].append(time.perf_counter() - began)
        processor[form, how].append(time.process_time() - before)
    tokens = sum(len(p) + len(a) for rows in batches["random"] for p, a in rows)
    answers = sum(len(a) for rows in batches["random"] for _, a in rows)
    size = bench.size()
    body, head = (6 * size["student"][part] + 2 * size["teacher"][part] for part in ("body", "head"))
    return [
        {
            "form": form,
            "batches": how,
            "seconds": wall[form, how],
            "processor_seconds": processor[form, how],
            "tokens_per_second": round(tokens / statistics.median(wall[form, how]), 1),
            "tokens_per_processor_second": round(tokens / statistics.median(processor[form, how]), 1),
            "useful_gflop_per_second": round(
                (body * tokens + head * answers) / statistics.median(wall[form, how]) / 1e9, 2
            ),
        }
        for form, how in pairs
    ]


def ratios(forms: list[dict[str, Any]]) -> dict[str, Any]:
    """limbeck's tokens per second over each peer's: the median of the rounds' ratios, and their range."""
    by = {(each["form"], each["batches"]): each for each in forms}
    cases = {
        "same batches, random": ("random", "random"),
        "same batches, grouped": ("grouped", "grouped"),
        "each with its default": ("grouped", "random"),
    }
    found: dict[str, Any] = {}
    for peer in FORMS[1:]:
        for case, (ours, theirs) in cases.items():
            told = {}
            for clock in ("seconds", "processor_seconds"):
                pairs = zip(by[peer, theirs][clock], by[FORMS[0], ours][clock], strict=True)
                told[clock] = _bench.spread([slow / quick for slow, quick in pairs])
            found[f"{peer}, {case}"] = told
    return found


def peak(options: argparse.Namespace) -> float:
    """MiB that a step on the longest batch needs above what the models and the optimizer hold."""
    rows = cut(samples(options), options.batch_size, grouped=True)
    form = Bench(options, only=options.peak_of).forms[options.peak_of]
    form.step([([1, 2], [3, 4])])  # the optimizer's state is not the step's
    before = _bench.resident()
    form.step(rows[0])
    return round((_bench.highest() - before) / _bench.MIB, 1)


def spawn(form: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", form]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.splitlines()[-1])


def show(result: dict[str, Any]) -> None:
    settings, data = result["settings"], result["data"]
    print(f"{settings['precision']}, V={settings['vocab_size']:,}, {settings['threads']} thread(s); a round is")
    print(f"{data['samples']} samples of {data['shortest']} to {data['longest']} tokens, {data['tokens']:,} in all")
    print(f"{'form':<20}{'batches':<10}{'tokens/s':>10}{'per CPU s':>11}{'GFLOP/s':>9}{'spread':>8}{'peak MiB':>10}")
    for each in result["forms"]:
        spread = max(each["seconds"]) / min(each["seconds"])
        line = f"{each['form']:<20}{each['batches']:<10}{each['tokens_per_second']:>10,.0f}"
        line += f"{each['tokens_per_processor_second']:>11,.0f}{each['useful_gflop_per_second']:>9.1f}{spread:>7.2f}x"
        print(line + f"{result['peak_mib'][each['form']]:>10,.0f}")
    show_comparison(result, "limbeck over ")


if __name__ == "__main__":
    main()
