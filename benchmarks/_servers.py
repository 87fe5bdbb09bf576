"""The servers of B10, each a process of its own: python _servers.py FORM FOLDER PORT

All read the same tokenizer and the same model.onnx, run it with one thread, and answer POST /predict {"text": ...} with
{"label": ..., "confidence": ...}, limbeck among other fields.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

LITSERVE = {
    "LitServe, 8 in 2 ms": (8, 0.002),
    "LitServe, 32 in 10 ms": (32, 0.01),
    "LitServe, one by one": (1, 0.0),
}
"""Rows of a batch at most, and how long the first waits for others."""
LIMBECK: dict[str, dict[str, Any]] = {
    "limbeck": {},
    "limbeck, one by one": {"max_batch_rows": 1},
    "limbeck, deadline": {"deadline": 0.1},
}
"""Of the engine's limits, what is not as `limbeck serve` has it."""
FASTAPI = "FastAPI per request"


class Asked(BaseModel):
    """What FastAPI reads; it looks types up by name, in the module."""

    text: str


class Direct:
    """The model without a server: texts in, labels and confidence out.

    Args:
        folder: an ONNX export.
    """

    def __init__(self, folder: Path):
        import onnxruntime
        from tokenizers import Tokenizer

        from limbeck.runtime.card import read_card

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
        self.names = [each.name for each in self.session.get_inputs()]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.labels = read_card(folder).labels or ()

    def ids(self, text: str) -> list[int]:
        """A text's tokens."""
        found: list[int] = self.tokenizer.encode(text).ids
        return found

    def answers(self, rows: list[list[int]]) -> list[dict[str, Any]]:
        """Of a batch."""
        longest = max(map(len, rows))
        ids, mask = (np.zeros((len(rows), longest), dtype=np.int64) for _ in range(2))
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        logits = self.session.run(["logits"], {name: given[name] for name in self.names})[0]
        powers = np.exp(logits - logits.max(1, keepdims=True))
        probs = powers / powers.sum(1, keepdims=True)
        return [{"label": self.labels[int(p.argmax())], "confidence": float(p.max())} for p in probs]


def limbeck(form: str, folder: Path, port: int) -> None:
    """As `limbeck serve FOLDER --threads 1` does it."""
    from limbeck.runtime.student import load_student
    from limbeck.serving.batching import Limits
    from limbeck.serving.logs import log_json
    from limbeck.serving.metrics import Metrics
    from limbeck.serving.repository import Repository
    from limbeck.serving.server import Server
    from limbeck.serving.settings import Settings

    limits, metrics = Limits(**LIMBECK[form]), Metrics()
    repository = Repository(lambda place: load_student(place, threads=1), limits, metrics)
    repository.add("student", folder)
    log_json()
    Server(repository, Settings(port=port, limits=limits), metrics).run()


def fastapi(folder: Path, port: int) -> None:
    """A plain endpoint, run by FastAPI in its pool of threads."""
    import uvicorn
    from fastapi import FastAPI

    app, direct = FastAPI(), Direct(folder)

    @app.post("/predict")
    def predict(asked: Asked) -> dict[str, Any]:
        return direct.answers([direct.ids(asked.text)])[0]

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def litserve(form: str, folder: Path, port: int) -> None:
    """LitServe with one worker."""
    from litserve import LitServer

    from _litserve_api import Api

    server = LitServer(Api(folder, *LITSERVE[form]), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


def main() -> None:
    form, folder, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if form in LIMBECK:
        limbeck(form, folder, port)
    elif form in LITSERVE:
        litserve(form, folder, port)
    else:
        fastapi(folder, port)


if __name__ == "__main__":
    main()
