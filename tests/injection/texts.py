"""Parsers of Nginx configurations, systemd units and sudo rules, as strict as those programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Directive:
    """One directive with its unquoted arguments, and the blocks around it."""

    name: str
    arguments: tuple[str, ...]
    inside: tuple[str, ...] = ()
    block: bool = False


def directives(text: str) -> list[Directive]:
    """Parse every directive of a configuration. Raises ValueError for a text that Nginx rejects.

    Source: nginx, ngx_conf_read_token: words end at blanks, `;` and `{`; quotes and backslashes escape; a comment
    starts where a word can start.
    """
    parsed: list[Directive] = []
    words: list[str] = []
    inside: list[str] = []
    for kind, word in _tokens(text):
        if kind == "word":
            words.append(word)
        elif kind == "}":
            if words or not inside:
                raise ValueError("a closing brace too many")
            inside.pop()
        else:
            if not words:
                raise ValueError(f"{kind!r} without a directive")
            parsed.append(Directive(words[0], tuple(words[1:]), tuple(inside), kind == "{"))
            if kind == "{":
                inside.append(words[0])
            words = []
    if words or inside:
        raise ValueError("it ends in the middle")
    return parsed


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        if char in " \t\r\n":
            at += 1
        elif char == "#":
            at = text.find("\n", at) if "\n" in text[at:] else end
        elif char in ";{}":
            yield char, ""
            at += 1
        else:
            word, at = _quoted(text, at) if char in "'\"" else _bare(text, at)
            yield "word", word


def _quoted(text: str, at: int) -> tuple[str, int]:
    mark, word = text[at], ""
    at += 1
    while text[at : at + 1] != mark:
        if at >= len(text):
            raise ValueError("a quote without an end")
        at += text[at] == "\\"
        word += text[at]
        at += 1
    if text[at + 1 : at + 2] not in {" ", "\t", "\r", "\n", ";", "{", ")"}:
        raise ValueError("a word right behind a quote")
    return word, at + 1


def _bare(text: str, at: int) -> tuple[str, int]:
    word = ""
    while at < len(text) and text[at] not in " \t\r\n;{":
        if text[at] == "\\":
            at += 1
        elif text[at : at + 2] == "${":
            word, at = word + "$", at + 1
        word += text[at]
        at += 1
    return word, at


def keys(unit: str) -> list[str]:
    """Return the sections and keys of a unit in their order. Raises ValueError for any other line.

    Source: systemd.syntax(7): a backslash at the end continues a line.
    """
    names = []
    for row in unit.split("\n"):
        if not row or row.startswith(("#", ";")):
            continue
        key, equals, _ = row.partition("=")
        if row.endswith("\\") or not (equals or (row[0] == "[" and row[-1] == "]")):
            raise ValueError(f"{row!r} is not a line of a unit")
        names.append(key)
    return names


def rules(sudoers: str) -> list[str]:
    """Return the rules of a sudoers file, with continued lines joined. Source: sudoers(5)."""
    rows = sudoers.replace("\\\n", "").split("\n")
    return [row for row in rows if row and not row.startswith("#")]
