"""The house rules that a machine can keep."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "benchmarks", "examples")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SOURCES = [path for path in FILES if path.is_relative_to(ROOT / "src")]
NEARLY_EMPTY = 10
"""Lines that a file may have without the future import."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    """A file as Python reads it."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def where(path: Path, node: ast.AST | None = None) -> str:
    """A place in the way that editors open it."""
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def test_files_were_found() -> None:
    assert len(SOURCES) > 50
    assert Path(__file__) in FILES


def test_a_file_has_at_most_400_lines() -> None:
    sizes = {where(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: size for name, size in sizes.items() if size > 400} == {}


def test_a_function_has_at_most_60_lines() -> None:
    sizes = {
        f"{where(path, node)} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, Function)
    }
    assert {name: size for name, size in sizes.items() if size > 60} == {}


def test_nothing_is_printed() -> None:
    found = [
        where(path, node)
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_annotations_are_not_evaluated() -> None:
    def has_import(path: Path) -> bool:
        nodes = [node for node in tree(path).body if isinstance(node, ast.ImportFrom)]
        return any(n.module == "__future__" and "annotations" in [a.name for a in n.names] for n in nodes)

    long = [path for path in SOURCES if len(path.read_text(encoding="utf-8").splitlines()) > NEARLY_EMPTY]
    assert [where(path) for path in long if not has_import(path)] == []


def test_every_public_thing_has_a_docstring() -> None:
    told = _told_methods()
    missing = []
    for path in SOURCES:
        body = tree(path).body
        if any(isinstance(node, Function | ast.ClassDef) for node in body) and not ast.get_docstring(tree(path)):
            missing.append(where(path))
        if path.name.startswith("_") and path.name != "__init__.py":
            continue
        for node in body:
            if isinstance(node, Function | ast.ClassDef) and node.name[0] != "_":
                missing += [] if ast.get_docstring(node) else [f"{where(path, node)} {node.name}"]
            if isinstance(node, ast.ClassDef) and node.name[0] != "_":
                missing += [f"{where(path, m)} {node.name}.{m.name}" for m in _untold(node, told)]
    assert missing == []


def _told_methods() -> dict[str, tuple[list[str], set[str]]]:
    """Of every class name: the names of its bases, and the methods that it tells of."""
    found: dict[str, tuple[list[str], set[str]]] = {}
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                methods = {m.name for m in node.body if isinstance(m, Function) and ast.get_docstring(m)}
                bases, known = found.get(node.name, ([], set()))  # two files may use one name
                found[node.name] = ([*bases, *_names(node.bases)], known | methods)
    return found


def _names(bases: list[ast.expr]) -> Iterator[str]:
    for base in bases:
        base = base.value if isinstance(base, ast.Subscript) else base
        yield base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")


def _untold(node: ast.ClassDef, told: dict[str, tuple[list[str], set[str]]]) -> Iterator[Function]:
    """Public methods without a docstring of their own, or of the one that they override."""
    inherited: set[str] = set()
    waiting = list(_names(node.bases))
    while waiting:
        bases, methods = told.get(waiting.pop(), ([], set()))
        waiting += bases
        inherited |= methods
    external = any(name not in told for name in _names(node.bases) if name not in ("ABC", "Protocol", "Generic"))
    for method in node.body:
        if isinstance(method, Function) and method.name[0] != "_" and not ast.get_docstring(method):
            setter = any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in method.decorator_list)
            # `forward` and the like are told by the library that asks for them.
            if method.name not in inherited and not setter and not external:
                yield method


def test_the_order_of_imports_is_kept() -> None:
    script = Path(sys.executable).with_name("lint-imports")
    if not script.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([script, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_has_its_place_in_the_order() -> None:
    order = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("layers = [")[2].partition("]")[0]
    rooms = {path.parent.name for path in (ROOT / "src/limbeck").glob("*/__init__.py")}
    assert {room for room in rooms if f"limbeck.{room}" not in order} == set()
