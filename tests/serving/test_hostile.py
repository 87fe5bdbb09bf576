"""A server under hostile requests: no crash, no wrong answer, no memory and no descriptors lost.

The small storm runs with the other tests; the whole one by hand: python -m pytest -m torture tests/serving.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from limbeck.core.types import Sample
from limbeck.runtime.student import load_student
from tests.cli.test_serve import started
from tests.serving.hostile import storm
from tests.serving.serving import TOKEN, make_text

pytest.importorskip("httpx")
grpc = pytest.importorskip("grpc")
MIB = 2**20
AUTH = (("authorization", f"Bearer {TOKEN}"),)
BOUNDS = ("--max-body-mb", "0.2", "--deadline", "30")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("models") / "text")


def expected(folder: Path) -> dict[str, list[float]]:
    texts = [f"the {'word ' * (i % 8)}{i}" for i in range(40)]
    student = load_student(folder)
    return {t: student.logits(student.encode([Sample(t, {"text": t})]))[0].tolist() for t in texts}


def rested(measure: Callable[[], int]) -> int:
    """A figure, once it has been the same for half a second."""
    found, since = measure(), time.monotonic()
    while time.monotonic() - since < 0.5:
        if (now := measure()) != found:
            found, since = now, time.monotonic()
        time.sleep(0.05)
    return found


def settled(measure: Callable[[], float], most: float) -> float:
    """A figure, once it has come down to the bound or ten seconds have passed."""
    end = time.monotonic() + 10
    while (found := measure()) > most and time.monotonic() < end:
        time.sleep(0.1)
    return found


def attack_grpc(target: str, calls: int, seed: int) -> Counter[str]:
    """Messages that are noise, or broken, some of them given up; the codes that came back."""
    from limbeck.serving.protos import SERVICE, message

    rng, codes = Random(seed), Counter[str]()
    good = message("ModelInferRequest")(
        model_name="text",
        inputs=[{"name": "text", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"a b"]}}],
    ).SerializeToString()
    with grpc.insecure_channel(target) as channel:

        def one(seed: int) -> str:
            rng, data = Random(seed), bytearray(good)
            for _ in range(rng.randrange(4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            body = rng.choice([bytes(data), rng.randbytes(200), b"", bytes(300_000)])
            metadata = rng.choice([AUTH, AUTH, AUTH, (), (("authorization", "Bearer x"),)])
            name = rng.choice(["ModelInfer", "ModelInfer", "ModelMetadata", "RepositoryModelUnload", "Nothing"])
            call = channel.unary_unary(f"/{SERVICE}/{name}")
            if rng.random() < 0.2:
                future = call.future(body, metadata=metadata, timeout=20)
                future.cancel()
                return "CANCELLED"
            try:
                call(body, metadata=metadata, timeout=rng.choice([20, 20, 0.001]))
                return "OK"
            except grpc.RpcError as error:
                return str(error.code().name)

        with ThreadPoolExecutor(8) as pool:
            codes.update(pool.map(one, [rng.randrange(2**32) for _ in range(calls)]))
    return codes


def withstands(folder: Path, http_calls: int, grpc_calls: int, growth: float) -> dict[str, Any]:
    """Two storms; the first one sets the level that the second must come back to."""
    known = expected(folder)
    with started(str(folder), "--grpc-port", "0", *BOUNDS, token=TOKEN) as (process, said):
        port = int(said["http"].rpartition(":")[2])
        server = psutil.Process(process.pid)

        def attack(seed: int, share: float) -> tuple[Any, Any, Counter[str]]:
            hostile, canaries = asyncio.run(storm(port, known, int(http_calls * share), seed))
            return hostile, canaries, attack_grpc(said["grpc"], int(grpc_calls * share), seed)

        attack(1, 0.25)
        files = rested(server.num_fds)
        before = server.memory_info().rss
        hostile, canaries, codes = attack(2, 1.0)
        after = settled(lambda: server.memory_info().rss, before + growth)
        assert settled(server.num_fds, files) <= files
        assert after - before <= growth, f"{(after - before) / MIB:.1f} MiB more"
        assert process.poll() is None
        assert canaries.wrong == []
        assert canaries.answered > 0
        assert hostile.statuses[-1] == 0  # somebody was always there
        assert set(hostile.statuses) <= {0, 100, 200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 500}
        assert {"CANCELLED", "UNAUTHENTICATED"} <= set(codes)
        assert "INTERNAL" not in codes
        return {
            "statuses": dict(hostile.statuses),
            "codes": dict(codes),
            "canaries": canaries.answered,
            "refused": canaries.refused,
            "mib": (after - before) / MIB,
            "files": files,
        }


@pytest.mark.slow
def test_a_small_storm_is_withstood(folder: Path) -> None:
    withstands(folder, http_calls=200, grpc_calls=40, growth=20 * MIB)


@pytest.mark.torture
def test_a_whole_storm_is_withstood(folder: Path, record_property: Callable[[str, object], None]) -> None:
    for name, value in withstands(folder, http_calls=20_000, grpc_calls=2_000, growth=20 * MIB).items():
        record_property(name, value)
