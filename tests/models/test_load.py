"""Models from folders and configs: what is loaded, what is refused, what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from limbeck.core.errors import ModelError
from limbeck.core.recipe import Model
from limbeck.models.load import load_config, load_model, origin, parameters
from tests.models.conftest import CAUSAL, CONFIGS, IMAGE, TEXT, inputs_of, new

LABELS = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
PLAIN = ["qwen3", "qwen3-tied", "gpt2", "bert", "vit", "resnet"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder never needs the hub."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr("socket.socket.connect", refuse)


def stored(name: str, folder: Path) -> Any:
    model = new(name)
    model.save_pretrained(folder)
    return model


def load(folder: Path, auto_class: str, **more: Any) -> Any:
    return load_model(Model(model=str(folder)), auto_class, **{"settings": {}, **more})


@pytest.mark.parametrize("name", PLAIN)
def test_a_folder_gives_the_model_that_was_saved(name: str, tmp_path: Path) -> None:
    model = stored(name, tmp_path)
    again = load(tmp_path, CONFIGS[name][0]).eval()
    inputs = inputs_of(model)
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, rtol=0, atol=0)
    assert parameters(again) == parameters(model)
    assert load_config(Model(model=str(tmp_path))).model_type == model.config.model_type
    assert {p.name for p in tmp_path.iterdir()} <= {"config.json", "generation_config.json", "model.safetensors"}


@pytest.mark.parametrize(("said", "wanted"), [("auto", torch.bfloat16), ("float32", torch.float32)])
def test_weights_come_in_the_type_that_is_asked_for(said: str, wanted: torch.dtype, tmp_path: Path) -> None:
    new("gpt2").to(torch.bfloat16).save_pretrained(tmp_path)
    spec = Model.model_validate({"model": str(tmp_path), "dtype": said})
    assert load_model(spec, CAUSAL, settings={}).dtype == wanted
    assert load_model(spec, CAUSAL, settings={}, dtype=torch.float16).dtype == torch.float16
    fresh = Model.model_validate({"config": {"model_type": "gpt2", **CONFIGS["gpt2"][1]}, "dtype": said})
    assert load_model(fresh, CAUSAL, settings={}).dtype == torch.float32


def test_the_attention_can_be_chosen(tmp_path: Path) -> None:
    stored("qwen3", tmp_path)
    for chosen in ("eager", "sdpa"):
        spec = Model(model=str(tmp_path), attn_implementation=chosen)
        assert load_model(spec, CAUSAL, settings={}).config._attn_implementation == chosen
    with pytest.raises(ModelError, match="attn_implementation"):
        load_model(Model(model=str(tmp_path), attn_implementation="nonsense"), CAUSAL, settings={})


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    model = stored("bert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"cannot be loaded(.|\n)*model\.safetensors"):
        load(tmp_path, TEXT)


def test_a_checkpoint_without_the_head_needs_training(tmp_path: Path) -> None:
    transformers.AutoModel.from_config(new("bert").config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lacks weights(.|\n)*classifier\.bias, classifier\.weight(.|\n)*finetune"):
        load(tmp_path, TEXT)
    model = load(tmp_path, TEXT, settings={**LABELS, "vocab_size": 99}, new_head=True)
    assert model.config.id2label == LABELS["id2label"]
    assert model.classifier.out_features == 3
    assert model.config.vocab_size == 40, "a checkpoint keeps its own vocabulary"
    body = load_file(tmp_path / "model.safetensors")
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, body["embeddings.word_embeddings.weight"])


def test_another_number_of_classes_gets_a_new_head(tmp_path: Path) -> None:
    stored("bert", tmp_path)
    assert load(tmp_path, TEXT, settings=LABELS).config.num_labels == 2, (
        "without new_head the checkpoint's classes stay"
    )
    model = load(tmp_path, TEXT, settings=LABELS, new_head=True)
    assert model.classifier.out_features == 3
    assert torch.isfinite(model.classifier.weight).all()


def test_weights_of_the_body_must_be_there(tmp_path: Path) -> None:
    stored("gpt2", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in weights if "attn.c_attn.weight" in key)
    save_file({k: v for k, v in weights.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights(.|\n)*c_attn\.weight"):
        load(tmp_path, CAUSAL)


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    stored("gpt2", tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path, CAUSAL)
    (tmp_path / "config.json").write_text("{ no json")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path, CAUSAL)
    with pytest.raises(ModelError, match="cannot be found"):
        load_config(Model(model=str(tmp_path)))
    with pytest.raises(ModelError, match=r"cannot be loaded(.|\n)*config\.json"):
        load(tmp_path / "nowhere", CAUSAL)


def test_a_model_of_another_task_is_refused(tmp_path: Path) -> None:
    stored("vit", tmp_path)
    with pytest.raises(ModelError, match="ViTConfig"):
        load(tmp_path, TEXT)
    with pytest.raises(ModelError, match=r"'resnet' config(.|\n)*ResNetConfig"):
        load_model(Model(config={"model_type": "resnet"}), CAUSAL, settings={})


CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from transformers import Qwen3Config as MineConfig, Qwen3ForCausalLM as MineModel
"""


