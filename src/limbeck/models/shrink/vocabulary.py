"""A trimmed vocabulary: the tokens that the rows use, and what is needed to spell all else.

The new tokenizer reads the rows exactly as the old one did, up to the ids; `token_map[new id]` is the old id.

    WordPiece   takes the longest piece that fits: without pieces that the rows never use it takes the same ones.
    Unigram     takes the best path: the best of all paths is still the best of fewer. The token with the
                lowest score stays, because the price of an unknown character is derived from it.
    BPE         merges the pair of the lowest rank: all merges on the way to a kept token stay, so the order in
                which the rows' pairs are merged does not change.

Single characters and bytes stay, and so do pieces with characters that have no token of their own: a text that
could be read without an unknown token still can.
"""

from __future__ import annotations

import copy
import itertools
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from limbeck.core.errors import ModelError
from limbeck.models.shrink.draft import rebuild

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILE = "token_map.json"
"""The token map's file, beside the student's weights."""

_KINDS = ("WordPiece", "BPE", "Unigram")


@dataclass(frozen=True)
class Trimmed:
    """A model with fewer tokens.

    Attributes:
        model: the new model.
        tokenizer: the new tokenizer.
        token_map: old id of each new id [new rows], rising.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    token_map: Tensor


def trim_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, keep_ids: Iterable[int]) -> Trimmed:
    """A model and a tokenizer without the tokens that are not needed; see the file's head.

    Args:
        model: any model of transformers; left as it is.
        tokenizer: its fast tokenizer, of kind WordPiece, BPE or Unigram; left as it is.
        keep_ids: every id that occurs in the rows. Special and added tokens are kept in any case.

    Raises:
        ModelError: the tokenizer is of another kind, an id is not in its vocabulary, or the result would read
            tokens otherwise than the old one.
    """
    rows = cast(torch.nn.Embedding, model.get_input_embeddings()).num_embeddings
    named = {i for settings in _settings(model) for i in _token_ids(settings) if i < rows}
    ids = kept_ids(tokenizer, [*keep_ids, *named])
    if ids[-1] >= rows:
        name = tokenizer.convert_ids_to_tokens(ids[-1])
        raise ModelError("the tokenizer has tokens that the model has no row for", got=f"{name!r} ({ids[-1]})")
    new_id = {old: new for new, old in enumerate(ids)}
    return Trimmed(_trim_rows(model, ids, new_id), _trim_tokenizer(tokenizer, new_id), torch.tensor(ids))


def kept_ids(tokenizer: PreTrainedTokenizerBase, used: Iterable[int]) -> list[int]:
    """The ids that stay if these are used, rising: see the file's head.

    Raises:
        ModelError: the tokenizer is of another kind, or an id is not in its vocabulary.
    """
    spec = _spec(tokenizer)
    vocab: dict[str, int] = tokenizer.get_vocab()
    tokens = {i: token for token, i in vocab.items()}
    keep = set(used)
    if strange := sorted(keep - tokens.keys()):
        raise ModelError("ids to keep are not in the tokenizer's vocabulary", got=strange[:5])
    model = spec["model"]
    keep |= {int(token["id"]) for token in spec["added_tokens"]} | set(tokenizer.all_special_ids)
    keep |= {vocab[model["unk_token"]]} if model.get("unk_token") in vocab else set()
    extra = {"WordPiece": _wordpiece, "BPE": _bpe, "Unigram": _unigram}[model["type"]]
    keep |= {vocab[token] for token in extra(tokenizer, model, {tokens[i] for i in keep})}
    return sorted(keep)


def teacher_ids(token_map: Tensor, input_ids: Tensor) -> Tensor:
    """The old ids of a batch's new ids, of the same shape, for a teacher that kept its vocabulary."""
    return token_map.to(input_ids.device)[input_ids]


