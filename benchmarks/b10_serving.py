"""B10: a student behind servers, under load: limbeck beside LitServe and FastAPI, on the same ONNX file.

    pip install -c constraints.txt -e '.[serve,onnx]' litserve==0.2.19
    python benchmarks/b10_serving.py             # three rounds
    python benchmarks/b10_serving.py --quick     # one short round; writes nothing

The student has BERT's shape, 3 layers of width 192, fp32, random weights, 77 classes; texts have 8 to 512 tokens, as
many short as long ones on a logarithmic scale. Every server (`_servers.py`) is a process of its own, with one thread
for the model; all have the same processors, and whoever asks has the last one to itself. Servers that are not asked are
stopped. Before anything is timed, all must give the answers of the model without a server.

    capacity     answers a second to 32 callers who ask again at once
    load         requests come at random (Poisson), at 30, 60 and 90 % of the capacity of `limbeck, one by one`, the
                 same for all; time runs from when a request was due, not from when it could be sent
    p99 < 100    the highest rate, in steps of a quarter, with p99 below 100 ms and at most one request of a thousand
                 without an answer
    overload     ten times a server's own capacity: answers a second (goodput), and p99 of those that were given

LitServe is run with three settings; the summary takes the best of them in each line. `limbeck, deadline` is told that
answers are of use for 100 ms, and asked only in the overload.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import _bench
import _servers
from _load import CALLERS, LATE, Running, closed_loop, open_loop

RATES = (0.3, 0.6, 0.9)
SMALL = (3, 192, 6)
"""Layers, width, heads."""
BASE = "limbeck, one by one"
HASTY = "limbeck, deadline"
FORMS = (*_servers.LIMBECK, *_servers.LITSERVE, _servers.FASTAPI)


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended too
    with tempfile.TemporaryDirectory() as made:
        folder = save_student(Path(made))
        texts, answers = questions(folder, options.texts)
        with started(options.forms, folder) as servers:
            parity = {  # who has 100 ms refuses most of what comes at once
                name: compared(server, texts, answers, options.checked)
                for name, server in servers.items()
                if name != HASTY
            }
            found = [measured(servers, texts, options, seed) for seed in range(options.rounds)]
    names = list(found[0])
    result = {
        "benchmark": "B10: a student behind servers, under load",
        "settings": {"rounds": options.rounds, "seconds": options.seconds, "callers": CALLERS, "late": LATE},
        "parity": parity,
        "servers": {name: merged([each[name] for each in found]) for name in names},
        "rounds": found,
        "machine": _bench.machine("onnxruntime", "fastapi", "uvicorn", "litserve"),
    }
    show(result)
    if not options.quick:
        _bench.write(options.results, "b10-serving", result)


def arguments() -> argparse.Namespace:
    parser = _bench.parser(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--checked", type=int, default=64, help="texts of the comparison of answers")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.texts, options.checked = 1, 2.0, 64, 16
    if BASE not in options.forms:
        parser.error(f"rates are shares of what `{BASE}` can do; name it too")
    return options


def save_student(folder: Path, shape: tuple[int, int, int] = SMALL) -> Path:
    """An ONNX export of a student with random weights."""
    from b08_latency import save_model
    from limbeck.exporters.onnx import Onnx
    from limbeck.runtime.card import write_card

    card = save_model(folder / "student", shape)
    (folder / "onnx").mkdir()
    write_card(Onnx().export(folder / "student", folder / "onnx", card), folder / "onnx")
    return folder / "onnx"


def questions(folder: Path, count: int, words: tuple[int, int] = (8, 512)) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Requests of so many words, and what the model says to each one alone."""
    draw, direct = np.random.default_rng(0), _servers.Direct(folder)
    lengths = np.exp(draw.uniform(*np.log(words), count)).astype(int)
    texts = [" ".join(f"w{i}" for i in draw.integers(0, 1000, length)) for length in lengths]
    return [json.dumps({"text": text}).encode() for text in texts], [direct.answers([direct.ids(t)])[0] for t in texts]


@contextmanager
def started(forms: list[str], folder: Path) -> Iterator[dict[str, Running]]:
    """All servers, stopped until they are asked."""
    cores = sorted(os.sched_getaffinity(0))
    theirs = set(cores[:-1] or cores)
    found: dict[str, Running] = {}
    try:
        for form in forms:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command = [sys.executable, str(Path(_servers.__file__)), form, str(folder), str(port)]
            os.sched_setaffinity(0, theirs)
            quiet = subprocess.DEVNULL
            process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
            os.sched_setaffinity(0, cores)
            found[form] = Running(port, process)
            wait_for(found[form], form)
            found[form].signal(signal.SIGSTOP)
        os.sched_setaffinity(0, {cores[-1]})
        yield found
    finally:
        os.sched_setaffinity(0, cores)
        for server in found.values():
            server.signal(signal.SIGKILL)
            server.process.wait()


