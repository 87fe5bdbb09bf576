"""B8: latency of one text, a teacher of BERT-base's shape beside its student, in several engines, in one process.

    pip install -c constraints.txt -e '.[openvino]' torchao==0.18.0
    python benchmarks/b08_latency.py             # seven rounds of 20 requests
    python benchmarks/b08_latency.py --quick     # one round of 3; writes nothing

Teacher: 12 layers of width 768; student: 4 of 256; both classify into 77 classes, with random weights, which time does
not depend on. One thread each.

    teacher, torch            as a training leaves it, PyTorch's own attention kernels
    teacher, ONNX Runtime     exported by limbeck, fp32
    student, ...              the same, and OpenVINO
    student, ORT int8         `quantize_dynamic` with its defaults, on an export by torch with its defaults
    student, torchao int8     `Int8DynamicActivationInt8WeightConfig`
    student, limbeck int8     `limbeck compress`, loaded as `limbeck serve` does

Agreement is the share of 64 texts with the same answer as the student in torch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import _bench

LENGTHS = (16, 64, 128)
SHAPES = {"teacher": (12, 768, 12), "student": (4, 256, 4)}
CLASSES = 77
Ask = Callable[[dict[str, np.ndarray]], np.ndarray]


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        forms = engines(Path(folder))
        result = {
            "benchmark": "B8: latency of one text",
            "settings": {"rounds": options.rounds, "requests": options.requests, "threads": 1, "shapes": SHAPES},
            "milliseconds": {str(n): measured(forms, n, options.rounds, options.requests) for n in LENGTHS},
            "agreement": agreement(forms),
            "machine": _bench.machine("onnxruntime", "openvino", "torchao"),
        }
    show(result)
    if not options.quick:
        _bench.write(options.results, "b08-latency", result)


def arguments() -> argparse.Namespace:
    parser = _bench.parser(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=20)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.requests = 1, 3
    return options


def engines(folder: Path) -> dict[str, Ask]:
    """Everything that answers, by name."""
    from limbeck.compression.int8 import Int8
    from limbeck.exporters._graph import strip
    from limbeck.exporters.onnx import Onnx
    from limbeck.exporters.openvino import Openvino
    from limbeck.runtime.onnx_runner import OnnxRunner
    from limbeck.runtime.student import load_student

    found: dict[str, Ask] = {}
    for name, shape in SHAPES.items():
        card = save_model(folder / name, shape)
        found[f"{name}, torch"] = by_torch(folder / name)
        (folder / f"{name}-onnx").mkdir()
        Onnx().export(folder / name, folder / f"{name}-onnx", card)
        found[f"{name}, ONNX Runtime"] = by_runner(OnnxRunner(folder / f"{name}-onnx" / "model.onnx", threads=1))
    (folder / "openvino").mkdir()
    from limbeck.runtime.card import write_card

    write_card(Openvino().export(folder / "student", folder / "openvino", card), folder / "openvino")
    found["student, OpenVINO"] = by_runner(load_student(folder / "openvino", threads=1).runner)
    plain_int8(folder / "student", folder / "plain.onnx")
    found["student, ORT int8"] = by_runner(OnnxRunner(folder / "plain.onnx", threads=1))
    found["student, torchao int8"] = by_torch(folder / "student", torchao=True)
    Int8().compress(folder / "student-onnx" / "model.onnx", folder / "int8.onnx", [])
    strip(folder / "int8.onnx")
    found["student, limbeck int8"] = by_runner(OnnxRunner(folder / "int8.onnx", threads=1))
    return found


def save_model(folder: Path, shape: tuple[int, int, int]) -> Any:
    """A classifier with random weights in a folder, with a tokenizer; its card."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    from limbeck.runtime.card import Card

    layers, width, heads = shape
    torch.manual_seed(0)
    labels = {i: f"class {i}" for i in range(CLASSES)}
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        id2label=labels,
        label2id={v: k for k, v in labels.items()},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    words = {f"w{i}": i for i in range(1000)} | {"[PAD]": 1000, "[UNK]": 1001}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=names, **special).save_pretrained(folder)
    return Card(task={"type": "text-classification", "max_length": 512}, labels=tuple(labels.values()))


def by_torch(folder: Path, torchao: bool = False) -> Ask:
    """PyTorch, eager, without gradients."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    if torchao:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        quantize_(model, Int8DynamicActivationInt8WeightConfig())

    @torch.inference_mode()
    def ask(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return model(**{name: torch.from_numpy(x) for name, x in inputs.items()}).logits.numpy()

    return ask


def by_runner(runner: Any) -> Ask:
    """One of limbeck's runners."""
    return lambda inputs: runner.run(inputs)["logits"]


def plain_int8(student: Path, path: Path) -> None:
    """What a reader of ONNX Runtime's page on quantization comes to."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(student).eval()
    given = {name: torch.from_numpy(x) for name, x in texts(16, 2).items()}
    free = {name: {0: "batch", 1: "length"} for name in given}
    program = torch.onnx.export(model, (), kwargs=given, dynamo=True, dynamic_shapes=free, verbose=False)
    graph = program.model_proto
    del graph.graph.value_info[:]  # without this, it fails on the classifier
    for output in graph.graph.output:
        for node in graph.graph.node:
            node.output[:] = ["logits" if name == output.name else name for name in node.output]
        output.name = "logits"
    onnx.save(graph, path)
    quantize_dynamic(path, path)


def texts(length: int, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tokens."""
    ids = np.random.default_rng(seed).integers(0, 1000, (count, length))
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}


def measured(forms: dict[str, Ask], length: int, rounds: int, requests: int) -> dict[str, Any]:
    """Median milliseconds of a request in each round, spread over the rounds."""
    inputs = texts(length, 1)
    for ask in forms.values():
        ask(inputs)
    found: dict[str, list[float]] = {name: [] for name in forms}
    for name in _bench.turns(list(forms), rounds):
        took = []
        for _ in range(requests):
            start = time.perf_counter()
            forms[name](inputs)
            took.append(time.perf_counter() - start)
        found[name].append(float(np.median(took)) * 1e3)
    return {name: _bench.spread(values) for name, values in found.items()}


def agreement(forms: dict[str, Ask]) -> dict[str, float]:
    """Share of texts with the answer of the student in torch."""
    inputs = texts(24, 64, seed=1)
    said = {name: ask(inputs).argmax(1) for name, ask in forms.items() if name.startswith("student")}
    return {name: float((each == said["student, torch"]).mean()) for name, each in said.items()}


def show(result: dict[str, Any]) -> None:
    """The table."""
    names = list(result["milliseconds"][str(LENGTHS[0])])
    print(f"{'ms, median of rounds':28}" + "".join(f"{n:>8} tokens" for n in LENGTHS) + "   agreement")
    for name in names:
        row = [result["milliseconds"][str(n)][name]["median"] for n in LENGTHS]
        same = result["agreement"].get(name)
        print(f"{name:28}" + "".join(f"{x:15.2f}" for x in row) + (f"{same:12.1%}" if same is not None else ""))
    ours = [result["milliseconds"][str(n)]["student, limbeck int8"]["median"] for n in LENGTHS]
    for name in ("teacher, torch", "teacher, ONNX Runtime", "student, ORT int8"):
        ratios = [result["milliseconds"][str(n)][name]["median"] / x for n, x in zip(LENGTHS, ours, strict=True)]
        print(f"{name} / limbeck int8: " + ", ".join(f"{x:.1f}" for x in ratios))


if __name__ == "__main__":
    main()
