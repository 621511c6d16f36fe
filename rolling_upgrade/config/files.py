"""Read YAML files and env files strictly: no implicit types, no duplicate keys, bounded size, UTF-8 only.

YAML scalars stay text, so `no`, `08` and `1:30` are what they look like; the models convert them.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rolling_upgrade.config.encryption import Encryption, EncryptionError, detect
from rolling_upgrade.config.encryption.keyring import Keyring
from rolling_upgrade.config.issues import Issues
from rolling_upgrade.config.places import Mark
from rolling_upgrade.engine.local_file import MOST_BYTES, read_small
from rolling_upgrade.engine.untrusted import size


class _Refused(yaml.MarkedYAMLError):
    """YAML that is valid and not accepted, with the phrase of what is expected."""

    def __init__(self, found: str, expected: str, node: yaml.Node) -> None:
        super().__init__(None, None, found, node.start_mark)
        self.expected = expected


_UNIQUE = "each key once, as plain text"
#: The most values of a file, those that aliases repeat included.
_MOST_VALUES = 50_000


class _Loader(yaml.BaseLoader):
    """PyYAML's loader without implicit types, which refuses duplicate keys and unencodable text."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        """Construct a text. Raises _Refused for a lone surrogate such as `"\\ud800"`, which cannot be encoded."""
        text = str(super().construct_scalar(node))
        if re.search(r"[\ud800-\udfff]", text):
            raise _Refused("a lone surrogate", "Unicode text", node)
        return text


class _Expansion:
    """Replace the merges (`<<`) in a tree of YAML nodes, and mark the lines. Raises _Refused."""

    def __init__(self) -> None:
        self._flat: set[int] = set()
        self._open: list[yaml.Node] = []
        self._count = 0

    def mark(self, node: yaml.Node) -> Mark:
        """Return the marks of a node and of the values below it."""
        self._count += 1
        if node in self._open or self._count > _MOST_VALUES:
            raise _Refused("an alias that contains itself, or too many aliases", "values that end", node)
        self._open.append(node)
        mark = Mark(node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            mark.items = [self.mark(item) for item in node.value]
        elif isinstance(node, yaml.MappingNode):
            for key, value in self._entries(node):
                mark.entries[key.value] = self.mark(value)
                mark.entries[key.value].line = key.start_mark.line + 1
                if key.value == "name" and re.fullmatch(r"[\w.-]{1,63}", str(value.value)):
                    mark.name = value.value
        self._open.pop()
        return mark

    def _entries(self, node: yaml.MappingNode) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
        """Replace the merge of a mapping by the entries of the merged ones, and return all entries."""
        if id(node) in self._flat:
            return list(node.value)
        self._flat.add(id(node))
        own: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
        merges: list[yaml.Node] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused("a key that is not plain text", _UNIQUE, key)
            is_merge = key.value == "<<" and key.style is None
            if key.value in own or (is_merge and merges):
                raise _Refused(f"a duplicate key {key.value!r}", _UNIQUE, key)
            if is_merge:
                merges += value.value if isinstance(value, yaml.SequenceNode) else [value]
            else:
                own[key.value] = (key, value)
        merged: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
        for source in merges:
            if not isinstance(source, yaml.MappingNode) or source is node:
                raise _Refused("a merge of something else", "<<: *ANCHOR of a mapping, or a list of them", source)
            merged = {entry[0].value: entry for entry in self._entries(source)} | merged
        node.value = [*({**merged, **own}.values())]
        return list(node.value)


def read_yaml(path: Path, issues: Issues, *, remedy: str) -> dict[str, Any] | None:
    """Read the top-level mapping of a YAML file, without its `x-` keys.

    Errors go to `issues`, and the result is None. Later errors of the file get their lines from `issues`.
    """
    file = issues.name(path)
    data = read_bytes(path, issues, remedy=remedy)
    text = None if data is None else decoded(data, file, issues)
    return None if text is None else parse_yaml(text, file, issues)


def parse_yaml(text: str, file: str, issues: Issues) -> dict[str, Any] | None:
    """Parse the text of a YAML file, as `read_yaml` does."""
    if _has_tabs(text, file, issues):
        return None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        mark = _Expansion().mark(node) if node is not None else None
        content = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, RecursionError) as error:
        _report(error, file, issues)
        return None
    if isinstance(content, dict) and mark is not None:
        issues.remember(file, mark)
        return {key: value for key, value in content.items() if not key.startswith("x-")}
    issues.add(file, "", found="no mapping at the top level", expected="a mapping")
    return None