def save_token_map(token_map: Tensor, folder: Path) -> None:
    """Write `token_map.json` into a model's folder: the old id of each new id."""
    (folder / FILE).write_text(json.dumps({"old_ids": token_map.tolist()}) + "\n", encoding="utf-8")


def load_token_map(folder: Path) -> Tensor | None:
    """The token map in a model's folder; None where the vocabulary was not trimmed."""
    if not (folder / FILE).exists():
        return None
    return torch.tensor(json.loads((folder / FILE).read_text(encoding="utf-8"))["old_ids"])


def _spec(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What `tokenizer.json` holds."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    spec: dict[str, Any] = {} if backend is None else json.loads(backend.to_str())
    if spec.get("model", {}).get("type") not in _KINDS:
        raise ModelError(
            "the vocabulary of this tokenizer cannot be trimmed",
            got=f"{type(tokenizer).__name__}, {spec.get('model', {}).get('type', 'not a fast tokenizer')}",
            allowed=f"fast tokenizers of the kinds {', '.join(_KINDS)}",
            fix="leave student.vocabulary out",
        )
    return spec


def _wordpiece(tokenizer: Any, model: Mapping[str, Any], kept: set[str]) -> set[str]:
    """Single characters, and pieces that these cannot spell but that a text can hold."""
    prefix, vocab = model["continuing_subword_prefix"], model["vocab"]
    split = tokenizer.backend_tokenizer.pre_tokenizer

    def needed(token: str) -> bool:
        bare = token.removeprefix(prefix)
        if len(bare) == 1:
            return True
        letters = [prefix + c for c in bare] if bare != token else [token[0], *(prefix + c for c in token[1:])]
        return any(c not in vocab for c in letters) and (split is None or len(split.pre_tokenize_str(bare)) == 1)

    return {token for token in vocab if needed(token)}


def _unigram(tokenizer: Any, model: Mapping[str, Any], kept: set[str]) -> set[str]:
    """Single characters and bytes, pieces that these cannot spell, and the token with the lowest score."""
    scores = dict(model["vocab"])
    single = {token for token in scores if len(token) == 1 or _is_byte(token)}
    lowest = min(scores, key=lambda token: scores[token])
    unknown = {model["vocab"][model["unk_id"]][0]} if model.get("unk_id") is not None else set()
    return single | unknown | {lowest} | {token for token in scores if not set(token) <= single}


def _bpe(tokenizer: Any, model: Mapping[str, Any], kept: set[str]) -> set[str]:
    """Single characters and bytes, and what is merged on the way to a kept token."""
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    vocab, ranks = model["vocab"], {tuple(pair): rank for rank, pair in enumerate(_merges(model))}
    found = {t for t in vocab if len(t.removeprefix(prefix).removesuffix(suffix)) == 1 or _is_byte(t)}
    for token in kept & vocab.keys():
        bare = token.removeprefix(prefix)
        ends = [""] * (len(bare) - 1 - len(suffix)) + [suffix] if suffix and bare.endswith(suffix) else [""] * len(bare)
        parts = [c + end for c, end in zip(bare, ends, strict=False)]
        starts = 1 if bare == token else 0  # the first character of a word goes without the prefix
        parts = [*parts[:starts], *(prefix + part for part in parts[starts:])]
        while pairs := [pair for pair in itertools.pairwise(parts) if pair in ranks]:
            left, right = min(pairs, key=lambda pair: ranks[pair])
            parts = _merged(parts, left, right, prefix)
            found |= {left, right, left + right.removeprefix(prefix)}
    return found & vocab.keys()


def _merged(parts: Sequence[str], left: str, right: str, prefix: str) -> list[str]:
    """The parts with each pair (left, right) made one."""
    done: list[str] = []
    waiting = list(parts)
    while waiting:
        if waiting[:2] == [left, right]:
            done.append(left + right.removeprefix(prefix))
            del waiting[:2]
        else:
            done.append(waiting.pop(0))
    return done


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of a BPE model in the order of their rank; older files have them as one string."""
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    return [(left, right) for left, right in pairs]


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _trim_rows(model: PreTrainedModel, ids: list[int], new_id: Mapping[int, int]) -> PreTrainedModel:
    """The model with the rows of these ids in every table and head that is as long as the vocabulary."""
    config = copy.deepcopy(model.config)
    config.vocab_size = len(ids)
    given, index = model.state_dict(), torch.tensor(ids)
    _move_ids(config, new_id)

    def weight(name: str, empty: Tensor) -> Tensor:
        old = given[name]
        return old if old.shape == empty.shape else old[index.to(old.device)]

    new = rebuild(model, config, weight)
    if cast(torch.nn.Embedding, new.get_input_embeddings()).num_embeddings != len(ids):
        raise ModelError(f"the vocabulary of {type(model).__name__} is not set by config.vocab_size")
    if getattr(new, "generation_config", None) is not None:
        _move_ids(new.generation_config, new_id)
    return new


def _settings(model: PreTrainedModel) -> list[Any]:
    """The configs that name tokens by their ids."""
    return [c for c in (model.config, getattr(model, "generation_config", None)) if c is not None]


def _token_ids(settings: Any) -> set[int]:
    """Every id of a token that a config names."""
    values = [value for key, value in settings.to_dict().items() if key.endswith("_token_id")]
    flat = [i for value in values for i in (value if isinstance(value, list) else [value])]
    return {i for i in flat if isinstance(i, int) and i >= 0}


def _move_ids(settings: Any, new_id: Mapping[int, int]) -> None:
    """Rewrite the ids of tokens that a config names; one that is beyond the vocabulary becomes None."""
    for key, value in settings.to_dict().items():
        if key.endswith("_token_id") and value is not None:
            moved = [new_id[i] for i in value if i in new_id] if isinstance(value, list) else new_id.get(value)
            setattr(settings, key, moved)


def _trim_tokenizer(tokenizer: PreTrainedTokenizerBase, new_id: Mapping[int, int]) -> PreTrainedTokenizerBase:
    """The tokenizer with these tokens alone, by way of its own files, so that what is returned is what is saved."""
    import transformers

    spec = _spec(tokenizer)
    model = spec["model"]
    if model["type"] == "Unigram":
        unknown = model.get("unk_id")
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new_id]
        model["unk_id"] = None if unknown is None else new_id[unknown]
    else:
        model["vocab"] = {token: new_id[i] for token, i in model["vocab"].items() if i in new_id}
    if model["type"] == "BPE":
        prefix, vocab = model.get("continuing_subword_prefix") or "", model["vocab"]
        pairs = _merges(model)
        model["merges"] = [
            [a, b] for a, b in pairs if a in vocab and b in vocab and a + b.removeprefix(prefix) in vocab
        ]
    for token in spec["added_tokens"]:
        token["id"] = new_id[token["id"]]
    _move_processor(spec.get("post_processor"), new_id)
    if spec.get("padding"):
        spec["padding"]["pad_id"] = new_id[spec["padding"]["pad_id"]]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
        new = transformers.AutoTokenizer.from_pretrained(folder)
    wanted = {token: new_id[i] for token, i in tokenizer.get_vocab().items() if i in new_id}
    if wrong := {t: i for t, i in new.get_vocab().items() if wanted.get(t) != i} or wanted.keys() - new.get_vocab():
        raise ModelError("the trimmed tokenizer has other tokens than asked for", got=sorted(wrong)[:5])
    return new


def _move_processor(processor: Any, new_id: Mapping[int, int]) -> None:
    """Rewrite the ids in what adds special tokens to a text."""
    if processor is None:
        return
    for inner in processor.get("processors", ()):
        _move_processor(inner, new_id)
    if processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [new_id[i] for i in token["ids"]]
    for role in ("sep", "cls"):  # BertProcessing, RobertaProcessing: [token, id]
        if isinstance(processor.get(role), list):
            processor[role][1] = new_id[processor[role][1]]
