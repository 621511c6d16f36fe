"""Templates to text: the Nginx site and the files that setup installs. It reads `templates/` and sends nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fabfile.commands.nginx import SITE_HASH_PATH
from fabfile.model import Application, Color

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"


def nginx_site(app: Application) -> str:
    """The application's whole Nginx site; its first line carries the hash that the live Nginx answers."""
    unhashed = _render("nginx/site.conf.j2", app, hash="0" * 16)
    return _render("nginx/site.conf.j2", app, hash=hashlib.sha256(unhashed.encode()).hexdigest()[:16])


def site_hash(site: str) -> str:
    """The hash in a site text's first line."""
    return site.partition("\n")[0].rpartition(" ")[2]


def boot_unit(app: Application) -> str:
    """The systemd user unit that starts the live colors after a boot."""
    return _render("systemd/boot.service.j2", app)


def host_program(name: str) -> str:
    """A program that setup installs on the host under /usr/local/lib/APP, as it stands in `templates/host/`."""
    return (TEMPLATES / "host" / f"{name}.sh").read_text(encoding="utf-8")


def _render(name: str, app: Application, **values: str) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration text, every value validated to a strict form
    )
    return environment.get_template(name).render(
        app=app,
        ident=app.name.replace("-", "_"),
        blue=Color.BLUE,
        green=Color.GREEN,
        site_hash_path=SITE_HASH_PATH,
        **values,
    )
