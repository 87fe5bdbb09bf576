"""Answers in steps: the marks, what a token sees, what it counts, and generation under the mask of training."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers

from limbeck.core.errors import DataError, ModelError
from limbeck.core.parts import build
from limbeck.core.types import IGNORE, Batch, Needs, Sample
from limbeck.data.word_problems import problems
from limbeck.models.heads import signal
from limbeck.tasks._decode import generate, generate_in_steps
from limbeck.tasks._structure import Layout, Marks, additive, parts_of, plain, structured, visible, vocabulary
from limbeck.tasks.structured_reasoning import StructuredCodec, StructuredReasoning, check_mask
from tests.tasks.conftest import chat_tokenizer, plain_tokenizer

WORKED = "1+2=3. 4+5=9. 9*2=18. #### 18"
MARKED = (
    "<|use|><|step1|>1+2=<|c1|>3. <|use|><|step2|>4+5=<|c2|>9. <|use|><|c2|><|step3|>9*2=<|c3|>18. "
    "<|use|><|c3|><|step4|>#### <|c4|>18"
)


def sample(answer: str = WORKED, name: str = "a", prompt: str = "How many?") -> Sample:
    return Sample(name, {"messages": [{"role": "user", "content": prompt}]}, answer)


def decoder(rows: int, attention: str = "sdpa", **fields: Any) -> Any:
    """A model whose weights are large enough for every token to matter."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "max_position_embeddings": 256}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "bos_token_id": None}
    config = transformers.Qwen3Config(vocab_size=rows, initializer_range=0.3, **sizes, **heads, **fields)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def ready(model: Any = None, tokenizer: Any = None, **fields: Any) -> tuple[StructuredCodec, Any]:
    """A codec whose tokenizer and model have the marks."""
    tokenizer = plain_tokenizer() if tokenizer is None else tokenizer
    model = decoder(len(tokenizer)) if model is None else model
    return StructuredReasoning(max_conclusions=6, **fields).codec(tokenizer, None).prepare(model), model


def logits(model: Any, batch: Batch) -> torch.Tensor:
    return model(**batch.inputs, use_cache=False).logits.detach()


# the marks


def test_an_answer_with_its_steps_marked() -> None:
    assert structured(WORKED, "How many?", 6) == MARKED
    assert plain(MARKED) == WORKED
    short = structured(WORKED, "How many?", 2)
    assert short == "<|use|><|step1|>1+2=<|c1|>3. <|use|><|step2|>4+5=9. 9*2=18. #### <|c2|>18"
    assert structured("hello", "", 6) == "<|use|><|step1|>hello"


def test_structured_answers_are_read_back_exactly() -> None:
    codec, _ = ready()
    texts = [row["answer"] for row in problems("test", 20, seed=0, min_steps=1, max_steps=4, maximum=99)]
    texts += [
        "<think>\nHm, 2+2=4.\n\nYes.\n</think>\n\n  #### 4",
        "说 3+5=8。\r\n答案是8。",
        " leading, trailing 1=1 \n",
    ]
    for text in texts:
        marked = structured(text, "", 6)
        assert plain(marked) == text
        ids = codec.processor(marked)["input_ids"]
        assert codec.processor.decode(ids) == marked
        assert codec.processor.decode(ids, skip_special_tokens=True) == text


def test_marks_in_the_data_are_refused() -> None:
    codec, _ = ready()
    for odd in (sample("see <|c1|> 3"), sample(prompt="<|step2|>?")):
        with pytest.raises(DataError, match="sample a: a text holds a mark"):
            codec.encode([odd])


def test_every_mark_is_one_token_and_has_a_row() -> None:
    tokenizer = plain_tokenizer()
    codec, model = ready(tokenizer=tokenizer)
    assert "<|use|>" not in tokenizer.get_vocab()  # a tokenizer that the teacher uses too stays as it was
    assert all(len(codec.processor(mark)["input_ids"]) == 1 for mark in vocabulary(6))
    assert codec.settings()["vocab_size"] == len(tokenizer) + 13
    assert model.config.vocab_size == len(codec.processor) == model.get_output_embeddings().weight.shape[0]
    new = model.get_input_embeddings().weight[len(tokenizer) :]
    assert len(new) == 13
    assert len(new.unique(dim=0)) == 13
    assert Marks.of(codec.processor) == codec.marks


