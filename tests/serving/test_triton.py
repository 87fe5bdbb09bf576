"""Triton's own clients against the server, unchanged; each in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from limbeck.core.types import Sample
from limbeck.runtime.student import load_student
from tests.serving.serving import TOKEN, Serving, make_text, running

pytest.importorskip("fastapi")
if importlib.util.find_spec("tritonclient") is None:
    pytest.skip("tritonclient is not installed: pip install 'tritonclient[http,grpc]'", allow_module_level=True)

CLIENT = """
import json, sys
import numpy as np
protocol, url, token = sys.argv[1:4]
module = __import__(f"tritonclient.{protocol}", fromlist=["x"])
headers = {"authorization": f"Bearer {token}"}
client = module.InferenceServerClient(url)
assert client.is_server_live(headers=headers)
assert client.is_server_ready(headers=headers)
assert client.is_model_ready("text", headers=headers)
as_json = {} if protocol == "http" else {"as_json": True}
metadata = client.get_model_metadata("text", headers=headers, **as_json)
index = client.get_model_repository_index(headers=headers, **as_json)
texts = np.array([b"the word1 of 7", b"of"], dtype=object)

def given(name, array, datatype, **how):
    tensor = module.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array, **how)
    return tensor

found = []
ways = [{"binary_data": True}, {"binary_data": False}] if protocol == "http" else [{}]
for how in ways:
    outputs = [module.InferRequestedOutput("logits", **how), module.InferRequestedOutput("label", **how)]
    # The client writes into the headers that it is given.
    asked = {"headers": dict(headers), "request_id": "mine", "outputs": outputs, "timeout": 5_000_000}
    answer = client.infer("text", [given("text", texts, "BYTES", **how)], **asked)
    response = answer.get_response(**as_json)
    labels = [v.decode() if isinstance(v, bytes) else v for v in answer.as_numpy("label").tolist()]
    found.append({"id": response["id"], "logits": answer.as_numpy("logits").tolist(), "labels": labels})
tokens = json.loads(sys.argv[4])
inputs = [given(name, np.array(rows, dtype=np.int64), "INT64") for name, rows in tokens.items()]
plain = client.infer("text", inputs, headers=headers)
found.append({"id": "mine", "logits": plain.as_numpy("logits").tolist(),
              "labels": [v.decode() for v in plain.as_numpy("label").tolist()]})
try:
    client.infer("none", inputs, headers=headers)
except module.InferenceServerException as error:
    refused = str(error)
print(json.dumps({"metadata": metadata, "index": str(index), "found": found, "refused": refused}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("models") / "text")


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Serving]:
    with running({"text": folder}) as made:
        yield made


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient_works_unchanged(serving: Serving, folder: Path, protocol: str) -> None:
    student = load_student(folder)
    features = student.encode([Sample("0", {"text": "the word1 of 7"}), Sample("1", {"text": "of"})])
    expected = student.logits(features)
    tokens = json.dumps({name: array.tolist() for name, array in student.arrays(features).items()})
    url = serving.url.removeprefix("http://") if protocol == "http" else serving.grpc
    command = [sys.executable, "-W", "ignore", "-c", CLIENT, protocol, url, TOKEN, tokens]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["metadata"]["name"] == "text"
    assert "READY" in told["index"]
    assert "no such model" in told["refused"]
    assert len(told["found"]) == (3 if protocol == "http" else 2)
    for each in told["found"]:
        assert each["id"] == "mine"
        np.testing.assert_allclose(each["logits"], expected, atol=1e-5)
        assert each["labels"] == [student.labels[i] for i in expected.argmax(1)]
