"""Stretches of text that two tokenizers cut out alike."""

from __future__ import annotations

import pytest
import torch

from limbeck.alignment.spans import common_spans, coverage
from limbeck.core.errors import ModelError
from limbeck.core.recipe import Stage
from limbeck.core.types import IGNORE, Sample
from limbeck.pipeline._student import NewStudent, share_vocabulary
from limbeck.tasks._paired import PairedCodec, matched_share
from limbeck.tasks._text import train_bpe
from limbeck.tasks.causal_lm import CausalLM
from limbeck.training.loop import StageJob

SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>"}


def cut(text: str) -> list[tuple[int, int]]:
    """Offsets of a text whose tokens are told apart by |."""
    found, at = [], 0
    for piece in text.split("|"):
        found.append((at, at + len(piece)))
        at += len(piece)
    return found


def test_the_example_of_the_page() -> None:
    one, other = common_spans(cut("The| cat| s|at"), cut("Th|e| cat| sat"))
    assert one == [0, 1, 2, 2]
    assert other == [0, 0, 1, 2]


def test_bytes_of_one_character_do_not_end_a_stretch() -> None:
    one, other = common_spans([(0, 1), (0, 1), (1, 2)], [(0, 1), (1, 2)])
    assert one == [0, 0, 1]
    assert other == [0, 1]


def test_long_stretches_and_what_a_template_adds_are_left_out() -> None:
    assert common_spans(cut("a|b|c|d"), cut("abcd"), longest=3) == ([-1] * 4, [-1])
    one, other = common_spans([(-1, 0), (0, 2), (3, 3)], [(0, 2)])
    assert one == [-1, 0, -1]
    assert other == [0]


def test_a_token_that_a_template_begins_takes_no_other_one_of_it_along() -> None:
    one, other = common_spans([(-3, -1), (-1, 2), (2, 5)], [(0, 2), (2, 5)])
    assert one == [-1, 0, 1]
    assert other == [0, 1]


def test_nothing_in_common_is_nothing() -> None:
    assert common_spans([], []) == ([], [])
    assert coverage([[0, -1], [1, 2]]) == 0.75


def codecs(small: int, large: int) -> tuple[list[Sample], PairedCodec]:
    texts = [f"there are {i} apples and {i * 7} pears in the large basket" for i in range(30)]
    rows = [Sample(str(i), {"messages": [{"role": "user", "content": "count"}]}, t) for i, t in enumerate(texts)]
    task = CausalLM(answer_pattern=None, max_length=64)
    student, teacher = (train_bpe(texts, size, SPECIAL) for size in (small, large))
    return rows, PairedCodec(student, task.codec(teacher, None))  # type: ignore[arg-type]


def test_labels_of_a_stretch_are_the_same_text_to_both() -> None:
    rows, codec = codecs(280, 320)
    encoded = codec.encode(rows)
    batch = codec.collate(encoded.features[:4])
    assert batch.teacher is not None
    assert batch.spans is not None
    assert batch.teacher.spans is not None
    assert batch.labels.shape != batch.teacher.labels.shape
    assert matched_share(encoded.features) > 0.9
    for row in range(4):
        for number in range(int(batch.spans[row].max()) + 1):
            mine = batch.labels[row][batch.spans[row] == number]
            theirs = batch.teacher.labels[row][batch.teacher.spans[row] == number]
            assert codec.processor.decode(mine) == codec.teacher.processor.decode(theirs)
    ends = batch.labels == codec.processor.eos_token_id
    assert (batch.spans[ends] >= 0).all()
    assert (batch.spans[batch.labels == IGNORE] == -1).all()


def test_an_answer_that_a_template_holds_too_is_found() -> None:
    """As in Qwen3's template, which opens an answer with an empty `<think>`."""
    rows = [Sample(str(i), {"messages": [{"role": "user", "content": "greet"}]}, "hi") for i in range(2)]
    turn = "{{ m.role }}:{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }};"
    student, teacher = (train_bpe(["greet", "hi"], 262, SPECIAL) for _ in range(2))
    teacher.chat_template = (
        "{% for m in messages %}" + turn + "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    task = CausalLM(answer_pattern=None, max_length=64)
    codec = PairedCodec(student, task.codec(teacher, None))
    batch = codec.collate(codec.encode(rows).features)
    assert batch.teacher is not None
    assert batch.teacher.spans is not None
    inside = (batch.teacher.spans[0] >= 0) & (batch.teacher.labels[0] != teacher.eos_token_id)
    chosen = batch.teacher.labels[0][inside].tolist()
    assert teacher.decode(chosen) == "hi"
    assert inside.nonzero().min() > len(codec.teacher.prompt_ids(rows[0])) + len("<think></think>")


def test_a_batch_moves_and_is_cut_with_its_teachers_half() -> None:
    rows, codec = codecs(280, 320)
    batch = codec.collate(codec.encode(rows).features[:3])
    few = batch.rows(torch.tensor([2, 0])).to("cpu")
    assert few.teacher is not None
    assert few.ids == few.teacher.ids == ("2", "0")
    assert torch.equal(few.spans, batch.spans[[2, 0]])  # type: ignore[arg-type, index]


def test_the_note_is_of_the_training_rows() -> None:
    """Other rows are encoded after them: those of the validation, and of the evaluation."""
    rows, codec = codecs(270, 360)
    codec.longest = 4
    train, validation = codec.encode(rows[:10]), codec.encode(rows[10:13])
    shares = [f"{matched_share(part.features):.1%}" for part in (train, validation)]
    assert shares[0] != shares[1]
    stage = Stage(name="distil", terms=["cross_entropy"])  # type: ignore[list-item]
    made = NewStudent(model=None, codec=codec)  # type: ignore[arg-type]
    told = share_vocabulary(None, made, [], [StageJob(stage, train, validation)])  # type: ignore[arg-type]
    assert told.note.startswith(shares[0])


def test_a_low_coverage_is_an_error() -> None:
    rows, codec = codecs(262, 600)  # nearly bytes against whole phrases
    codec.longest = 1
    with pytest.raises(ModelError, match=r"too few common places(.|\n)*% of the answers' tokens"):
        codec.encode(rows)
