"""Collect configuration errors and warnings, validate models, and decide which values are secret."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from rolling_upgrade.config.foreign_keys import counterpart
from rolling_upgrade.config.places import Mark, named_place
from rolling_upgrade.errors import ConfigIssue

_SECRET_NAME = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|(?:^|_)PASS(?:_|$)|TOKEN|WEBHOOK|CREDENTIAL|KEYS?(?:_|$)|(?:^|_)DSN$|^DATABASE_URL$"
    r"|PWD|(?:^|_)(?:AUTH|BEARER)(?:_|$)",
    re.IGNORECASE,
)
#: Keys whose names match _SECRET_NAME although their values are public: paths and notification levels.
_HARMLESS_NAME = re.compile(r"_PATH$|_FILE$|_DIR$|^NOTIFY_", re.IGNORECASE)
_CREDENTIALS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s:@]*:(?P<password>[^/?#\s]+)@")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|^AGE-SECRET-KEY-", re.MULTILINE)
#: The beginning of a password hash, in the formats of crypt(5).
_PASSWORD_HASH = re.compile(r"\$(?:2[aby]|5|6|y|apr1)\$")
_SHORTEST_SECRET = 4
_LONGEST_SHOWN = 80


class Issues:
    """The errors and warnings of a configuration, without duplicates, in the order in which they were found."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._errors: dict[ConfigIssue, None] = {}
        self._warnings: dict[str, None] = {}
        self._missing: set[tuple[str, str]] = set()
        self._marks: dict[str, Mark] = {}

    @property
    def errors(self) -> tuple[ConfigIssue, ...]:
        """All errors."""
        return tuple(self._errors)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings."""
        return tuple(self._warnings)

    def name(self, path: Path) -> str:
        """Return a path as messages show it: relative to the project, absolute outside of it."""
        return str(path.relative_to(self._root)) if path.is_relative_to(self._root) else str(path)

    def remember(self, file: str, mark: Mark) -> None:
        """Remember the lines of a file, which its errors show."""
        self._marks[file] = mark

    def mark(self, file: str) -> Mark | None:
        """Return the lines of a file, None when they are unknown."""
        return self._marks.get(file)

    def add(self, file: str, path: str, *, found: str, expected: str, line: int = 0) -> None:
        """Add an error. An empty `found` means that a required value is missing, which is reported once."""
        if not found:
            if (file, path) in self._missing:
                return
            self._missing.add((file, path))
        root, where = self._marks.get(file), ""
        if root is not None and path:
            line, where = line or root.find(path)[0].line, named_place(root, path)
        self._errors.setdefault(ConfigIssue(file, path, found, expected, line, where))

    def named(self, file: str, path: str) -> str:
        """Return a place in a file with the name of its service or host: `service web: env`."""
        root = self._marks.get(file)
        return path if root is None else named_place(root, path)

    def warn_at(self, file: str, path: str, text: str) -> None:
        """Add a warning about a place in a file."""
        root = self._marks.get(file)
        line = root.find(path)[0].line if root is not None else 0
        self.warn(f"{file}:{line}: {path}: {text}" if line else f"{file}: {path}: {text}")

    def warn(self, text: str) -> None:
        """Add a warning."""
        self._warnings[text] = None


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word closest to this one, empty when none is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else ""


def known_key(key: str, known: Iterable[str]) -> str:
    """Phrase the expectation of a known key, with a suggestion for a near miss."""
    near = nearest(key, known)
    return f"a known key (did you mean {near}?)" if near else "a known key"


def is_secret(key: str) -> bool:
    """Return whether the name of an env key marks its values as secret."""
    return bool(_SECRET_NAME.search(key)) and not _HARMLESS_NAME.search(key)


def conceals(key: str, value: str) -> bool:
    """Return whether a value is secret: by the name of its key, or as a URL with a password, a private key, a hash."""
    patterns = _CREDENTIALS.search(value) or _PRIVATE_KEY.search(value) or _PASSWORD_HASH.match(value)
    return is_secret(key) or bool(patterns)


def secret_keys(values: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the keys with a secret value."""
    return tuple(key for key, value in values if value and conceals(key, value))


def shown(value: object, key: str = "") -> str:
    """Quote a value for a message: escaped, shortened, and hidden when it is secret."""
    text = value if isinstance(value, str) else str(value)
    if conceals(key, text):
        return f"a secret of {len(text)} characters"
    quoted = repr(text)
    return quoted if len(quoted) <= _LONGEST_SHOWN else f"{quoted[: _LONGEST_SHOWN - 1]}…"


