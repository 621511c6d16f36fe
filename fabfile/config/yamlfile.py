"""Reading a YAML file strictly: every scalar stays the text that was written, and a key stands once.

`no`, `08` and `1:30` are what they look like; the models give values their types. It knows no key.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from fabfile.config.findings import Findings
from fabfile.config.textfile import decoded, read_bytes


class _DuplicateKey(yaml.MarkedYAMLError):
    """A key that stands twice in one mapping."""


class _Unusable(yaml.MarkedYAMLError):
    """A text that cannot be written anywhere."""


class _Loader(yaml.BaseLoader):
    """PyYAML's loader without types, which refuses duplicate and unusable keys, and what is no text."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        """Read a text. Raises _Unusable for half of a character, as `"\\ud800"` is: no file and no host takes it."""
        text = str(super().construct_scalar(node))
        if re.search(r"[\ud800-\udfff]", text):
            raise _Unusable(None, None, "a character that is none", node.start_mark)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping whose keys are distinct texts. Raises _DuplicateKey."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _DuplicateKey(None, None, "a key that is not plain text", key.start_mark)
            if key.value in seen:
                raise _DuplicateKey(None, None, f"the key {key.value!r} a second time", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, findings: Findings, *, remedy: str) -> dict[str, Any] | None:
    """The top-level mapping of a YAML file, or None and a mistake for each line at fault."""
    data = read_bytes(path, findings, remedy=remedy)
    text = None if data is None else decoded(data, findings.name(path), findings)
    if text is None or _has_tabs(text, findings.name(path), findings):
        return None
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506  (a BaseLoader builds nothing but text)
    except (yaml.YAMLError, RecursionError) as error:
        _report(error, findings.name(path), findings)
        return None
    if isinstance(content, dict):
        return content
    findings.add(findings.name(path), "", found="no mapping at the top", expected="keys and values")
    return None


def _has_tabs(text: str, file: str, findings: Findings) -> bool:
    lines = enumerate(text.splitlines(), start=1)
    places = [number for number, line in lines if re.match(r" *\t\s*\S", line)]
    for number in places:
        findings.add(file, f"line {number}", found="a tab in the indentation", expected="spaces")
    return bool(places)


def _report(error: yaml.YAMLError | RecursionError, file: str, findings: Findings) -> None:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}" if mark else ""
    found = getattr(error, "problem", None) or "text that is not YAML"
    if isinstance(error, _DuplicateKey):
        findings.add(file, place, found=found, expected="each key once, as plain text")
    elif isinstance(error, _Unusable):
        findings.add(file, place, found=found, expected="Unicode text")
    else:
        findings.add(file, place, found=f"text that is not YAML ({found})", expected="valid YAML")