def wait_for(server: Running, form: str) -> None:
    """Until it answers."""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise SystemExit(f"{form} has left with status {server.process.returncode}")
        try:
            asked(server, b'{"text": "w1 w2"}')
            return
        except urllib.error.HTTPError as error:
            if error.code != 503:  # that it is not ready
                raise SystemExit(f"{form} answers {error.code}: {error.read()[:500]!r}") from error
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{form} does not answer")


def asked(server: Running, body: bytes) -> dict[str, Any]:
    """One answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/predict", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        found: dict[str, Any] = json.load(response)
    return found["predictions"][0] if "predictions" in found else found


def compared(server: Running, texts: list[bytes], answers: list[dict[str, Any]], count: int) -> dict[str, float]:
    """The gate: asked all at once, so that rows share batches, a server says what the model says."""

    async def all_at_once() -> list[dict[str, Any]]:
        return await asyncio.gather(*(asyncio.to_thread(asked, server, text) for text in texts[:count]))

    with server.awake():
        found = asyncio.run(all_at_once())
    pairs = list(zip(found, answers[:count], strict=True))
    wrong = sum(got["label"] != right["label"] for got, right in pairs)
    apart = max(abs(got["confidence"] - right["confidence"]) for got, right in pairs)
    if wrong or apart > 1e-4:
        raise SystemExit(f"no parity: {wrong} other labels, confidences up to {apart:.1e} apart")
    return {"rows": count, "largest_difference": apart}


def measured(servers: dict[str, Running], texts: list[bytes], options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One round: every server under every load, another one first each round."""
    seconds, found = options.seconds, dict[str, Any]()
    names = list(servers)
    names = names[seed % len(names) :] + names[: seed % len(names)]
    for name in names:
        closed_loop(servers[name], texts, seconds / 4)  # what is slow only once
        load = closed_loop(servers[name], texts, seconds)
        found[name] = {"capacity": load.told(0)["answered"], "cpu_ms": load.told(0)["cpu_ms"]}
    base = found[BASE]["capacity"]
    for share, name in itertools.product(RATES, names):
        if name != HASTY:
            load = open_loop(servers[name], texts, share * base, seconds, seed)
            found[name].setdefault("load", {})[f"{share:.0%}"] = load.told(share * base)
    for name in names:
        if name != HASTY:
            found[name]["within"] = within(servers[name], texts, found[name]["capacity"], seconds, seed)
        rate = 10 * found[name]["capacity"]
        found[name]["overload"] = open_loop(servers[name], texts, rate, seconds / 2, seed).told(rate)
        time.sleep(1)
    print(f"round {seed + 1} of {options.rounds}", file=sys.stderr)
    return found


def within(server: Running, texts: list[bytes], capacity: float, seconds: float, seed: int) -> float:
    """The highest rate with p99 below 100 ms; 0 if there is none above a tenth of the capacity."""
    rate, best = capacity * 0.5, 0.0
    while capacity * 0.1 < rate < capacity * 2:
        told = open_loop(server, texts, rate, seconds, seed).told(rate)
        good = told["p99"] < 100 and told["missed"] <= 0.001
        if good:
            best = rate
        elif best:
            break
        if not good and rate > capacity * 0.5:
            break
        rate = rate * 1.25 if good else rate / 1.25
    return best


def merged(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the rounds, of every figure."""
    first = rounds[0]
    return {
        key: merged([each[key] for each in rounds])
        if isinstance(value, dict)
        else float(np.median([each[key] for each in rounds]))
        for key, value in first.items()
    }


def show(result: dict[str, Any]) -> None:
    """The table, and what it comes to."""
    told = result["servers"]
    print(f"\n{'':22}{'capacity':>9}{'CPU ms':>8}{'':4}" + "".join(f"{s:>7.0%}: mean   p50   p99" for s in RATES))
    for name, each in told.items():
        row = f"{name:22}{each['capacity']:9.0f}{each['cpu_ms']:8.2f}{'':4}"
        for load in each.get("load", {}).values():
            row += f"{load['mean']:14.1f}{load['p50']:6.1f}{load['p99']:6.0f}"
        print(row)
    print(f"\n{'':22}{'p99 < 100 ms':>14}{'10 x: goodput':>16}{'of capacity':>13}{'p99 of answers':>16}")
    for name, each in told.items():
        over = each["overload"]
        share = over["answered"] / each["capacity"]
        print(f"{name:22}{each.get('within', 0):12.0f}/s{over['answered']:14.0f}/s{share:13.0%}{over['p99']:13.0f} ms")
    lit = [each for name, each in told.items() if name in _servers.LITSERVE]
    if lit and "limbeck" in told:
        best = max(each["within"] for each in lit)
        ratio = f"{told['limbeck']['within'] / best:.2f}" if best else "LitServe has none"
        print(f"\nrequests a second at p99 < 100 ms, limbeck / LitServe at its best: {ratio}")
        for share in told["limbeck"]["load"]:
            ours = told["limbeck"]["load"][share]["mean"]
            alone = told[BASE]["load"][share]["mean"]
            theirs = min(each["load"][share]["mean"] for each in lit)
            print(f"mean at {share}: limbeck / one by one {ours / alone:.2f}, / LitServe {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
