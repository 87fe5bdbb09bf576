"""Taps: read what modules of a model take in and give out while it runs.

A tap is the name of a module and a place at it:

    bert.encoder.layer.3              its output; of a tuple, the first tensor
    bert.encoder.layer.3:input        its input
    bert.encoder.layer.3:output.1     the second value of its output
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from limbeck.core.errors import ModelError, nearest

_FORM = re.compile(r"(?P<module>[^:]*)(:(?P<place>input|output)(\.(?P<index>\d+))?)?")


@dataclass(frozen=True)
class Tap:
    """A place at a module.

    Attributes:
        module: the module's full name; empty for the model itself.
        place: `input` or `output`.
        index: which value of several; None: the first that is a tensor.
    """

    module: str
    place: str = "output"
    index: int | None = None

    @classmethod
    def parse(cls, path: str) -> Tap:
        """Read `module`, `module:input`, `module:output.1`.

        Raises:
            ModelError: it is written otherwise.
        """
        found = _FORM.fullmatch(path)
        if found is None:
            raise ModelError(
                "this is no place in a model",
                got=path,
                allowed="MODULE, MODULE:input, MODULE:output, or with a number: MODULE:output.1",
            )
        index = found["index"]
        return cls(found["module"], found["place"] or "output", None if index is None else int(index))


class Taps:
    """Reads several places of a model during one forward pass.

        with Taps(model, ["encoder.layer.1"]) as taps:
            model(**inputs)
        hidden = taps.features()["encoder.layer.1"]

    Hooks are there only inside the `with`. They work on a model that is wrapped (DDP, FSDP): the bare one is tapped,
    the wrapped one is called. What is read keeps its gradients.

    Args:
        model: the model.
        paths: what to read, written as the module's text says, with full names.
        keep: what is kept of a path's tensor, made at once, so that nothing large stays; None: the tensor.

    Raises:
        ModelError: there is no such module.
    """

    def __init__(self, model: nn.Module, paths: Iterable[str], keep: Callable[[str, Tensor], Tensor] | None = None):
        self.model, self.keep = model, keep
        self.taps = {path: Tap.parse(path) for path in paths}
        modules = dict(model.named_modules())
        for path, tap in self.taps.items():
            if tap.module not in modules:
                raise unknown_layer(path, modules, type(model).__name__)
        self._modules: Mapping[str, nn.Module] = {path: modules[tap.module] for path, tap in self.taps.items()}
        self._seen: dict[str, list[Any]] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        self._seen = {path: [] for path in self.taps}
        for path, tap in self.taps.items():
            hook = self._modules[path].register_forward_hook(self._reader(path, tap), with_kwargs=True)
            self._hooks.append(hook)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _reader(self, path: str, tap: Tap) -> Any:
        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            values = (*args, *kwargs.values()) if tap.place == "input" else output
            found = _pick(values, tap, type(module).__name__)
            self._seen[path].append(found if self.keep is None else self.keep(path, found))

        return read

    def features(self) -> dict[str, Tensor]:
        """What was read, by the paths that were asked for.

        Raises:
            ModelError: a module was not run, or run more than once, so that it is unclear which time is meant.
        """
        for path, values in self._seen.items():
            if len(values) != 1:
                name = type(self.model).__name__
                raise ModelError(
                    f"'{path}' was run {len(values)} times in one pass of {name}",
                    allowed="modules that run once",
                    fix="limbeck layers MODEL prints them, with their shapes",
                )
        return {path: values[0] for path, values in self._seen.items()}


def _pick(values: Any, tap: Tap, module: str) -> Tensor:
    if isinstance(values, Tensor) and tap.index is None:
        return values
    items = list(values.values()) if isinstance(values, Mapping) else list(values) if _is_row(values) else [values]
    if tap.index is None:
        found = next((item for item in items if isinstance(item, Tensor)), None)
    else:
        found = items[tap.index] if tap.index < len(items) else None
    if isinstance(found, Tensor):
        return found
    names = [f"{i}: {tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__}" for i, v in enumerate(items)]
    attention = "attention" in module.lower() and tap.place == "output"
    raise ModelError(
        f"{module} has no tensor at '{tap.place}{'' if tap.index is None else f'.{tap.index}'}'",
        got=", ".join(names) or "nothing",
        fix="attention maps are kept only with attn_implementation: eager" if attention else None,
    )


def _is_row(values: Any) -> bool:
    return isinstance(values, tuple | list)


def unknown_layer(path: str, modules: Iterable[str], model: str) -> ModelError:
    """The error for a layer that is not there, with what there is."""
    known = [name for name in modules if name]
    bare = path.partition(":")[0]
    guess = nearest(bare, known)
    return ModelError(
        f"{model} has no layer '{bare}'",
        allowed=", ".join(_grouped(known)),
        fix=f"did you mean '{guess}'?" if guess else "limbeck layers MODEL prints them, with their shapes",
    )


def _grouped(names: Iterable[str]) -> list[str]:
    """Names with runs of numbers written once: `layer.{0..5}`; only the upper levels, or the list has no end."""
    numbers: dict[str, list[int]] = {}
    for name in names:
        if re.search(r"\.\d+\.", name) is None:
            head, _, tail = name.rpartition(".")
            key = f"{head}.{{}}" if tail.isdigit() else name
            numbers.setdefault(key, []).append(int(tail) if tail.isdigit() else 0)
    return [key.replace("{}", f"{{{min(n)}..{max(n)}}}" if len(n) > 1 else str(n[0])) for key, n in numbers.items()][
        :40
    ]
