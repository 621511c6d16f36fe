"""Read a JSON document of another user: bounded in size and nesting, field by field, unknown fields are errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

#: The size limit of a document in bytes, and its nesting limit.
LARGEST, DEEPEST = 65_536, 16
_REQUIRED: Any = object()


class SiteError(Exception):
    """The document is malformed or violates the rules; the message names the field."""


def read(data: bytes) -> Fields:
    """Parse a JSON object. Raises SiteError if it is too large, too deep, ambiguous or not an object."""
    if len(data) > LARGEST:
        raise SiteError(f"the document is larger than {LARGEST // 1024} KiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SiteError("the document is not UTF-8") from error
    if _depth(text) > DEEPEST:
        raise SiteError(f"the document nests deeper than {DEEPEST} levels")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise SiteError(f"the document is not JSON ({str(error)[:80]})") from error
    return Fields(value, "the document")


def _depth(text: str) -> int:
    """The deepest nesting of brackets; brackets inside strings count too, which only refuses more documents."""
    depth = deepest = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a duplicate key")
    return fields


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number has too many digits")
    return int(digits)


class Fields:
    """An object of the document. Each method reads one field; `done` rejects unread fields.

    A field with a `default` may be missing: documents of earlier versions lack it.
    """

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise SiteError(f"{path} must be an object")
        self._left, self._path = dict(value), path

    def text(
        self, name: str, pattern: str, *, longest: int = 255, empty: bool = False, default: str = _REQUIRED
    ) -> str:
        """A string that matches the whole pattern; with `empty` it may be empty."""
        value = self._take(name, default)
        if isinstance(value, str) and len(value) <= longest:
            if empty and not value:
                return ""
            if re.fullmatch(pattern, value, re.ASCII):
                return value
        raise SiteError(f"{self._path}: {name} must match {pattern} and have at most {longest} characters")

    def number(self, name: str, least: int, most: int, *, default: int = _REQUIRED) -> int:
        """A whole number within both bounds."""
        value = self._take(name, default)
        if type(value) is int and least <= value <= most:
            return value
        raise SiteError(f"{self._path}: {name} must be a whole number from {least} to {most}")

    def flag(self, name: str, *, default: bool = _REQUIRED) -> bool:
        """True or false."""
        value = self._take(name, default)
        if type(value) is bool:
            return value
        raise SiteError(f"{self._path}: {name} must be true or false")

    def objects(
        self, name: str, read_one: Callable[[Fields], T], *, least: int = 0, most: int, default: Any = _REQUIRED
    ) -> tuple[T, ...]:
        """A list of objects; `read_one` takes all fields of each."""
        items = []
        for number, value in enumerate(self._list(name, least, most, default), 1):
            fields = Fields(value, f"{name} {number}")
            items.append(read_one(fields))
            fields.done()
        return tuple(items)

    def numbers(self, name: str, least: int, most: int, *, longest: int) -> tuple[int, ...]:
        """A list of whole numbers, each within both bounds."""
        values = self._list(name, 0, longest)
        if all(type(value) is int and least <= value <= most for value in values):
            return tuple(values)
        raise SiteError(f"{self._path}: {name} must hold whole numbers from {least} to {most}")

    def texts(
        self, name: str, pattern: str, *, longest: int = 255, most: int, default: Any = _REQUIRED
    ) -> tuple[str, ...]:
        """A list of strings; each matches the whole pattern."""
        values = self._list(name, 0, most, default)
        if all(
            isinstance(text, str) and len(text) <= longest and re.fullmatch(pattern, text, re.ASCII) for text in values
        ):
            return tuple(values)
        raise SiteError(f"{self._path}: {name} must hold texts that match {pattern}")

    def optional(self, name: str, read_one: Callable[[Fields], T], *, default: None = _REQUIRED) -> T | None:
        """An object, or null."""
        value = self._take(name, default)
        if value is None:
            return None
        fields = Fields(value, name)
        item = read_one(fields)
        fields.done()
        return item

    def done(self) -> None:
        """Refuse the remaining fields."""
        if self._left:
            raise SiteError(f"{self._path}: unknown field {sorted(self._left)[0][:40]!a}")

    def _take(self, name: str, default: Any = _REQUIRED) -> Any:
        if name in self._left:
            return self._left.pop(name)
        if default is _REQUIRED:
            raise SiteError(f"{self._path}: {name} is missing")
        return default

    def _list(self, name: str, least: int, most: int, default: Any = _REQUIRED) -> list[Any]:
        value = self._take(name, default)
        if isinstance(value, list) and least <= len(value) <= most:
            return value
        raise SiteError(f"{self._path}: {name} must be a list of {least} to {most} items")
