"""Long inputs: memory of a training step, and recall from far away; segmented attention against full attention.

    python benchmarks/b20_long_context.py                       # both parts, about ten minutes on one idle core
    python benchmarks/b20_long_context.py --parts memory --lengths 2048 8192  # memory alone, shorter

Memory: one step (forward and backward, layers checkpointed, batch of 1) of a language model at each length, in a
process of its own. The peak is the process's highest resident size less its size just before the step; a step at
256 tokens comes before, so that what is loaded on first use is not counted. Three forms of the same size:

    segmented  compact; segments of 512 tokens, 8 summaries each
    full       compact with segment_length 0: every pair of tokens, with a learned bias
    fused      transformers' Llama: every pair, PyTorch's fused kernel without a bias

A form is left out at lengths at which it is expected to need more than `--limit-gib`: the last peak, four times.

Recall: records (key and value in one token) stand in the first half of a noise text, and questions (key, then its
value) at its end. Models learn on texts of 64 to 512 tokens and answer at 16,384. The share of right answers has a
95 % interval (Wilson). `near` is segmented attention without summaries: it shows what the summaries are for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _bench import MIB, highest, machine, resident

SIZES = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 2, "num_attention_heads": 2}
VOCABULARY = 4096
SEGMENT = 512
FORMS = ("segmented", "full", "fused")
NOISE, KEYS, VALUES, RECORDS = 16, 4, 8, 4
FIRST_KEY = NOISE + KEYS * VALUES
FIRST_VALUE = FIRST_KEY + KEYS
LEARNERS = {"segmented": (32, 4), "near": (32, 0), "full": (0, 0)}
"""Segment length and summaries of the models that learn to recall."""


def main() -> None:
    options = arguments()
    if options.form is not None:
        print(json.dumps(measure(options)))
        return
    told = {part: {"memory": memory, "recall": recall}[part](options) for part in options.parts}
    if options.results is None:
        return
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{time.strftime('%Y-%m-%d')}-long-context.json"
    result: dict[str, Any] = {"benchmark": "long inputs: memory of a training step, and recall from far away"}
    if path.exists():  # the other part may have been measured before
        result = json.loads(path.read_text(encoding="utf-8"))
    settings = {k: v for k, v in vars(options).items() if k not in ("form", "results", "parts")}
    result = {**result, **told, "settings": result.get("settings", {}) | dict.fromkeys(options.parts, settings)}
    path.write_text(json.dumps({**result, "machine": machine()}, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")


def arguments(command: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("memory", "recall"), default=["memory", "recall"])
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[2048, 4096, 8192, 16384, 32768], help="tokens of a step"
    )
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--limit-gib", type=float, default=6.0, help="leave out what is expected to need more")
    parser.add_argument("--steps", type=int, default=300, help="training steps of the recall task")
    parser.add_argument("--recall-lengths", type=int, nargs="+", default=[512, 2048, 16384])
    parser.add_argument("--texts", type=int, default=12, help="texts that recall is measured on, of each length")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    parser.add_argument("--form", choices=FORMS, help="measure one form in this process (used by the script itself)")
    return parser.parse_args(command)


def memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peaks of all forms at all lengths, each in a process of its own."""
    rows: list[dict[str, Any]] = []
    print(f"{'form':<12}{'tokens':>8}{'peak MiB':>10}{'MiB a segment':>15}{'seconds':>9}")
    for form in options.forms:
        last: dict[str, Any] = {}
        for length in sorted(options.lengths):
            expected = 0.0
            if last:  # the scores of all pairs grow by the square
                growth = length / last["tokens"]
                expected = last["peak_mib"] * (growth**2 if form == "full" else growth) / 1024
            if expected > options.limit_gib:
                row = {"form": form, "tokens": length, "left_out": f"about {expected:.0f} GiB expected"}
                print(f"{form:<12}{length:>8,}  left out: {row['left_out']}")
            else:
                command = [sys.executable, __file__, "--form", form, "--lengths", str(length)]
                command += ["--threads", str(options.threads)]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
                last = row = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"{form:<12}{length:>8,}{row['peak_mib']:>10,.1f}{row['mib_per_segment']:>15.2f}{row['seconds']:>9.1f}"
                )
            rows.append(row)
    return rows


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Peak and time of one step in this process."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model, length = model_of(options.form).train(), options.lengths[0]
    model.activation_checkpointing_enable()
    step(model, 256)
    model.zero_grad(set_to_none=True)
    before, began = resident(), time.perf_counter()
    step(model, length)
    seconds, peak = time.perf_counter() - began, (highest() - before) / MIB
    told = {"form": options.form, "tokens": length, "peak_mib": round(peak, 1), "seconds": round(seconds, 1)}
    return {**told, "mib_per_segment": round(peak * SEGMENT / length, 2)}


