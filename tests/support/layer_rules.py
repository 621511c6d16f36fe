"""The rules of the layers, checked by reading Python sources: imports and sizes. It runs none of the code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

#: From the bottom up: a layer imports itself and those below it.
ORDER = (
    "errors",
    "model",
    "sealing",
    "config",
    "commands",
    "render",
    "plans",
    "remote",
    "watchdog",
    "workflows",
    "tasks",
)

#: Layers beside the order: what each may import.
BESIDE = {
    "report": ("errors", "model", "config", "plans.step", "report"),
    "notify": ("errors", "model", "notify"),
}

#: Who speaks to them.
SPEAKERS = {
    "report": ("workflows", "tasks"),
    "notify": ("watchdog", "workflows", "tasks"),
}

#: What runs on hosts too, or has to stay as light: the standard library alone.
STANDARD_LIBRARY_ONLY = (
    "errors",
    "model",
    "commands",
    "plans",
    "notify",
    "watchdog",
    "remote.execute",
    "remote.host",
    "remote.local_host",
    "remote.locking",
    "remote.observe",
    "remote.rollout",
)

#: Packages whose import costs a person at the prompt noticeable time.
HEAVY = frozenset(
    {
        "cryptography",
        "dotenv",
        "fabric",
        "grafana_foundation_sdk",
        "jinja2",
        "paramiko",
        "pydantic",
        "pyrage",
        "rich",
        "yaml",
    }
)

#: What `inv --list` imports: heavy packages only inside functions there.
STARTS_FAST = ("", "tasks", "errors", "model", "sealing")

#: Packages that speak SSH: in `remote` alone, and there inside functions.
SSH = frozenset({"fabric", "paramiko"})

LONGEST_FILE = 320
LONGEST_FUNCTION = 50


class Import:
    """One imported module or name: `module` in full, and whether it is imported when the file is."""

    def __init__(self, module: str, line: int, *, eager: bool) -> None:
        self.module = module
        self.line = line
        self.eager = eager

    @property
    def package(self) -> str:
        """The top-level package."""
        return self.module.split(".")[0]


def import_faults(module: str, source: str) -> list[str]:
    """What is wrong with the imports of `module`, named as `commands.podman` ('' is the package itself)."""
    faults: list[str] = []
    for found in imports(source, package=f"fabfile.{module}".rstrip(".")):
        fault = _own_fault(module, found) if found.package == "fabfile" else _foreign_fault(module, found)
        if fault:
            faults.append(f"fabfile.{module}".rstrip(".") + f" line {found.line}: {fault}")
    return faults


def size_faults(name: str, source: str) -> list[str]:
    """Whether a file or a function in it is longer than a person reads at once."""
    faults = []
    if (length := len(source.splitlines())) > LONGEST_FILE:
        faults.append(f"{name}: {length} lines; {LONGEST_FILE} at most")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                faults.append(f"{name} line {node.lineno}: {node.name} has {length} lines; {LONGEST_FUNCTION} at most")
    return faults


def imports(source: str, *, package: str = "") -> Iterator[Import]:
    """Every import of a source, once for each name; those for type checkers alone are left out."""
    yield from _imports_of(ast.parse(source).body, package, eager=True)


def module_name(path: Path, root: Path) -> str:
    """How the rules name a file of `root`: `commands.podman`, '' for the package itself."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports_of(body: list[ast.stmt], package: str, *, eager: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, eager=eager) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _from_import(node, package, eager=eager)
        else:
            lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for block in _blocks(node):
                yield from _imports_of(block, package, eager=eager and not lazy)


def _from_import(node: ast.ImportFrom, package: str, *, eager: bool) -> Iterator[Import]:
    base = node.module or ""
    if node.level:
        base = ".".join([*package.split(".")[: -node.level], *([base] if base else [])])
    if base == "fabfile":
        yield from (Import(f"fabfile.{alias.name}", node.lineno, eager=eager) for alias in node.names)
    elif base in ("fabfile.plans", "fabfile.remote"):
        # These packages have rules for single modules: `from fabfile.plans import step` means plans.step.
        yield from (Import(f"{base}.{alias.name}", node.lineno, eager=eager) for alias in node.names)
    else:
        yield Import(base, node.lineno, eager=eager)


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of statements inside a statement, without those that only a type checker reads."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        yield node.orelse
        return
    for name in ("body", "orelse", "finalbody"):
        yield getattr(node, name, [])
    for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
        yield part.body


def _within(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or (name and module.startswith(f"{name}.")) for name in names)


def _own_fault(module: str, found: Import) -> str:
    layer, target = module.split(".")[0], found.module.removeprefix("fabfile").removeprefix(".")
    wanted = target.split(".")[0]
    if not layer:
        return f"the package imports {found.module} before it is asked" if found.eager and wanted else ""
    if layer in BESIDE:
        return "" if _within(target, BESIDE[layer]) else f"{layer} may not know {found.module}"
    if wanted in BESIDE:
        return "" if layer in SPEAKERS[wanted] else f"only {' and '.join(SPEAKERS[wanted])} speak to {wanted}"
    if not wanted:
        return "the root package is not for its own layers"
    if layer not in ORDER or wanted not in ORDER:
        return f"no rule knows the layer of {module if layer not in ORDER else found.module}"
    return "" if ORDER.index(wanted) <= ORDER.index(layer) else f"{layer} lies below {wanted}"


def _foreign_fault(module: str, found: Import) -> str:
    if found.package in sys.stdlib_module_names:
        return ""
    if _within(module, STANDARD_LIBRARY_ONLY):
        return f"{found.module} is not in the standard library"
    if found.package in SSH and not (_within(module, ("remote",)) and not found.eager):
        return f"{found.module} belongs inside functions of remote"
    if found.package in HEAVY and found.eager and _within(module, STARTS_FAST):
        return f"{found.module} is heavy: import it in the function that needs it"
    return ""
