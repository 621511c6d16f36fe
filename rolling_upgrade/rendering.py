"""Templates to text: the Nginx site and the files that setup installs. It reads `templates/` and sends nothing."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabfile.commands import maintenance
from fabfile.commands.nginx import ACME_PORT, NGINX_STATUS_PATH, SITE_HASH_PATH, request_log
from fabfile.model import Application, Color
from fabfile.model.starting import Starting

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = Path(__file__).resolve().parent.parent
TEMPLATES = _HERE.parent / "templates"
_OF_PROMETHEUS: dict[str, Any] = {
    "variable_start_string": "[[",
    "variable_end_string": "]]",
    "block_start_string": "[%",
    "block_end_string": "%]",
    "comment_start_string": "[#",
    "comment_end_string": "#]",
}


def nginx_site(app: Application) -> str:
    """The application's whole Nginx site; its first line carries the hash that the live Nginx answers."""
    unhashed = _render("nginx/site.conf.j2", app, hash="0" * 16)
    return _render("nginx/site.conf.j2", app, hash=hashlib.sha256(unhashed.encode()).hexdigest()[:16])


def site_hash(site: str) -> str:
    """The hash in a site text's first line."""
    return site.partition("\n")[0].rpartition(" ")[2]


def maintenance_page(app: Application, message: str = "", *, by: str = maintenance.BY_HAND) -> str:
    """The page that visitors get under maintenance, complete in itself; `by` is who puts it up, see commands."""
    return _render("nginx/maintenance.html.j2", app, message=message, by=by)


def boot_unit(app: Application) -> str:
    """The systemd user unit that starts the live colors after a boot."""
    return _render("systemd/boot.service.j2", app)


def backup_units(app: Application) -> tuple[str, str]:
    """The systemd user units that back up on a schedule: the service and its timer."""
    return _render("systemd/backup.service.j2", app), _render("systemd/backup.timer.j2", app)


def rotation_units(app: Application) -> tuple[str, str]:
    """The systemd user units that rotate the application's logs each day: the service and its timer."""
    return _render("systemd/logs.service.j2", app), _render("systemd/logs.timer.j2", app)


def requests_units(app: Application) -> tuple[str, str]:
    """The systemd units that rotate the request log: the service and its timer."""
    return _render("systemd/requests.service.j2", app), _render("systemd/requests.timer.j2", app)


def host_program(name: str) -> str:
    """A program that setup installs on the host under /usr/local/lib/APP, as it stands in `templates/host/`."""
    return (TEMPLATES / "host" / f"{name}.sh").read_text(encoding="utf-8")


def notice_template(name: str) -> str:
    """A template of a message by its name, such as `en/done.txt`, as it stands in `templates/notify/`."""
    return (TEMPLATES / "notify" / name).read_text(encoding="utf-8")


def watchdog_unit(app: Application) -> str:
    """The systemd user unit that watches the application."""
    return _render("systemd/watchdog.service.j2", app)


def watchdog_program() -> bytes:
    """The watchdog as one file that python3 runs, of the layers that need nothing else; always the same bytes.

    Source: zipapp: a zip archive with a `__main__.py` is a program.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        _pack(
            archive,
            "__main__.py",
            "import sys\nfrom fabfile.watchdog.__main__ import main\nsys.exit(main(sys.argv[1:]))\n",
        )
        for path in sorted(_packed_sources()):
            _pack(archive, f"fabfile/{path.relative_to(_HERE)}", path.read_text(encoding="utf-8"))
        for path in sorted((TEMPLATES / "notify").rglob("*.*")):
            _pack(archive, f"fabfile/templates/{path.relative_to(TEMPLATES)}", path.read_text(encoding="utf-8"))
    return packed.getvalue()


def _packed_sources() -> list[Path]:
    folders = ("model", "commands", "plans", "notify", "watchdog")
    remote = ("__init__", "execute", "host", "local_host", "locking", "observe", "rollout")
    return [
        _HERE / "__init__.py",
        _HERE / "errors.py",
        *(path for folder in folders for path in (_HERE / folder).glob("*.py")),
        *(_HERE / "remote" / f"{name}.py" for name in remote),
    ]


def _pack(archive: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, text)


def completion_script(name: str) -> str:
    """A shell's completion script, as it stands in `templates/completion/`."""
    return (TEMPLATES / "completion" / name).read_text(encoding="utf-8")


def starting_files(starting: Starting) -> tuple[str, str, str]:
    """The files of a starting configuration: hosts.yaml, services.yaml and the env file."""
    names = ("hosts.yaml", "services.yaml", "values.env")
    hosts, services, values = (template(f"init/{name}.j2").render(it=starting) for name in names)
    return hosts, services, values


def yaml_text(text: str) -> str:
    """A text as YAML reads it back as that very text: in quotes where it would be something else."""
    import yaml

    try:
        plain = bool(re.fullmatch(r"[A-Za-z/][\w./@-]*", text, re.ASCII)) and yaml.safe_load(text) == text
    except yaml.YAMLError:
        plain = False
    return text if plain else str(yaml.safe_dump(text, default_style='"', width=1_000_000)).strip()


def report_page(values: Mapping[str, Any]) -> str:
    """The report of a run as one page, complete in itself; the values are those of `report/page.py`."""
    return template("report/page.html.j2").render(values)


def _render(name: str, app: Application, **values: str) -> str:
    return template(name).render(
        app=app,
        ident=app.name.replace("-", "_"),
        blue=Color.BLUE,
        green=Color.GREEN,
        site_hash_path=SITE_HASH_PATH,
        acme_port=ACME_PORT,
        nginx_status_path=NGINX_STATUS_PATH,
        request_log=request_log(app.name),
        health=maintenance.excepted(app),
        retry_after=maintenance.RETRY_AFTER_SECONDS,
        **values,
    )


def template(name: str) -> Template:
    """A template by its name below `templates/`. In texts of Prometheus `{{ }}` is theirs: ours have `[[ ]]` there."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Configuration text needs none: every value there is validated to a strict form.
        autoescape=select_autoescape(["html.j2"]),
    )
    environment.filters["yaml"] = yaml_text
    if name.startswith("observe/"):
        environment = environment.overlay(**_OF_PROMETHEUS)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    environment.filters["plain"] = _untemplated
    return environment.get_template(name)


def _untemplated(text: str) -> str:
    """A text that Alertmanager, which reads it as a template, gives back as it is."""
    return text.replace("{{", '{{ "{{" }}')
