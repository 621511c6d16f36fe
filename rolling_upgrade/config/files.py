"""Read YAML files and env files strictly: no implicit types, no duplicate keys, bounded size, UTF-8 only.

YAML scalars stay text, so `no`, `08` and `1:30` are what they look like; the models convert them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rolling_upgrade.config.encryption import Encryption, EncryptionError, detect
from rolling_upgrade.config.encryption.keyring import Keyring
from rolling_upgrade.config.issues import Issues
from rolling_upgrade.engine.local_file import MOST_BYTES, read_small
from rolling_upgrade.engine.untrusted import size


class _DuplicateKey(yaml.MarkedYAMLError):
    """A duplicate key, or a key that is not a scalar."""


class _Unusable(yaml.MarkedYAMLError):
    """A text that cannot be encoded."""


class _Loader(yaml.BaseLoader):
    """PyYAML's loader without implicit types, which refuses duplicate keys and unencodable text."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        """Construct a text. Raises _Unusable for a lone surrogate such as `"\\ud800"`, which cannot be encoded."""
        text = str(super().construct_scalar(node))
        if re.search(r"[\ud800-\udfff]", text):
            raise _Unusable(None, None, "a lone surrogate", node.start_mark)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping with unique scalar keys. Raises _DuplicateKey."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _DuplicateKey(None, None, "a key that is not plain text", key.start_mark)
            if key.value in seen:
                raise _DuplicateKey(None, None, f"a duplicate key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, issues: Issues, *, remedy: str) -> dict[str, Any] | None:
    """Read the top-level mapping of a YAML file. Errors go to `issues`, and the result is None."""
    data = read_bytes(path, issues, remedy=remedy)
    text = None if data is None else decoded(data, issues.name(path), issues)
    if text is None or _has_tabs(text, issues.name(path), issues):
        return None
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506  (a BaseLoader builds nothing but text)
    except (yaml.YAMLError, RecursionError) as error:
        _report(error, issues.name(path), issues)
        return None
    if isinstance(content, dict):
        return content
    issues.add(issues.name(path), "", found="no mapping at the top level", expected="a mapping")
    return None


def _has_tabs(text: str, file: str, issues: Issues) -> bool:
    lines = enumerate(text.splitlines(), start=1)
    places = [number for number, line in lines if re.match(r" *\t\s*\S", line)]
    for number in places:
        issues.add(file, f"line {number}", found="a tab in the indentation", expected="spaces")
    return bool(places)


def _report(error: yaml.YAMLError | RecursionError, file: str, issues: Issues) -> None:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}" if mark else ""
    found = getattr(error, "problem", None) or "text that is not YAML"
    if isinstance(error, _DuplicateKey):
        issues.add(file, place, found=found, expected="each key once, as plain text")
    elif isinstance(error, _Unusable):
        issues.add(file, place, found=found, expected="Unicode text")
    else:
        issues.add(file, place, found=f"text that is not YAML ({found})", expected="valid YAML")


@dataclass(frozen=True)
class EnvFile:
    """The values of an env file in order, the line of each key, and how the file is encrypted (None for plaintext)."""

    values: dict[str, str] = field(repr=False)
    lines: dict[str, int]
    encryption: Encryption | None = None


def read_env(path: Path, issues: Issues, keyring: Keyring) -> EnvFile | None:
    """Read an env file. Errors go to `issues`; the result is None when the file cannot be read."""
    example = path.with_name(f"{path.name}.example")
    remedy = f"an env file (copy {example.name} and fill it in)" if example.exists() else "an env file: KEY=value lines"
    data = read_bytes(path, issues, remedy=remedy)
    if data is None:
        return None
    file = issues.name(path)
    try:
        text = decoded(keyring.decrypt(data), file, issues)
    except EncryptionError as error:
        issues.add(file, "", found=error.found, expected=error.needed)
        return None
    return None if text is None else parse_env(text, file, issues, encryption=detect(data))


def parse_env(text: str, file: str, issues: Issues, *, encryption: Encryption | None = None) -> EnvFile:
    """Parse the text of an env file. Errors go to `issues` under the name `file`."""
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.line + _blank_lines(binding.original.string)
        if binding.error:
            expected = 'KEY=value or KEY="value"'
            issues.add(file, f"line {line}", found="a line that is not a setting", expected=expected)
        elif binding.key is not None:
            lines[binding.key] = line
            _keep(binding.key, binding.value, file, f"line {line}", values, issues)
    return EnvFile(values, lines, encryption)


def parse_output(text: str, name: str, issues: Issues) -> EnvFile | None:
    """Parse the output of a command. Errors go to `issues`; they quote no part of a line, which may be a secret."""
    own = Issues(Path())
    env = parse_env(text, name, own)
    if not env.values:
        found = "output without a KEY=value line" if text.strip() else "no output"
        issues.add(name, "", found=found, expected="the content of an env file: KEY=value lines")
        return None
    for error in own.errors:
        found = error.found if error.found.startswith("a duplicate") else "a line that is not a setting"
        issues.add(name, error.path, found=found, expected=error.expected)
    return env


def _blank_lines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


def _keep(key: str, value: str | None, file: str, place: str, values: dict[str, str], issues: Issues) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        issues.add(file, place, found=f"the key {key!r}", expected="a key of letters, digits and _")
    elif value is None:
        issues.add(file, place, found=f"{key} without =", expected=f"{key}=value")
    elif key in values:
        issues.add(file, place, found=f"a duplicate {key}", expected="each key once")
    else:
        values[key] = value


#: The expectation of messages about unreadable files.
READABLE = f"a readable file of at most {size(MOST_BYTES)}"


def read_bytes(path: Path, issues: Issues, *, remedy: str) -> bytes | None:
    """Read a small regular file. An error goes to `issues` (`remedy` for a missing file), and the result is None."""
    file = issues.name(path)
    try:
        return read_small(path)
    except FileNotFoundError:
        issues.add(file, "", found="no such file", expected=remedy)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        issues.add(file, "", found=f"an unreadable file ({reason})", expected=READABLE)
    return None


def decoded(data: bytes, file: str, issues: Issues) -> str | None:
    """Decode UTF-8 bytes and normalise line endings. An error goes to `issues`, and the result is None."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        issues.add(file, f"byte {error.start}", found="bytes that are not UTF-8", expected="UTF-8 text")
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")
