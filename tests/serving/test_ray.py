"""The Ray Serve application: replicas that answer as one server does, one of them killed, and leave in peace."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from limbeck.client import Client
from limbeck.core.types import Sample
from limbeck.runtime.student import load_student
from tests.serving.serving import TOKEN, make_text
from tests.serving.test_triton import CLIENT

pytestmark = pytest.mark.slow
httpx = pytest.importorskip("httpx")
text_string_to_metric_families = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families
if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install 'limbeck[ray]'", allow_module_level=True)

SERVER = """
import json, sys
from limbeck.serving.scale.ray_server import RayServer
from limbeck.serving.scale.spec import Scale, Spec, found
from limbeck.serving.settings import Settings, read_token

spec = Spec(models=found([sys.argv[1]]), threads=1, settings=Settings(token=read_token(None), port=0))
server = RayServer(spec, Scale(replicas=2, cpus=0.5))
server.run(lambda: print(server.port, flush=True))
"""
CALLERS = 16


class Cluster:
    """A server with two replicas."""

    def __init__(self, folder: Path, log: Path):
        env = {**os.environ, "LIMBECK_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        env.pop("RAY_ADDRESS", None)
        command = [sys.executable, "-W", "ignore", "-c", SERVER, str(folder)]
        with log.open("w") as stderr:
            self.process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=stderr)
        assert self.process.stdout is not None
        port = self.process.stdout.readline().strip()
        if not port:
            self.process.communicate()
            raise AssertionError(log.read_text())
        self.url = f"http://127.0.0.1:{port}"

    def replicas(self) -> list[psutil.Process]:
        """Their processes."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in below if _title(each).startswith("ray::ServeReplica")]

    def asked(self) -> dict[str, float]:
        """Predictions by replica, as Prometheus is told of them."""
        answer = httpx.get(f"{self.url}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        answer.raise_for_status()
        wanted = {"code": "200", "route": "/predict"}
        return {
            sample.labels["replica"]: sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == "limbeck_requests_total" and wanted.items() <= sample.labels.items()
        }


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("models") / "text")


