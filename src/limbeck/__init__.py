"""limbeck: a recipe becomes a small, evaluated student of a large teacher.

    import limbeck

    result = limbeck.run("recipes/quickstart.yaml")
    result = limbeck.distill(teacher="some/teacher", student="some/student", data="train.jsonl", output="runs/mine")

Importing this package imports nothing heavy; torch comes with the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from limbeck._version import __version__

if TYPE_CHECKING:
    from limbeck.pipeline.api import distill, evaluate, export, optimize, run
    from limbeck.pipeline.tune import tune

__all__ = ["__version__", "distill", "evaluate", "export", "optimize", "run", "tune"]


def __getattr__(name: str) -> Any:
    if name in ("run", "distill", "evaluate", "export", "optimize"):
        from limbeck.pipeline import api

        return getattr(api, name)
    if name == "tune":
        from limbeck.pipeline.tune import tune

        return tune
    raise AttributeError(f"module 'limbeck' has no attribute '{name}'")
