"""Do the verifiers and filters judge as people and official programs did? On recorded data, without any training.

    python benchmarks/evidence/verifiers.py

Prints a table and writes a dated JSON. The data are found by LIMBECK_DATA.
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.core.parts import build
from limbeck.verification.select import review
from limbeck.verification.types import Candidate, Verdict, Verifier

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LIMBECK_DATA", ROOT.parent / "shared" / "data"))
FILTERS = ({"type": "truncated", "whole_sentences": True}, "empty", "think_tags", "special_tokens", "repetition")


def rows(name: str) -> list[dict[str, Any]]:
    """A data set's rows."""
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def candidate(name: str, content: str, reference: Any, question: str = "", **more: Any) -> Candidate:
    """An answer to judge."""
    asked = ({"role": "user", "content": question},)
    return Candidate(id=f"{name}#0", prompt=name, messages=asked, content=content, reference=reference, **more)


def _inline(each: Candidate) -> Candidate:
    return replace(each, content=each.text, reasoning_content=None)


def _other_letter(each: Candidate) -> Candidate:
    letter = str(each.reference)
    head, _, tail = each.content.rpartition(letter)
    return replace(each, content=f"{head}{'B' if letter == 'A' else 'A'}{tail}")


def _half(text: str) -> str:
    return text[: len(text) // 2]


def _loop(each: Candidate) -> Candidate:
    return replace(each, reasoning_content=f"{each.reasoning_content}\n" + "Wait, let me check this once more. " * 12)


DAMAGES: dict[str, tuple[Callable[[Candidate], Candidate], tuple[str, ...]]] = {
    "answer letter changed": (_other_letter, ("wrong",)),
    "`</think>` cut out": (
        lambda c: replace(_inline(c), content=_inline(c).content.replace("</think>", "")),
        ("unclosed_think",),
    ),
    "`<think>` cut out": (
        lambda c: replace(_inline(c), content=_inline(c).content.replace("<think>", "")),
        ("unopened_think",),
    ),
    "second `<think>` within the thought": (
        lambda c: replace(c, reasoning_content=f"{c.reasoning_content}\n<think>\nAgain."),
        ("nested_think",),
    ),
    "cut within the answer, finish reason length": (
        lambda c: replace(c, content=_half(c.content), finish_reason="length"),
        ("truncated",),
    ),
    "cut within the answer, finish reason stop": (
        lambda c: replace(c, content=_half(c.content)),
        ("mid_sentence", "no_answer"),
    ),
    "cut within the thought, inline, finish reason stop": (
        lambda c: replace(c, content=f"<think>\n{_half(c.reasoning_content or '')}", reasoning_content=None),
        ("unclosed_think",),
    ),
    "answer left out": (lambda c: replace(c, content="\n"), ("empty",)),
    "`<|im_end|>` in the thought": (
        lambda c: replace(c, reasoning_content=f"{c.reasoning_content}<|im_end|>"),
        ("special_token",),
    ),
    "a sentence twelve times over": (_loop, ("repetition",)),
}
"""What is done to a trace, and the reasons that it may then be dropped for."""


def r1() -> dict[str, Any]:
    """413 verified DeepSeek-R1 traces, each intact, written inline, and damaged in every way, all in one review."""
    whole = [
        candidate(r["id"], r["answer_text"], r["answer_letter"], r["question"], reasoning_content=r["reasoning"])
        for r in rows("r1_traces_pcmb/traces.jsonl.gz")
    ]
    intact = [*whole, *(replace(_inline(c), id=f"{c.prompt}#1") for c in whole)]
    damaged = {
        f"{c.prompt}#{name}": (replace(change(c), id=f"{c.prompt}#{name}"), name, expected)
        for name, (change, expected) in DAMAGES.items()
        for c in whole
    }
    verifier = build("verifier", {"type": "multiple_choice", "forms": ["tag", "boxed", "stated"]})
    assert isinstance(verifier, Verifier)
    filters = [build("filter", name) for name in FILTERS]
    found = review([*intact, *(c for c, _, _ in damaged.values())], verifier, filters)  # type: ignore[arg-type]
    reasons = {each.id: reason for each, reason in found.dropped}
    table = {
        name: dict(Counter(reasons.get(i, "kept") for i, (_, n, _) in damaged.items() if n == name)) for name in DAMAGES
    }
    kept = {each.id for each in found.kept}
    return {
        "traces": len(whole),
        "intact_kept": len(kept & {each.id for each in intact}),
        "intact": len(intact),
        "damaged": len(damaged),
        "damaged_kept": len(kept & damaged.keys()),
        "right_reason": sum(reasons.get(i) in expected for i, (_, _, expected) in damaged.items()),
        "reasons": table,
    }


def _agreement(pairs: Sequence[tuple[Candidate, Verdict, bool]]) -> dict[str, Any]:
    differ = [
        {
            "id": c.id,
            "verifier": v.reason,
            "found": v.found,
            "recorded": told,
            "reference": str(c.reference)[-40:],
            "end": c.content[-160:],
        }
        for c, v, told in pairs
        if v.ok != told
    ]
    return {"answers": len(pairs), "agreement": 1 - len(differ) / len(pairs), "differ": differ}


def farel() -> dict[str, Any]:
    """FaRel: the `correct` column of 4,050 recorded answers, with the column's own forms and with all forms."""
    facts: dict[str, Any] = {}
    told = [*rows("farel_traces/long_traces.jsonl.gz"), *rows("farel_traces/short_outputs.jsonl.gz")]
    given = [candidate(f"{r['model']}/{r['qid']}", r["output"], r["gold"]) for r in told]
    for name, verifier in {
        "forms tag and boxed": build("verifier", {"type": "math_answer", "forms": ["tag", "boxed"]}),
        "all forms": build("verifier", {"type": "math_answer"}),
    }.items():
        assert isinstance(verifier, Verifier)
        pairs = [(c, v, r["correct"]) for c, v, r in zip(given, verifier.verify(given), told, strict=True)]
        models = sorted({r["model"] for r in told})
        by_model = {m: _agreement([p for p in pairs if p[0].id.startswith(f"{m}/")])["agreement"] for m in models}
        boxed = [p for p in pairs if "\\boxed" in p[0].content]
        facts[name] = {**_agreement(pairs), "by_model": by_model, "boxed": _agreement(boxed)}
    return facts


def gsm8k() -> dict[str, Any]:
    """GSM8K: the four `is_correct` columns of the recorded solutions."""
    told, facts = rows("gsm8k/teacher_solutions_on_test.jsonl.gz"), {}
    verifier = build("verifier", "math_answer")
    assert isinstance(verifier, Verifier)
    for name in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
        given = [candidate(f"{name}/{i}", r[f"{name}_solution"], r["ground_truth"]) for i, r in enumerate(told)]
        verdicts = verifier.verify(given)
        facts[name] = _agreement(
            [(c, v, r[f"{name}_is_correct"]) for c, v, r in zip(given, verdicts, told, strict=True)]
        )
    return facts


class _Flip(ast.NodeTransformer):
    """Turns the first comparison, sum or number of a function into another one."""

    done = False

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        swap: dict[type, Any] = {ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.GtE: ast.Lt}
        swap |= {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In}
        if not self.done and type(node.ops[0]) in swap:
            self.done, node.ops[0] = True, swap[type(node.ops[0])]()
            return node
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        swap: dict[type, Any] = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.Mult}
        if not self.done and type(node.op) in swap:
            self.done, node.op = True, swap[type(node.op)]()
            return node
        return self.generic_visit(node)


