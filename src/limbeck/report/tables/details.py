"""Tables too fine for the scores: classes, slices, errors, severities, layers."""

from __future__ import annotations

from typing import Any

from limbeck.report import formats
from limbeck.report.blocks import Cell, Line, Table
from limbeck.report.facts import Facts, Row, finite, in_order, model_name
from limbeck.report.metrics import name_of, perturbation_name, shown

WORST = 12
"""Slices that are shown, the worst."""

_CLASSES = 200
ERRORS = ("both_right", "mended", "new", "inherited", "other_wrong")


def slices(facts: Facts) -> Table:
    """Where the student loses most, the worst slices first; those where it loses nothing are left to the JSON."""
    say, rows = facts.say, [r for r in facts.details.get("slices") or [] if str(r["model"]) in facts.students]
    lines = []
    for row in [r for r in rows if finite(r.get("difference")) and r["difference"] < 0][:WORST]:
        decided = finite(row.get("p_holm")) and row["p_holm"] < 0.05
        cells = [Cell(str(row["value"]))]
        if len(facts.students) > 1:
            cells.append(Cell(model_name(str(row["model"]), say)))
        cells += [Cell(formats.text(row.get("n"), formats.count)), _share(row, "score"), _share(row, "rest", "", "")]
        cells.append(Cell(shown(row.get("difference"), formats.points, say), tone="worse" if decided else ""))
        cells.append(Cell(formats.text(row.get("p_holm"), formats.probability)))
        lines.append(Line(str(row["column"]), tuple(cells)))
    more = ["model"] * (len(facts.students) > 1)
    beside = "minus_teacher" if facts.has_teacher else "minus_rest"
    columns = ("slice", "value", *more, "rows", "score", "rest", beside, "p_holm")
    words = {1, 2} if more else {1}
    return Table(say("caption.slices"), tuple(say(f"column.{name}") for name in columns), tuple(lines), words)


def _share(row: Row, name: str, low: str = "low", high: str = "high") -> Cell:
    """A share and its interval, by the names of their columns; those without an interval have no name for it."""
    value, ends = row.get(name), (row.get(low), row.get(high))
    text = formats.text(value, formats.share, *(end for end in ends if finite(end)))
    return Cell(text, formats.interval(*ends, formats.share, value) if finite(value) else "")


def classes(facts: Facts) -> Table:
    """Precision, recall and F1 of each class, the models side by side, the student's worst F1 first."""
    say, rows = facts.say, facts.details.get("classes") or []
    by_class: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_class.setdefault(str(row["class"]), {})[str(row["model"])] = row
    models = in_order(str(row["model"]) for row in rows)
    lead = next((m for m in facts.students if m in models), models[0] if models else "")

    def worst(item: tuple[str, dict[str, Row]]) -> tuple[float, str]:
        f1 = item[1].get(lead, {}).get("f1")
        return (f1 if finite(f1) else 1.0, item[0])

    lines = []
    for name, by_model in sorted(by_class.items(), key=worst)[:_CLASSES]:
        n = next((r["n"] for r in by_model.values() if finite(r.get("n"))), None)
        lines.append(
            Line(name, (Cell(formats.text(n, formats.count)), *(_class(by_model.get(m), facts) for m in models)))
        )
    columns = (
        say("column.class"),
        say("column.rows"),
        *(say("column.f1_of", model=model_name(m, say)) for m in models),
    )
    return Table(say("caption.classes"), columns, tuple(lines))


def _class(row: Row | None, facts: Facts) -> Cell:
    if row is None:
        return Cell(formats.DASH)
    precision, recall = (formats.text(row.get(name), formats.share) for name in ("precision", "recall"))
    return Cell(
        formats.text(row.get("f1"), formats.share), facts.say("detail.class", precision=precision, recall=recall)
    )


def errors(facts: Facts) -> Table:
    """Rows by whose answer was right: what was inherited, what is new, what was mended."""
    say, found = facts.say, facts.details.get("errors") or {}
    models, lines = in_order(found), []
    for name in ERRORS:
        cells = [_part(found[m].get(name), found[m].get("n")) for m in models]
        lines.append(Line(say(f"error.{name}"), tuple(cells)))
    columns = (say("column.outcome"), *(model_name(m, say) for m in models))
    return Table(say("caption.errors"), columns, tuple(lines) if models else ())


def _part(count: Any, n: Any) -> Cell:
    of = formats.text(count / n, formats.share) if finite(count) and finite(n) and n else ""
    return Cell(formats.text(count, formats.count), of)


def steps(facts: Facts) -> Table:
    """What is known of the steps of the answers, a row a measure."""
    say, found = facts.say, facts.details.get("steps") or {}
    models = in_order(found)
    names = dict.fromkeys(name for model in models for name in found[model])
    lines = [Line(_called(name, facts), tuple(_number(found[m].get(name), name) for m in models)) for name in names]
    columns = (say("column.measure"), *(model_name(m, say) for m in models))
    return Table(say("caption.steps"), columns, tuple(lines))


def _called(name: str, facts: Facts) -> str:
    return facts.say.either(f"step.{name}", name_of(name, facts.say))


def _number(value: Any, name: str) -> Cell:
    """A count as it is; what lies between 0 and 1 is a share, unless it counts."""
    share = isinstance(value, float) and 0 <= value <= 1
    return Cell(formats.text(value, formats.share if share else formats.count))


