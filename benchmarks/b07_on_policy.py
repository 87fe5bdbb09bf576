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
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import _bench
import b04_forms
from b04_forms import PAD, Makers, Sample, apart, model, padded, show_comparison

FORMS = ("limbeck", "limbeck refresh 4", "trl gkd", "trl distillation")
ANSWERS = ("full", "ragged")
AHEAD = 4


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(options.threads)
    bench = Bench(options)
    rows = bench.forms[FORMS[0]].write(bench.prompts[: options.batch_size], bench.ends["ragged"])
    parity = b04_forms.parity(bench.forms, rows, 1e-4)
    result = {
        "benchmark": "B7: one optimizer step of KL(student || teacher) on the student's own answers",
        "settings": {k: v for k, v in vars(options).items() if k != "results"},
        "prompt_tokens": sum(map(len, bench.prompts)),
        "parity": parity,
        "forms": bench.timed(),
        "machine": _bench.machine("trl"),
    }
    result["ratios"] = ratios(result["forms"])
    show(result)
    if not options.quick:
        _bench.write(options.results, "b07-on-policy", result)


def arguments(command: Sequence[str] | None = None) -> argparse.Namespace:
    parser = b04_forms.parser(__doc__)
    parser.add_argument("--batches", type=int, default=AHEAD, help=f"steps in a round, a multiple of {AHEAD}")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the longest prompt; the shortest has 1/8")
    parser.add_argument("--new", type=int, default=128, help="the most new tokens")
    options = parser.parse_args(command)
    if options.quick:
        options.rounds, options.batch_size, options.vocab_size, options.prompt, options.new = 2, 4, 500, 32, 16
    if options.batches % AHEAD:
        parser.error(f"--batches must be a multiple of {AHEAD}")
    options.longest = options.prompt + options.new  # positions of the models
    return options


@dataclass
class Form(b04_forms.Form):
    """A way to write answers and to make a step on them.

    Attributes:
        write: draws answers to prompts; tokens that end an answer come second.
        ahead: steps whose answers are written at once.
    """

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
        self.options = options
        self.makers = Makers(model(options, 8, 512).eval().requires_grad_(False), "reverse_kl", 1.0)
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

        from limbeck.tasks._decode import Drawing, sample

        form, chance = self.makers.limbeck(student), np.random.default_rng(0)

        def write(prompts: list[list[int]], ends: list[int]) -> list[Sample]:
            student.eval()
            answers = sample(student, prompts, PAD, ends, chance.random((len(prompts), self.options.new)), Drawing())
            student.train()
            return list(zip(prompts, answers, strict=True))

        loss, step = (partial(longest_first, do) for do in (form.loss, form.step))
        return Form(student, loss, step, write, ahead)

    def _gkd(self, student: Any) -> Form:
        from trl.experimental.gkd import GKDTrainer

        def write(prompts: list[list[int]], ends: list[int]) -> list[Sample]:
            ids, mask, _ = padded(prompts, [0] * len(prompts), left=True)
            given = {"prompts": ids, "prompt_attention_mask": mask}
            tokens, seen, _ = GKDTrainer.generate_on_policy_outputs(student, given, self._plan(ends))
            new, kept = tokens[:, ids.shape[1] :], seen[:, ids.shape[1] :].bool()
            return [(p, row[k].tolist()) for p, row, k in zip(prompts, new, kept, strict=True)]

        return self._peer(self.makers.gkd(student, as_they_come), write)

    def _distillation(self, student: Any) -> Form:
        import torch

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

        return self._peer(self.makers.distillation(student), write)

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

    def _peer(self, form: b04_forms.Form, write: Any) -> Form:
        form.student.generation_config.eos_token_id = None
        return Form(form.student, form.loss, form.step, write)

    def timed(self) -> list[dict[str, Any]]:
        """Times and tokens of every form and kind of answers, round by round."""
        pairs = [(form, kind) for form in FORMS for kind in ANSWERS]
        for form in FORMS:  # what is made on first use is not the step's
            self._round(form, "ragged", Times(), only=self.forms[form].ahead)
        found = {pair: Times() for pair in pairs}
        for pair in _bench.turns(pairs, self.options.rounds):
            self._round(*pair, found[pair])
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
                form.step(rows[at : at + size])
        times.seconds.append(time.perf_counter() - began)
        times.processor_seconds.append(time.process_time() - before)
        times.writing_seconds.append(writing)
        times.tokens.append(tokens)


def longest_first(do: Callable[[list[Sample]], Any], rows: list[Sample]) -> Any:
    """As limbeck's batches are."""
    return do(sorted(rows, key=lambda row: -sum(map(len, row))))


def as_they_come(rows: list[Sample]) -> tuple[Any, Any, Any]:
    """Ids, mask and labels of GKD's own texts: prompts padded on the left, answers on the right."""
    import torch

    prompts, answers = apart(rows)
    ids, mask = (torch.cat(pair, 1) for pair in zip(prompts, answers, strict=True))
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, : prompts[0].shape[1]] = -100
    return ids, mask, labels


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
                    told[clock] = _bench.spread([quick / slow for quick, slow in zip(mine, theirs, strict=True)])
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
    show_comparison(result)


if __name__ == "__main__":
    main()
