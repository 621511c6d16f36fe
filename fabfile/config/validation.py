"""From pydantic's errors to mistakes: path, what was found, what is expected, and the nearest known key.

It also salvages: a model whose faulty parts are left out, so that the rest can be checked in the same run.
"""

from __future__ import annotations

import copy
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from fabfile.config.findings import Findings, nearest, shown

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[int | str, ...]

_EXPECTED = {
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "at least one entry",
}
_GONE = object()


class Strict(BaseModel):
    """Base of the models of the YAML files: immutable, and an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validate(model: type[Model], content: dict[str, Any], file: str, findings: Findings) -> Model | None:
    """The model of a file's content; what is wrong with it becomes mistakes and is left out of the result.

    None means that nothing usable is left.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        for detail in error.errors():
            report(detail, model, file, findings)
    return _salvage(model, copy.deepcopy(content))


def report(detail: ErrorDetails, model: type[BaseModel], file: str, findings: Findings) -> None:
    """Keep one of pydantic's errors as a mistake."""
    loc = detail["loc"]
    key = str(loc[-1]) if loc else ""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        near = nearest(key, _fields_at(model, loc[:-1]))
        expected = f"a known key; the nearest is {near}" if near else "a known key"
        findings.add(file, path_text(loc), found="an unknown key", expected=expected)
        return
    expected = str(context["error"]) if kind == "value_error" else _EXPECTED.get(kind, detail["msg"])
    if kind == "missing":
        findings.add(file, path_text(loc), found="nothing", expected="a value")
        return
    found = _kind_of(detail["input"]) or shown(detail["input"], key)
    findings.add(file, path_text(loc), found=found, expected=expected)


def path_text(loc: Place) -> str:
    """A place inside a file as people write it: `services[0].gate.passes`."""
    text = ""
    for part in loc:
        if part == "[key]":
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _kind_of(value: object) -> str:
    if isinstance(value, dict):
        return "keys and values"
    return "a list" if isinstance(value, list | tuple) else ""


def _fields_at(model: type[BaseModel], loc: Place) -> list[str]:
    """The field names of the model that stands at a place below another one."""
    current: Any = model
    for part in loc:
        fields = getattr(current, "model_fields", None)
        if fields is not None:
            current = fields[str(part)].annotation if str(part) in fields else None
        else:
            current = _item_of(current)
        current = _unwrapped(current)
    return list(getattr(current, "model_fields", {}))


def _item_of(collection: Any) -> Any:
    """What the values of a dict, or the items of a tuple of any length, are."""
    arguments = [argument for argument in get_args(collection) if argument is not Ellipsis]
    return arguments[-1] if arguments else None


def _unwrapped(annotation: Any) -> Any:
    """What stands inside an Annotated or an optional type; anything else as it is."""
    if get_origin(annotation) not in (Annotated, Union, UnionType):
        return annotation
    inner = [argument for argument in get_args(annotation) if hasattr(argument, "model_fields")]
    return inner[0] if inner else annotation


def _salvage(model: type[Model], content: Any) -> Model | None:
    while True:
        try:
            return model.model_validate(content)
        except ValidationError as error:
            places = [_faulty_part(detail) for detail in error.errors()]
        if () in places:
            return None
        for place in places:
            _mark(content, place)
        content = _swept(content)


def _faulty_part(detail: ErrorDetails) -> Place:
    loc = tuple(part for part in detail["loc"] if part != "[key]")
    return loc[:-1] if detail["type"] == "missing" else loc


def _mark(content: Any, place: Place) -> None:
    for part in place[:-1]:
        content = content[part]
        if content is _GONE:
            return
    content[place[-1]] = _GONE


def _swept(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _swept(value) for key, value in content.items() if value is not _GONE}
    if isinstance(content, list):
        return [_swept(value) for value in content if value is not _GONE]
    return content
