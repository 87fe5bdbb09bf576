"""A recipe's text with other values in it: comments and order stay as their author left them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from limbeck.core.errors import RecipeError
from limbeck.core.yaml import parse_yaml

_NOT_KEPT = "# Written anew: the comments of the recipe that this was made from could not be kept.\n"


def rewrite(text: str, new: dict[str, Any]) -> str:
    """YAML `text`, changed where it says something else than `new`.

    What comes out is read again and compared. Where the text cannot be changed in place (anchors, merged keys),
    `new` is written as plain YAML, and the first line says so.

    Args:
        text: a YAML mapping.
        new: what the result is to say.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert root is not None  # the text is a mapping
    changed = text
    try:
        edits = sorted(_edits(text, root, parse_yaml(text, "the recipe"), new), key=lambda e: e.start)
    except LookupError:  # a key that is not where it is read, as it was merged in; or none that stays
        edits = []
    for edit in reversed(edits):
        changed = changed[: edit.start] + edit.text + changed[edit.end :]
    try:
        if edits and parse_yaml(changed, "the recipe") == new:
            return changed
    except RecipeError:
        pass
    return text if parse_yaml(text, "the recipe") == new else _NOT_KEPT + plain(new)


def plain(value: Any) -> str:
    """A value as YAML that is easy to read."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


@dataclass(frozen=True)
class _Edit:
    """`text` takes the place of what lies between two positions."""

    start: int
    end: int
    text: str


def _edits(text: str, node: Node, old: Any, new: Any) -> Iterator[_Edit]:
    if repr(old) == repr(new):
        return
    if isinstance(node, MappingNode) and isinstance(old, dict) and isinstance(new, dict) and old:
        places = {key.value: (key, value) for key, value in node.value}
        for key in old:
            if key not in new:
                yield _removal(text, node, *places[str(key)])
            else:
                yield from _edits(text, places[str(key)][1], old[key], new[key])
        if added := {key: value for key, value in new.items() if key not in old}:
            kept = [places[str(key)][1] for key in old if key in new]
            yield _insertion(text, node, kept[-1], added)
    elif isinstance(node, SequenceNode) and isinstance(new, list) and isinstance(old, list) and len(old) == len(new):
        for child, *pair in zip(node.value, old, new, strict=True):
            yield from _edits(text, child, *pair)
    else:
        start, end = node.start_mark.index, _end(node)
        yield _Edit(start, end, " " * (start > 0 and text[start - 1] in ":-,") + _flow(new))


def _insertion(text: str, node: MappingNode, last: Node, added: dict[str, Any]) -> _Edit:
    """New keys behind the last one that stays."""
    at = _end(last)
    pairs = [f"{key}: {_flow(value)}" for key, value in added.items()]
    if node.flow_style:
        return _Edit(at, at, "".join(f", {pair}" for pair in pairs))
    at = _line_end(text, at)
    return _Edit(at, at, "".join(f"\n{' ' * node.start_mark.column}{pair}" for pair in pairs))


def _removal(text: str, node: MappingNode, key: ScalarNode, value: Node) -> _Edit:
    """A key of a block with its lines, and the comment that stands right above it."""
    if node.flow_style:
        raise KeyError(key.value)
    start = text.rfind("\n", 0, key.start_mark.index) + 1
    while start:
        above = text.rfind("\n", 0, start - 1) + 1
        line = text[above:start].strip()
        if not line.startswith("#") or "yaml-language-server" in line:
            break
        start = above
    end = _line_end(text, _end(value)) + 1
    if text[start - 2 : start] == "\n\n":  # one empty line is enough where two parts meet
        end += text[end : end + 1] == "\n"
    return _Edit(start, min(end, len(text)), "")


def _end(node: Node) -> int:
    """Where a node's text ends; a block's own mark lies behind the empty lines and comments that follow it."""
    if isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, MappingNode) else last)
    return int(node.end_mark.index)


def _line_end(text: str, at: int) -> int:
    found = text.find("\n", at)
    return len(text) if found < 0 else found


def _flow(value: Any) -> str:
    """A value on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
