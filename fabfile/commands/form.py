"""Dataclasses as JSON and back, for what a host keeps. Standard library only."""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import Enum
from typing import Any


def plain(value: Any, *, secrets: bool = False) -> Any:
    """A dataclass as JSON has it. Without `secrets` a field that repr() does not show is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name), secrets=secrets)
            for field in dataclasses.fields(value)
            if field.repr or secrets
        }
    if isinstance(value, Enum):
        return value.value
    return [plain(item, secrets=secrets) for item in value] if isinstance(value, tuple) else value


def typed(kind: Any, value: Any) -> Any:
    """What JSON has as the type says it is; unknown fields are passed over. Raises TypeError, ValueError or KeyError."""
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:
        if value is None:
            return None
        return typed(next(one for one in typing.get_args(kind) if one is not types.NoneType), value)
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(typed(inner[0], item) for item in value)
        return tuple(typed(one, item) for one, item in zip(inner, value, strict=True))
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"{value!r} is not an object")
        hints = typing.get_type_hints(kind)
        return kind(**{name: typed(hints[name], item) for name, item in value.items() if name in hints})  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float and isinstance(value, int):
        return float(value)
    if isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value
