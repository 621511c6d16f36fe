"""Readers of the texts that other programs read: an Nginx configuration, systemd units, rules of sudo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Directive:
    """One directive with its arguments as Nginx has them, and the blocks around it."""

    name: str
    arguments: tuple[str, ...]
    inside: tuple[str, ...] = ()
    block: bool = False


def directives(text: str) -> list[Directive]:
    """Every directive of a configuration. Raises ValueError for what Nginx would refuse.

    Source: nginx, ngx_conf_read_token: words end at blanks, `;` and `{`; quotes and backslashes keep what follows; a
    comment begins where a word could.
    """
    found: list[Directive] = []
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
            found.append(Directive(words[0], tuple(words[1:]), tuple(inside), kind == "{"))
            if kind == "{":
                inside.append(words[0])
            words = []
    if words or inside:
        raise ValueError("it ends in the middle")
    return found


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
    """The sections and keys of a unit in their order. Raises ValueError for a line that is neither.

    Source: systemd.syntax(7): a backslash at its end makes the next line part of a line.
    """
    found = []
    for row in unit.split("\n"):
        if not row or row.startswith(("#", ";")):
            continue
        key, equals, _ = row.partition("=")
        if row.endswith("\\") or not (equals or (row[0] == "[" and row[-1] == "]")):
            raise ValueError(f"{row!r} is no line of a unit")
        found.append(key)
    return found


def rules(sudoers: str) -> list[str]:
    """The rules of a sudoers file, lines that go on joined. Source: sudoers(5)."""
    rows = sudoers.replace("\\\n", "").split("\n")
    return [row for row in rows if row and not row.startswith("#")]
