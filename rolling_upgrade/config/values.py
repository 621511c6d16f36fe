"""The values of one host, and the texts of `services.yaml` that name a value or are one.

A text of capitals, digits and _ is the name of an env key. Any other text is a literal, in which `${KEY}` and
`${KEY:-default}` are replaced and `$${` stands for `${`. Errors go to the issues at the place where the value was
written: the env file, an override in hosts.yaml, or the literal in services.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from rolling_upgrade.config import validators
from rolling_upgrade.config.issues import Issues, shown

T = TypeVar("T")

#: `$${`, or a reference with an optional default; group 1 is empty when the text after `${` is not a reference.
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<key>[A-Za-z_][A-Za-z0-9_]*)(?::?-(?P<default>[^{}]*))?\})?")


def named_keys(text: str) -> Iterator[str]:
    """Yield the env keys that a text of services.yaml names: itself, or those of its references."""
    yield from (text,) if validators.is_key(text) else references(text)


def references(literal: str) -> Iterator[str]:
    """Yield the env keys of the references in a literal."""
    yield from (match["key"] for match in _REFERENCE.finditer(literal) if match["key"])


@dataclass(frozen=True)
class Values:
    """The values of one host: those of the env file, overridden by those of the inventory.

    `services_complete` is false when invalid services were removed: a missing key may be optional there, or have a
    default.
    """

    env_file: str
    base: dict[str, str]
    inventory_file: str
    inventory_path: str
    overrides: dict[str, str]
    services_file: str
    services_complete: bool
    issues: Issues

    @property
    def merged(self) -> dict[str, str]:
        """The effective values."""
        return {**self.base, **self.overrides}

    def get(self, key: str) -> str:
        """Return the text of a key, empty when it is not set."""
        return self.overrides.get(key, self.base.get(key, ""))

    def reject(self, key: str, *, found: str = "", expected: str) -> None:
        """Add an error about a key at the place where its value was written."""
        text = self.get(key)
        found = found or (shown(text, key) if text else "")
        if key in self.overrides:
            self.issues.add(self.inventory_file, f"{self.inventory_path}.{key}", found=found, expected=expected)
        else:
            self.issues.add(self.env_file, key, found=found, expected=expected)

    def read(self, key: str, validator: validators.Validator[T]) -> T | None:
        """Validate the value of a key; None when it is not set or invalid."""
        text = self.get(key)
        if not text:
            return None
        try:
            return validator(text)
        except ValueError as error:
            self.reject(key, expected=str(error))
            return None

    def reject_declared(self, text: str, place: str, *, found: str = "", expected: str) -> None:
        """Add an error about a key or literal of services.yaml at the place where its value was written."""
        if validators.is_key(text):
            self.reject(text, found=found, expected=expected)
        else:
            self.issues.add(self.services_file, place, found=found or shown(text), expected=expected)

    def resolve(self, text: str, validator: validators.Validator[T], place: str, *, required: bool = False) -> T | None:
        """Validate the value of a key or literal of services.yaml; None when it is not set or invalid.

        Args:
            text: The key or literal; empty for none.
            validator: The validator of the value.
            place: The place of the text in services.yaml, such as `services[0].image`.
            required: Report a key that is not set.
        """
        if not validators.is_key(text):
            return self._resolve_literal(text, validator, place) if text else None
        if required and not self.get(text):
            self.reject(text, expected=validator.expected)
        return self.read(text, validator)

    def _resolve_literal(self, text: str, validator: validators.Validator[T], place: str) -> T | None:
        replaced = self.interpolate(text, place)
        if replaced is None:
            return None
        try:
            return validator(replaced)
        except ValueError as error:
            self.issues.add(self.services_file, place, found=shown(text), expected=str(error))
            return None

    def interpolate(self, text: str, place: str) -> str | None:
        """Replace the references in a literal of services.yaml; None when one is invalid or its key is not set."""
        complete = True

        def value(match: re.Match[str]) -> str:
            nonlocal complete
            key = match["key"]
            if key is None:
                complete = complete and match[0] == "$${"
                return "${"
            found = self.get(key) or match["default"]
            if found is None:
                where = self.issues.named(self.services_file, place)
                self.reject(key, expected=f"a value, because {self.services_file} uses it ({where})")
                complete = False
            return found or ""

        replaced = _REFERENCE.sub(value, text)
        if not complete and any(match[0] == "${" for match in _REFERENCE.finditer(text)):
            expected = "${KEY} or ${KEY:-default}, and $${ for a literal ${"
            self.issues.add(self.services_file, place, found=shown(text), expected=expected)
        return replaced if complete else None