def reliability(facts: Facts) -> Table:
    """The bins behind the reliability diagram, a column a model."""
    say, found = facts.say, facts.details.get("reliability") or {}
    models = in_order(found)
    bins = {m: {(b["low"], b["high"]): b for b in found[m].get("bins") or [] if b.get("n")} for m in models}
    lines = []
    for low, high in sorted({span for m in models for span in bins[m]}):
        span = f"{formats.text(low, formats.share)} {formats.DASH} {formats.text(high, formats.share)}"
        lines.append(Line(span, tuple(_bin(bins[m].get((low, high)), facts) for m in models)))
    columns = (say("column.bin"), *(say("column.accuracy_of", model=model_name(m, say)) for m in models))
    return Table(say("caption.reliability"), columns, tuple(lines))


def _bin(row: Row | None, facts: Facts) -> Cell:
    if row is None:
        return Cell(formats.DASH)
    right = _share(row, "accuracy", "accuracy_low", "accuracy_high")
    sure = formats.text(row.get("confidence"), formats.share)
    return Cell(right.text, f"{right.small} " + facts.say("detail.bin", confidence=sure, n=row["n"]))


def severities(facts: Facts) -> Table:
    """The points behind the robustness curves, a column a model."""
    say, rows = facts.say, facts.details.get("robustness") or []
    models = in_order(str(row["model"]) for row in rows)
    at = {(str(row["perturbation"]), row["severity"], str(row["model"])): row for row in rows}
    lines = []
    for name, severity in dict.fromkeys((name, severity) for name, severity, _ in at):
        points = [at.get((name, severity, m)) for m in models]
        many = " / ".join(dict.fromkeys(formats.text(row.get("n"), formats.count) for row in points if row))
        told = Cell(formats.text(severity, formats.count) if severity else say("axis.unperturbed")), Cell(many)
        lines.append(Line(perturbation_name(name, say), (*told, *(_point(row, facts) for row in points))))
    heads = (say("column.perturbation"), say("column.severity"), say("column.rows"))
    return Table(say("caption.severities"), (*heads, *(model_name(m, say) for m in models)), tuple(lines))


def _point(row: Row | None, facts: Facts) -> Cell:
    if row is None:
        return Cell(formats.DASH)
    score = _share(row, "score")
    if not finite(row.get("stability")):
        return score
    same = facts.say("detail.stability", value=formats.text(row["stability"], formats.share))
    return Cell(score.text, f"{score.small}, {same}" if score.small else same)


def speed(facts: Facts) -> Table:
    """Rows a second and CPU time by batch size, a column a model."""
    say, rows = facts.say, facts.details.get("speed") or []
    models = in_order(str(row["model"]) for row in rows)
    sizes = sorted({row["batch_size"] for row in rows})
    lines = []
    for size in sizes:
        at = {str(row["model"]): row for row in rows if row["batch_size"] == size}
        lines.append(Line(formats.text(size, formats.count), tuple(_throughput(at.get(m), facts) for m in models)))
    columns = (say("column.batch_size"), *(model_name(m, say) for m in models))
    return Table(say("caption.speed"), columns, tuple(lines))


def _throughput(row: Row | None, facts: Facts) -> Cell:
    if row is None:
        return Cell(formats.DASH)
    rate = facts.say("detail.per_second", rows=formats.significant(row["rows_per_second"]))
    cpu = row.get("cpu_seconds_per_row")
    small = facts.say("detail.cpu", time=formats.text(1000 * cpu, formats.milliseconds)) if finite(cpu) else ""
    return Cell(rate, small)


def lens(facts: Facts) -> Table:
    """The answer that each layer would give, the way of a prediction through the model."""
    say, lines = facts.say, []
    for each in facts.details.get("lens") or []:
        way = [
            f"{p['layer']}: {p['answer']} ({formats.text(p.get('probability'), formats.share)})" for p in each["layers"]
        ]
        lines.append(Line(str(each["id"]), (Cell(model_name(str(each["model"]), say)), Cell(" → ".join(way)))))
    columns = tuple(say(f"column.{name}") for name in ("id", "model", "path"))
    return Table(say("caption.lens"), columns, tuple(lines), {1, 2})


def paired(facts: Facts) -> Table:
    """Students in twos on the rows that both answered."""
    say, lines = facts.say, []
    for row in facts.details.get("paired") or []:
        ends = [end for end in (row["low"], row["high"]) if finite(end)]
        difference = shown(row["difference"], formats.points, say, *ends)
        decided = row["n"] > 1 and (row["low"] > 0 or row["high"] < 0)
        reading = say(f"paired.{'first' if row['difference'] > 0 else 'second'}" if decided else "reading.same")
        span = formats.interval(row["low"], row["high"], formats.points, row["difference"])
        two = (Cell(row["second"]), Cell(formats.text(row["n"], formats.count)))
        p = Cell(formats.text(row["p_holm"], formats.probability))
        lines.append(Line(row["first"], (*two, Cell(difference, span), p, Cell(reading))))
    columns = tuple(say(f"column.{name}") for name in ("first", "second", "rows", "difference", "p_holm", "reading"))
    return Table(say("caption.paired"), columns, tuple(lines), {1, 5})