@pytest.mark.parametrize("tied", [False, True])
def test_rows_that_only_padded_the_vocabulary_are_drawn_anew(tied: bool) -> None:
    tokenizer = plain_tokenizer()
    count = len(tokenizer)
    model = decoder(count + 32, tie_word_embeddings=tied)
    before = [layer.weight.clone() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    ready(model, tokenizer)
    for old, layer in zip(before, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True):
        same = (layer.weight == old).all(1)
        assert same[:count].all()
        assert not same[count : count + 13].any()
        assert same[count + 13 :].all()
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied


def test_a_prepared_pair_survives_a_folder(tmp_path: Any) -> None:
    codec, model = ready()
    model.save_pretrained(tmp_path)
    codec.save(tmp_path)
    tokenizer = codec.task.load_processor(str(tmp_path), revision=None, trust_remote_code=False)
    again = StructuredReasoning(max_conclusions=6).codec(tokenizer, None)
    assert again.marks == codec.marks
    rows = [sample(), sample("2+2=4. #### 4", "b")]
    assert again.encode(rows) == codec.encode(rows)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert again.prepare(loaded) is again  # nothing is new to it
    batch = codec.collate(codec.encode(rows).features)
    torch.testing.assert_close(logits(loaded, batch), logits(model, batch))
    with pytest.raises(ModelError, match=r"tokenizer 6, task 16(.|\n)*task.max_conclusions=6"):
        StructuredReasoning().codec(tokenizer, None).prepare(loaded)


def test_a_model_that_has_no_marks_reads_plain_answers() -> None:
    """A ready teacher: nothing was prepared, so nothing is marked, masked or weighed."""
    codec = StructuredReasoning(key_step_weight=2).codec(plain_tokenizer(), None)
    batch = codec.collate(codec.encode([sample()]).features)
    assert codec.processor.decode(batch.inputs["input_ids"][0]) == "How many?\n" + WORKED
    assert batch.inputs["attention_mask"].ndim == 2
    assert batch.real is not None
    assert batch.real.all()
    assert batch.weights is None


def test_chat_answers_are_marked() -> None:
    codec, _ = ready(tokenizer=chat_tokenizer())
    batch = codec.collate(codec.encode([sample()]).features)
    assert codec.processor.decode(batch.labels[0][batch.labels[0] != IGNORE]) == MARKED + "<|im_end|>"


def test_what_is_lost_is_counted() -> None:
    codec, _ = ready()
    rows = [sample(), sample("hello", "b"), sample(" ".join(f"{i}+1={i + 1}." for i in range(9)), "c")]
    assert codec.encode(rows).counts == {"answers_without_conclusion": 1, "answers_with_joined_steps": 1}


# what is seen


def grid(text: str) -> list[str]:
    """Rows of the mask for words; `.` is hidden."""
    words = text.split()
    marks = Marks(0, {1: 1, 2: 2, 3: 3}, {11: 1, 12: 2, 13: 3})
    names = {"use": 0, "s1": 1, "s2": 2, "s3": 3, "c1": 11, "c2": 12, "c3": 13}
    parts = parts_of([Layout(marks, [names.get(word, 99) for word in words])])
    return ["".join("x" if see else "." for see in row) for row in visible(parts, parts)[0, 0].tolist()]


def test_the_mask_of_two_steps() -> None:
    """The second head sees the first conclusion; its body sees it too, and neither head nor work of the first."""
    assert grid("q use s1 a c1 3 use c1 s2 b c2") == [
        "x..........",  # q
        "xx.........",  # use
        "x.x........",  # s1   not its head
        "x.xx.......",  # a
        "x.xxx......",  # c1
        "x.xxxx.....",  # 3
        "x...xxx....",  # use  the question, and every conclusion so far
        "x...xxxx...",  # c1
        "x...xx..x..",  # s2
        "x...xx..xx.",  # b
        "x...xx..xxx",  # c2
    ]


def test_a_step_that_uses_nothing_sees_the_question_alone() -> None:
    rows = grid("q use s1 c1 3 use s2 b c2 5 use c2 s3 d")
    assert rows[6] == "x.....x......."
    assert rows[7] == "x.....xx......"
    assert rows[10] == "x..xx...xxx..."  # the head chooses among both conclusions
    assert rows[13] == "x.......xx..xx"


def test_malformed_answers_have_a_mask_too() -> None:
    """What a model writes while it still learns: no head, a head without a body, a conclusion of no step."""
    assert grid("q s1 a c1") == ["x...", "xx..", "xxx.", "xxxx"]
    assert grid("q use use s1 a")[-1] == "x..xx"
    assert grid("q c1 a") == ["x..", "xx.", "xxx"]


def changed(model: Any, batch: Batch, at: int) -> list[bool]:
    """Which outputs differ when the token at a position is another one."""
    other = batch.inputs["input_ids"].clone()
    other[0, at] = (other[0, at] + 1) % 200
    new = Batch(batch.ids, {**batch.inputs, "input_ids": other}, batch.labels)
    return (logits(model, batch)[0] != logits(model, new)[0]).any(-1).tolist()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_an_unseen_token_changes_nothing(attention: str, side: str) -> None:
    """Step 3 does not use step 1: its body, its conclusion and the answer do not depend on anything in step 1."""
    codec, model = ready(decoder(len(plain_tokenizer()), attention))
    batch = codec.collate(codec.encode([sample(), sample("short", "b")]).features, side)
    words = codec.processor.convert_ids_to_tokens(batch.inputs["input_ids"][0])
    step = {k: words.index(f"<|step{k}|>") for k in (1, 2, 3, 4)}
    found = changed(model, batch, step[1] + 1)  # within the work of step 1
    heads = [i for i, word in enumerate(words) if word == "<|use|>"]
    body = [i for k, end in ((2, heads[2]), (3, heads[3]), (4, len(words))) for i in range(step[k], end)]
    assert not any(found[i] for i in body)
    assert all(found[i] for i in range(step[1] + 1, heads[1]))
    assert found[heads[1]]  # a head sees the conclusion, which has seen the work
    assert not any(found[: step[1] + 1])
    used = changed(model, batch, step[2] + 1)  # step 3 uses step 2, the answer uses step 3
    assert all(used[i] for i in body[2:])
    full, _ = ready(copy.deepcopy(model), mask="full")
    assert all(changed(model, full.collate(full.encode([sample()]).features), step[1] + 1)[step[1] + 1 :])


def test_a_boolean_mask_under_eager_attention_hides_nothing() -> None:
    """The reason why the mask is additive."""
    codec, model = ready(decoder(len(plain_tokenizer()), "eager"))
    batch = codec.collate(codec.encode([sample()]).features)
    mask = batch.inputs["attention_mask"]
    assert set(mask.unique().tolist()) == {0.0, float("-inf")}
    as_bool = Batch(batch.ids, {**batch.inputs, "attention_mask": mask == 0}, batch.labels)
    assert changed(model, as_bool, len(mask[0, 0]) - 1)[0]


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_keeps_rows_apart(side: str) -> None:
    codec, model = ready()
    features = codec.encode([sample(), sample("2+2=4. #### 4", "b")]).features
    both = codec.collate(features, side)
    hidden = signal(model, both, Needs(dist=True)).dist.hidden  # type: ignore[union-attr]
    real = both.real  # told by the diagonal of the mask
    assert real is not None
    assert real.sum(1).tolist() == [f.length for f in features]
    for row, feature in enumerate(features):
        alone = signal(model, codec.collate([feature]), Needs(dist=True)).dist.hidden  # type: ignore[union-attr]
        torch.testing.assert_close(hidden[row][real[row]], alone[0], rtol=1e-4, atol=1e-5)
    assert hidden.isfinite().all()


def test_mixed_precision_takes_the_mask() -> None:
    codec, model = ready()
    batch = codec.collate(codec.encode([sample(), sample("2+2=4. #### 4", "b")]).features)
    with torch.autocast("cpu", torch.bfloat16):
        found = signal(model, batch, Needs(dist=True)).dist.hidden  # type: ignore[union-attr]
    half = signal(copy.deepcopy(model).bfloat16(), batch, Needs(dist=True)).dist.hidden  # type: ignore[union-attr]
    exact = signal(model, batch, Needs(dist=True)).dist.hidden  # type: ignore[union-attr]
    for each in (found, half):
        assert each.isfinite().all()
        torch.testing.assert_close(each.float(), exact, rtol=0.1, atol=0.2)


@pytest.mark.parametrize(
    ("attention", "fields", "message"),
    [
        ("sdpa", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, "sliding_attention"),
        ("flex_attention", {}, "flex_attention"),
    ],
)
def test_models_that_cannot_take_the_mask_are_refused(attention: str, fields: Any, message: str) -> None:
    model = decoder(40, attention, **fields)
    with pytest.raises(ModelError, match=message):
        check_mask(model)


def test_a_model_that_does_not_obey_is_refused() -> None:
    model = decoder(40)
    inner = model.model.forward
    model.model.forward = lambda input_ids, attention_mask, **kw: inner(input_ids=input_ids, **kw)
    with pytest.raises(ModelError, match="does not obey"):
        check_mask(model)


# what is counted


def test_key_steps_and_conclusions_weigh_more() -> None:
    """Step 1 is used by nobody; its conclusion counts as a conclusion, and no more."""
    codec, _ = ready(key_step_weight=2, conclusion_weight=3)
    batch = codec.collate(codec.encode([sample(), sample("short", "b")]).features)
    assert batch.weights is not None
    assert batch.weights.shape == batch.labels.shape
    words = codec.processor.convert_ids_to_tokens(batch.labels[0].clamp(min=0))
    told = [(w, x) for w, x in zip(words, batch.weights[0].tolist(), strict=True) if w[0] == "<" or w in "+="]
    found = {word: [weight for other, weight in told if other == word] for word, _ in told}
    assert found["<|use|>"] == found["<|step1|>"] + [2.0] * 3 == [1.0, 2.0, 2.0, 2.0]
    assert found["<|step2|>"] == found["<|step3|>"] == found["<|step4|>"] == [2.0]
    assert found["<|c2|>"] == found["<|c3|>"] == [6.0, 2.0]  # the second one stands in a head and is no conclusion
    assert (found["<|c1|>"], found["<|c4|>"]) == ([3.0], [6.0])
    assert found["+"] == [1.0, 2.0]
    assert ((batch.weights == 0) == (batch.labels == IGNORE)).all()
    left = codec.collate(codec.encode([sample(), sample("short", "b")]).features, "left")
    assert ((left.weights == 0) == (left.labels == IGNORE)).all()


def test_the_last_step_of_a_cut_answer_is_not_the_last() -> None:
    codec, _ = ready(key_step_weight=2, max_length=24)
    made = codec.encode([sample()])
    assert made.counts["truncated_answers"] == 1
    assert set(made.features[0].values["weights"]) == {0.0, 1.0}


def test_equal_weights_are_not_told() -> None:
    codec, _ = ready()
    assert codec.collate(codec.encode([sample()]).features).weights is None


# generation


def test_without_marks_generation_is_the_library_s() -> None:
    codec, model = ready()
    prompts = [codec.prompt_ids(sample(prompt=text)) for text in ("What is 2 + 3?", "x", "hello world 12")]
    odd = Marks(10**6, {}, {})
    theirs = generate(model, prompts, codec.processor.pad_token_id, {10**7}, 12)
    assert torch.equal(generate_in_steps(model, prompts, odd, codec.processor.pad_token_id, {10**7}, 12), theirs)
    end = int(theirs[0, 4])  # a token that ends the answers early, at different places
    theirs = generate(model, prompts, codec.processor.pad_token_id, {end}, 12, 3)
    ours = generate_in_steps(model, prompts, odd, codec.processor.pad_token_id, {end}, 12, 3)
    assert torch.equal(ours, theirs)


def marking(model: Any, codec: StructuredCodec) -> Any:
    """The same model, more given to marks: the head's rows of some of them are longer."""
    assert codec.marks is not None
    ids = [codec.marks.use, *list(codec.marks.steps)[:2], *list(codec.marks.conclusions)[:2]]
    model.get_output_embeddings().weight.data[ids] *= 2.5
    return model


def test_generation_is_consistent_with_the_mask_of_training() -> None:
    """Every generated token is the likeliest one when the whole row is read under the mask that training has."""
    codec, model = ready()
    marking(model, codec)
    assert codec.marks is not None
    starts = [sample(prompt=text) for text in ("What is 2 + 3?", "hello", "x y z")]
    prompts = [
        codec.prompt_ids(s) + codec.processor(MARKED[:n])["input_ids"] for s, n in zip(starts, (0, 35, 70), strict=True)
    ]
    new = codec.generate(model, prompts, {10**7}, 40)
    full = generate(model, prompts, codec.processor.pad_token_id, {10**7}, 40)
    assert not torch.equal(new, full)
    seen = set(new.flatten().tolist())
    assert {codec.marks.use} < seen & {codec.marks.use, *codec.marks.steps, *codec.marks.conclusions}
    for prompt, row in zip(prompts, new.tolist(), strict=True):
        ids = prompt + row
        parts = parts_of([Layout(codec.marks, ids[:-1])])
        scores = model(input_ids=torch.tensor([ids[:-1]]), attention_mask=additive(visible(parts, parts))).logits[0]
        assert scores[len(prompt) - 1 :].argmax(-1).tolist() == row
        assert generate_in_steps(model, [prompt], codec.marks, 0, {10**7}, 40).tolist() == [row]


def test_a_full_mask_generates_as_the_library_does() -> None:
    codec, model = ready(mask="full")
    prompts = [codec.prompt_ids(sample())]
    assert torch.equal(codec.generate(model, prompts, {0}, 9), generate(model, prompts, 0, {0}, 9))


def test_an_empty_prompt_is_refused() -> None:
    codec, model = ready()
    with pytest.raises(DataError, match="empty prompt"):
        codec.generate(model, [[1], []], {0}, 9)


def test_it_is_a_part() -> None:
    task = build("task", {"type": "structured-reasoning", "mask": "full", "key_step_weight": 2})
    assert task == StructuredReasoning(mask="full", key_step_weight=2)
    with pytest.raises(ValueError, match="less than or equal to 62"):
        build("task", {"type": "structured-reasoning", "max_conclusions": 63})
