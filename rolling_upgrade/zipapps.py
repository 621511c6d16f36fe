"""Pack programs for hosts as zipapps, each with only the modules that its entry point imports.

Source: Python's zipapp documentation: Python runs a zip archive with a `__main__.py`, also after a prefix.
"""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def zipapp(main: str, *, roots: Iterable[str], files: Mapping[str, str], compressed: bool) -> bytes:
    """Pack a program with every module that `roots` import. The same sources give the same bytes.

    Args:
        main: The source of `__main__.py`.
        roots: Full names of modules of this package.
        files: Further files, by their names in the archive.
        compressed: Whether to compress the files.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        sources = {str(path.relative_to(_PACKAGE.parent)): path.read_text("utf-8") for path in reachable(roots)}
        for name, text in {"__main__.py": main, **files, **sources}.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = archive.compression
            archive.writestr(entry, text)
    return packed.getvalue()


def reachable(roots: Iterable[str]) -> list[Path]:
    """Return the files of this package that the modules import, directly or indirectly, sorted."""
    found: set[Path] = set()
    waiting = list(roots)
    while waiting:
        for path in _files(waiting.pop()):
            if path not in found:
                found.add(path)
                waiting += _imported(ast.parse(path.read_text("utf-8")).body)
    return sorted(found)


def _files(module: str) -> Iterator[Path]:
    """Yield the file of a module and of its packages; nothing for other packages and for names inside a module."""
    first, *names = module.split(".")
    if first != _PACKAGE.name:
        return
    directory = _PACKAGE
    yield directory / "__init__.py"
    for name in names:
        directory = directory / name
        for path in (directory / "__init__.py", directory.with_suffix(".py")):
            if path.is_file():
                yield path


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    """Yield every imported module, also from inside functions, except imports for type checkers."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        for name in ("body", "orelse", "finalbody"):
            yield from _imported(getattr(node, name, []))
        for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
            yield from _imported(part.body)
