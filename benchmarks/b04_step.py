"""B4: one step of distilling a language model, limbeck's beside TRL's two, in one process.

    pip install -c constraints.txt trl==1.16.0
    python benchmarks/b04_step.py            # 8 layers x 512 teach 4 x 256, V = 32,000, ragged lengths
    python benchmarks/b04_step.py --quick    # a minute's check that everything runs; its figures mean nothing

What is timed is everything between two batches: teacher forward, student forward and backward, clipping, AdamW. The
loss is KL(teacher || student) at T = 1 over the answers' tokens: TRL's GKD trains at T = 1 whatever its `temperature`,
which it uses for sampling only.

    limbeck             `training.step.optimizer_step`: valid rows alone, a chunk at a time
    trl gkd             `GKDTrainer.compute_loss`: both models' logits for all positions, padded
    trl distillation    `DistillationTrainer._compute_loss`: tiles, all positions of the answers on a CPU. It pads prompts
                        and answers apart, as it does when it has sampled the answers itself

TRL's loss methods are called as they are, without its Trainer around them, which spares it the Trainer's own cost. All
forms have the same weights, the same samples, the same optimizer. Each is timed with batches as drawn (`random`, TRL's
default) and with samples of like length together (`grouped`, limbeck's default, an option of TRL's trainers).

Before any timing, value and gradients are compared on a batch, and the script ends if they differ. Forms take turns,
round by round, in another order each time. Peak memory is that of the longest batch, in a process of its own.

Shapes: B samples, T positions, P prompt, C answer.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from b00_step_memory import MIB, highest, machine, resident

FORMS = ("limbeck", "trl gkd", "trl distillation")
BATCHINGS = ("random", "grouped")
PAD = 0
Sample = tuple[list[int], list[int]]
"""A prompt and an answer."""


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
    parity = bench.parity(batches["random"][0])
    if (worst := max(max(found.values()) for found in parity.values())) > options.tolerance:
        sys.exit(f"the forms do not compute the same, relative difference {worst:.1e}: {parity}")
    result = {
        "benchmark": "B4: one optimizer step of KL(teacher || student), ragged lengths",
        "settings": {k: v for k, v in vars(options).items() if k not in ("results", "peak_of")},
        "data": shape_of(draws, batches),
        "model": bench.size(),
        "parity": parity,
        "forms": timed(bench, batches, options.rounds),
        "peak_mib": {form: spawn(form) for form in FORMS},
        "machine": {**machine(), "trl": trl_version()},
    }
    result["ratios"] = ratios(result["forms"])
    show(result)
    if not options.quick:
        options.results.mkdir(parents=True, exist_ok=True)
        path = (
            options.results
            / f"{time.strftime('%Y-%m-%d')}-b04-step{'' if options.precision == 'fp32' else '-bf16'}.json"
        )
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written to {path}")


def arguments(command: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models and two rounds; writes nothing")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=6, help="in a round")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--longest", type=int, default=512, help="tokens of a sample")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    parser.add_argument("--peak-of", choices=FORMS, help="measure one form's memory (used by the script itself)")
    options = parser.parse_args(command)
    if options.quick:
        options.rounds, options.batches, options.batch_size = 2, 2, 4
        options.vocab_size, options.longest = 500, 64
    options.tolerance = 1e-4 if options.precision == "fp32" else 5e-2
    return options


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


def model(options: argparse.Namespace, layers: int, width: int) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if options.quick:
        layers, width = layers // 2, width // 8
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=options.vocab_size,
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=3 * width,
        num_attention_heads=max(1, width // 64),
        num_key_value_heads=max(1, width // 64),
        head_dim=min(64, width),
        max_position_embeddings=options.longest,
        tie_word_embeddings=False,
        pad_token_id=PAD,
    )
    torch.manual_seed(layers)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # logits of the size of a trained model's, not nearly uniform ones
        made.get_output_embeddings().weight.mul_(2 / (0.02 * width**0.5))
    return made


@dataclass
class Form:
    """A way to make a step.

    Attributes:
        student: its own copy.
        optimizer: over it.
        loss: of a batch, with gradients left in the student.
        step: the same, then clip and step.
    """

    student: Any
    optimizer: Any
    loss: Callable[[list[Sample]], Any]
    step: Callable[[list[Sample]], Any]


class Bench:
    """Teacher, and the forms with equal students."""

    def __init__(self, options: argparse.Namespace, only: str | None = None):
        import torch

        from limbeck.core.recipe import Training
        from limbeck.training.engine import make_accelerator

        self.options = options
        self.accelerator = make_accelerator(Training(precision=options.precision), Path("logs"))
        self.teacher = model(options, 8, 512).eval().requires_grad_(False)
        if options.precision == "bf16":  # as it is stored; each form keeps it so
            self.teacher.to(torch.bfloat16)
        start = model(options, 4, 256)
        make = {"limbeck": self._limbeck, "trl gkd": self._gkd, "trl distillation": self._distillation}
        self.forms = {name: make[name](copy.deepcopy(start).train()) for name in FORMS if only in (None, name)}

    def _limbeck(self, student: Any) -> Form:
        from limbeck.core.parts import build
        from limbeck.core.types import Batch, Needs
        from limbeck.teachers.local import LocalTeacher
        from limbeck.training.distiller import Distiller
        from limbeck.training.step import optimizer_step

        distiller = Distiller(student, [build("objective", {"type": "kl", "temperature": 1})])
        wrapped = self.accelerator.prepare(distiller)
        optimizer, teacher = adamw(student), LocalTeacher(self.teacher)

        def batch(rows: list[Sample]) -> Batch:
            ids, mask, labels = padded([p + a for p, a in rows], [len(p) for p, _ in rows])
            after = labels.roll(-1, dims=1)  # labels[p] answers output p
            after[:, -1] = -100
            return Batch(tuple(map(str, range(len(rows)))), {"input_ids": ids, "attention_mask": mask}, after)

        def loss(rows: list[Sample]) -> Any:
            given = batch(rows)
            total, _ = wrapped(given, teacher.signal(given, Needs(dist=True)), [1.0])
            total = total / (given.labels != -100).sum()
            total.backward()
            return total.detach()

        def step(rows: list[Sample]) -> None:
            optimizer_step(
                self.accelerator,
                wrapped,
                distiller,
                teacher,
                optimizer,
                [batch(rows)],
                weights=[1.0],
                max_grad_norm=1.0,
            )

        return Form(student, optimizer, loss, step)

    def _gkd(self, student: Any) -> Form:
        from trl.experimental.gkd import GKDTrainer

        trainer: Any = SimpleNamespace(
            teacher_model=self.teacher, beta=0.0, generalized_jsd_loss=GKDTrainer.generalized_jsd_loss
        )

        def forward(rows: list[Sample]) -> Any:
            ids, mask, labels = padded([p + a for p, a in rows], [len(p) for p, _ in rows])
            given = {"input_ids": ids, "attention_mask": mask, "labels": labels}
            return GKDTrainer.compute_loss(trainer, student, given)

        return self._peer(student, forward)

    def _distillation(self, student: Any) -> Form:
        from trl import DistillationTrainer

        trainer: Any = SimpleNamespace(
            teacher_model=self.teacher,
            beta=0.0,
            temperature=1.0,
            _is_vlm=False,
            model_kwarg_keys=(),  # the bodies are called without `logits_to_keep`, which is for the head
            accelerator=SimpleNamespace(unwrap_model=lambda model: model),
            _forward_redirection=lambda wrapper, model, method, *args, **more: method(*args, **more),
        )
        trainer._get_last_hidden_state = DistillationTrainer._get_last_hidden_state.__get__(trainer)

        def forward(rows: list[Sample]) -> Any:
            prompt_BP, prompt_mask_BP, _ = padded([p for p, _ in rows], [0] * len(rows), left=True)
            answer_BC, answer_mask_BC, _ = padded([a for _, a in rows], [0] * len(rows))
            given = {"prompt_ids": prompt_BP, "prompt_mask": prompt_mask_BP}
            given |= {"completion_ids": answer_BC, "completion_mask": answer_mask_BC}
            return DistillationTrainer._compute_loss(trainer, student, given, None)[0]

        return self._peer(student, forward)

    def _peer(self, student: Any, forward: Callable[[list[Sample]], Any]) -> Form:
        """What a Trainer does with a loss."""
        import torch

        optimizer = adamw(student)

        def loss(rows: list[Sample]) -> Any:
            with self.accelerator.autocast():
                value = forward(rows)
            value.backward()
            return value.detach()

        def step(rows: list[Sample]) -> None:
            value = loss(rows)
            norm = torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            float(value), float(norm)  # a Trainer reads them for its log, as limbeck's step does

        return Form(student, optimizer, loss, step)

    def parity(self, rows: list[Sample]) -> dict[str, dict[str, float]]:
        """Relative differences of value and gradients from the first form's, before any step."""
        import torch

        values, gradients = {}, {}
        for name, form in self.forms.items():
            values[name] = float(form.loss(rows))
            gradients[name] = torch.cat([p.grad.flatten() for p in form.student.parameters()])
            form.optimizer.zero_grad()
        ours = gradients[FORMS[0]]
        return {
            name: {
                "value": abs(values[name] / values[FORMS[0]] - 1),
                "gradient": float((gradients[name] - ours).norm() / ours.norm()),
            }
            for name in FORMS[1:]
        }

    def size(self) -> dict[str, Any]:
        """Parameters but for the input embeddings, which are looked up and not multiplied."""
        told = {}
        for name, each in (("teacher", self.teacher), ("student", next(iter(self.forms.values())).student)):
            head = each.get_output_embeddings().weight.numel()
            told[name] = {"body": sum(p.numel() for p in each.parameters()) - 2 * head, "head": head}
        return told


