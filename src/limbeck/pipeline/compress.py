"""compress: the student with smaller numbers, let through if it answers as well as before.

compress/student/                   the compressed student with its card
compress/scores.json                accuracy and size, before (`student`) and after (`compressed`), on validation rows
compress/gate.json                  what was let through, and by what
compress/details/sensitivity.json   how much each layer suffers alone, if that was asked for
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from limbeck.compression import Compressor
from limbeck.core.artifacts import Artifact, write_json
from limbeck.core.parts import config_of
from limbeck.core.progress import say
from limbeck.evaluation.book import Book
from limbeck.exporters._graph import strip
from limbeck.exporters.onnx import FILE
from limbeck.pipeline._bench import Bench, ClassifierBench, drawn
from limbeck.pipeline._bench_language import LanguageBench
from limbeck.pipeline._gate import Verdict, refusal, refuse_too_few
from limbeck.pipeline._job import RunJob
from limbeck.runtime.card import weights_in, write_card
from limbeck.tasks.causal_lm import CausalLM


def compress(job: RunJob, made: Mapping[str, Artifact]) -> Artifact | None:
    """The artifact `compress`; None where the recipe has none.

    Args:
        job: the run.
        made: the artifacts so far, `train` among them.

    Raises:
        BudgetError: the compressed student is worse than the gate allows, or too few rows can show that it is not;
            there is no artifact then.
    """
    part = cast("Compressor | None", job.recipe.compress)
    if part is None:
        return None
    inputs = {"compress": config_of(part), **_writing(job), **job.data_inputs()}
    parents = {"train": made["train"]}
    return job.step("compress", inputs, parents, lambda folder: _work(job, part, parents["train"], folder))


def _writing(job: RunJob) -> dict[str, Any]:
    """How long answers may be that the gate grades."""
    return {"max_new_tokens": job.recipe.evaluate.max_new_tokens} if isinstance(job.task, CausalLM) else {}


def _work(job: RunJob, part: Compressor, train: Artifact, folder: Path) -> Mapping[str, Any]:
    held = drawn(job.splits.validation, part.tolerance.max_samples, job.recipe.data.seed)
    if not isinstance(job.task, CausalLM) or job.task.answer_pattern is not None:
        refuse_too_few(part.tolerance, len(held))
    kind: type[Bench] = LanguageBench if isinstance(job.task, CausalLM) else ClassifierBench
    bench = kind(job, part, train.path / "student", held, folder / ".scratch")
    target = folder / "student"
    shutil.rmtree(target, ignore_errors=True)  # of a try that was killed
    target.mkdir()
    facts = part.compress(bench.source, target / FILE, bench.calibration)
    strip(target / FILE)
    bench.lay_beside(target)
    now = bench.ask(target)
    verdict = bench.judge(now)
    if not verdict.passed:
        say("  refused by the gate; each layer is compressed alone now, to see which suffers")
        raise refusal(part, verdict, bench.suffering())
    card = bench.card_after(now)
    write_card(card, target)
    weights = {"student": weights_in(bench.trained, bench.card), "compressed": weights_in(target, card)}
    sizes = {model: sum(path.stat().st_size for path in paths) for model, paths in weights.items()}
    write_json(folder / "scores.json", _scores(bench, now, sizes, verdict))
    write_json(folder / "gate.json", {**asdict(verdict), "limits": part.tolerance.model_dump()})
    if part.sensitivity:
        (folder / "details").mkdir(exist_ok=True)
        write_json(folder / "details" / "sensitivity.json", [asdict(each) for each in bench.suffering()])
    say(f"  {_sentence(verdict)}; {sizes['student'] / 1e6:.1f} -> {sizes['compressed'] / 1e6:.1f} MB")
    return {**facts, "precision": part.precision, "counts": {"rows": verdict.n}, "bytes": sizes}


def _sentence(verdict: Verdict) -> str:
    same = f"same answers {verdict.agreement:.1%}"
    if verdict.score == "perplexity":
        return f"perplexity {0.0 + verdict.drop:+.2%} (rise below {verdict.upper:.2%}), {same}"
    return f"accuracy {0.0 - verdict.drop:+.2%} (fall below {verdict.upper:.2%}), {same}"


def _scores(bench: Bench, now: Any, sizes: Mapping[str, int], verdict: Verdict) -> Any:
    book = Book(bench.job.recipe.evaluate.model_copy(update={"split": "validation"}))
    for model, said in (("student", bench.whole), ("compressed", now)):
        bench.score(book, model, said)
        book.exact(model, "efficiency", "bytes_on_disk", "bytes", sizes[model], 1)
    fall = "accuracy_drop" if verdict.score == "accuracy" else "perplexity_rise"
    book.exact("compressed", "agreement", "agreement_with_student", "share", verdict.agreement, verdict.n)
    book.exact("compressed", "comparison", fall, "share", verdict.drop, verdict.n)
    if math.isfinite(verdict.upper):
        book.exact("compressed", "comparison", f"{fall}_bound", "share", verdict.upper, verdict.n)
    return book.rows()
