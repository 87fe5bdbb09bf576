"""B10, scaled out: one server alone, and the same student behind Ray Serve with one replica and with two.

    pip install -c constraints.txt -e '.[serve,onnx,ray]'
    python benchmarks/b10_scale.py             # three rounds
    python benchmarks/b10_scale.py --quick     # one short round; writes nothing

The student is that of `b10_serving.py` (4 layers of width 256, ONNX Runtime, one thread for the model), asked by 32
callers who ask again at once, over connections that are kept; texts have 8 to 64 tokens. Servers run one at a time,
each on all processors of the machine, which they share with whoever asks: with two of them, two replicas have no more
processors than one server has with its event loop and its thread, so what is seen is what Ray's way costs. `cpu` is
the processors' time that a server's processes took for an answer.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import _bench
from _load import CALLERS, Running, closed_loop
from b10_serving import questions, save_student

ALONE = """
import sys
from pathlib import Path
from limbeck.runtime.student import load_student
from limbeck.serving.metrics import Metrics
from limbeck.serving.repository import Repository
from limbeck.serving.server import Server
from limbeck.serving.settings import Settings

settings, metrics = Settings(port=0, watch_seconds=None), Metrics()
repository = Repository(lambda folder: load_student(folder, threads=1), settings.limits, metrics)
repository.add("m", Path(sys.argv[1]))
server = Server(repository, settings, metrics)
server.run(lambda: print(server.port, flush=True))
"""
RAY = """
import sys
from limbeck.serving.scale.ray_server import RayServer
from limbeck.serving.scale.spec import Scale, Spec, found
from limbeck.serving.settings import Settings

spec = Spec(models=found([f"m={sys.argv[1]}"]), threads=1, settings=Settings(port=0, watch_seconds=None))
server = RayServer(spec, Scale(replicas=int(sys.argv[2]), cpus=0.5))
server.run(lambda: print(server.port, flush=True))
"""
FORMS = {"one server alone": (ALONE,), "Ray, 1 replica": (RAY, "1"), "Ray, 2 replicas": (RAY, "2")}


class Steady(Running):
    """A server that is never stopped: Ray would take its processes for dead."""

    def signal(self, what: int) -> None:
        pass


def main() -> None:
    options = arguments()
    told: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as made:
        folder = save_student(Path(made))
        texts = questions(folder, 256, (8, 64))[0]
        for form in _bench.turns(list(FORMS), options.rounds):
            with started(form, folder) as server:
                closed_loop(server, texts, options.seconds / 4)
                load = closed_loop(server, texts, options.seconds).told(0)
                if load["missed"]:
                    raise SystemExit(f"{form}: {load['missed']:.1%} of the requests have no answer")
                for name in ("answered", "p50", "p99", "cpu_ms"):
                    told[form][name].append(load[name])
    figures = {form: {name: _bench.spread(values) for name, values in each.items()} for form, each in told.items()}
    print("| | answers a second | p50, ms | p99, ms | cpu, ms an answer |\n|---|---|---|---|---|")
    for form, each in figures.items():
        rates, rest = each["answered"], " | ".join(f"{each[name]['median']:.1f}" for name in ("p50", "p99", "cpu_ms"))
        print(f"| {form} | {rates['median']:.0f} ({rates['low']:.0f} to {rates['high']:.0f}) | {rest} |")
    if not options.quick:
        settings = {"rounds": options.rounds, "seconds": options.seconds, "callers": CALLERS, "threads": 1}
        result = {"benchmark": "B10: scaled out", "settings": settings, "figures": figures}
        _bench.write(options.results, "b10-scale", {**result, "machine": _bench.machine("ray", "onnxruntime")})


def arguments() -> argparse.Namespace:
    parser = _bench.parser(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 2.0
    return options


@contextmanager
def started(form: str, folder: Path) -> Iterator[Steady]:
    """A server from its first answer to its end."""
    code, *words = FORMS[form]
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ))
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise SystemExit(f"{form} did not start")
        yield Steady(int(port), process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


if __name__ == "__main__":
    main()
