"""B7: one step on answers that the student writes itself, limbeck's beside TRL's two, in one process.

    pip install -c constraints.txt trl==1.16.0
    python benchmarks/b07_on_policy.py            # 8 layers x 512 teach 4 x 256, V = 32,000, 128 new tokens
    python benchmarks/b07_on_policy.py --quick    # a minute's check that everything runs; its figures mean nothing

A step is: draw an answer to each prompt of a batch from the student, teacher forward, student forward and backward,
clipping, AdamW. The loss is KL(student || teacher) at T = 1 over the answers' tokens. Prompts are token ids already.

    limbeck             `tasks._decode.sample`, then `training.step.optimizer_step`; fresh answers in each step
    limbeck refresh 4   answers for four steps at once, as `on_policy.refresh: 4` does: the last are three steps old
    trl gkd             `GKDTrainer.generate_on_policy_outputs`, then `GKDTrainer.compute_loss`
    trl distillation    `DistillationTrainer`: transformers' generate, then `_compute_loss`

`answers`: in `full` no answer ends before the last token, in `ragged` one token in 64 of the vocabulary ends an answer.

Before any timing, value and gradients are compared on a batch, and the script ends if they differ. Forms take turns,
round by round, in another order each time. What is told is answers' tokens per second, the tokens being each form's
own: they draw with different random numbers.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from b00_step_memory import machine
from b04_forms import PAD, Sample, adamw, model, padded
from b04_step import trl_version

FORMS = ("limbeck", "limbeck refresh 4", "trl gkd", "trl distillation")
ANSWERS = ("full", "ragged")
AHEAD = 4


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    bench = Bench(options)
    parity = bench.parity()
    if (worst := max(max(found.values()) for found in parity.values())) > 1e-4:
        sys.exit(f"the forms do not compute the same, relative difference {worst:.1e}: {parity}")
    result = {
        "benchmark": "B7: one optimizer step of KL(student || teacher) on the student's own answers",
        "settings": {k: v for k, v in vars(options).items() if k != "results"},
        "prompt_tokens": sum(map(len, bench.prompts)),
        "parity": parity,
        "forms": bench.timed(),
        "machine": {**machine(), "trl": trl_version()},
    }
    result["ratios"] = ratios(result["forms"])
    show(result)
    if not options.quick:
        options.results.mkdir(parents=True, exist_ok=True)
        path = options.results / f"{time.strftime('%Y-%m-%d')}-b07-on-policy.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written to {path}")


def arguments(command: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models and two rounds; writes nothing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=AHEAD, help=f"steps in a round, a multiple of {AHEAD}")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the longest prompt; the shortest has 1/8")
    parser.add_argument("--new", type=int, default=128, help="the most new tokens")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    options = parser.parse_args(command)
    if options.quick:
        options.rounds, options.batch_size, options.vocab_size, options.prompt, options.new = 2, 4, 500, 32, 16
    if options.batches % AHEAD:
        parser.error(f"--batches must be a multiple of {AHEAD}")
    options.longest = options.prompt + options.new  # positions of the models
    return options


@dataclass
class Form:
    """A way to make a step.

    Attributes:
        student: its own copy.
        loss: of rows, with gradients left in the student.
        learn: the same, then clip and step.
        write: draws answers to prompts; tokens that end an answer come second.
        ahead: steps whose answers are written at once.
    """

    student: Any
    loss: Callable[[list[Sample]], Any]
    learn: Callable[[list[Sample]], Any]
    write: Callable[[list[list[int]], list[int]], list[Sample]]
    ahead: int = 1


@dataclass
class Times:
    """What the rounds of a form took, and how many tokens they were for."""

    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    writing_seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


class Bench:
    """Teacher, prompts, and the forms with equal students."""

    def __init__(self, options: argparse.Namespace):
        from limbeck.core.recipe import Training
        from limbeck.training.engine import make_accelerator

        self.options = options
        self.accelerator = make_accelerator(Training(), Path("logs"))
        self.teacher = model(options, 8, 512).eval().requires_grad_(False)
        draw = random.Random(0)
        token = partial(draw.randrange, 1, options.vocab_size)
        lengths = [
            draw.randint(options.prompt // 8, options.prompt) for _ in range(options.batches * options.batch_size)
        ]
        self.prompts = [[token() for _ in range(length)] for length in lengths]
        self.ends = {"full": [], "ragged": sorted(draw.sample(range(1, options.vocab_size), options.vocab_size // 64))}
        start = model(options, 4, 256)
        make = (self._limbeck, partial(self._limbeck, ahead=AHEAD), self._gkd, self._distillation)
        self.forms = {name: each(copy.deepcopy(start).train()) for name, each in zip(FORMS, make, strict=True)}

    def _limbeck(self, student: Any, ahead: int = 1) -> Form:
        import numpy as np

        from limbeck.core.parts import build
        from limbeck.core.types import Batch, Needs
        from limbeck.tasks._decode import Drawing, sample
        from limbeck.teachers.local import LocalTeacher
        from limbeck.training.distiller import Distiller
        from limbeck.training.step import Now, optimizer_step

        distiller = Distiller(student, [build("objective", {"type": "reverse_kl", "temperature": 1})])
        wrapped = self.accelerator.prepare(distiller)
        optimizer, teacher, chance = adamw(student), LocalTeacher(self.teacher), np.random.default_rng(0)

        def batch(rows: list[Sample]) -> Batch:
            rows = sorted(rows, key=lambda row: -sum(map(len, row)))
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

        def learn(rows: list[Sample]) -> None:
            now = Now([1.0], 0.0, 1.0)
            optimizer_step(self.accelerator, wrapped, distiller, teacher, optimizer, [batch(rows)], now)

        def write(prompts: list[list[int]], ends: list[int]) -> list[Sample]:
            student.eval()
            answers = sample(student, prompts, PAD, ends, chance.random((len(prompts), self.options.new)), Drawing())
            student.train()
            return list(zip(prompts, answers, strict=True))

        return Form(student, loss, learn, write, ahead)

    def _gkd(self, student: Any) -> Form:
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        from trl.experimental.gkd import GKDTrainer

        trainer: Any = SimpleNamespace(
            teacher_model=self.teacher, beta=1.0, generalized_jsd_loss=GKDTrainer.generalized_jsd_loss
        )

        def forward(rows: list[Sample]) -> Any:
            """Its own texts as they come: prompts padded on the left, answers on the right."""
            import torch

            prompts, answers = apart(rows)
            ids, mask = (torch.cat(pair, 1) for pair in zip(prompts, answers, strict=True))
            labels = ids.masked_fill(mask == 0, -100)
            labels[:, : prompts[0].shape[1]] = -100
            given = {"input_ids": ids, "attention_mask": mask, "labels": labels}
            return GKDTrainer.compute_loss(trainer, student, given)

        def write(prompts: list[list[int]], ends: list[int]) -> list[Sample]:
            ids, mask, _ = padded(prompts, [0] * len(prompts), left=True)
            given = {"prompts": ids, "prompt_attention_mask": mask}
            tokens, seen, _ = GKDTrainer.generate_on_policy_outputs(student, given, self._plan(ends))
            new, kept = tokens[:, ids.shape[1] :], seen[:, ids.shape[1] :].bool()
            return [(p, row[k].tolist()) for p, row, k in zip(prompts, new, kept, strict=True)]

        return self._peer(student, forward, write)

    def _distillation(self, student: Any) -> Form:
        import torch
        from trl import DistillationTrainer

        trainer: Any = SimpleNamespace(
            teacher_model=self.teacher,
            beta=1.0,
            temperature=1.0,
            _is_vlm=False,
            model_kwarg_keys=(),  # the bodies are called without `logits_to_keep`, which is for the head
            accelerator=SimpleNamespace(unwrap_model=lambda model: model),
            _forward_redirection=lambda wrapper, model, method, *args, **more: method(*args, **more),
        )
        trainer._get_last_hidden_state = partial(DistillationTrainer._get_last_hidden_state.__wrapped__, trainer)

        def forward(rows: list[Sample]) -> Any:
            prompts, answers = apart(rows)
            given = {"prompt_ids": prompts[0], "prompt_mask": prompts[1]}
            given |= {"completion_ids": answers[0], "completion_mask": answers[1]}
            return DistillationTrainer._compute_loss(trainer, student, given, None)[0]

        def write(prompts: list[list[int]], ends: list[int]) -> list[Sample]:
            """What `_generate_single_turn` does without vLLM."""
            ids, mask, _ = padded(prompts, [0] * len(prompts), left=True)
            with torch.no_grad():
                tokens = student.generate(input_ids=ids, attention_mask=mask, generation_config=self._plan(ends))
            answers = []
            for row in tokens[:, ids.shape[1] :].tolist():
                stop = next((i for i, each in enumerate(row) if each in set(ends)), len(row) - 1) if ends else len(row)
                answers.append(row[: stop + 1])
            return list(zip(prompts, answers, strict=True))

        return self._peer(student, forward, write)

    def _plan(self, ends: list[int]) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            max_new_tokens=self.options.new,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            use_cache=True,
            pad_token_id=PAD,
            eos_token_id=ends or None,
            disable_compile=True,
        )

    def _peer(self, student: Any, forward: Callable[[list[Sample]], Any], write: Any) -> Form:
        """What a Trainer does with a loss."""
        import torch

        optimizer = adamw(student)
        student.generation_config.eos_token_id = None

        def loss(rows: list[Sample]) -> Any:
            value = forward(rows)
            value.backward()
            return value.detach()

        def learn(rows: list[Sample]) -> None:
            value = loss(rows)
            norm = torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            float(value), float(norm)  # a Trainer reads them for its log, as limbeck's step does

        return Form(student, loss, learn, write)

    def parity(self) -> dict[str, dict[str, float]]:
        """Relative differences of value and gradients from the first form's, on the same texts, before any step."""
        import torch

        rows = self.forms[FORMS[0]].write(self.prompts[: self.options.batch_size], self.ends["ragged"])
        values, gradients = {}, {}
        for name, form in self.forms.items():
            values[name] = float(form.loss(rows))
            gradients[name] = torch.cat([p.grad.flatten() for p in form.student.parameters()])
            form.student.zero_grad()
        ours = gradients[FORMS[0]]
        return {
            name: {
                "value": abs(values[name] / values[FORMS[0]] - 1),
                "gradient": float((gradients[name] - ours).norm() / ours.norm()),
            }
            for name in FORMS[1:]
        }

    def timed(self) -> list[dict[str, Any]]:
        """Times and tokens of every form and kind of answers, round by round."""
        pairs = [(form, kind) for form in FORMS for kind in ANSWERS]
        for form in FORMS:  # what is made on first use is not the step's
            self._round(form, "ragged", Times(), only=self.forms[form].ahead)
        found = {pair: Times() for pair in pairs}
        for i in range(self.options.rounds):
            for pair in pairs[i % len(pairs) :] + pairs[: i % len(pairs)]:
                self._round(*pair, found[pair])
            print(f"round {i + 1} of {self.options.rounds}", file=sys.stderr)
        return [{"form": form, "answers": kind, **vars(found[form, kind])} for form, kind in pairs]

    def _round(self, name: str, kind: str, times: Times, only: int | None = None) -> None:
        form, size = self.forms[name], self.options.batch_size
        began, before, writing, tokens = time.perf_counter(), time.process_time(), 0.0, 0
        for first in range(0, only or self.options.batches, form.ahead):
            started = time.perf_counter()
            rows = form.write(self.prompts[first * size : (first + form.ahead) * size], self.ends[kind])
            writing += time.perf_counter() - started
            tokens += sum(len(answer) for _, answer in rows)
            for at in range(0, len(rows), size):
                form.learn(rows[at : at + size])
        times.seconds.append(time.perf_counter() - began)
        times.processor_seconds.append(time.process_time() - before)
        times.writing_seconds.append(writing)
        times.tokens.append(tokens)