def model_of(form: str) -> Any:
    """A language model's backbone; all forms have the same widths and layers."""
    import transformers

    from limbeck.models.compact import CompactConfig, CompactModel

    if form == "fused":
        config = transformers.LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=32768, **SIZES)
        return transformers.LlamaModel._from_config(config, attn_implementation="sdpa")
    segment = SEGMENT if form == "segmented" else 0
    return CompactModel(CompactConfig(vocab_size=VOCABULARY, is_decoder=True, segment_length=segment, **SIZES))


def step(model: Any, length: int) -> None:
    """Forward and backward. The loss reads hidden states: what a vocabulary costs is another benchmark's (b00)."""
    import torch

    ids = torch.randint(0, VOCABULARY, (1, length))
    model(input_ids=ids, use_cache=False).last_hidden_state.square().mean().backward()


def recall(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train the learners on short texts, and ask them at all lengths."""
    import torch

    torch.set_num_threads(options.threads)
    print(f"\n{'recall':<12}{'tokens':>8}{'right':>8}{'95 % interval':>18}{'seconds':>9}   chance {1 / VALUES:.3f}")
    rows = []
    for name, (segment, summaries) in LEARNERS.items():
        began = time.perf_counter()
        model = learn(options.seed, options.steps, segment, summaries)
        trained = time.perf_counter() - began
        for length in options.recall_lengths:
            began = time.perf_counter()
            right, asked = ask(model, length, options.texts, options.seed)
            low, high = wilson(right, asked)
            row = {"form": name, "tokens": length, "right": round(right / asked, 4), "low": low, "high": high}
            row |= {"asked": asked, "seconds": round(time.perf_counter() - began, 1), "training": round(trained, 1)}
            rows.append(row)
            print(f"{name:<12}{length:>8,}{row['right']:>8.3f}{f'{low:.3f} - {high:.3f}':>18}{row['seconds']:>9.1f}")
    return rows


def texts(rows: int, length: int, draw: Any) -> tuple[Any, Any]:
    """Noise with records in the first half and questions at the end, and the answers at the questions' places."""
    import torch

    ids = torch.randint(0, NOISE, (rows, length), generator=draw)
    answers, tail = torch.full((rows, length), -100), length - 2 * RECORDS
    for row, answer in zip(ids, answers, strict=True):
        keys = torch.randperm(KEYS, generator=draw)[:RECORDS]
        values = torch.randint(0, VALUES, (RECORDS,), generator=draw)
        row[torch.randperm(length // 2, generator=draw)[:RECORDS]] = NOISE + keys * VALUES + values
        order = torch.randperm(RECORDS, generator=draw)
        row[tail::2], row[tail + 1 :: 2] = FIRST_KEY + keys[order], FIRST_VALUE + values[order]
        answer[tail::2] = FIRST_VALUE + values[order]
    return ids, answers


def learn(seed: int, steps: int, segment: int, summaries: int) -> Any:
    """A small decoder that was trained on texts of growing length, 2,048 tokens a step."""
    import torch
    from torch.nn import functional as F

    from limbeck.models.compact import CompactConfig, CompactForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CompactConfig(
        vocab_size=FIRST_VALUE + VALUES, segment_length=segment, summary_tokens=summaries, is_decoder=True, **sizes
    )
    model = CompactForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    plan = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 50) * min(1.0, (steps - i) / (0.3 * steps))
    )
    draw = torch.Generator().manual_seed(seed)
    for i in range(steps):
        length = (64, 128, 256, 512)[4 * i // steps]
        ids, answers = texts(2048 // length, length, draw)
        asked = answers >= 0
        hidden = model.model(ids, use_cache=False).last_hidden_state[asked]
        F.cross_entropy(model.lm_head(hidden), answers[asked]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        plan.step()
    return model.eval()


def ask(model: Any, length: int, count: int, seed: int) -> tuple[int, int]:
    """Right answers and questions; texts are read 512 tokens at a time, so that full attention fits, too."""
    import torch

    draw = torch.Generator().manual_seed(10_000 + seed)
    right = asked = 0
    with torch.no_grad():
        for _ in range(count):
            ids, answers = texts(1, length, draw)
            past = None
            for part in ids.split(512, 1):
                out = model.model(part, past_key_values=past, use_cache=True)
                past = out.past_key_values
            places = answers[0, -part.shape[1] :] >= 0
            found = model.lm_head(out.last_hidden_state[0, places]).argmax(-1)
            right += int((found == answers[answers >= 0]).sum())
            asked += len(found)
    return right, asked


def wilson(right: int, asked: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927)."""
    z, share = 1.96, right / asked
    middle, spread = share + z * z / (2 * asked), z * (share * (1 - share) / asked + z * z / (4 * asked**2)) ** 0.5
    return round((middle - spread) / (1 + z * z / asked), 4), round((middle + spread) / (1 + z * z / asked), 4)


if __name__ == "__main__":
    main()
