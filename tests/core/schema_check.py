"""As much of JSON schema as the recipe's schema uses, so that the check needs no further library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_NOTES = {"title", "description", "default", "$defs", "format"}


def complaints(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What a value has against it; an unknown keyword of the schema is an error of the test."""
    for keyword, wanted in schema.items():
        if keyword in _NOTES:
            continue
        if keyword == "$ref":
            yield from complaints(value, root["$defs"][wanted.removeprefix("#/$defs/")], root, path)
        elif keyword == "anyOf":
            if all(list(complaints(value, option, root, path)) for option in wanted):
                yield f"{path}: {value!r} fits none of {len(wanted)} forms"
        elif not _keeps(keyword, wanted, value, schema):
            yield f"{path}: {value!r} breaks {keyword}={wanted!r}"
    if isinstance(value, dict):
        for key, inside in value.items():
            known = schema.get("properties", {}).get(key)
            if known is not None:
                yield from complaints(inside, known, root, f"{path}.{key}")
    if isinstance(value, list) and "items" in schema:
        for i, inside in enumerate(value):
            yield from complaints(inside, schema["items"], root, f"{path}.{i}")


def _keeps(keyword: str, wanted: Any, value: Any, schema: Mapping[str, Any]) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    checks = {
        "type": lambda: any(_is(value, name) for name in ([wanted] if isinstance(wanted, str) else wanted)),
        "enum": lambda: value in wanted,
        "const": lambda: value == wanted,
        "required": lambda: not isinstance(value, dict) or set(wanted) <= set(value),
        "additionalProperties": lambda: (
            wanted is not False or not isinstance(value, dict) or set(value) <= set(schema.get("properties", {}))
        ),
        "minItems": lambda: not isinstance(value, list) or len(value) >= wanted,
        "minimum": lambda: not number or value >= wanted,
        "maximum": lambda: not number or value <= wanted,
        "exclusiveMinimum": lambda: not number or value > wanted,
        "exclusiveMaximum": lambda: not number or value < wanted,
        "properties": lambda: True,
        "items": lambda: True,
    }
    return checks[keyword]()


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