@pytest.mark.parametrize("kind", ["mine", "qwen3"])
def test_code_in_a_folder_is_not_run(kind: str, tmp_path: Path) -> None:
    """An unknown architecture is refused; a known one is loaded with the library's own class."""
    stored("qwen3", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    code = {"AutoConfig": "code.MineConfig", CAUSAL: "code.MineModel"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": kind, "auto_map": code}))
    (tmp_path / "code.py").write_text(CODE)
    if kind == "mine":
        with pytest.raises(ModelError, match="trust_remote_code"):
            load(tmp_path, CAUSAL)
        with pytest.raises(ModelError, match="trust_remote_code"):
            load_config(Model(model=str(tmp_path)))
    else:
        assert type(load(tmp_path, CAUSAL)) is transformers.Qwen3ForCausalLM
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("bert", {"hiden_size": 16}, r"no field hiden_size(.|\n)*hidden_size"),
        ("bert", {"hidden_size": "wide"}, r"'bert' config(.|\n)*hidden_size"),
        ("bert", {"num_attention_heads": 3}, r"'bert' config(.|\n)*not a multiple"),
        ("bert", {"hidden_act": "nope"}, "'bert' config"),
        ("gpt2", {"n_layers": 2}, "no field n_layers"),
    ],
)
def test_fields_that_do_not_fit_are_refused(name: str, fields: dict[str, Any], message: str) -> None:
    auto_class, config = CONFIGS[name]
    with pytest.raises(ModelError, match=message):
        load_model(Model(config={"model_type": name, **config, **fields}), auto_class, settings={})


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ModelError, match="no model can be made from a 'berrt' config"):
        load_model(Model(config={"model_type": "berrt"}), TEXT, settings={})


def test_new_models_take_the_tasks_settings_and_known_aliases() -> None:
    spec = Model(config={"model_type": "bert", **CONFIGS["bert"][1]})
    made = load_model(spec, TEXT, settings={**LABELS, "pad_token_id": 3})
    assert (made.config.num_labels, made.config.pad_token_id, made.config.vocab_size) == (3, 3, 40)
    alias = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "bos_token_id": 0, "eos_token_id": 1}
    made = load_model(Model(config={"model_type": "gpt2", **alias}), CAUSAL, settings={"vocab_size": 40})
    assert (made.config.n_embd, len(made.transformer.h), made.config.vocab_size) == (16, 1, 40)
    made = load_model(Model(config={"model_type": "vit", **CONFIGS["vit"][1]}), IMAGE, settings=LABELS)
    assert made.classifier.out_features == 3


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: own\n---\n", "other"),
        ("# no front matter\nlicense: mit", "unknown"),
        ("---\nlanguage: en\n---\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_licence_is_read_from_the_card(card: str | None, licence: str, tmp_path: Path) -> None:
    stored("gpt2", tmp_path)
    if card is not None:
        (tmp_path / "README.md").write_text(card, encoding="utf-8")
    told = origin(Model(model=str(tmp_path)))
    assert (told.licence, told.name, told.revision) == (licence, str(tmp_path), None)


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    stored("gpt2", tmp_path)
    spec = Model(model=str(tmp_path))
    before = origin(spec).fingerprint
    (tmp_path / "README.md").write_text("words")
    assert origin(spec).fingerprint == before
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert origin(spec).fingerprint != before


def test_a_new_model_has_no_licence() -> None:
    told = origin(Model(config={"model_type": "bert", "num_hidden_layers": 2}))
    assert (told.name, told.licence) == ("new bert", "none, new weights")
    assert told.fingerprint != origin(Model(config={"model_type": "bert", "num_hidden_layers": 3})).fingerprint


def test_rows_longer_than_the_positions_are_refused() -> None:
    from limbeck.models.load import check_length, new_config

    config = new_config({"model_type": "bert", "max_position_embeddings": 8}, {})
    model = transformers.AutoModelForSequenceClassification.from_config(
        new_config({**config.to_diff_dict(), "model_type": "bert", "hidden_size": 8, "num_attention_heads": 1}, {})
    )
    check_length(model, 8, "student")
    with pytest.raises(ModelError, match="too few positions") as caught:
        check_length(model, 9, "student")
    assert "8 (max_position_embeddings)" in str(caught.value)


def test_a_checkpoint_of_other_names_is_refused_even_with_a_new_head(tmp_path: Path) -> None:
    new("bert").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({f"oops.{k}": v for k, v in weights.items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks weights"):
        load_model(Model(model=str(tmp_path)), TEXT, settings=LABELS, new_head=True)
