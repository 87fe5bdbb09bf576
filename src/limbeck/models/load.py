"""Models from the hub, from a folder, or new from a config. Weights are read as safetensors only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

import limbeck.models.compact  # noqa: F401 (tells transformers of our own model)
from limbeck.core.artifacts import digest_of, sha256_of
from limbeck.core.errors import ModelError, nearest
from limbeck.core.recipe import Model

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_FAILURES = (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError, StrictDataclassError)
"""What transformers raises on damaged folders, unknown or ill-matched fields and missing packages."""


@dataclass(frozen=True)
class Origin:
    """Where a model came from, as the artifact records it."""

    name: str
    revision: str | None
    licence: str
    fingerprint: str


def load_model(
    spec: Model,
    auto_class: str,
    *,
    settings: Mapping[str, Any],
    new_head: bool = False,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """The model that a recipe's section names.

    Args:
        spec: the section.
        auto_class: transformers' class for the task, for instance `AutoModelForCausalLM`.
        settings: config fields that the task decides (labels; vocabulary size for a new model).
        new_head: a checkpoint without the task's head is given a new one (it is about to be trained);
            otherwise that is an error, because the model would answer at random.
        dtype: type of the weights; None leaves it to `spec.dtype`.

    Raises:
        ModelError: it is not there, has no safetensors, or does not fit the task.
    """
    wanted = dtype or (spec.dtype if spec.dtype == "auto" else getattr(torch, spec.dtype))
    extra = {} if spec.attn_implementation is None else {"attn_implementation": spec.attn_implementation}
    if spec.config is not None:
        config = new_config(spec.config, settings)
        return new_model(config, auto_class, dtype=torch.float32 if wanted == "auto" else wanted, **extra)
    labels = {k: v for k, v in settings.items() if k in ("id2label", "label2id")} if new_head else {}
    try:
        model, info = getattr(transformers, auto_class).from_pretrained(
            spec.model,
            revision=spec.revision or "main",
            dtype=wanted,
            use_safetensors=True,
            trust_remote_code=spec.trust_remote_code,
            ignore_mismatched_sizes=new_head,
            output_loading_info=True,
            **labels,
            **extra,
        )
    except _FAILURES as error:
        fix = "a folder with config.json and *.safetensors, or a hub name that can be reached"
        raise ModelError(f"the model '{spec.model}' cannot be loaded", got=str(error).strip(), fix=fix) from error
    if lacking := _lacking(model, info["missing_keys"], new_head):
        raise ModelError(
            f"the checkpoint of '{spec.model}' lacks weights that this task needs",
            got=", ".join(lacking[:5]),
            fix="another checkpoint" if new_head else "train it on the task first: teacher.finetune.epochs=3",
        )
    if settings.get("pad_token_id") is not None and getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = settings["pad_token_id"]  # a decoder that classifies reads the last real token
    return model


def _lacking(model: PreTrainedModel, missing: Iterable[str], new_head: bool) -> list[str]:
    """Missing weights that nothing makes up for: training makes a head, and the pooler before it, but no body."""
    body = f"{model.base_model_prefix}."
    makes_head = new_head and model.get_output_embeddings() is None
    return sorted(k for k in missing if not makes_head or (k.startswith(body) and ".pooler." not in k))


def new_model(config: PretrainedConfig, auto_class: str, **options: Any) -> PreTrainedModel:
    """A model with new weights, or with none under `torch.device("meta")`.

    Args:
        config: the model's.
        auto_class: transformers' class for the task.
        options: what `from_config` takes beside: `dtype`, `attn_implementation`.

    Raises:
        ModelError: the config's fields do not fit each other, or the task.
    """
    try:
        return getattr(transformers, auto_class).from_config(config, **options)
    except _FAILURES as error:
        raise ModelError(f"no model can be made from a '{config.model_type}' config", got=error) from error


def new_config(fields: Mapping[str, Any], settings: Mapping[str, Any]) -> PretrainedConfig:
    """A transformers config from a recipe's mapping; unknown fields are refused."""
    fields = dict(fields)
    model_type = fields.pop("model_type")
    try:
        config = transformers.AutoConfig.for_model(model_type, **{**settings, **fields})
    except _FAILURES as error:
        raise ModelError(f"no model can be made from a '{model_type}' config", got=error) from error
    known = set(transformers.AutoConfig.for_model(model_type).to_dict()) | set(config.attribute_map)
    if strange := sorted(set(fields) - known):
        guess = nearest(strange[0], known)
        raise ModelError(
            f"a '{model_type}' config has no field {', '.join(strange)}",
            allowed=", ".join(sorted(known - {"transformers_version", "architectures"})),
            fix=f"did you mean '{guess}'?" if guess else None,
        )
    return config