def apart(rows: list[Sample]) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Ids and mask of the prompts, padded on the left, and of the answers, padded on the right."""
    prompts = padded([p for p, _ in rows], [0] * len(rows), left=True)
    answers = padded([a for _, a in rows], [0] * len(rows))
    return prompts[:2], answers[:2]


def ratios(forms: list[dict[str, Any]]) -> dict[str, Any]:
    """limbeck's tokens per second over each peer's: the median of the rounds' ratios, and their range."""
    by = {(each["form"], each["answers"]): each for each in forms}
    found: dict[str, Any] = {}
    for ours in FORMS[:2]:
        for peer in FORMS[2:]:
            for kind in ANSWERS:
                told = {}
                for clock in ("seconds", "processor_seconds"):
                    mine, theirs = speeds(by[ours, kind], clock), speeds(by[peer, kind], clock)
                    each = [quick / slow for quick, slow in zip(mine, theirs, strict=True)]
                    told[clock] = {"median": statistics.median(each), "low": min(each), "high": max(each)}
                found[f"{ours} over {peer}, {kind}"] = told
    return found


def speeds(form: dict[str, Any], clock: str) -> list[float]:
    return [tokens / seconds for tokens, seconds in zip(form["tokens"], form[clock], strict=True)]


def show(result: dict[str, Any]) -> None:
    settings = result["settings"]
    print(f"V={settings['vocab_size']:,}, {settings['threads']} thread(s), {settings['batch_size']} answers in a step")
    print(f"{'form':<20}{'answers':<9}{'tokens/s':>10}{'per CPU s':>11}{'writing':>9}{'mean length':>13}")
    for each in result["forms"]:
        rows = settings["batches"] * settings["batch_size"] * len(each["tokens"])
        line = f"{each['form']:<20}{each['answers']:<9}{statistics.median(speeds(each, 'seconds')):>10,.1f}"
        line += f"{statistics.median(speeds(each, 'processor_seconds')):>11,.1f}"
        line += f"{sum(each['writing_seconds']) / sum(each['seconds']):>9.0%}{sum(each['tokens']) / rows:>13.1f}"
        print(line)
    for name, told in result["ratios"].items():
        wall, processor = told["seconds"], told["processor_seconds"]["median"]
        print(f"{name}: {wall['median']:.2f}x [{wall['low']:.2f}, {wall['high']:.2f}], CPU {processor:.2f}x")
    worst = {name: max(found.values()) for name, found in result["parity"].items()}
    print("largest relative difference before the first step: " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items()))


if __name__ == "__main__":
    main()
