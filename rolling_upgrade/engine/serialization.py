"""Convert dataclasses to JSON types and back.

A field's metadata may name its `key` in JSON, so that files on hosts and `--json` output outlive a rename in the code.
Standard library only.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

from rolling_upgrade.engine import untrusted


def to_plain(value: Any, *, secrets: bool = False) -> Any:
    """Convert a dataclass to JSON types. Without `secrets`, fields hidden from repr() are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            _key(field): to_plain(getattr(value, field.name), secrets=secrets)
            for field in dataclasses.fields(value)
            if field.repr or secrets
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: to_plain(item, secrets=secrets) for key, item in value.items()}
    return [to_plain(item, secrets=secrets) for item in value] if isinstance(value, (tuple, list)) else value


def from_plain(kind: Any, value: Any) -> Any:
    """Convert JSON types to `kind`, ignoring unknown fields. Raises TypeError, ValueError or KeyError."""
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:
        if value is None:
            return None
        return from_plain(next(option for option in typing.get_args(kind) if option is not types.NoneType), value)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{untrusted.line(repr(value))} is not a list")
        kinds = typing.get_args(kind)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(from_plain(kinds[0], item) for item in value)
        return tuple(from_plain(item_kind, item) for item_kind, item in zip(kinds, value, strict=True))
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise TypeError(f"{untrusted.line(repr(value))} is not an object")
        hints = typing.get_type_hints(kind)
        fields = [(field.name, _key(field)) for field in dataclasses.fields(kind)]
        return kind(**{name: from_plain(hints[name], value[key]) for name, key in fields if key in value})  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float and isinstance(value, int):
        return untrusted.number(value, minimum=-untrusted.LARGEST)
    if isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError(f"{untrusted.line(repr(value))} is not {kind.__name__}")
    return value


def _key(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("key", field.name))
