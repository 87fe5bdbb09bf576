"""Checkpoints: all that a run needs to go on as if it had never stopped. Safetensors and JSON, no pickle.

Randomness is not in it: every step seeds itself (see `seed_step`), so that a resumed run draws what the
uninterrupted one would have drawn.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from limbeck.core import artifacts
from limbeck.core.artifacts import Artifact
from limbeck.core.errors import ArtifactError

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass
class Progress:
    """Where a run stands."""

    stage: int = 0
    step_in_stage: int = 0
    step: int = 0
    best: dict[str, float] | None = None
    """Validation metrics of the stage's best weights so far."""
    best_step: int | None = None
    patience: int = 0
    """Validations since the best."""
    stalls: int = 0
    """Validations of the stage that brought nothing better, all in all."""
    scales: dict[str, float] | None = None
    """Of every term of the stage, its size on the first batch; None where the stage does not balance its terms."""
    losses: list[float] | None = None
    """The loss on each training row of the student that the stage began with; None where no curriculum goes by it."""
    sizes: dict[str, int] | None = None
    """What stages left of the student by pruning, as its config says it; None where none did."""
    scaler: dict[str, float] | None = None
    """State of the loss scaler, in fp16."""
    answers: dict[str, list[list[int]]] | None = None
    """By step of the stage, the token ids that the student wrote for it ahead of time."""
    written: dict[str, int] | None = None
    """What the student wrote in the stage, in numbers; None where it wrote nothing."""
    done: list[dict[str, Any]] = field(default_factory=list)
    """Of every finished stage: its name, the step of its best weights, and their validation metrics."""


class Checkpoints:
    """The newest checkpoint of a run, and the best weights of its stage.

    Args:
        folder: where they lie; made if need be.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(
        self, module: nn.Module, optimizer: Optimizer, progress: Progress, beside: Mapping[str, nn.Module]
    ) -> None:
        """Write a checkpoint; the one before it stays until the new one is safe on the disk.

        Args:
            module: the student.
            optimizer: over its parameters and those of the terms.
            progress: where the run stands.
            beside: what else learns or moves: the terms' own modules, a teacher that follows the student.
        """
        target = self.folder / f"step-{progress.step:08d}"
        work = self.folder / f".{target.name}.new"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        save_file(_tensors(module.state_dict()), work / "model.safetensors")
        for name, other in beside.items():
            save_file(_tensors(other.state_dict()), work / f"{name}.safetensors")
        tensors, plain = _flatten(optimizer.state_dict())
        save_file(tensors, work / "optimizer.safetensors")
        artifacts.write_json(work / "optimizer.json", plain)
        artifacts.write_json(work / "progress.json", asdict(progress))
        artifacts.seal(work, {"kind": "checkpoint"})
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
        artifacts.sync_folder(self.folder)
        for old in self.folder.glob("step-*"):
            if old != target:
                shutil.rmtree(old)
        for best in self.folder.glob("best-*"):
            if best.name != f"best-{progress.best_step}":
                shutil.rmtree(best, ignore_errors=True)

    def newest(self) -> Artifact | None:
        """The last checkpoint, every byte checked; None where there is none."""
        found = sorted(self.folder.glob("step-*"))
        return artifacts.load(found[-1]) if found else None

    def save_best(self, module: nn.Module, step: int) -> None:
        """Keep the weights of a step as the stage's best so far."""
        target, work = self.folder / f"best-{step}", self.folder / f".best-{step}.new"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        save_file(_tensors(module.state_dict()), work / "model.safetensors")
        artifacts.seal(work, {"kind": "best"})
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
        artifacts.sync_folder(self.folder)

    def load_best(self, module: nn.Module, step: int) -> None:
        """Put the best weights back."""
        load_weights(module, artifacts.load(self.folder / f"best-{step}"))


def load_weights(module: nn.Module, checkpoint: Artifact, name: str = "model") -> None:
    """Weights from a checkpoint into a module; tied ones are stored once."""
    state = load_file(checkpoint.file(f"{name}.safetensors"))
    missing, unexpected = module.load_state_dict(state, strict=False)
    pointers = {t.data_ptr() for n, t in module.state_dict().items() if n in state}
    lost = [n for n in missing if module.state_dict()[n].data_ptr() not in pointers]
    if lost or unexpected:
        raise ArtifactError(f"{checkpoint.path} is of another model", got=", ".join([*lost, *unexpected][:3]))


def load_optimizer(optimizer: Optimizer, checkpoint: Artifact) -> None:
    """Moments and steps from a checkpoint into an optimizer over the same parameters."""
    tensors = load_file(checkpoint.file("optimizer.safetensors"))
    plain = json.loads(checkpoint.file("optimizer.json").read_text())
    state = {int(i): {**plain["state"][i]} for i in plain["state"]}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state[int(index)][key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": plain["param_groups"]})


def _tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors wants them: contiguous, and none that shares another's memory."""
    seen: set[int] = set()
    kept = {}
    for name, tensor in state.items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            kept[name] = tensor.detach().contiguous()
        seen.add(tensor.data_ptr())
    return kept


def _flatten(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors and JSON values."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, entry in state["state"].items():
        plain[str(index)] = {k: v for k, v in entry.items() if not isinstance(v, Tensor)}
        tensors |= {f"{index}.{k}": v.contiguous() for k, v in entry.items() if isinstance(v, Tensor)}
    return tensors, {"state": plain, "param_groups": state["param_groups"]}


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed all draws of a step (dropout) from its number, so that a resumed run repeats them."""
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + rank)
