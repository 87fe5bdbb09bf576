"""Text classification: one text, or a pair, to one class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, ClassVar

import torch
from pydantic import Field

from limbeck.core.parts import part
from limbeck.core.recipe import Model
from limbeck.core.types import Batch, Sample
from limbeck.data.augmentation import Augmentation, DrawKey, Matter, TextAugmentation, TokenAugmentation
from limbeck.tasks._base import Codec, Encoded, Feature, Task, label_settings
from limbeck.tasks._text import load_tokenizer, pad, text_of, tokenizer_for


@part
class TextClassification(Task):
    """One text, or a pair of texts, to one class."""

    max_length: int = Field(default=512, gt=1)
    """Longer texts are cut, and counted."""

    roles: ClassVar[Mapping[str, bool]] = {"text": True, "text_pair": False, "label": True}
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    unit: ClassVar[str] = "samples"

    def read(self, fields: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Any, dict[str, Any]]:
        inputs = {role: text_of(fields[role], role, where) for role in ("text", "text_pair") if role in fields}
        return inputs, fields["label"], {}

    def load_processor(self, name: str, *, revision: str | None, trust_remote_code: bool) -> Any:
        return load_tokenizer(name, revision=revision, trust_remote_code=trust_remote_code)

    def new_processor(self, spec: Model, samples: Sequence[Sample]) -> Any:
        special = {"pad_token": "<pad>", "cls_token": "<cls>", "sep_token": "<sep>", "unk_token": "<unk>"}
        return tokenizer_for(spec, (text for s in samples for text in s.inputs.values()), special)

    def codec(self, processor: Any, label_names: tuple[str, ...] | None) -> Codec:
        assert label_names is not None, "a classifier needs its classes"
        return TextCodec(processor, label_names, self.max_length)

    def same_reading(self, one: Any, other: Any) -> bool:
        return one.get_vocab() == other.get_vocab()


class TextCodec(Codec):
    """Texts with a tokenizer."""

    augments: ClassVar[frozenset[Matter]] = frozenset({"text", "tokens"})

    def __init__(self, tokenizer: Any, label_names: tuple[str, ...], max_length: int):
        self.processor, self.label_names, self.max_length = tokenizer, label_names, max_length
        self.index = {name: i for i, name in enumerate(label_names)}

    def settings(self) -> dict[str, Any]:
        return {
            **label_settings(self.label_names or ()),
            "vocab_size": len(self.processor),
            "pad_token_id": self.processor.pad_token_id,
        }

    def encode(self, samples: Iterable[Sample]) -> Encoded:
        samples = list(samples)
        texts = [s.inputs["text"] for s in samples]
        pairs = [s.inputs["text_pair"] for s in samples] if samples and "text_pair" in samples[0].inputs else None
        read = dict(self.processor(texts, pairs, truncation=False, verbose=False)) if samples else {"input_ids": []}
        long = [i for i, ids in enumerate(read["input_ids"]) if len(ids) > self.max_length]
        if long:  # only these are read once more, to be cut where the tokenizer cuts
            again = [[column[i] for i in long] if column is not None else None for column in (texts, pairs)]
            cut = self.processor(*again, truncation=True, max_length=self.max_length)
            for place, i in enumerate(long):
                for key in read:
                    read[key][i] = cut[key][place]
        features = []
        for i, sample in enumerate(samples):
            values = {key: read[key][i] for key in read if key != "attention_mask"}
            label = self.index[sample.target]
            features.append(Feature(sample.id, len(read["input_ids"][i]), {**values, "label": label}, sample))
        return Encoded(features, +Counter(truncated=len(long)))

    def collate(self, features: Sequence[Feature]) -> Batch:
        keys = [key for key in features[0].values if key != "label"] if features else []
        fill = {"input_ids": self.processor.pad_token_id}
        inputs = {key: pad([f.values[key] for f in features], fill.get(key, 0)) for key in keys}
        inputs["attention_mask"] = pad([[1] * f.length for f in features], 0)
        return Batch(tuple(f.id for f in features), inputs, torch.tensor([f.values["label"] for f in features]))

    def augmented(
        self, features: Sequence[Feature], augmentations: Sequence[Augmentation], key: DrawKey
    ) -> list[Feature]:
        texts = [(i, each) for i, each in enumerate(augmentations) if isinstance(each, TextAugmentation)]
        tokens = [(i, each) for i, each in enumerate(augmentations) if isinstance(each, TokenAugmentation)]
        if texts:
            features = self.encode([_rewritten(feature, texts, key) for feature in features]).features
        return [self._rearranged(feature, tokens, key) for feature in features]

    def _rearranged(self, feature: Feature, changes: Sequence[tuple[int, TokenAugmentation]], key: DrawKey) -> Feature:
        """The same tokens, some of them gone or elsewhere; texts are told apart by the special tokens between them."""
        special = set(self.processor.all_special_ids)
        for place, each in changes:
            draws = key.draws(feature.id, place)
            if not each.happens(draws):
                continue
            ids: list[int] = feature.values["input_ids"]
            kept: list[int] = []
            for is_special, run in groupby(enumerate(ids), lambda token: token[1] in special):
                places = [i for i, _ in run]
                kept += places if is_special else each.tokens(places, draws)
            values = {k: v if k == "label" else [v[i] for i in kept] for k, v in feature.values.items()}
            feature = replace(feature, length=len(kept), values=values)
        return feature


def _rewritten(feature: Feature, changes: Sequence[tuple[int, TextAugmentation]], key: DrawKey) -> Sample:
    """The sample with other words in all of its texts."""
    sample = feature.source
    assert sample is not None
    for place, each in changes:
        draws = key.draws(feature.id, place)
        if each.happens(draws):
            sample = replace(sample, inputs={role: each.text(text, draws) for role, text in sample.inputs.items()})
    return sample