def _has_tabs(text: str, file: str, issues: Issues) -> bool:
    lines = enumerate(text.splitlines(), start=1)
    places = [number for number, line in lines if re.match(r" *\t\s*\S", line)]
    for number in places:
        issues.add(file, "", found="a tab in the indentation", expected="spaces", line=number)
    return bool(places)


def _report(error: yaml.YAMLError | RecursionError, file: str, issues: Issues) -> None:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else 0
    found = getattr(error, "problem", None) or "text that is not YAML"
    if isinstance(error, _Refused):
        issues.add(file, "", found=found, expected=error.expected, line=line)
    else:
        issues.add(file, "", found=f"text that is not YAML ({found})", expected="valid YAML", line=line)


@dataclass(frozen=True)
class EnvFile:
    """The values of an env file in order, the line of each key, and how the file is encrypted (None for plaintext)."""

    values: dict[str, str] = field(repr=False)
    lines: dict[str, int]
    encryption: Encryption | None = None


def read_env(path: Path, issues: Issues, keyring: Keyring) -> EnvFile | None:
    """Read an env file. Errors go to `issues`; the result is None when the file cannot be read."""
    example = path.parent / f"{path.name}.example"  # the path may be a directory without a name: /
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
    unresolved: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.line + _blank_lines(binding.original.string)
        if binding.error:
            expected = 'KEY=value or KEY="value"'
            issues.add(file, "", found="a line that is not a setting", expected=expected, line=line)
        elif binding.key is not None:
            lines.setdefault(binding.key, line)
            _keep(binding.key, binding.value, file, line, values, issues)
            unresolved[binding.key] = _unresolved(binding.value or "", binding.original.string)
    issues.remember(file, Mark(0, entries={key: Mark(line) for key, line in lines.items()}))
    for key, what in unresolved.items():
        if what:
            issues.warn_at(file, key, f"{what} is not replaced; the value is used as it is")
    return EnvFile(values, lines, encryption)


#: References that other programs replace: 1Password, SOPS, and a shell.
_REFERENCES = (("op://", r"op://"), ("ENC[", r"^ENC\["))
_SHELL_REFERENCES = (("${…}", r"\$\{"), ("$(…)", r"\$\("), ("a command in backticks", r"`.*`"))


def _unresolved(value: str, line: str) -> str:
    """Describe the unresolved reference in a value, empty for none. In single quotes, a `$` is meant as it is."""
    quote = re.search(r"=\s*(['\"]?)", line)
    patterns = _REFERENCES if quote and quote[1] == "'" else (*_REFERENCES, *_SHELL_REFERENCES)
    if quote and quote[1] == '"':
        patterns = (*patterns, (r"the \ before $", r"\\\$"))
    return next((what for what, pattern in patterns if re.search(pattern, value, re.DOTALL)), "")


def parse_output(text: str, name: str, issues: Issues) -> EnvFile | None:
    """Parse the output of a command. Errors go to `issues`; they quote no part of a line, which may be a secret."""
    own = Issues(Path())
    env = parse_env(text, name, own)
    if not env.values:
        found = "output without a KEY=value line" if text.strip() else "no output"
        issues.add(name, "", found=found, expected="the content of an env file: KEY=value lines")
        return None
    if (mark := own.mark(name)) is not None:
        issues.remember(name, mark)
    for error in own.errors:
        found = error.found if error.found.startswith("a duplicate") else "a line that is not a setting"
        issues.add(name, "", found=found, expected=error.expected, line=error.line)
    return env


def _blank_lines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


def _keep(key: str, value: str | None, file: str, line: int, values: dict[str, str], issues: Issues) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        issues.add(file, "", line=line, found=f"the key {key!r}", expected="a key of letters, digits and _")
    elif value is None:
        issues.add(file, "", line=line, found=f"{key} without =", expected=f"{key}=value")
    elif key in values:
        issues.add(file, "", line=line, found=f"a duplicate {key}", expected="each key once")
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
