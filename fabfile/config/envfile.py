"""Reading an env file: comments, quotes, `export` and CRLF work, and a key stands once.

Nothing is interpolated, so that a `$` in a secret survives. An encrypted file is opened in memory. It owns the syntax
and knows no key.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from pathlib import Path

from fabfile.config.findings import Findings
from fabfile.config.textfile import decoded, read_bytes
from fabfile.sealing.forms import Form, SealError, recognise
from fabfile.sealing.keyring import Keyring


@dataclass(frozen=True)
class EnvFile:
    """The values of an env file in its order, the line of each, and how the file is encrypted (None: it is not)."""

    values: dict[str, str] = field(repr=False)
    lines: dict[str, int]
    form: Form | None = None


def read_env(path: Path, findings: Findings, keyring: Keyring) -> EnvFile | None:
    """What an env file holds, or None when it cannot be read; mistakes go to `findings`."""
    data = read_bytes(path, findings, remedy=f"an env file (copy {path.name}.example and fill it in)")
    if data is None:
        return None
    file = findings.name(path)
    try:
        text = decoded(keyring.open(data), file, findings)
    except SealError as error:
        findings.add(file, "", found=error.found, expected=error.needed)
        return None
    return None if text is None else parse_env(text, file, findings, form=recognise(data))


def parse_env(text: str, file: str, findings: Findings, *, form: Form | None = None) -> EnvFile:
    """What a text of an env file holds; mistakes go to `findings`, in the name of `file`."""
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.line + _blank_lines(binding.original.string)
        if binding.error:
            expected = 'KEY=value or KEY="value"'
            findings.add(file, f"line {line}", found="text that is not a setting", expected=expected)
        elif binding.key is not None:
            lines[binding.key] = line
            _keep(binding.key, binding.value, file, f"line {line}", values, findings)
    return EnvFile(values, lines, form)


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
