"""The rules of the layers: checks of imports and function lengths in Python sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

#: The layers from the bottom up. A layer imports itself and lower layers; layers in one row do not import each other.
ORDER = (
    ("errors",),
    ("engine",),
    ("config",),
    ("rendering",),
    ("ssh", "console"),
    ("features",),
    ("api",),
    ("tasks",),
    ("cli",),
)

#: Which features each feature imports.
FEATURE_IMPORTS = {
    "access": ("apply",),
    "accessory": ("backup", "deploy", "exec", "operation", "registry", "status"),
    "apply": (),
    "attach": (),
    "backup": ("operation",),
    "deploy": ("backup", "maintenance", "operation", "prune", "registry", "rollback"),
    "doctor": ("deploy",),
    "full": ("build", "deploy", "health", "suites", "watchdog"),
    "health": ("watchdog",),
    "history": ("access", "rollback"),
    "inspect": ("logs", "status"),
    "maintenance": ("operation",),
    "monitor": ("health",),
    "observe": ("apply", "setup"),
    "on_host": ("notify", "watchdog"),
    "operation": ("hooks", "notify"),
    "promote": ("build", "deploy", "health"),
    "prune": ("backup", "operation", "rollback"),
    "report": ("access", "history"),
    "restore": ("backup", "maintenance", "operation"),
    "rollback": ("backup", "deploy", "maintenance", "operation", "restore"),
    "setup": ("access", "apply", "backup", "deploy", "rollback", "watchdog"),
    "suites": ("build",),
    "watchdog": ("deploy", "health", "notify", "prune", "rollback"),
}

#: The pure modules of a feature, which contact neither hosts nor operators.
PURE = ("plan", "retention", "selection", "shell")
#: The layers that pure modules may import.
PURE_IMPORTS = ("errors", "engine")

#: Layers that run on hosts or have to stay light: standard library only, like every module that the watchdog packs.
STANDARD_LIBRARY_ONLY = ("errors", "engine")
#: Packages that `inv setup` installs on hosts, by the module that imports them there.
ON_HOSTS = {"engine.site.text": "jinja2"}

#: Packages whose import takes noticeable time.
HEAVY = frozenset(
    {
        "cryptography",
        "dotenv",
        "fabric",
        "jinja2",
        "paramiko",
        "pydantic",
        "pyrage",
        "rich",
        "yaml",
    }
)

#: Modules that `inv --list` imports. They import heavy packages only inside functions.
STARTS_FAST = ("", "cli", "tasks", "errors", "engine", "config.encryption", "console.task")

#: SSH packages, which only functions of the `ssh` layer import.
SSH = frozenset({"fabric", "paramiko"})

LONGEST_FUNCTION = 50
PACKAGE = "rolling_upgrade"


class Import:
    """One imported module or name: its full name, and whether it is imported together with the file."""

    def __init__(self, module: str, line: int, *, eager: bool) -> None:
        self.module = module
        self.line = line
        self.eager = eager

    @property
    def package(self) -> str:
        """The top-level package."""
        return self.module.split(".")[0]


def import_faults(module: str, source: str, *, packed: frozenset[str] = frozenset()) -> list[str]:
    """Return the forbidden imports of a module such as `engine.podman` ('' is the package itself).

    `packed` are the modules of the zipapps that run on hosts.
    """
    faults: list[str] = []
    for found in imports(source, package=f"{PACKAGE}.{module}".rstrip(".")):
        if found.package == PACKAGE:
            fault = _own_fault(module, found)
        else:
            fault = _foreign_fault(module, found, light=module in packed)
        if fault:
            faults.append(f"{PACKAGE}.{module}".rstrip(".") + f" line {found.line}: {fault}")
    return faults


def size_faults(name: str, source: str) -> list[str]:
    """Return the functions of a file that are too long."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                faults.append(f"{name} line {node.lineno}: {node.name} has {length} lines; {LONGEST_FUNCTION} at most")
    return faults


def imports(source: str, *, package: str = "") -> Iterator[Import]:
    """Yield every import of a source, one per name, except those for type checkers."""
    yield from _imports_of(ast.parse(source).body, package, eager=True)


def module_name(path: Path, root: Path) -> str:
    """Return the module name of a file below `root`, such as `engine.podman`, or '' for the package itself."""
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
    if base == PACKAGE or base.startswith(f"{PACKAGE}."):
        # `from rolling_upgrade.engine import podman` means the module.
        yield from (Import(f"{base}.{alias.name}", node.lineno, eager=eager) for alias in node.names)
    else:
        yield Import(base, node.lineno, eager=eager)


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Yield the blocks inside a statement, except those for type checkers."""
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
    target = found.module.removeprefix(PACKAGE).removeprefix(".")
    layer, wanted = module.split(".")[0], target.split(".")[0]
    if not layer:
        return f"the package imports {found.module} before it is asked" if found.eager and wanted else ""
    if not wanted:
        return "a layer must not import the root package"
    if wanted == "__version__":
        return ""
    ranks = {name: rank for rank, row in enumerate(ORDER) for name in row}
    if layer not in ranks or wanted not in ranks:
        return f"no rule knows the layer of {module if layer not in ranks else found.module}"
    if ranks[wanted] > ranks[layer]:
        return f"{layer} is below {wanted}"
    if ranks[wanted] == ranks[layer] and wanted != layer:
        return f"{layer} and {wanted} are in the same row"
    return _feature_fault(module, target) if layer == "features" else ""


def _feature_fault(module: str, target: str) -> str:
    """Return the fault of an import in a feature, or ''."""
    _, feature, *rest = [*module.split("."), "", ""]
    if not target.startswith("features."):
        pure = rest[0] in PURE and not _within(target, PURE_IMPORTS)
        return f"{module} is pure: it must not import {target}" if pure else ""
    wanted = target.split(".")[1]
    allowed = wanted == feature or wanted in FEATURE_IMPORTS.get(feature, ())
    return "" if allowed else f"{feature} must not use {wanted}: FEATURE_IMPORTS does not list it"


def _foreign_fault(module: str, found: Import, *, light: bool) -> str:
    if found.package in sys.stdlib_module_names:
        return ""
    if ON_HOSTS.get(module) == found.package and not found.eager:
        return ""
    if light or _within(module, STANDARD_LIBRARY_ONLY):
        return f"{found.module} is not in the standard library"
    if found.package in SSH and not (_within(module, ("ssh",)) and not found.eager):
        return f"{found.module} belongs inside functions of ssh"
    fast = _within(module, STARTS_FAST) or (module.startswith("features.") and module.endswith(".tasks"))
    if found.package in HEAVY and found.eager and fast:
        return f"{found.module} is heavy: import it in the function that needs it"
    return ""
