"""An InferenceService for KServe on Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from limbeck.core.errors import ModelError
from limbeck.core.parts import part
from limbeck.runtime.card import Card
from limbeck.serving.deploy._base import MEMORY, USER, Deployment, Written, words

HTTP = 8080
MOUNTED = "/mnt/models"
"""Where KServe puts what a storage URI leads to."""
_SECRETS = "/run/secrets/limbeck"


@part
class Kserve(Deployment):
    """An InferenceService that runs `limbeck serve`, or Triton, on Kubernetes."""

    runtime: Literal["limbeck", "triton"] = "limbeck"
    """limbeck: the image that `--for docker` describes. triton: KServe's own, with what `--for triton` writes."""
    image: str | None = None
    """The image, with its registry and tag; of limbeck alone."""
    storage_uri: str | None = Field(default=None, pattern=r"^[a-z0-9]+://\S+$")
    """Where the student lies: s3://, gs://, pvc:// ... Left out: in the image. Of Triton: the folder `models`."""
    token_secret: str | None = None
    """The Kubernetes Secret whose key `token` holds the token. Left out: NAME-token."""
    cpus: int = Field(default=2, ge=1)
    """Processors of a container, and threads of a batch."""
    memory: str = Field(default="2Gi", pattern=MEMORY)
    """Of a container."""
    min_replicas: int = Field(default=1, ge=0)
    """The fewest containers."""
    max_replicas: int = Field(default=4, ge=1)
    """The most."""
    scale_metric: Literal["concurrency", "rps", "cpu", "memory"] | None = None
    """What their number follows. Left out: what the cluster follows."""
    scale_target: int | None = Field(default=None, ge=1)
    """Of the metric, for one container."""

    def check(self, card: Card) -> None:
        super().check(card)
        if self.runtime == "triton" and card.format != "onnx":
            raise ModelError("triton takes a student in the format onnx", got=card.format, fix="--to onnx first")
        if self.max_replicas < self.min_replicas:
            raise ModelError("max_replicas is below min_replicas", got=f"{self.max_replicas} < {self.min_replicas}")

    def write(self, student: Path, card: Card, name: str, folder: Path) -> Written:
        told: dict[str, Any] = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name},
            "spec": {"predictor": self._predictor(name)},
        }
        (folder / "inferenceservice.yaml").write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
        return Written({"runtime": self.runtime}, tuple(self._notes(name)))

    def _notes(self, name: str) -> list[str]:
        notes = []
        if self.runtime == "triton" and self.storage_uri is None:
            notes.append("the storage URI is made up: give yours with storage_uri")
        if self.runtime == "limbeck":
            if self.image is None:
                notes.append("the image's registry is made up: give yours with image")
            secret = self.token_secret or f"{name}-token"
            notes.append(f"the token: kubectl create secret generic {secret} --from-file=token=FILE")
        return notes

    def _predictor(self, name: str) -> dict[str, Any]:
        scale: dict[str, Any] = {"minReplicas": self.min_replicas, "maxReplicas": self.max_replicas}
        if self.scale_metric is not None:
            scale["scaleMetric"] = self.scale_metric
        if self.scale_target is not None:
            scale["scaleTarget"] = self.scale_target
        return {**scale, **(self._triton(name) if self.runtime == "triton" else self._limbeck(name))}

    def _resources(self) -> dict[str, Any]:
        amounts = {"cpu": str(self.cpus), "memory": self.memory}
        return {"requests": amounts, "limits": dict(amounts)}

    def _triton(self, name: str) -> dict[str, Any]:
        return {
            "model": {
                "modelFormat": {"name": "onnx"},
                "runtime": "kserve-tritonserver",
                "protocolVersion": "v2",
                "storageUri": self.storage_uri or f"s3://models.example.com/{name}/models",
                "resources": self._resources(),
            }
        }

    def _limbeck(self, name: str) -> dict[str, Any]:
        place = f"/models/{name}" if self.storage_uri is None else MOUNTED
        told = words(name, place, port=HTTP, threads=self.cpus, token=f"{_SECRETS}/token")
        container = {
            "name": "kserve-container",
            "image": self.image or f"registry.example.com/limbeck-{name}:1",
            "args": [*told, "--no-watch"],
            "ports": [{"containerPort": HTTP, "protocol": "TCP"}],
            "resources": self._resources(),
            "readinessProbe": _probe("ready", 5, 3),
            "livenessProbe": _probe("live", 10, 12),  # it is there once its models are loaded
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [
                {"name": "token", "mountPath": _SECRETS, "readOnly": True},
                {"name": "scratch", "mountPath": "/tmp"},
            ],
        }
        if self.storage_uri is not None:
            container["env"] = [{"name": "STORAGE_URI", "value": self.storage_uri}]
        secret = {"secretName": self.token_secret or f"{name}-token"}
        volumes = [{"name": "token", "secret": secret}, {"name": "scratch", "emptyDir": {}}]
        return {"containers": [container], "volumes": volumes}


def _probe(what: str, seconds: int, failures: int) -> dict[str, Any]:
    get = {"path": f"/v2/health/{what}", "port": HTTP}
    return {"httpGet": get, "periodSeconds": seconds, "timeoutSeconds": 2, "failureThreshold": failures}