def _programs() -> Iterator[tuple[str, str, Candidate]]:
    """By way of writing or damage: the reason it has to get, and the answer."""
    for row in rows("humaneval/test.jsonl.gz"):
        name, body = row["entry_point"], row["canonical_solution"]
        told = {key: row[key] for key in ("prompt", "test", "entry_point")}
        whole = row["prompt"] + body
        yield "canonical, as a continuation", "right", candidate(row["task_id"], body, told)
        fenced = f"Here it is.\n\n```python\n{whole}```\nIt works."
        yield "canonical, whole and fenced", "right", candidate(row["task_id"], fenced, told)
        yield "mutated: returns nothing", "not right", candidate(row["task_id"], "    return None\n", told)
        tree = ast.parse(whole)
        flip = _Flip()
        for part in tree.body:
            if isinstance(part, ast.FunctionDef) and part.name == name and not flip.done:
                flip.visit(part)
        if flip.done:
            yield "mutated: first operator", "not right", candidate(row["task_id"], ast.unparse(tree), told)


def humaneval(every: int = 1) -> dict[str, Any]:
    """HumanEval: canonical solutions pass, mutated ones do not; `every` n-th program alone."""
    verifier = build("verifier", {"type": "code", "timeout": 10})
    assert isinstance(verifier, Verifier)
    programs = list(_programs())[::every]
    verdicts = verifier.verify([c for _, _, c in programs])
    facts: dict[str, Any] = {}
    for (kind, _, each), verdict in zip(programs, verdicts, strict=True):
        fact = facts.setdefault(kind, {"programs": 0, "right": 0, "reasons": Counter(), "right_ids": []})
        fact["programs"] += 1
        fact["right"] += verdict.ok
        fact["reasons"][verdict.reason] += 1
        if verdict.ok and kind.startswith("mutated"):
            fact["right_ids"].append(each.prompt)
    return facts


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    r, f, g = facts["r1_traces_pcmb"], facts["farel_traces"], facts["gsm8k"]
    yield "R1 traces, intact (given apart and inline): kept", f"{r['intact_kept']} of {r['intact']}"
    yield "R1 traces, damaged in ten ways: kept", f"{r['damaged_kept']} of {r['damaged']}"
    yield "R1 traces, damaged: dropped for the right reason", f"{r['right_reason']} of {r['damaged']}"
    for name, fact in f.items():
        yield f"FaRel, {name}: agrees with `correct`", f"{fact['agreement']:.2%} of {fact['answers']}"
        worst = min(fact["by_model"], key=fact["by_model"].get)
        yield f"FaRel, {name}: worst model", f"{fact['by_model'][worst]:.2%} ({worst})"
        yield f"FaRel, {name}: answers with \\boxed", f"{fact['boxed']['agreement']:.2%} of {fact['boxed']['answers']}"
    for name, fact in g.items():
        yield f"GSM8K, {name}: agrees with `is_correct`", f"{fact['agreement']:.2%} of {fact['answers']}"
    for name, fact in facts["humaneval"].items():
        yield f"HumanEval, {name}: pass", f"{fact['right']} of {fact['programs']}"


def main() -> None:
    """Measure, print, write."""
    from _arms import write

    facts: dict[str, Any] = {}
    for name, measure in {"r1_traces_pcmb": r1, "farel_traces": farel, "gsm8k": gsm8k, "humaneval": humaneval}.items():
        start = time.perf_counter()
        facts[name] = measure()
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    print("\n| | |\n|---|---|")
    for what, figure in _lines(facts):
        print(f"| {what} | {figure} |")
    print("\nWhere verifier and record differ:")
    for name, fact in [*facts["farel_traces"].items(), *facts["gsm8k"].items()]:
        for each in fact["differ"]:
            print(f"  {name}: {each['id']}: verifier {each['verifier']} ({each['found']}), recorded {each['recorded']}")
    print(write("verifiers", facts))


if __name__ == "__main__":
    main()
