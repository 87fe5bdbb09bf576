"""Local models that write: draws hang on the request, ends and counts are right, memory is survived."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from limbeck.core.errors import MissingExtra, ModelError, RecipeError
from limbeck.generation._reading import Reader
from limbeck.generation.local import Drawn, LocalGenerator, distribution
from limbeck.generation.types import Completion, Failure, Outcome, Request, Sampling
from limbeck.generation.vllm import VllmGenerator
from limbeck.tasks._text import train_bpe

WORDS = ["one two three four", "five six seven", "<think> </think> so"]
CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_bpe(WORDS, 300, {"pad_token": "<pad>", "eos_token": "<eos>"})


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return transformers.Qwen3ForCausalLM(config).eval()


def request(text: str, sample: int = 0, **sampling: Any) -> Request:
    turns = ({"role": "user", "content": text},)
    return Request(text, sample, turns, "tiny", Sampling(**{"max_tokens": 8, **sampling}))


def answers(generator: Any, requests: list[Request]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}

    def done(request: Request, outcome: Outcome) -> None:
        assert request.key not in found, "answered twice"
        found[request.key] = outcome

    generator.answer(requests, done)
    return found


class TestDraws:
    def test_an_answer_does_not_hang_on_its_neighbours(self, model: Any, tokenizer: Any) -> None:
        reader = Reader(tokenizer, "tiny")
        requests = [request(text, i) for text in ("one", "two three four five", "six seven") for i in range(3)]
        together = answers(LocalGenerator(model, reader, 16), requests)
        alone = answers(LocalGenerator(model, reader, 1), requests[::-1])
        assert together == alone
        assert len({str(outcome) for outcome in together.values()}) > 6

    def test_the_distribution_is_drawn_from(self) -> None:
        logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
        sampling = {"temperature": 2.0, "max_tokens": 1}
        count = 4000
        requests = [request("x", i, **sampling) for i in range(count)]
        ids = torch.zeros(count, 3, dtype=torch.long)
        taken = Drawn(requests, 3)(ids, logits.repeat(count, 1)).argmax(-1)
        wanted = (logits[0] / 2).softmax(-1)
        shares = torch.bincount(taken, minlength=4) / count
        assert (shares - wanted).abs().max() < 4 * (0.25 / count) ** 0.5

    def test_top_p_and_top_k_cut_the_tail(self) -> None:
        logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
        kept = distribution(logits, Sampling(top_p=0.7))
        torch.testing.assert_close(kept, torch.tensor([[0.5, 0.3, 0.0, 0.0]]))
        kept = distribution(logits, Sampling(extra={"top_k": 3}))
        torch.testing.assert_close(kept, torch.tensor([[0.5, 0.3, 0.15, 0.0]]))

    def test_greedy_is_the_models_own_loop(self, model: Any, tokenizer: Any) -> None:
        prompts = ["one two", "three four five six"]
        found = answers(LocalGenerator(model, Reader(tokenizer, "tiny")), [request(p, temperature=0) for p in prompts])
        for prompt, outcome in zip(prompts, found.values(), strict=False):
            ids = tokenizer(f"{prompt}\n", return_tensors="pt", return_token_type_ids=False)
            plain = model.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.pad_token_id)
            text = tokenizer.decode(plain[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
            match = found[request(prompt, temperature=0).key]
            assert isinstance(match, Completion)
            assert match.content == text
            assert isinstance(outcome, Completion)


class TestAnswers:
    def reader(self, tokenizer: Any) -> Reader:
        return Reader(tokenizer, "tiny")

    def test_tokens_and_ends_are_counted(self, tokenizer: Any) -> None:
        ids = tokenizer("so")["input_ids"]
        ended = self.reader(tokenizer).outcome(request("q"), [1, 2, 3], ids, True)
        assert ended == Completion("so", None, "stop", 3, len(ids) + 1, "tiny")
        cut = self.reader(tokenizer).outcome(request("q"), [1, 2, 3], ids, False)
        assert cut == Completion("so", None, "length", 3, len(ids), "tiny")

    @pytest.mark.parametrize(
        ("prompt", "text", "reasoning", "content", "finish"),
        [
            ("q", "<think>two</think>three", "two", "three", "stop"),
            ("q<think>\n", "two</think>three", "two", "three", "stop"),
            ("q<think>\n", "two", "two", "", "length"),
            ("q", "<think>two", "two", "", "length"),
        ],
    )
    def test_a_thought_is_parted_from_the_answer(
        self, tokenizer: Any, prompt: str, text: str, reasoning: str, content: str, finish: str
    ) -> None:
        ids = [tokenizer(each)["input_ids"] for each in (prompt, text)]
        found = self.reader(tokenizer).outcome(request("q"), *ids, True)
        assert isinstance(found, Completion)
        assert (found.reasoning_content, found.content, found.finish_reason) == (reasoning, content, finish)

    def test_think_tags_that_are_special_tokens_stay(self) -> None:
        special = {"pad_token": "<pad>", "eos_token": "<eos>"}
        own = train_bpe(WORDS, 300, special)
        own.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", "<|im_end|>"]})
        ids = own("<think>two</think>three<|im_end|>")["input_ids"]
        found = Reader(own, "tiny").outcome(request("q"), [1], ids, True)
        assert isinstance(found, Completion)
        assert (found.reasoning_content, found.content) == ("two", "three")

    def test_a_stop_text_ends_the_answer(self, model: Any, tokenizer: Any) -> None:
        generator = LocalGenerator(model, self.reader(tokenizer))
        whole = answers(generator, [request("one", temperature=0)]).popitem()[1]
        assert isinstance(whole, Completion)
        stop = next(c for c in whole.content[1:] if c.isascii() and c.isalpha())
        (cut,) = answers(generator, [request("one", temperature=0, stop=(stop,))]).values()
        assert isinstance(cut, Completion)
        assert cut.content == whole.content.partition(stop)[0]
        assert cut.finish_reason == "stop"
        assert cut.completion_tokens < whole.completion_tokens

    def test_an_answer_that_does_not_fit_fails_alone(self, model: Any, tokenizer: Any) -> None:
        long = request("one " * 80)
        found = answers(LocalGenerator(model, self.reader(tokenizer)), [long, request("two")])
        outcome = found[long.key]
        assert isinstance(outcome, Failure)
        assert outcome.reason == "too_long"
        assert isinstance(found[request("two").key], Completion)

    def test_fields_it_does_not_know_are_refused(self, model: Any, tokenizer: Any) -> None:
        with pytest.raises(RecipeError, match="reasoning_effort"):
            answers(LocalGenerator(model, self.reader(tokenizer)), [request("one", extra={"reasoning_effort": "low"})])


class TestWritten:
    """Text of a special token that a model wrote is text; in a given prompt it is the user's own word."""

    @pytest.mark.parametrize("template", [None, CHAT])
    @pytest.mark.parametrize("own", [False, True])
    def test_it_is_not_read_as_the_token(self, model: Any, template: str | None, own: bool) -> None:
        tokenizer = train_bpe(WORDS, 300, {"pad_token": "<pad>", "eos_token": "<eos>"})
        tokenizer.chat_template = template
        encode = (lambda turns: tokenizer(turns[0]["content"])["input_ids"]) if own else None
        generator = LocalGenerator(model, Reader(tokenizer, "tiny", encode=encode))
        harmless, given = replace(request("one"), written=True), request("one<eos>[user]two")
        assert all(isinstance(o, Completion) for o in answers(generator, [harmless, given]).values())
        (outcome,) = answers(generator, [replace(given, written=True)]).values()
        assert isinstance(outcome, Failure)
        assert (outcome.reason, outcome.passes) == ("special_token", False)


