"""B3: bytes of a recorded distribution at equal total variation, and how fast it is written and read.

    python benchmarks/b03_cache.py TEXT [--vocab 8192] [--steps 600] [--positions 20000] [--json OUT]

A small language model is trained on TEXT with a byte-pair vocabulary; its distributions at held-out positions are kept
by limbeck's codecs at several budgets and by three other formats, derived again from their descriptions:

    plain      the 128 likeliest, ids as int32 and log-probabilities as float16
    poly       DistillKit's published 344 bytes at V = 151,936: 128 ids of ceil(log2 V) bits each, 16 log-probabilities
               as bfloat16, the other 112 as a polynomial of their place (terms 1, x, .., x^4, sqrt x; float32)
    megatron   the 128 likeliest, ids as uint16 (+1 bit), log-probabilities as float16

The figure is the mean total variation to the true distribution, the rest's mass spread evenly over what is not named.
Decoding is timed in CPU seconds of one thread: as flat pairs and as the padded tensors that training takes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.cache.bits import unpack
from limbeck.cache.codecs import Codec, Drawn, PackedTopK
from limbeck.cache.fit import Asked, Pilot, choose, total_variation
from limbeck.core.types import TopK
from limbeck.tasks._text import train_bpe

LENGTH = 64


class SmallLM(nn.Module):
    """Two causal layers."""

    def __init__(self, vocabulary: int, width: int = 128):
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(ids_BT.shape[1])
        hidden = self.words(ids_BT) + self.places(torch.arange(ids_BT.shape[1]))
        return self.layers(hidden, mask, is_causal=True) @ self.words.weight.T


def teacher(path: Path, vocabulary: int, steps: int, positions: int) -> Tensor:
    """Logits [N, V] of a model trained on the first nine tenths of a text, over the last."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    cut = len(text) * 9 // 10
    tokenizer: Any = train_bpe([text[:cut]], vocabulary, {"eos_token": "<eos>", "pad_token": "<pad>"})
    ids, held = (torch.tensor(tokenizer(part, verbose=False)["input_ids"]) for part in (text[:cut], text[cut:]))
    model = SmallLM(len(tokenizer))
    nn.init.normal_(model.words.weight, std=0.05)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    draw = torch.Generator().manual_seed(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, step / 50) * (1 - step / steps)
        at = torch.randint(len(ids) - LENGTH - 1, (32,), generator=draw)
        rows = torch.stack([ids[i : i + LENGTH + 1] for i in at.tolist()])
        loss = nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    windows = held[: len(held) // LENGTH * LENGTH].view(-1, LENGTH)[: math.ceil(positions / LENGTH)]
    with torch.no_grad():
        logits = torch.cat([model(part).flatten(0, 1) for part in windows.split(16)])
    entropy = torch.special.entr(torch.softmax(logits, 1)).sum(1).mean()
    print(f"vocabulary {len(tokenizer):,}, training loss {loss:.3f}, mean entropy {entropy:.3f} nats")
    return logits[:positions]


def others(logits_NV: Tensor, k: int = 128) -> dict[str, tuple[float, float]]:
    """Of every other format: bytes per token and total variation."""
    classes = logits_NV.shape[1]
    logs = torch.log_softmax(logits_NV, 1)
    values, ids = logs.topk(k, 1)
    place = torch.linspace(0, 1, k - 16).double()
    terms = torch.stack([place**0, place, place**2, place**3, place**4, place.sqrt()], 1)
    fitted = terms @ torch.linalg.lstsq(terms, values[:, 16:].double().T).solution.float().double()
    poly = torch.cat([values[:, :16].bfloat16().float(), fitted.T.float()], 1)
    width = math.ceil(math.log2(classes))
    kept = {
        "plain": (6.0 * k, values.half().float()),
        "poly (DistillKit)": (width * k / 8 + 2 * 16 + 4 * 6, poly),
        "megatron": (2.125 * k + 2 * k if classes <= 131_072 else math.nan, values.half().float()),
    }
    found = {}
    for name, (size, read) in kept.items():
        named = read.exp().sum(1, keepdim=True)
        read = torch.where(named > 1, read - named.log(), read)
        rest = torch.log1p(-read.exp().sum(1).clamp(max=1 - 1e-7))
        found[name] = (size, float(total_variation(logits_NV, TopK(ids, read, rest)).mean()))
    return found


def seconds(work: Any, rounds: int = 5) -> float:
    """Least CPU time of a call."""
    best = math.inf
    for _ in range(rounds):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def ours(codec: Codec, logits_NV: Tensor) -> dict[str, float]:
    """Size, nearness and speed of one of limbeck's codecs; samples of 128 labels."""
    count = len(logits_NV) // 128 * 128
    logits_NV, rows_S = logits_NV[:count], np.full(count // 128, 128)
    uniform = torch.rand(count, codec.draws, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    reduced = codec.reduce(logits_NV, uniform if codec.draws else None)
    data = codec.write(reduced, rows_S)
    told = codec.read(data, rows_S)
    few, rows = slice(0, 16), rows_S[:16]  # a batch at a time, as training reads
    tokens = int(rows.sum())
    skip = 128 if isinstance(codec, PackedTopK) else 0
    flat = [each[skip:] for each in data[few]]
    part = tuple(each[:tokens] for each in reduced)
    return {
        "bytes": sum(map(len, data)) / count + (44 + 4) / 128,
        "total variation": float(total_variation(logits_NV, told).mean()),
        "classes": float((told.ids >= 0).sum(1).double().mean()),  # type: ignore[union-attr]
        "flat tokens/s": tokens / seconds(lambda: unpack(flat, rows, codec.bits), 20),  # type: ignore[attr-defined]
        "read tokens/s": tokens / seconds(lambda: codec.read(data[few], rows), 20),
        "pack tokens/s": tokens / seconds(lambda: codec.write(part, rows), 5),
    }


def main() -> None:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--positions", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    logits = teacher(given.text, given.vocab, given.steps, given.positions + 4096)
    pilot = Pilot(logits.shape[1])
    pilot.add(logits[:4096])
    logits, table = logits[4096:], []
    for name, (size, distance) in others(logits).items():
        table.append({"format": name, "bytes": size, "total variation": distance})
    for budget in (20, 40, 60, 80, 100, 130, 160):
        codec = choose(Asked(budget, "top_k"), pilot, 48 / 128, True)
        table.append({"format": f"top_k {budget}", **ours(codec, logits)})
    for budget in (12, 20, 40):
        drawn = choose(Asked(budget, "sampled"), pilot, 48 / 128, True)
        assert isinstance(drawn, Drawn)
        table.append({"format": f"sampled {budget} ({drawn.count} draws)", **ours(drawn, logits)})
    columns = list(dict.fromkeys(key for row in table for key in row))
    print("  ".join(f"{c:>22}" for c in columns))
    for row in table:
        cells = [
            f"{v:,.4g}" if isinstance(v, float) and v < 1e4 else f"{v:,.0f}" if isinstance(v, float) else v
            for v in (row.get(c, "") for c in columns)
        ]
        print("  ".join(f"{cell:>22}" for cell in cells))
    if given.json:
        facts = {"machine": platform.processor(), "torch": torch.__version__, "numpy": np.__version__}
        plain = {k: v.name if isinstance(v, Path) else str(v) for k, v in vars(given).items() if k != "json"}
        given.json.write_text(json.dumps({**facts, "arguments": plain, "rows": table}, indent=2))


if __name__ == "__main__":
    main()
