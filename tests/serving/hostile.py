"""Requests that mean harm, and honest callers between them who must not notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.serving.serving import TOKEN

_CHARACTERS = "abc \u00e9\u4e2d\U0001f600\u0000\u202e{}[]\"'\\"


class Hostile:
    """Makes one attack after another, over plain connections.

    Args:
        port: of HTTP on this machine.
        seed: of the attacks.

    Attributes:
        statuses: what was answered, by status; 0: the connection was closed.
    """

    def __init__(self, port: int, seed: int):
        self.port, self.rng = port, random.Random(seed)
        self.statuses: Counter[int] = Counter()
        self.kinds: list[Callable[[], bytes]] = [
            self.noise, self.mutated, self.nested, self.tensors, self.binary, self.headers, self.stranger, self.large,
            self.chunked, self.form, self.poison, self.long_path, self.pipelined, self.picture,
        ]  # fmt: skip

    async def attack(self) -> None:
        """One attack; the caller may leave at any time, or never read."""
        data = self.rng.choice(self.kinds)()
        manner = self.rng.random()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            self.statuses[-1] += 1  # nobody is there
            return
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            writer.write(data[: self.rng.randrange(1, len(data))] if manner < 0.1 else data)
            await asyncio.wait_for(writer.drain(), 5)
            if manner < 0.2:
                writer.transport.abort()
                return
            if manner < 0.25:
                writer.write_eof()
            line = await asyncio.wait_for(reader.readline(), 0.3 if manner < 0.1 else 20)
            words = line.split()
            self.statuses[int(words[1]) if len(words) > 1 and words[1].isdigit() else 0] += 1
        writer.transport.abort()

    def post(self, path: str, body: bytes, *headers: str, token: str = TOKEN) -> bytes:
        """A request."""
        lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {token}", *headers]
        if not any(line.lower().startswith(("content-length", "transfer")) for line in headers):
            lines.append(f"content-length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def noise(self) -> bytes:
        """No HTTP at all."""
        return self.rng.randbytes(self.rng.randrange(1, 2000))

    def mutated(self) -> bytes:
        """A good request with some bytes changed."""
        data = bytearray(self.post("/v2/models/text/infer", json.dumps(honest("a b c")).encode()))
        for _ in range(self.rng.randrange(1, 8)):
            data[self.rng.randrange(len(data))] = self.rng.randrange(256)
        return bytes(data)

    def nested(self) -> bytes:
        """Lists within lists."""
        opening = self.rng.choice([b"[", b'{"inputs":', b'{"inputs":[{"data":[', b'{"a":['])
        return self.post(self.rng.choice(["/predict", "/v2/models/text/infer"]), opening * self.rng.randrange(9999))

    def tensors(self) -> bytes:
        """Types, shapes and data at random."""
        pick = self.rng.choice
        values: list[Any] = [0, -1, 2**63, 1.5, True, None, "x" * 1000, [1], [[[]]], {}, "1", 1e308, 10**40]
        tensor = {
            "name": pick(["text", "input_ids", "attention_mask", "image", "", "\u0000"]),
            "shape": [pick([0, 1, 2, -1, 2**31 - 1, 2**62, 1.0, "1"]) for _ in range(self.rng.randrange(10))],
            "datatype": pick(["INT64", "BYTES", "FP32", "FP16", "BOOL", "UINT8", "BF16", "", 1]),
            "data": [pick(values) for _ in range(self.rng.randrange(5))],
        }
        return self.post("/v2/models/text/infer", json.dumps({"inputs": [tensor] * pick([1, 1, 2, 70])}).encode())

    def binary(self) -> bytes:
        """Lengths that lie."""
        size = self.rng.choice([0, 1, 5, 2**31, -1, "5", True])
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [tensor]}).encode()
        rest = struct.pack("<I", self.rng.choice([0, 1, 2**32 - 1])) + b"a" * self.rng.randrange(3)
        told = self.rng.choice([len(head), 0, 10**30, -1, len(head) + 99, "x"])
        return self.post("/v2/models/text/infer", head + rest, f"inference-header-content-length: {told}")

    def headers(self) -> bytes:
        """Headers that are many, long, or wrong."""
        one = self.rng.choice(["content-length: 9999999999999999999999", "content-length: -1", "content-length: 1e3",
                               "transfer-encoding: gzip, chunked", "expect: 100-continue", "content-encoding: gzip",
                               "upgrade: websocket\r\nconnection: upgrade", "x: " + "y" * 70_000,
                               "authorization: Bearer \u00e9"])  # fmt: skip
        return self.post("/predict", b'{"text": "a"}', one)

    def stranger(self) -> bytes:
        """Somebody without the token."""
        return self.post(
            self.rng.choice(["/predict", "/v2", "/metrics"]), b'{"text": "a"}', token=self.rng.choice(["", "x"])
        )

    def large(self) -> bytes:
        """More than the server takes."""
        return self.post("/predict", b'{"text": "' + b"a" * 300_000 + b'"}')

    def chunked(self) -> bytes:
        """Chunks that are wrong, or never end."""
        chunks = self.rng.choice([b"5\r\n{", b"zz\r\n", b"ffffffffffffffff\r\n", b"1\r\na\r\n" * 1000, b"0\r\n\r\n"])
        return self.post("/predict", chunks, "transfer-encoding: chunked")

    def form(self) -> bytes:
        """Forms that are broken."""
        field = b'--b\r\ncontent-disposition: form-data; name="image"'
        parts = self.rng.choice([b"", b"--b\r\n", field * 50, field + b'; filename="x"\r\n\r\nGIF89a\r\n--b--'])
        return self.post("/predict", parts, "content-type: multipart/form-data; boundary=b")

    def poison(self) -> bytes:
        """Tokens that are beyond the vocabulary, or more than the model has places for."""
        count = self.rng.choice([1, 3, 200])
        ids = [self.rng.choice([10**6, -5, 2**62])] * count
        return self.post("/v2/models/text/infer", json.dumps(tokens([ids], [[1] * count])).encode())

    def long_path(self) -> bytes:
        """Addresses that are long or climb."""
        path = self.rng.choice(["/" + "a" * 5000, "/../../etc/passwd", "/v2/models/%00/infer", "/v2/models/..%2f/load"])
        return self.post(path, b"{}")

    def pipelined(self) -> bytes:
        """Many requests at once."""
        text = "".join(self.rng.choice(_CHARACTERS) for _ in range(20))
        return self.post("/predict", json.dumps({"text": text}).encode()) * self.rng.randrange(1, 20)

    def picture(self) -> bytes:
        """A picture that is none, or is said to be larger than any memory."""
        size = struct.pack(">II", 2**30, 2**30)
        bomb = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + size + b"\x08\x02\x00\x00\x00" + bytes(4)
        body = self.rng.choice([bomb, b"GIF89a", self.rng.randbytes(500)])
        return self.post("/predict", body, "content-type: image/png")


def honest(text: str) -> dict[str, Any]:
    """A good request."""
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
    return {"inputs": [tensor], "outputs": [{"name": "logits"}]}


def tokens(ids: list[list[int]], mask: list[list[int]]) -> dict[str, Any]:
    """A request of the model's own inputs."""
    named = {"input_ids": ids, "attention_mask": mask}
    inputs = [{"name": k, "shape": [len(v), len(v[0])], "datatype": "INT64", "data": v} for k, v in named.items()]
    return {"inputs": inputs}