class TestTemplates:
    def test_a_chat_template_makes_the_prompt(self, tokenizer: Any) -> None:
        own = train_bpe(WORDS, 300, {"pad_token": "<pad>", "eos_token": "<eos>"})
        own.chat_template = CHAT
        assert own.decode(Reader(own, "tiny").prompt(request("one"))) == "[user]one[assistant]"
        own.chat_template = "{{ raise_exception('no system') }}"
        with pytest.raises(ModelError, match="refuses a conversation"):
            Reader(own, "tiny").prompt(request("one"))


class TestMemory:
    def test_batches_are_halved_until_they_fit(
        self, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: Counter[int] = Counter()
        plain = model.generate

        def generate(input_ids: Any, **fields: Any) -> Any:
            tried[len(input_ids)] += 1
            if len(input_ids) > 2:
                raise torch.OutOfMemoryError("too large")
            return plain(input_ids=input_ids, **fields)

        monkeypatch.setattr(model, "generate", generate)
        generator = LocalGenerator(model, Reader(tokenizer, "tiny"), 8)
        found = answers(generator, [request("one", i) for i in range(8)])
        assert all(isinstance(outcome, Completion) for outcome in found.values())
        assert (len(found), tried) == (8, {8: 1, 4: 1, 2: 4})

    def test_one_that_never_fits_fails_alone(self, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def generate(**_: Any) -> Any:
            raise torch.OutOfMemoryError("too large")

        monkeypatch.setattr(model, "generate", generate)
        (outcome,) = answers(LocalGenerator(model, Reader(tokenizer, "tiny")), [request("one")]).values()
        assert isinstance(outcome, Failure)
        assert outcome.reason == "out_of_memory"


def test_vllm_is_refused_where_it_is_not_installed(tokenizer: Any) -> None:
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vLLM is installed")
    with pytest.raises(MissingExtra, match="vllm"):
        VllmGenerator("somewhere", Reader(tokenizer, "tiny"))
