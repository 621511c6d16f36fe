"""Render the Jinja2 templates, and pack the programs for hosts, each with only the modules that it imports.

Source: Python's zipapp documentation: Python runs a zip archive with a `__main__.py`, also after a prefix.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rolling_upgrade.engine import maintenance
from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.site import client as site_commands
from rolling_upgrade.engine.site import text as site_text
from rolling_upgrade.engine.site.document import SiteError
from rolling_upgrade.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Template

#: The main modules of the programs for hosts.
SITE_MODULES = ("rolling_upgrade.engine.site.program", "rolling_upgrade.engine.site.scope")
ENGINE_MODULES = ("rolling_upgrade.features.on_host", "rolling_upgrade.engine.sqlite_program")
#: The entry point of the site program. It runs as root through sudo, so it clears the caller's environment.
_SITE_MAIN = """\
import os, sys

program = os.path.realpath(sys.argv[0])
os.environ.clear()
os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C")
from rolling_upgrade.engine.site.scope import enter_scope
words = enter_scope(program, sys.argv[1:])

from pathlib import Path
from rolling_upgrade.engine.site.program import HostPaths, main
template = __loader__.get_data("site.conf.j2").decode()
sys.exit(main(words, template, HostPaths(Path(program))))
"""
#: The entry point of the engine; its exit status for an old Python is `remote_run.NO_PYTHON_STATUS`.
_ENGINE_MAIN = """\
import sys

if sys.version_info < (3, 10):
    sys.exit(49)
from rolling_upgrade.features.on_host import main
sys.exit(main(sys.argv[1:]))
"""


def templates(package: Path) -> Path:
    """Return the directory of the templates: inside an installed package, beside the package in a clone."""
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


_PACKAGE = Path(__file__).resolve().parent
TEMPLATES = templates(_PACKAGE)
_PROMETHEUS_DELIMITERS: dict[str, Any] = {
    "variable_start_string": "[[",
    "variable_end_string": "]]",
    "block_start_string": "[%",
    "block_end_string": "%]",
    "comment_start_string": "[#",
    "comment_end_string": "#]",
}


def nginx_site(app: Application) -> str:
    """Render the application's Nginx site as its host does; '' for a host without a site.

    The first line contains the hash that Nginx answers.

    Raises ConfigError for a site that the host would refuse.
    """
    if not app.has_site:
        return ""
    try:
        return site_text.render(site_commands.site(app), site_commands.rules(app), _site_template())
    except SiteError as error:
        raise ConfigError(f"Cannot render the Nginx site of {app.name}: {error}") from error


def site_hash(site: str) -> str:
    """Return the hash in the first line of a site; '' without a site."""
    return site_text.text_hash(site) if site else ""


def site_program_sum() -> str:
    """Return the SHA-256 of the program that renders the site on a host."""
    return hashlib.sha256(site_program().encode(errors="surrogateescape")).hexdigest()


@cache
def site_program() -> str:
    """Pack the root-owned program that renders and installs the site, with its template. The build is reproducible."""
    program = zipapp(
        _SITE_MAIN,
        roots=SITE_MODULES,
        files={"site.conf.j2": _site_template()},
        compressed=False,
    )
    head = b"#!/usr/bin/python3 -I\n# Made by inv setup: changes the Nginx site of one application, and nothing else.\n"
    return (head + program).decode(errors="surrogateescape")


def _site_template() -> str:
    return (TEMPLATES / "nginx" / "site.conf.j2").read_text(encoding="utf-8")


def maintenance_page(app: Application, message: str = "", *, by: str = maintenance.BY_HAND) -> str:
    """Render the self-contained maintenance page. `by` names who enables it: see engine/maintenance.py."""
    return _render("nginx/maintenance.html.j2", app, message=message, by=by)


def systemd_unit(name: str, app: Application) -> str:
    """Render one of the application's units from `templates/systemd/`, such as `boot.service`."""
    return _render(f"systemd/{name}.j2", app)


def host_program(name: str) -> str:
    """Read a program from `templates/host/` that setup installs under /usr/local/lib/APP."""
    return (TEMPLATES / "host" / f"{name}.sh").read_text(encoding="utf-8")


def notice_template(name: str) -> str:
    """Read a message template from `templates/notify/`, such as `en/done.txt`."""
    return (TEMPLATES / "notify" / name).read_text(encoding="utf-8")


@cache
def engine() -> bytes:
    """Pack the program that executes runs on a host, and the watchdog, for python3. The build is reproducible."""
    return zipapp(
        _ENGINE_MAIN,
        roots=ENGINE_MODULES,
        files={
            f"rolling_upgrade/templates/{path.relative_to(TEMPLATES)}": path.read_text(encoding="utf-8")
            for path in sorted((TEMPLATES / "notify").rglob("*.*"))
        },
        compressed=True,
    )


def yaml_document(content: Mapping[str, Any]) -> str:
    """Return the YAML of a mapping, with short lists and mappings on one line. Every text stays a text."""
    import yaml

    class _Dumper(yaml.SafeDumper):
        """PyYAML's dumper, which indents lists below their keys."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
            super().increase_indent(flow, False)

    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=1_000_000).rstrip()


def report_page(values: Mapping[str, Any]) -> str:
    """Render the self-contained report page of a run, with the values of `features/report/view.py`."""
    return template("report/page.html.j2").render(values)


def _render(name: str, app: Application, **values: str) -> str:
    return template(name).render(app=app, retry_after=site_text.RETRY_AFTER, **values)


@cache
def template(name: str) -> Template:
    """Load a template by its path below `templates/`. Templates for Prometheus, which uses `{{ }}`, have `[[ ]]`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Configuration files need no escaping: every value has passed a strict validator.
        autoescape=select_autoescape(["html.j2"]),
    )
    if name.startswith("observe/"):
        environment = environment.overlay(**_PROMETHEUS_DELIMITERS)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    environment.filters["plain"] = _escape_template
    return environment.get_template(name)


def _escape_template(text: str) -> str:
    """Escape a text for Alertmanager, which reads it as a template."""
    return text.replace("{{", '{{ "{{" }}')


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
    modules, waiting = set(roots), list(roots)
    while waiting:
        for path in _files(waiting.pop()):
            if path not in found:
                found.add(path)
                imported = imported_modules(path.read_text("utf-8")) - modules
                modules |= imported
                waiting += imported
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


#: Imports for type checkers, up to the end of their block.
_FOR_TYPES = re.compile(r"^( *)if TYPE_CHECKING:\n(?:\1 +.*\n|\n)+", re.MULTILINE)
_IMPORT = re.compile(
    rf"^ *(?:from ({_PACKAGE.name}[\w.]*) import (\([^)]*\)|[^\n#]*)|import ({_PACKAGE.name}[\w.]*))", re.MULTILINE
)


def imported_modules(source: str) -> set[str]:
    """Return the modules of this package that a source imports, also in functions, except imports for type checkers.

    Names imported from a module count as modules, too. A regular expression takes a tenth of the time of a parser.
    """
    found = set()
    for module, names, plain in _IMPORT.findall(_FOR_TYPES.sub("", source)):
        if plain:
            found.add(plain)
        found |= {f"{module}.{name.split()[0]}" for name in names.strip("()").split(",") if name.strip()}
    return found
