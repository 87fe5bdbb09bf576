"""Reading recipes: YAML as people mean it, and `key.path=value` overrides."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from limbeck.core.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-5` as a number and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # what `<<` brings along may be set anew
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    problem = f"the key '{key}' is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 wants a dot and a signed exponent; people write 1e-5 and 3e4.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        RecipeError: no such file, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe at {path}", fix="limbeck init TASK writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe {path} cannot be read", got=error) from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise RecipeError(f"{path} is not a recipe", got=type(content).__name__, allowed="a mapping of keys to values")
    return content


def parse_yaml(text: str, origin: str) -> Any:
    """A YAML document; `origin` names it in errors."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{origin} is not valid YAML", got=" ".join(str(error).split())) from error


def apply_overrides(recipe: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of a raw recipe with `key.path=value` settings put in.

    Items of a list are named by position (`stages.0.epochs=2`) or by their `name` or `type`
    (`stages.distil.terms.kl.temperature=4`). Values are read as YAML. Keys on the way that do not exist
    are made, so that a misspelt one is refused by the recipe's own check.

    Raises:
        RecipeError: the setting has no `=`, or the path leads into something that has no keys.
    """
    result: dict[str, Any] = _copy(recipe)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise RecipeError("an override is not of the form key.path=value", got=override, fix="stages.0.epochs=2")
        keys = path.strip().split(".")
        node: Any = result
        for depth, key in enumerate(keys[:-1]):
            node = _enter(node, key, ".".join(keys[: depth + 1]))
        _put(node, keys[-1], parse_yaml(text, override), path)
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _enter(node: Any, key: str, path: str) -> Any:
    place: Any = _position(node, key, path) if isinstance(node, list) else key
    if not isinstance(node, dict | list):
        raise RecipeError(f"the override's path '{path}' leads into a plain value", got=repr(node))
    inside = node.get(key) if isinstance(node, dict) else node[place]
    if inside is None:
        node[place] = {}
    elif isinstance(inside, str):  # a bare name, `task: causal-lm`, is given fields
        node[place] = {"type": inside}
    return node[place]


def _put(node: Any, key: str, value: Any, path: str) -> None:
    if isinstance(node, dict):
        node[key] = value
    elif isinstance(node, list):
        node[_position(node, key, path)] = value
    else:
        raise RecipeError(f"the override's path '{path}' leads into a plain value", got=repr(node))


def _position(items: list[Any], key: str, path: str) -> int:
    names = [_name(item) for item in items]
    if key in names:
        return names.index(key)
    if key.lstrip("-").isdigit() and -len(items) <= int(key) < len(items):
        return int(key)
    allowed = ", ".join([f"0..{len(items) - 1}", *(n for n in names if n)]) if items else "nothing: the list is empty"
    raise RecipeError(f"the override's path '{path}' names no item of the list", got=key, allowed=allowed)


def _name(item: Any) -> str | None:
    """What an override may call an item of a list: its `name`, its `type`, or itself if it is a bare name."""
    if isinstance(item, Mapping):
        item = next((item[key] for key in ("name", "type") if item.get(key) is not None), None)
    return None if item is None or isinstance(item, list) else str(item)