def load_config(spec: Model) -> PretrainedConfig:
    """A model's config without its weights."""
    if spec.config is not None:
        return new_config(spec.config, {})
    try:
        return transformers.AutoConfig.from_pretrained(
            str(spec.model), revision=spec.revision or "main", trust_remote_code=spec.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the model '{spec.model}' cannot be found",
            got=str(error).strip(),
            fix="check the name and the network; if a local folder is meant, it must be there with a config.json",
        ) from error


def origin(spec: Model) -> Origin:
    """Name, commit, licence and identity of a model's weights.

    A folder's identity is the digest of its files; a hub model's is its commit.
    """
    if spec.config is not None:
        return Origin(f"new {spec.config['model_type']}", None, "none, new weights", digest_of(spec.config))
    folder = Path(str(spec.model))
    if folder.is_dir():
        return Origin(str(spec.model), None, _licence_in(folder), folder_digest(folder))
    import huggingface_hub

    try:
        info = huggingface_hub.model_info(str(spec.model), revision=spec.revision)
    except Exception as error:  # the hub's client raises errors of many libraries
        if (snapshot := _cached(spec)) is not None:
            return Origin(str(spec.model), snapshot.name, _licence_in(snapshot), snapshot.name)
        fix = "check the name, the connection and the login (hf auth login); or give a local folder"
        raise ModelError(
            f"the model '{spec.model}' is neither a folder nor found on the hub", got=error, fix=fix
        ) from error
    licence = getattr(info.card_data, "license", None) or "unknown"
    return Origin(str(spec.model), info.sha, str(licence), str(info.sha))


def _cached(spec: Model) -> Path | None:
    """The copy of a hub model that an earlier run has left here, None where there is none."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(str(spec.model), revision=spec.revision, local_files_only=True))
    except Exception:  # whatever stands in the way, the caller tells of the hub's own error
        return None


def weight_files(model: PreTrainedModel) -> list[Path]:
    """The files that a model's weights were read from, in a folder or in the hub's cache; none for a new model."""
    name = model.name_or_path
    if not name:
        return []
    spec = Model(model=name, revision=getattr(model.config, "_commit_hash", None))
    folder = Path(name) if Path(name).is_dir() else _cached(spec)
    if folder is None:
        return []
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if not (folder / "model.safetensors").exists() and index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [file for each in sorted(names) if (file := folder / each).exists()]


def folder_digest(folder: Path) -> str:
    """Identity of a model's or tokenizer's folder: all its files but the model card."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md" and not p.name.startswith("."))
    return digest_of({p.relative_to(folder).as_posix(): sha256_of(p) for p in files})


def _licence_in(folder: Path) -> str:
    card = folder / "README.md"
    if card.exists():
        import huggingface_hub

        text = card.read_text(encoding="utf-8")
        if licence := huggingface_hub.ModelCard(text, ignore_metadata_errors=True).data.get("license"):
            return str(licence)
    return "unknown"


def check_length(
    model: PreTrainedModel, longest: int, name: str, what: str = "row", fix: str = "a smaller task.max_length"
) -> None:
    """Make sure that a model has positions for the longest row.

    Raises:
        ModelError: it has not.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and longest > positions:
        raise ModelError(
            f"{name} has too few positions for the longest {what}",
            got=f"{longest} tokens",
            allowed=f"{positions} (max_position_embeddings)",
            fix=fix,
        )


def parameters(model: torch.nn.Module) -> int:
    """Number of parameters; tied ones count once."""
    return sum(p.numel() for p in model.parameters())
