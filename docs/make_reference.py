"""Write what documents take from the code: docs/recipes.md, docs/papers.md, and the recipe in the READMEs.

    python docs/make_reference.py           # write them
    python docs/make_reference.py --check   # status 1 if they are out of date

Only what stands between the two markers of a page is replaced; the text around them is written by hand.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from limbeck.core import recipe
from limbeck.core.parts import Part, PartOf, config_of, find, names, snake_case
from limbeck.core.recipe import cascade, models, training
from limbeck.core.recipe.compress import Tolerance
from limbeck.objectives import Objective

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SOURCES = ROOT / "src" / "limbeck"
BEGIN, END = "<!-- made by docs/make_reference.py: begin -->", "<!-- made by docs/make_reference.py: end -->"

SECTIONS: tuple[tuple[str, type[BaseModel], type[BaseModel] | None, str], ...] = (
    ("The recipe", recipe.Recipe, None, ""),
    ("teacher", recipe.Teacher, recipe.Model, "The fields of a [model](#model), and:"),
    ("student", recipe.Student, recipe.Model, "The fields of a [model](#model), and:"),
    ("model", recipe.Model, None, "What `teacher` and `student` have in common."),
    ("lora", models.Lora, None, "`student.lora`. [More](craft.md#lora)."),
    ("tokenizer", recipe.TrainTokenizer, None, ""),
    ("endpoint", recipe.Endpoint, None, "`teacher.endpoint`, or a writer's. [More](endpoints.md)."),
    ("price", recipe.Price, None, "An endpoint's."),
    ("data", recipe.Data, None, ""),
    ("generate", recipe.Generate, None, "One mapping, or a list of named ones. [More](generate.md)."),
    ("sampling", recipe.Sampling, None, "A data stage's."),
    ("budget", recipe.Budget, None, "A data stage's."),
    ("keep", recipe.Keep, None, "A data stage's. [More](verify.md)."),
    ("synthesize", recipe.Synthesize, None, "A data stage's."),
    ("writer", recipe.Writer, recipe.Model, "A data stage's. The fields of a [model](#model), and:"),
    ("cache", recipe.CacheSection, None, "[More](cache.md)."),
    ("training", recipe.Training, recipe.Optimization, "The fields of [optimization](#optimization), and:"),
    ("optimization", recipe.Optimization, None, "Stands in `training`, in every stage and in `teacher.finetune`."),
    ("stages", recipe.Stage, recipe.Optimization, "A list. Each has the fields of [optimization](#optimization), and:"),
    ("balance", recipe.Balance, None, "A stage's. [More](craft.md#balance)."),
    ("gate", recipe.Gate, None, "A stage's. [More](teachers.md#gated)."),
    ("mixture", training.Mixture, None, "A stage's. [More](curriculum.md)."),
    ("on_policy", recipe.OnPolicy, None, "A stage's. [More](on-policy.md)."),
    ("prune", recipe.Prune, None, "A stage's. [More](quantize.md#prune)."),
    ("quantize", recipe.Quantize, None, "A stage's. [More](quantize.md)."),
    ("finetune", recipe.Finetune, recipe.Stage, "The fields of a [stage](#stages), of which two have defaults here:"),
    ("evaluate", recipe.Evaluate, None, "[More](evaluate.md)."),
    ("robustness", recipe.Robustness, None, "`evaluate.robustness`."),
    ("interpretability", recipe.Interpretability, None, "`evaluate.interpretability`."),
    ("speed", recipe.Speed, None, "`evaluate.speed`."),
    ("limits", recipe.Limits, None, "The recipe's `budget`. [More](evaluate.md#budget)."),
    ("cascade", cascade.Cascade, None, "[More](cascade.md)."),
    ("promise", cascade.Promise, None, "A cascade's; one of these."),
    ("rung", cascade.Rung, None, "A model behind the student, in `cascade.to`."),
    ("tolerance", Tolerance, None, "`compress.tolerance`. [More](compress.md#the-gate)."),
    ("optimize", recipe.Optimize, None, "A list of passes, or `true`, will do. [More](optimize.md)."),
    ("report", recipe.Report, None, ""),
    ("tune", recipe.Tune, None, "[More](tune.md)."),
    ("sweep", recipe.Sweep, None, ""),
    ("between", recipe.Between, None, ""),
    ("choices", recipe.Choices, None, ""),
)
ANCHORS = {cls: title for title, cls, *_ in SECTIONS}
KINDS = {
    "task": ("Tasks", "`task:` is a name, or a mapping with `type:` and fields. A hyphen in a name is as good as `_`."),
    "source": ("Sources", "`data.train`, `data.validation` and `data.test` are a source each."),
    "objective": (
        "Objectives",
        "The `terms` of a stage. [Some](objectives/distribution.md) compare answers, [others](objectives/features.md) "
        "compare layers, or what samples have to do with each other. Each has its own fields, and these:",
    ),
    "schedule": ("Schedules", "Values that change over a stage, such as a term's `weight`."),
    "temperature": ("Temperatures", "What softens both distributions of a term before they are compared."),
    "augmentation": ("Augmentations", "Random changes of samples, a stage's `augment`. [More](augmentation.md)."),
    "curriculum": ("Curricula", "Easy samples first: a stage's `curriculum`. [More](curriculum.md)."),
    "perturbation": ("Perturbations", "New prompts out of given ones: `generate.perturb`. [More](curriculum.md)."),
    "verifier": ("Verifiers", "Whether an answer is right: `generate.verify`. [More](verify.md)."),
    "filter": ("Filters", "What is not worth learning from: `generate.filters`. [More](verify.md)."),
    "metric": ("Metrics", "Figures of recorded predictions: `evaluate.metrics`. [More](evaluate.md)."),
    "compressor": ("Compressors", "How the trained student is made smaller: `compress`. [More](compress.md)."),
    "optimization": ("Optimizations", "Ways to answer cheaper: `optimize.passes`. [More](optimize.md)."),
    "exporter": ("Exporters", "Formats that the student is brought into: `export`. [More](export.md)."),
    "deployment": (
        "Deployments",
        "Where a student is served: `limbeck export --for`; no recipe names them. [More](deploy.md).",
    ),
    "check": ("Checks", "What `limbeck doctor` looks at; no recipe names them. [More](doctor.md)."),
}
BARE_WORDS = {
    "csv": "a path that ends in `.csv`, `.tsv`, `.csv.gz` or `.tsv.gz`",
    "jsonl": "a path that ends in `.jsonl`, `.ndjson`, `.jsonl.gz` or `.ndjson.gz`",
    "parquet": "a path that ends in `.parquet`",
    "npz": "a path that ends in `.npz`",
    "image_folder": "a folder that is there, or a path that begins with `/`, `./`, `../` or `~/`",
    "hub": "a name of the form `owner/name` that is no folder here",
    "digits": "`digits`",
    "arithmetic": "`arithmetic`",
    "constant": "a number",
}


def main() -> None:
    stale = [path for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        sys.exit("\n".join(f"{path} is out of date: python docs/make_reference.py" for path in stale) or 0)
    for path in stale:
        path.write_text(pages()[path], encoding="utf-8")
        print(f"written: {path}")


def pages() -> dict[Path, str]:
    """Every page with what the code says now."""
    made = {DOCS / "recipes.md": "\n".join(_reference()), DOCS / "papers.md": "\n".join(_papers())}
    made |= {ROOT / name: _quickstart() for name in ("README.md", "README.zh-CN.md")}
    return {path: _between(path.read_text(encoding="utf-8"), body) for path, body in made.items()}


def _between(page: str, body: str) -> str:
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{body.strip()}\n\n{END}{rest.split(END)[1]}"


def _quickstart() -> str:
    """The sections of the quickstart that say what is learned from whom."""
    parts = (ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8").strip().split("\n\n")
    core = [part for part in parts if part.startswith(("teacher:", "student:", "data:", "stages:"))]
    return "```yaml\n" + "\n\n".join(core) + "\n```"


def _reference() -> Iterator[str]:
    yield "## Sections\n"
    for title, cls, base, note in SECTIONS:
        inherited = {} if base is None else base.model_fields
        own = {n: f for n, f in cls.model_fields.items() if n not in inherited or n in cls.__annotations__}
        yield f"### {title}\n"
        yield f"{' '.join(filter(None, [_paragraph(inspect.getdoc(cls)), note]))}\n"
        yield from _table({n: (f, f.description or "") for n, f in own.items()})
    for kind, (title, note) in KINDS.items():
        yield f"## {title}\n"
        yield f"{note}\n"
        if kind == "objective":
            yield from _part_table(Objective, without=())
        for name in names(kind):
            if find(kind, name).__module__.startswith("limbeck."):  # plug-ins document themselves
                yield from _part(find(kind, name))


def _part(cls: type[Part]) -> Iterator[str]:
    yield f"### {cls.type()}\n"
    text, _, paper = (inspect.getdoc(cls) or "").partition("Reference:")
    yield from (f"{_escaped(_paragraph(part))}\n" for part in text.strip().split("\n\n"))
    if paper:
        yield f"Reference: {_linked(_paragraph(paper))}\n"
    if cls.type() in BARE_WORDS:
        yield f"Short form: {BARE_WORDS[cls.type()]}.\n"
    yield from _part_table(cls, without=("weight", "name") if issubclass(cls, Objective) else ())


def _part_table(cls: type[Part], without: tuple[str, ...]) -> Iterator[str]:
    texts, infos = _field_texts(cls), cls.__pydantic_fields__  # type: ignore[attr-defined]
    yield from _table({n: (info, texts.get(n, "")) for n, info in infos.items() if n not in without})


def _table(rows: dict[str, tuple[FieldInfo, str]]) -> Iterator[str]:
    if not rows:
        return
    titles = ["field", "value", "default", "meaning"][: 4 if any(text for _, text in rows.values()) else 3]
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    for name, (info, text) in rows.items():
        cells = (f"`{name}`", _value(info.annotation, info.metadata), _default(info), _escaped(_paragraph(text)))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells[: len(titles)])} |"
    yield ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "left out"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, Part):
        value = config_of(value).get("value", config_of(value))
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, int | float) else f"`{json.dumps(value, ensure_ascii=False)}`"


def _value(annotation: Any, metadata: Any = ()) -> str:
    """A type in words."""
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
    for each in metadata:
        if isinstance(each, PartOf):
            return f"a [{each.kind}](#{KINDS[each.kind][0].lower()})"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (types.UnionType, Union):
        kept = [a for a in arguments if a is not type(None) and not (a is int and float in arguments)]
        words = " or ".join(_value(a) for a in kept)
        return " ".join(filter(None, [words, _bounds(metadata)]))
    if origin is Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin is list:
        return f"list of {_plural(_value(arguments[0]))}"
    if origin is dict or annotation is dict:
        values = _value(arguments[1]).replace("a section, ", "") if arguments else "any"
        return "mapping" if values == "any" else f"mapping to {values}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"a section, [{ANCHORS[annotation]}](#{ANCHORS[annotation].replace(' ', '-').lower()})"
    simple = {int: "integer", float: "number", str: "text", bool: "`true` or `false`", Path: "path"}
    return " ".join(filter(None, [simple.get(annotation, "any"), _bounds(metadata)]))


def _plural(words: str) -> str:
    words = re.sub(r"^a \[(\w+)\]", r"[\1s]", words.removeprefix("a section, "))
    return re.sub(r"^(integer|number|text|path)", r"\1s", words)


def _bounds(metadata: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = []
    for each in metadata:
        constraints = each.metadata if isinstance(each, FieldInfo) else [each]
        found += [f"{sign} {getattr(c, k)}" for c in constraints for k, sign in signs.items() if hasattr(c, k)]
    return " and ".join(found)


def _field_texts(cls: type) -> dict[str, str]:
    """The text under each field of a class and its bases, which only the source knows."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if each.__module__.startswith("limbeck."):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
            assert isinstance(tree, ast.ClassDef)
            for field, below in zip(tree.body, tree.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    found[field.target.id] = _string(below)
    return found


def _string(node: ast.stmt) -> str:
    constant = node.value if isinstance(node, ast.Expr) else None
    return constant.value if isinstance(constant, ast.Constant) and isinstance(constant.value, str) else ""


def _papers() -> Iterator[str]:
    yield "| reference | used by | file |"
    yield "|---|---|---|"
    for where, file, paper in sorted(_references(), key=lambda found: found[2]):
        link = f"[{file.relative_to(SOURCES).as_posix()}](../src/limbeck/{file.relative_to(SOURCES).as_posix()})"
        yield f"| {_linked(paper)} | `{where}` | {link} |"


def _references() -> Iterator[tuple[str, Path, str]]:
    """Every `Reference:` section in the package: the thing that has it, its file, and the text."""
    for file in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Module):
                continue
            if found := re.search(r"^Reference:\n((?:[ ]+.*\n?)+)", ast.get_docstring(node) or "", re.MULTILINE):
                yield _named(node, file), file, _paragraph(found[1])


def _named(node: ast.ClassDef | ast.FunctionDef | ast.Module, file: Path) -> str:
    """What users of a thing call it: parts by their type, a module by its file."""
    if isinstance(node, ast.Module):
        return file.stem
    return snake_case(node.name) if _is_part(node) else node.name


def _is_part(node: ast.ClassDef | ast.FunctionDef) -> bool:
    decorators = node.decorator_list if isinstance(node, ast.ClassDef) else []
    return any(isinstance(each, ast.Name) and each.id == "part" for each in decorators)


def _linked(text: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


def _escaped(text: str) -> str:
    """Formulas in docstrings are no Markdown: stars and angle brackets outside of code are shown as they are."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*<])", r"\\\1", part) for part in parts)


if __name__ == "__main__":
    main()
