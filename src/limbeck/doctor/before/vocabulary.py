"""Do tokenizer, models and texts fit each other?"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from limbeck.alignment.vocabulary import shared_vocabulary
from limbeck.core.parts import part
from limbeck.core.recipe.training import asking
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.plan import Plan, Read


@part
class Vocabulary(BeforeCheck):
    """An embedding for every token, few unknown ones, texts not cut too small, and one vocabulary with the teacher."""

    unknown: float = Field(default=0.01, gt=0, lt=1)
    """Share of the tokens that may be unknown."""
    characters: float = Field(default=1.5, gt=0)
    """Characters that a token should hold on average, in the bytes of UTF-8; fewer: it is made for other texts."""
    rows: int = Field(default=256, gt=0)
    """How many rows are read."""

    def look(self, plan: Plan) -> Iterator[Finding]:
        if not hasattr(plan.student.codec.processor, "get_vocab"):
            return
        for reader in (plan.student, *plan.teachers):
            yield from self._embeddings(reader)
        yield from self._texts(plan)
        yield from self._shared(plan)

    def _embeddings(self, reader: Read) -> Iterator[Finding]:
        if reader.model is None or not reader.is_exact:
            return
        tokens, rows = len(reader.codec.processor), reader.model.config.get_text_config().vocab_size
        if rows < tokens:
            evidence = f"{rows:,} rows of embeddings, {tokens:,} tokens"
            change = f"{reader.name.partition('-')[0]}.tokenizer of the same model"
            yield self.found("error", f"the {reader.name} has no embedding for some tokens", evidence, change)
        elif rows > 2 * tokens:
            evidence = f"{rows:,} rows of embeddings, {tokens:,} tokens"
            yield self.found("note", f"the {reader.name} has far more embeddings than tokens", evidence)

    def _texts(self, plan: Plan) -> Iterator[Finding]:
        tokenizer = plan.student.codec.processor
        features = plan.encoded(plan.recipe.stages[0], plan.student).features[: self.rows]
        ids = [i for f in features for i in f.values.get("input_ids", ()) if i not in _framing(tokenizer)]
        if not ids:
            return
        strange = sum(i == tokenizer.unk_token_id for i in ids) / len(ids)
        size = len(tokenizer.decode(ids).encode()) / len(ids)
        told = f"{size:.1f} bytes a token, {strange:.1%} unknown, in {len(features)} rows"
        if strange > self.unknown:
            change = "another student.tokenizer; a byte-level one knows every text"
            yield self.found("warning", "the tokenizer does not know many words", told, change)
        elif size < self.characters:
            yield self.found("note", "the tokenizer cuts these texts into very small pieces", told)
        else:
            yield self.ok("the tokenizer fits the texts", told)

    def _shared(self, plan: Plan) -> Iterator[Finding]:
        """Terms that compare token by token need one vocabulary."""
        terms = [term for stage in plan.recipe.stages for term in stage.terms]
        if not any(map(asking, plan.recipe.stages)) or any(getattr(term, "matches_text", False) for term in terms):
            return
        mine = plan.student
        if mine.model is None or mine.codec.label_names is not None or not mine.is_exact:
            return
        for reader in plan.teachers:
            if reader.model is not None:
                rows = [r.model.config.get_text_config().vocab_size for r in (mine, reader) if r.model is not None]
                names = str(mine.spec.model or "from a config"), str(reader.spec.model or "from a config")
                found = shared_vocabulary(mine.codec.processor, rows[0], reader.codec.processor, rows[1], names)
                yield self.ok(f"student and {reader.name} share a vocabulary", found.note)


def _framing(tokenizer: object) -> set[int]:
    """Special tokens but the unknown one, which say nothing of the texts."""
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}  # type: ignore[attr-defined]