class Canaries:
    """Honest callers, each of whom knows what must come back.

    Args:
        url: of the server.
        expected: logits by text.

    Attributes:
        answered: right answers.
        refused: times that the server was busy.
        wrong: what was not right.
    """

    def __init__(self, url: str, expected: dict[str, list[float]]):
        self.url, self.expected = url, expected
        self.answered = self.refused = 0
        self.wrong: list[Any] = []
        self.stop = asyncio.Event()

    async def call(self) -> None:
        """Ask one thing after another until told to stop."""
        import httpx

        async with httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
            while not self.stop.is_set():
                text = random.choice(list(self.expected))
                answer = await client.post(f"{self.url}/v2/models/text/infer", json=honest(text))
                if answer.status_code == 429:
                    self.refused += 1
                elif answer.status_code != 200:
                    self.wrong.append((answer.status_code, answer.text))
                elif not np.allclose(answer.json()["outputs"][0]["data"], self.expected[text], atol=1e-4):
                    self.wrong.append((text, answer.json()))
                else:
                    self.answered += 1
                await asyncio.sleep(0.01)


async def storm(port: int, expected: dict[str, list[float]], attacks: int, seed: int) -> tuple[Hostile, Canaries]:
    """Attacks from many sides, and honest callers between them."""
    hostile, canaries = Hostile(port, seed), Canaries(f"http://127.0.0.1:{port}", expected)
    left = iter(range(attacks))

    async def attacker() -> None:
        for _ in left:
            await hostile.attack()

    calling = [asyncio.create_task(canaries.call()) for _ in range(4)]
    await asyncio.gather(*(attacker() for _ in range(16)))
    canaries.stop.set()
    await asyncio.gather(*calling)
    return hostile, canaries