def secret_values(values: Iterable[tuple[str, str]]) -> set[str]:
    """Return the strings to mask."""
    secrets: set[str] = set()
    for key, value in values:
        credentials = _CREDENTIALS.search(value)
        if conceals(key, value):
            secrets.add(value)
        if credentials:
            secrets |= {credentials["password"], unquote(credentials["password"])}
    plain = {"true", "false"}
    return {value for value in secrets if len(value) >= _SHORTEST_SECRET and value.casefold() not in plain}


Model = TypeVar("Model", bound=BaseModel)
Place = tuple[int | str, ...]

_EXPECTED = {
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "at least one entry",
}
_REMOVED = object()


class Strict(BaseModel):
    """Base class of the models of the YAML files: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validate(model: type[Model], content: dict[str, Any], file: str, issues: Issues) -> Model | None:
    """Validate the content of a file. Invalid parts become errors and are removed from the model.

    Returns None when no valid part is left.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        for detail in error.errors():
            if detail["type"] != "too_short" or not detail["input"]:  # otherwise the errors of its entries say why
                report(detail, model, file, issues)
    return _salvage(model, copy.deepcopy(content), issues.mark(file))


def report(detail: ErrorDetails, model: type[BaseModel], file: str, issues: Issues) -> None:
    """Convert one of pydantic's errors into an issue."""
    loc = detail["loc"]
    key = str(loc[-1]) if loc else ""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        parent = _model_at(model, loc[:-1])
        ours = counterpart(parent.__name__, key) if parent else ""
        expected = ours or known_key(key, parent.model_fields if parent else ())
        issues.add(file, path_text(loc), found="an unknown key", expected=expected)
        return
    expected = str(context["error"]) if kind == "value_error" else _EXPECTED.get(kind, detail["msg"])
    if kind == "missing":
        issues.add(file, path_text(loc), found="", expected="")
        return
    found = "an empty list" if kind == "too_short" else _kind_of(detail["input"])
    # By mistake, the value may be a password, or NAME=VALUE with one.
    written, equals, _ = str(detail["input"]).partition("=")
    found = found or shown(detail["input"], "basic_auth" if "basic_auth" in loc else written if equals else key)
    issues.add(file, path_text(loc), found=found, expected=expected)


def path_text(loc: Place) -> str:
    """Format a location inside a file: `services[0].gate.passes`."""
    text = ""
    for part in loc:
        if part == "[key]":
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _kind_of(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else ""


def _model_at(model: type[BaseModel], loc: Place) -> type[BaseModel] | None:
    """Return the model at a location below another model."""
    current: Any = model
    for part in loc:
        fields = getattr(current, "model_fields", None)
        if fields is not None:
            current = fields[str(part)].annotation if str(part) in fields else None
        else:
            current = _item_of(current)
        current = _unwrapped(current)
    return current if hasattr(current, "model_fields") else None


def _item_of(collection: Any) -> Any:
    """Return the type of the values of a dict, or of the items of a tuple."""
    arguments = [argument for argument in get_args(collection) if argument is not Ellipsis]
    return arguments[-1] if arguments else None


def _unwrapped(annotation: Any) -> Any:
    """Unwrap an Annotated or optional type."""
    if get_origin(annotation) not in (Annotated, Union, UnionType):
        return annotation
    inner = [argument for argument in get_args(annotation) if hasattr(argument, "model_fields")]
    return inner[0] if inner else annotation


def _salvage(model: type[Model], content: Any, mark: Mark | None) -> Model | None:
    """Return the model without the invalid parts; the marks follow the positions of the remaining ones."""
    while True:
        try:
            return model.model_validate(content)
        except ValidationError as error:
            places = [_invalid_part(detail) for detail in error.errors()]
        marked = [_mark_removed(content, place) for place in places]
        if not all(marked):
            return None
        content = _without_removed(content)
        if mark is not None:
            mark.remove(places)


def _invalid_part(detail: ErrorDetails) -> Place:
    loc = tuple(part for part in detail["loc"] if part != "[key]")
    return loc[:-1] if detail["type"] == "missing" else loc


def _mark_removed(content: Any, place: Place) -> bool:
    """Mark the part at a place, or the closest part around it if a model converted a short form.

    Returns False when that is the whole content.
    """
    parent: Any = None
    for part in place:
        known = (
            part in content if isinstance(content, dict) else isinstance(content, list) and part in range(len(content))
        )
        if not known:
            break
        parent, key, content = content, part, content[part]
        if content is _REMOVED:
            return True
    if parent is None:
        return False
    parent[key] = _REMOVED
    return True


def _without_removed(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_removed(value) for key, value in content.items() if value is not _REMOVED}
    if isinstance(content, list):
        return [_without_removed(value) for value in content if value is not _REMOVED]
    return content
