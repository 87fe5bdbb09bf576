"""The tables of the artifact `generate`: written here, and read back as samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.core.types import WRITTEN, Sample
from limbeck.data.difficulty import PASS_RATE
from limbeck.generation.synthesize import Written
from limbeck.verification.select import Facts
from limbeck.verification.types import Candidate

_TURN = pa.struct([("role", pa.string()), ("content", pa.string()), ("reasoning_content", pa.string())])
_ABOUT = (("id", pa.string()), ("prompt", pa.string()), ("sample", pa.int64()), ("stage", pa.string()))
ROWS = pa.schema(
    [
        *_ABOUT,
        ("messages", pa.list_(_TURN)),
        ("text", pa.string()),
        ("label", pa.string()),
        ("reference", pa.string()),
        ("final_answer", pa.string()),
        (PASS_RATE, pa.float64()),
        ("answers", pa.int64()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("tokens", pa.int64()),
        ("model", pa.string()),
        ("meta", pa.string()),
    ]
)
"""`messages` end with the answer, its thought in `reasoning_content`; `text` and `label` stand in for them where
classes are learned. `meta` is JSON: columns of the prompt's row, and how it was changed."""
DROPPED = pa.schema(
    [*_ABOUT, ("reason", pa.string()), ("detail", pa.string()), ("question", pa.string()), ("text", pa.string()),
     ("reference", pa.string()), ("finish_reason", pa.string())]
)  # fmt: skip
_OWN = ("completion", "sample", "final_answer", "detail")


class Table:
    """Rows in the making."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add_row(self, candidate: Candidate, stage: str, facts: Facts, *, label: bool) -> None:
        """A row to learn from.

        Args:
            candidate: the answer, or the text of a class.
            stage: the data stage.
            facts: what is known of its prompt.
            label: whether classes are learned.
        """
        answer = {"role": "assistant", "content": candidate.content, "reasoning_content": candidate.reasoning_content}
        told: Mapping[str, Any] = candidate.meta.get("completion", {})
        meta = {k: v for k, v in candidate.meta.items() if k not in _OWN}
        self.rows.append(
            {
                **_about(candidate, stage),
                "messages": None if label else [*candidate.messages, answer],
                "text": candidate.content if label else None,
                "label": candidate.reference if label else None,
                "reference": None if label else _text(candidate.reference),
                "final_answer": _text(candidate.meta.get("final_answer")),
                PASS_RATE: facts.pass_rate,
                "answers": facts.answers,
                "finish_reason": candidate.finish_reason,
                "prompt_tokens": told.get("prompt_tokens"),
                "tokens": told.get("completion_tokens"),
                "model": told.get("model"),
                "meta": json.dumps(meta, ensure_ascii=False, default=str),
            }
        )

    def add_dropped(self, candidate: Candidate, stage: str, reason: str) -> None:
        """An answer that the student does not see."""
        self.rows.append(
            {
                **_about(candidate, stage),
                "reason": reason,
                "detail": _text(candidate.meta.get("detail")) or _text(candidate.meta.get("final_answer")),
                "question": candidate.question,
                "text": candidate.text,
                "reference": _text(candidate.reference),
                "finish_reason": candidate.finish_reason,
            }
        )

    def add_written(self, written: Written, stage: str) -> None:
        """An input that was written and not taken."""
        name = f"{stage}/{written.id}"
        self.rows.append(
            {
                "id": name, "prompt": name, "stage": stage, "reason": f"synthesized: {written.reason}",
                "question": written.text, "reference": written.label,
            }
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """Write the table as a Parquet file."""
        schema = ROWS if path.name == "rows.parquet" else DROPPED
        pq.write_table(pa.Table.from_pylist(self.rows, schema), path, compression="zstd")


def _about(candidate: Candidate, stage: str) -> dict[str, Any]:
    return {
        "id": candidate.id,
        "prompt": candidate.prompt,
        "sample": candidate.meta.get("sample"),
        "stage": stage,
    }


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def read_rows(path: Path) -> list[Sample]:
    """The rows of a file as samples; a thought is folded into the target between `<think>` and `</think>`."""
    found = []
    for row in pq.read_table(path).to_pylist():
        meta = {**json.loads(row["meta"]), "stage": row["stage"], WRITTEN: True}
        meta |= {name: row[name] for name in (PASS_RATE, "tokens") if row[name] is not None}
        if row["messages"] is None:
            found.append(Sample(row["id"], {"text": row["text"]}, row["label"], meta))
            continue
        *turns, answer = row["messages"]
        inputs = {"messages": [{"role": t["role"], "content": t["content"]} for t in turns]}
        said = Candidate(row["id"], row["prompt"], (), answer["content"], answer["reasoning_content"])
        found.append(Sample(row["id"], inputs, said.text, meta))
    return found
