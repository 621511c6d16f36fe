"""The error texts of this project, read from its source: raised errors, findings and messages of failing scripts.

Each text is the one that an operator sees, with `…` for its variable parts.
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
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
ERRORS |= {EncryptionError.__name__, "NoTerminal", "Refused"}
#: Other calls with a text for operators: the position of the text among the arguments.
REASONS = {"Finding": 1, "Diagnosis": 2}
#: Files and a function that produce findings as tuples with the remedy last; functions that yield plain texts.
TUPLES = frozenset({"engine/preflight.py", "features/doctor/diagnosis.py"})
UNFIT = "unfit"
BARE = frozenset({"refusals", "_elsewhere"})
#: Patterns of the message that a script prints before it fails.
FAILURE_MESSAGES = (
    r"echo (['\"])(.+?)\1; (?:exit|return) [1-9]",
    r"why=(['\"])(.+?)\1[ ;]",
    r"gate_failed (['\"])(.+?)\1",
)


@dataclass(frozen=True)
class Message:
    """One text and its place in the source."""

    place: str
    text: str


def template(node: ast.expr) -> str:
    """Return a text with `…` for each variable part, and `…` alone for an expression that is not a text."""
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


def letters(text: str) -> int:
    """Return the number of constant letters in a text."""
    return sum(letter.isalpha() for letter in text)


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def assigned(function: ast.AST, name: str) -> Iterator[ast.expr]:
    """Yield the values that a function assigns to a name."""
    for node in ast.walk(function):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in targets
        ):
            yield node.value


def possible_values(function: ast.AST, node: ast.expr) -> Iterator[ast.expr]:
    """Yield the expressions that an argument can be: itself, both branches of a condition, or earlier assignments."""
    if isinstance(node, ast.IfExp):
        yield from possible_values(function, node.body)
        yield from possible_values(function, node.orelse)
    elif isinstance(node, ast.Name):
        for value in assigned(function, node.id):
            if not isinstance(value, ast.Name):
                yield from possible_values(function, value)
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
    """Return the first line of every text of an error, a finding or a failing step, each once."""
    found: dict[str, Message] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        file = path.relative_to(SOURCES).as_posix()
        tree = ast.parse(path.read_text("utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                for line, text in (*raised(file, function), *printed_by_scripts(function)):
                    if letters(text) >= 6 and " " in text:
                        found.setdefault(text, Message(f"rolling_upgrade/{file}:{line}", text))
    return list(found.values())


def raised(file: str, function: ast.AST) -> Iterator[tuple[int, str]]:
    for argument in arguments(file, function):
        for node in possible_values(function, argument):
            yield node.lineno, template(node).partition("\n")[0].strip()


def printed_by_scripts(function: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the failure messages in the shell texts of a function. Shell variables are variable parts too."""
    for node in ast.walk(function):
        if isinstance(node, (ast.Constant, ast.JoinedStr)):
            for pattern in FAILURE_MESSAGES:
                for match in re.finditer(pattern, template(node)):
                    yield node.lineno, re.sub(r"\$\(\(.*?\)\)|\$\(\w+\)|\$\{.*?\}|\$\w+", VARIES, match[2])


def texts() -> set[str]:
    """Return every text in the source and the host programs, and every quoted part of one."""
    found: set[str] = set()
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)):
                found.add(template(node))
    found |= {path.read_text("utf-8") for path in (ROOT / "templates" / "host").glob("*.sh")}
    quoted = {match[1] for text in found for match in re.finditer(r"\"([^\"\n]+)\"|'([^'\n]+)'", text) if match[1]}
    return {re.sub(r"\$\(\(.*?\)\)|\$\(\w+\)|\$\{.*?\}|\$\w+", VARIES, text) for text in found | quoted}
