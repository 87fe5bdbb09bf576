"""B10, one request: what a request costs a server beside the model, limbeck beside LitServe and FastAPI.

    pip install -c constraints.txt -e '.[serve,onnx]' litserve==0.2.19
    python benchmarks/b10_request.py             # five rounds
    python benchmarks/b10_request.py --quick     # one short round; writes nothing

The student is next to nothing: one layer of width 16, texts of 16 words. What is told is the time of all processors
that a server's processes had, by the requests that they answered: unlike the seconds that a request takes, it hardly
depends on what else the machine does. One caller asks, or 32 who ask again at once. Parity as in `b10_serving.py`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import _bench
import _servers
from _load import CALLERS, Running, closed_loop
from b10_serving import compared, questions, save_student, started

WORDS = (16, 17)
FORMS = ("limbeck", *_servers.LITSERVE, _servers.FASTAPI)


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended too
    with tempfile.TemporaryDirectory() as made:
        folder = save_student(Path(made), (1, 16, 1))
        texts, answers = questions(folder, 256, WORDS)
        with started(options.forms, folder) as servers:
            parity = {name: compared(server, texts, answers, 32) for name, server in servers.items()}
            rounds = [{name: {} for name in servers} for _ in range(options.rounds)]
            for name in servers:  # what is slow only once
                closed_loop(servers[name], texts, options.seconds)
            for place, name in enumerate(_bench.turns(list(servers), options.rounds)):
                rounds[place // len(servers)][name] = measured(servers[name], texts, options.seconds)
    result = {
        "benchmark": "B10: what a request costs beside the model",
        "settings": {"rounds": options.rounds, "seconds": options.seconds},
        "parity": parity,
        "servers": {
            name: {key: _bench.spread([each[name][key] for each in rounds]) for key in rounds[0][name]}
            for name in servers
        },
        "machine": _bench.machine("onnxruntime", "fastapi", "uvicorn", "litserve"),
    }
    show(result)
    if not options.quick:
        _bench.write(options.results, "b10-request", result)


def arguments() -> argparse.Namespace:
    parser = _bench.parser(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 2.0
    return options


def measured(server: Running, texts: list[bytes], seconds: float) -> dict[str, float]:
    """Milliseconds of the processors for one request, and requests a second."""
    found = {}
    for callers in (1, CALLERS):
        told = closed_loop(server, texts, seconds, callers).told(0)
        if told["missed"]:
            raise SystemExit(f"requests were not answered: {told['missed']:.1%}")
        found |= {f"cpu_ms, {callers} callers": told["cpu_ms"], f"a second, {callers} callers": told["answered"]}
    return found


def show(result: dict[str, Any]) -> None:
    """The table."""
    names = next(iter(result["servers"].values()))
    print(f"{'':22}" + "".join(f"{name:>24}" for name in names))
    for name, each in result["servers"].items():
        print(f"{name:22}" + "".join(f"{each[key]['median']:24.2f}" for key in names))


if __name__ == "__main__":
    main()
