"""Read a bounded JSON document field by field: every field is named, typed and checked, and no other is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

#: The largest document that is read, bytes, and how deep it may nest.
LARGEST, DEEPEST = 65_536, 8


class SiteError(Exception):
    """The document asks for something that is malformed or not allowed; the message says what, and where in it."""


def read(data: bytes) -> Fields:
    """Parse a JSON object. Raises SiteError for anything that is too large, too deep, ambiguous or no object."""
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
    """How deep brackets nest at most; those inside strings count too, which only refuses more."""
    depth = deepest = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number has too many digits")
    return int(digits)


class Fields:
    """An object of the document, whose fields are taken one by one; `done` refuses what is left."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise SiteError(f"{place} must be an object")
        self._left, self._place = dict(value), place

    def text(self, name: str, pattern: str, *, longest: int = 255, empty: bool = False) -> str:
        """A string that matches the whole pattern; with `empty` it may be empty."""
        value = self._take(name)
        if isinstance(value, str) and len(value) <= longest:
            if empty and not value:
                return ""
            if re.fullmatch(pattern, value, re.ASCII):
                return value
        raise SiteError(f"{self._place}: {name} must match {pattern} and have at most {longest} characters")

    def number(self, name: str, least: int, most: int) -> int:
        """A whole number within both bounds."""
        value = self._take(name)
        if type(value) is int and least <= value <= most:
            return value
        raise SiteError(f"{self._place}: {name} must be a whole number from {least} to {most}")

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._take(name)
        if type(value) is bool:
            return value
        raise SiteError(f"{self._place}: {name} must be true or false")

    def objects(self, name: str, read_one: Callable[[Fields], T], *, least: int = 0, most: int) -> tuple[T, ...]:
        """A list of objects, each read whole by `read_one`."""
        found = []
        for number, value in enumerate(self._list(name, least, most)):
            fields = Fields(value, f"{name} {number + 1}")
            found.append(read_one(fields))
            fields.done()
        return tuple(found)

    def numbers(self, name: str, least: int, most: int, *, longest: int) -> tuple[int, ...]:
        """A list of whole numbers, each within both bounds."""
        found = self._list(name, 0, longest)
        if all(type(value) is int and least <= value <= most for value in found):
            return tuple(found)
        raise SiteError(f"{self._place}: {name} must hold whole numbers from {least} to {most}")

    def optional(self, name: str, read_one: Callable[[Fields], T]) -> T | None:
        """An object, or null."""
        value = self._take(name)
        if value is None:
            return None
        fields = Fields(value, name)
        found = read_one(fields)
        fields.done()
        return found

    def done(self) -> None:
        """Refuse fields that nobody took."""
        if self._left:
            raise SiteError(f"{self._place}: unknown field {sorted(self._left)[0][:40]!a}")

    def _take(self, name: str) -> Any:
        if name not in self._left:
            raise SiteError(f"{self._place}: {name} is missing")
        return self._left.pop(name)

    def _list(self, name: str, least: int, most: int) -> list[Any]:
        value = self._take(name)
        if isinstance(value, list) and least <= len(value) <= most:
            return value
        raise SiteError(f"{self._place}: {name} must be a list of {least} to {most} items")
