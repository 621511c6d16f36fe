"""What this project can say when something is wrong, read from its source: errors that are raised, and findings.

A text is written as an operator sees it, with `…` for what varies.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rolling_upgrade import errors
from rolling_upgrade.config.encryption import EncryptionError

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "rolling_upgrade"
VARIES = "…"

#: Every class whose instances end a task.
ERRORS = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
ERRORS |= {EncryptionError.__name__, "NoTerminal", "Refused"}
#: Calls beside errors whose text a person reads as a reason: the position of that text among the arguments.
REASONS = {"Finding": 1, "Diagnosis": 2}
#: Files and a function that give findings as tuples (the remedy comes last); functions that give them as bare texts.
TUPLES = frozenset({"engine/preflight.py", "features/doctor/diagnosis.py"})
UNFIT = "unfit"
BARE = frozenset({"refusals", "_elsewhere"})
#: What a shell text says before it fails: the last words of a step.
LAST_WORDS = (r"echo (['\"])(.+?)\1; (?:exit|return) [1-9]", r"why=(['\"])(.+?)\1[ ;]", r"gate_failed (['\"])(.+?)\1")


@dataclass(frozen=True)
class Message:
    """One text and where it comes from."""

    place: str
    text: str


def template(node: ast.expr) -> str:
    """A text as it is shown, with `…` for each part that varies; `…` alone for anything that is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name) and node.value.id == "PROGRAM":
        return errors.PROGRAM
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"rstrip", "strip"}:
        return template(node.func.value)
    return VARIES


def words(text: str) -> int:
    """How many letters of a text are always the same."""
    return sum(letter.isalpha() for letter in text)


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def assigned(function: ast.AST, name: str) -> Iterator[ast.expr]:
    """What a function gives a name, which it then says."""
    for node in ast.walk(function):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in targets):
            yield node.value


def said(function: ast.AST, node: ast.expr) -> Iterator[ast.expr]:
    """The texts that an argument may be: itself, either side of a choice, or what its name was given before."""
    if isinstance(node, ast.IfExp):
        yield from said(function, node.body)
        yield from said(function, node.orelse)
    elif isinstance(node, ast.Name):
        for value in assigned(function, node.id):
            if not isinstance(value, ast.Name):
                yield from said(function, value)
    else:
        yield node


def arguments(file: str, function: ast.AST) -> Iterator[ast.expr]:
    name = getattr(function, "name", "")
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and name_of(node) in ERRORS and node.args:
            yield node.args[0]
        elif "Level.OK" in ast.unparse(node) and isinstance(node, (ast.Call, ast.Tuple)):
            continue
        elif isinstance(node, ast.Call) and len(node.args) > REASONS.get(name_of(node), 99):
            yield node.args[REASONS[name_of(node)]]
        elif isinstance(node, ast.Tuple) and 2 <= len(node.elts) <= 3 and (file in TUPLES or name == UNFIT):
            yield node.elts[len(node.elts) - 2]
        elif name in BARE and isinstance(node, ast.Yield) and node.value is not None:
            yield node.value


def messages() -> list[Message]:
    """The first line of every text that an error, a finding or a failing step shows, each once."""
    found: dict[str, Message] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        file = path.relative_to(SOURCES).as_posix()
        tree = ast.parse(path.read_text("utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                for line, text in (*raised(file, function), *output_tail(function)):
                    if words(text) >= 6 and " " in text:
                        found.setdefault(text, Message(f"rolling_upgrade/{file}:{line}", text))
    return list(found.values())


def raised(file: str, function: ast.AST) -> Iterator[tuple[int, str]]:
    for argument in arguments(file, function):
        for node in said(function, argument):
            yield node.lineno, template(node).partition("\n")[0].strip()


def output_tail(function: ast.AST) -> Iterator[tuple[int, str]]:
    """What the shell texts of a function say before they fail; a shell variable varies too."""
    for node in ast.walk(function):
        if isinstance(node, (ast.Constant, ast.JoinedStr)):
            for pattern in LAST_WORDS:
                for match in re.finditer(pattern, template(node)):
                    yield node.lineno, re.sub(r"\$\(\(.*?\)\)|\$\(\w+\)|\$\w+", VARIES, match[2])


def texts() -> set[str]:
    """Every text of the source and of the host programs, and what stands in quotes in one: all that could be shown."""
    found: set[str] = set()
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)):
                found.add(template(node))
    found |= {path.read_text("utf-8") for path in (ROOT / "templates" / "host").glob("*.sh")}
    quoted = {match[1] for text in found for match in re.finditer(r"\"([^\"\n]+)\"|'([^'\n]+)'", text) if match[1]}
    return {re.sub(r"\$\(\(.*?\)\)|\$\(\w+\)|\$\w+", VARIES, text) for text in found | quoted}
