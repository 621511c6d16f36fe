"""Reading an env file: comments, quotes, `export` and CRLF work, and a key stands once.

Nothing is interpolated, so that a `$` in a secret survives. It owns the syntax and knows no key.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from fabfile.config.findings import Findings
from fabfile.config.yamlfile import read_text


def read_env(path: Path, findings: Findings) -> dict[str, str] | None:
    """The values of an env file in its order, or None when it cannot be read; mistakes go to `findings`."""
    from dotenv.parser import parse_stream

    text = read_text(path, findings, remedy=f"an env file (copy {path.name}.example and fill it in)")
    if text is None:
        return None
    file = findings.name(path)
    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        place = f"line {binding.original.line + _blank_lines(binding.original.string)}"
        if binding.error:
            findings.add(file, place, found="text that is not a setting", expected='KEY=value or KEY="value"')
        elif binding.key is not None:
            _keep(binding.key, binding.value, file, place, values, findings)
    return values


def env_lines(path: Path) -> dict[str, int]:
    """The line on which each key of a readable env file stands."""
    from dotenv.parser import parse_stream

    text = path.read_text(encoding="utf-8-sig")
    return {
        binding.key: binding.original.line + _blank_lines(binding.original.string)
        for binding in parse_stream(io.StringIO(text))
        if binding.key is not None
    }


def _blank_lines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


def _keep(key: str, value: str | None, file: str, place: str, values: dict[str, str], findings: Findings) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        findings.add(file, place, found=f"the key {key!r}", expected="a key of letters, digits and _")
    elif value is None:
        findings.add(file, place, found=f"{key} without =", expected=f"{key}=value")
    elif key in values:
        findings.add(file, place, found=f"{key} a second time", expected="each key once")
    else:
        values[key] = value