@pytest.fixture(scope="module")
def cluster(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(folder, tmp_path_factory.mktemp("logs") / "server.log")
    try:
        yield made
    finally:
        made.process.send_signal(signal.SIGTERM)
        try:
            made.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            made.process.kill()
            made.process.communicate()


class Callers:
    """Threads that ask until they are told to stop, each answer compared with the student's own."""

    def __init__(self, url: str, folder: Path):
        student = load_student(folder)
        texts = [f"the word{i} of {i * i}" for i in range(8 * CALLERS)]
        answers = student.predict([Sample(text, {"text": text}) for text in texts])
        self.expected = {text: (answer.label, answer.confidence) for text, answer in zip(texts, answers, strict=True)}
        self.seen: Counter[str] = Counter()
        self._texts, self._url, self._stop = texts, url, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, place: int) -> None:
        turn = place
        with Client(self._url, token=TOKEN, retries=0) as client:
            while not self._stop.is_set():
                text = self._texts[turn % len(self._texts)]
                turn += CALLERS
                try:
                    got = client.predict(text)
                except Exception as error:
                    self.seen[f"{type(error).__name__} {getattr(error, 'status', '')}".strip()] += 1
                    continue
                label, confidence = self.expected[text]
                self.seen["right" if got.label == label and abs(got.confidence - confidence) < 1e-4 else "wrong"] += 1

    def stop(self) -> Counter[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        return self.seen


def test_both_replicas_answer_and_their_figures_are_told_together(cluster: Cluster, folder: Path) -> None:
    assert httpx.post(f"{cluster.url}/predict", json={"text": "a"}).status_code == 401
    sent = {"content": b"x" * (11 * 2**20), "headers": {"authorization": f"Bearer {TOKEN}"}}
    assert httpx.post(f"{cluster.url}/predict", **sent).status_code == 413
    before = len(cluster.replicas())
    callers = Callers(cluster.url, folder)
    time.sleep(4)
    seen = callers.stop()
    assert before == 2
    assert set(seen) == {"right"}
    end = time.monotonic() + 60
    while len(asked := cluster.asked()) < 2 or sum(asked.values()) < seen["right"]:
        assert time.monotonic() < end, asked
        time.sleep(1)  # the replicas tell each other every two seconds
    assert len(asked) == 2
    assert sum(asked.values()) == seen["right"]


def test_more_replicas_than_processors_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code = SERVER.replace("replicas=2, cpus=0.5", "replicas=4096")
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "fewer processors than the replicas want" in done.stderr


BUILT = """
import os
import sys
from limbeck.core.errors import RecipeError
from pydantic import ValidationError
from limbeck.serving.scale.ray_app import app

words = {"models": f"m={sys.argv[1]}", "replicas": "3", "threads": "1"}
del os.environ["LIMBECK_TOKEN"]
try:
    app(words)
except RecipeError as error:
    print(error.what[-13:])
os.environ["LIMBECK_TOKEN"] = 2 * sys.argv[2]
print(app(words)._bound_deployment.num_replicas)
try:
    app({**words, "replica": "3"})
except ValidationError as error:
    print(error.errors()[0]["loc"])
"""


def test_rays_own_tools_can_build_it(folder: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", BUILT, str(folder), TOKEN]
    env = {**os.environ, "LIMBECK_TOKEN": TOKEN}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["needs a token", "3", "('replica',)"], done.stderr


def test_tritonclient_works_unchanged(cluster: Cluster, folder: Path) -> None:
    if importlib.util.find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed: pip install 'tritonclient[http,grpc]'")
    student = load_student(folder)
    features = student.encode([Sample("0", {"text": "the word1 of 7"}), Sample("1", {"text": "of"})])
    tokens = json.dumps({name: array.tolist() for name, array in student.arrays(features).items()})
    command = [sys.executable, "-W", "ignore", "-c", CLIENT, "http", cluster.url.removeprefix("http://"), TOKEN, tokens]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    expected = student.logits(features)
    assert [each["labels"] for each in told["found"]] == [[student.labels[i] for i in expected.argmax(1)]] * 3
    assert all(abs(each["logits"][0][0] - expected[0, 0]) < 1e-4 for each in told["found"])


def test_a_killed_replica_loses_no_more_than_it_had(cluster: Cluster, folder: Path) -> None:
    callers = Callers(cluster.url, folder)
    time.sleep(2)
    victim = cluster.replicas()[0]
    victim.kill()
    end = time.monotonic() + 90
    while len(cluster.replicas()) < 2 or victim in cluster.replicas():
        assert time.monotonic() < end, "no other replica was started"
        time.sleep(0.5)
    time.sleep(6)  # until it answers, too
    seen = callers.stop()
    assert seen["wrong"] == 0
    assert seen["right"] > 0
    assert sum(seen.values()) - seen["right"] <= CALLERS, seen  # what each had under way in it, at most
    again = Callers(cluster.url, folder)
    time.sleep(2)
    assert set(again.stop()) == {"right"}


def test_sigterm_finishes_what_has_begun(cluster: Cluster, folder: Path) -> None:
    barrier, codes = threading.Barrier(CALLERS + 1), []

    def ask(i: int) -> None:
        rows = [f"the word {i} of {k}" for k in range(16)]
        with httpx.Client(headers={"authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
            client.get(f"{cluster.url}/v2/health/ready")
            barrier.wait(30)
            codes.append(client.post(f"{cluster.url}/predict", json={"inputs": rows}).status_code)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(CALLERS)]
    for thread in threads:
        thread.start()
    barrier.wait(30)
    time.sleep(0.05)
    cluster.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert codes == [200] * CALLERS
    assert cluster.process.wait(60) == 0
