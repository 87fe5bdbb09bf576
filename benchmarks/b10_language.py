"""B10, language models: what our front costs before an engine, by processor time and by tokens a second.

    pip install -c constraints.txt -e '.[serve,genai]' openai
    python benchmarks/b10_language.py            # five rounds
    python benchmarks/b10_language.py --quick    # one short round; writes nothing

The student is next to nothing: two layers of width 64, random weights. It is asked for texts of one token and of 400,
whole and streamed, through the front and at the engine's own socket. What is told is the time of all processors that
the front's process had, by request and by token, and tokens a second on the way.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch

import _bench
from limbeck.core.recipe import Model
from limbeck.core.types import Sample
from limbeck.models.load import load_model
from limbeck.runtime.card import Card, write_card
from limbeck.tasks.causal_lm import CausalLM

NAME, LONG = "tiny", 400
SERVER = """
import sys
from limbeck.serving.language.serve import serve_language
from limbeck.serving.settings import Settings

def ready(server):
    sys.stdout.write(f"{server.port}\\n")
    sys.stdout.flush()

serve_language(sys.argv[1], Settings(port=0), name=sys.argv[2], engine=sys.argv[3], threads=1, ready=ready)
"""


def main() -> None:
    parser = _bench.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200, help="short ones; of the long ones there are a tenth")
    parser.add_argument("--quick", action="store_true", help="one short round; writes nothing")
    parser.add_argument("--engines", nargs="+", default=["transformers", "genai"])
    options = parser.parse_args()
    rounds, requests = (1, 20) if options.quick else (options.rounds, options.requests)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made:
        for engine in options.engines:
            folder = student(Path(made), engine)
            with started(folder, engine) as (process, port, socket):
                measured = [one_round(process, port, socket, requests) for _ in range(rounds)]
            names = measured[0]
            found[engine] = {name: _bench.spread([each[name] for each in measured]) for name in names}
    print(json.dumps(found, indent=1))
    if not options.quick:
        settings = {"rounds": rounds, "requests": requests}
        packages = ["transformers", "httpx", *(["onnxruntime-genai"] if "genai" in options.engines else [])]
        told = {"machine": _bench.machine(*packages), "settings": settings, "measured": found}
        _bench.write(options.results, "b10-language", told)


def student(folder: Path, engine: str) -> Path:
    """The student in the form that an engine reads."""
    task = {"type": "causal-lm", "template": "plain"}
    shape = {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32}
    heads = {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "max_position_embeddings": 512,
    }
    spec = Model(config={**shape, **heads}, tokenizer={"train": "bpe", "vocab_size": 300})
    made = CausalLM(template="plain")
    rows = [
        Sample(str(i), {"messages": [{"role": "user", "content": f"add {i} to {i + 1}"}]}, str(i)) for i in range(9)
    ]
    codec = made.codec(made.new_processor(spec, rows), None)
    plain = folder / "student"
    model = load_model(spec, made.auto_class, settings=codec.settings())
    with torch.no_grad():
        model.get_input_embeddings().weight[codec.processor.eos_token_id] = 0  # tied: it never ends by itself
    model.save_pretrained(plain)
    codec.prepare(model).save(plain)
    card = Card(task=task)
    write_card(card, plain)
    if engine != "genai":
        return plain
    from limbeck.exporters.onnxruntime_genai import OnnxruntimeGenai

    built = folder / "genai"
    built.mkdir()
    write_card(OnnxruntimeGenai(precision="fp32").export(plain, built, card), built)
    return built


@contextmanager
def started(folder: Path, engine: str) -> Iterator[tuple[psutil.Process, int, str]]:
    """A server as a process; its port, and its engine's socket."""
    words = [sys.executable, "-c", SERVER, str(folder), NAME, engine]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            process = psutil.Process(server.pid)
            told = " ".join(word for child in process.children() for word in child.cmdline())
            found = re.search(r"\S+\.sock", told)
            assert found is not None
            yield process, port, found[0]
        finally:
            server.terminate()


def one_round(process: psutil.Process, port: int, socket: str, requests: int) -> dict[str, float]:
    """All ways of asking, once."""
    found: dict[str, float] = {}
    engine = process.children()[0]
    speaks = "genai" in " ".join(engine.cmdline())
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as front:
        direct = httpx.Client(base_url="http://engine", transport=httpx.HTTPTransport(uds=socket), timeout=120)
        with direct:
            for stream in (False, True):
                way = "streamed" if stream else "whole"
                for tokens, count in ((1, requests), (LONG, max(2, requests // 10))):
                    body = asked(tokens, stream)
                    used = cpu(process)
                    seconds = ask(front, {"model": NAME, **body}, count)
                    found[f"{way}, {tokens} tokens: front, CPU ms a request"] = (cpu(process) - used) / count * 1000
                    found[f"{way}, {tokens} tokens: through the front, ms"] = seconds * 1000
                    own = {**body, "temperature": 0.0, "stop": []} if speaks else as_transformers(body)
                    alone = ask(direct, own, count)
                    found[f"{way}, {tokens} tokens: engine alone, ms"] = alone * 1000
    return found


def asked(tokens: int, stream: bool) -> dict[str, Any]:
    """A request: greedy, and long enough."""
    return {"prompt": "add 1 to 2", "max_tokens": tokens, "stream": stream}


def as_transformers(body: dict[str, Any]) -> dict[str, Any]:
    """The same, as `transformers serve` has it."""
    plan = {"do_sample": False, "max_new_tokens": body["max_tokens"]}
    return {"prompt": body["prompt"], "stream": body["stream"], "generation_config": json.dumps(plan)}


def ask(client: httpx.Client, body: dict[str, Any], count: int) -> float:
    """Seconds of a request, one after another."""
    began = time.perf_counter()
    for _ in range(count):
        with client.stream("POST", "/v1/completions", json=body) as reply:
            text = b"".join(reply.iter_raw())
        assert reply.status_code == 200, text
        assert body["stream"] or json.loads(text)["usage"]["completion_tokens"] in (1, LONG), text
    return (time.perf_counter() - began) / count


def cpu(process: psutil.Process) -> float:
    """Seconds of all processors that a process has had."""
    return sum(process.cpu_times()[:2])


if __name__ == "__main__":
    main()