def adamw(student: Any) -> Any:
    import torch

    return torch.optim.AdamW(student.parameters(), lr=1e-4)


def padded(rows: Sequence[Sequence[int]], prompts: Sequence[int], *, left: bool = False) -> tuple[Any, Any, Any]:
    """Ids, mask and labels, all [B, T]; a row's first `prompts` tokens and the padding are no labels."""
    import torch

    width = max(map(len, rows))
    ids, mask, labels = (torch.full((len(rows), width), fill) for fill in (PAD, 0, -100))
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        at = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, at], mask[i, at] = torch.tensor(row), 1
        labels[i, at.start + prompt : at.stop] = torch.tensor(row[prompt:])
    return ids, mask, labels


def timed(bench: Bench, batches: dict[str, list[list[Sample]]], rounds: int) -> list[dict[str, Any]]:
    """Seconds and processor seconds of every form and batching, round by round."""
    pairs = [(form, how) for form in FORMS for how in BATCHINGS]
    for form in FORMS:  # what is made on first use is not the step's
        bench.forms[form].step(batches["random"][-1])
    wall: dict[Any, list[float]] = {pair: [] for pair in pairs}
    processor: dict[Any, list[float]] = {pair: [] for pair in pairs}
    for i in range(rounds):
        for form, how in pairs[i % len(pairs) :] + pairs[: i % len(pairs)]:
            began, before = time.perf_counter(), time.process_time()
            for rows in batches[how]:
                bench.forms[form].step(rows)
            wall[form, how].append(time.perf_counter() - began)
            processor[form, how].append(time.process_time() - before)
        print(f"round {i + 1} of {rounds}", file=sys.stderr)
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
                each = [slow / quick for slow, quick in pairs]
                told[clock] = {"median": statistics.median(each), "low": min(each), "high": max(each)}
            found[f"{peer}, {case}"] = told
    return found


def peak(options: argparse.Namespace) -> float:
    """MiB that a step on the longest batch needs above what the models and the optimizer hold."""
    rows = cut(samples(options), options.batch_size, grouped=True)
    form = Bench(options, only=options.peak_of).forms[options.peak_of]
    form.step([([1, 2], [3, 4])])  # the optimizer's state is not the step's
    before = resident()
    form.step(rows[0])
    return round((highest() - before) / MIB, 1)


def spawn(form: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", form]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.splitlines()[-1])


def trl_version() -> str:
    from importlib.metadata import version

    return version("trl")


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
    for name, told in result["ratios"].items():
        wall, processor = told["seconds"], told["processor_seconds"]["median"]
        print(
            f"limbeck over {name}: {wall['median']:.2f}x [{wall['low']:.2f}, {wall['high']:.2f}], CPU {processor:.2f}x"
        )
    worst = {name: max(found.values()) for name, found in result["parity"].items()}
    print("largest relative difference before the first step: " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items()))


if __name__ == "__main__":
    main()
