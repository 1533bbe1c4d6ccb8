"""Whether what JSON gave is what a dataclass says: the files of a data set may have been edited, or damaged."""

import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def misfit(part: Any) -> str | None:
    """The name of a field whose value is not of its type, or a negative integer, to any depth; None if none is.

    Args:
        part: a dataclass.
    """
    for name, kind in get_type_hints(type(part)).items():
        value = getattr(part, name)
        if not _fits(value, kind):
            return name
        for inner in value if isinstance(value, list | tuple) else [value]:
            if dataclasses.is_dataclass(inner) and (wrong := misfit(inner)):
                return wrong
    return None


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin is dict:
        keys, values = arguments
        return isinstance(value, dict) and all(_fits(k, keys) and _fits(v, values) for k, v in value.items())
    if origin in (tuple, list):
        return isinstance(value, origin) and all(_fits(item, arguments[0]) for item in value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind)
