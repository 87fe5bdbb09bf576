"""Language models answer: streamed, whole, and as the evaluation has them answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import ModelError
from limbeck.core.types import Sample
from limbeck.evaluation.predict import answer
from limbeck.runtime.card import write_card
from limbeck.runtime.writer import TorchWriter, Writer, load_writer
from tests.runtime.students import BERT, LANGUAGE, QWEN, STEPS, TEXT, rows, student


@pytest.mark.parametrize("task", [LANGUAGE, STEPS], ids=["causal-lm", "structured-reasoning"])
def test_streamed_and_whole_answers_are_those_of_the_evaluation(tmp_path: Path, task: dict[str, Any]) -> None:
    write_card(student(tmp_path, task, QWEN), tmp_path)
    writer = load_writer(tmp_path)
    assert isinstance(writer, TorchWriter)
    samples = rows(task, 3)
    told = answer(writer.model, writer.codec, samples, batch_size=2, max_new_tokens=12, title=None)
    whole = writer.write(samples, 12)
    assert [each.text for each in whole] == told["text"]
    assert [each.tokens for each in whole] == told["new_tokens"]
    assert [each.finished for each in whole] == told["finished"]
    for sample, each in zip(samples, whole, strict=True):
        pieces = list(writer.stream(sample, 12))
        assert "".join(pieces) == each.text
        assert len(pieces) > 1 or len(each.text) < 2


class Spelled(Writer):
    """Says the tokens that it is given."""

    engine = "spelled"

    def __init__(self, like: Writer, ids: list[int]):
        super().__init__(like.card, like.codec)
        self.ids = ids

    def tokens(self, prompt: Any, max_new_tokens: int) -> Any:
        yield from self.ids[:max_new_tokens]


def test_characters_of_several_tokens_come_whole(tmp_path: Path) -> None:
    write_card(student(tmp_path, LANGUAGE, QWEN), tmp_path)
    like = load_writer(tmp_path)
    text = "naïve 蒸馏 🙂 done"
    ids = like.codec.processor(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > len(text)
    end = like.codec.processor.eos_token_id
    pieces = list(Spelled(like, [*ids, end, *ids]).stream(rows(LANGUAGE, 1)[0], 1000))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    written = Spelled(like, [*ids, end, *ids]).write(rows(LANGUAGE, 1), 1000)[0]
    assert (written.text, written.tokens, written.finished) == (text, len(ids) + 1, True)
    cut = Spelled(like, ids).write(rows(LANGUAGE, 1), 2)[0]
    assert (cut.tokens, cut.finished) == (2, False)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    write_card(student(tmp_path / "lm", LANGUAGE, QWEN), tmp_path / "lm")
    writer = load_writer(tmp_path / "lm")
    with pytest.raises(ModelError, match="too few positions"):
        writer.write(rows(LANGUAGE, 1), 4000)
    with pytest.raises(ModelError, match="too few positions"):
        list(writer.stream(rows(LANGUAGE, 1)[0], 4000))
    long = Sample("x", {"messages": [{"role": "user", "content": "word " * 200}]})
    with pytest.raises(ModelError, match="too few positions"):
        writer.write([long], 4)
    with pytest.raises(ModelError, match="onnxruntime-genai writes with the format `pytorch`"):
        load_writer(tmp_path / "lm", engine="onnxruntime-genai")
    write_card(student(tmp_path / "text", TEXT, BERT), tmp_path / "text")
    with pytest.raises(ModelError, match="no language model"):
        load_writer(tmp_path / "text")
