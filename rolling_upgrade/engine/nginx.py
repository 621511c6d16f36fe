"""Nginx: the flag files that select a color per request, and the paths of its files.

Source: a flag flip reaches the next request within about 10 ms and never closes a connection; a reload closes idle
keep-alive connections.
"""

from __future__ import annotations

from rolling_upgrade.engine.model import Application, Color
from rolling_upgrade.engine.shell import quote


def flag(app: Application, service: str) -> str:
    """The flag file: green serves while it exists, else blue."""
    return f"{app.home}/live/{service}.green"


def flip(app: Application, service: str, color: Color) -> str:
    """Send visitors to this color, from the next request on."""
    path = quote(flag(app, service))
    return f": > {path}" if color is Color.GREEN else f"rm -f {path}"


def standby_flag(app: Application, service: str) -> str:
    """Return the flag file that makes each color the backup of the other."""
    return f"{app.home}/live/{service}.standby"


def allow_standby(app: Application, service: str) -> str:
    """Make each color the backup of the other for refused connections; only while both are healthy."""
    return f": > {quote(standby_flag(app, service))}"


def end_standby(app: Application, service: str) -> str:
    """Send requests to the active color alone; runs before the other color's port becomes free for other processes."""
    return f"rm -f {quote(standby_flag(app, service))}"


def maintenance_page_path(app: Application) -> str:
    """The maintenance page: while the file exists, visitors get it with status 503; see engine/maintenance.py."""
    return f"{app.home}/live/maintenance.html"


def site_file(app: str) -> str:
    """The application's site in the Nginx configuration."""
    return f"/etc/nginx/conf.d/{app}.conf"


def request_log(app: str) -> str:
    """The access log of the site, in a directory of root; the deploy user may read it."""
    return f"/var/log/{app}-requests/requests.log"


def program_directory(app: str) -> str:
    """The root-owned directory of the application's programs on a host."""
    return f"/usr/local/lib/{app}"


def site_helper(app: str) -> str:
    """The root-owned program that changes the site file; see engine/site/program.py."""
    return f"{program_directory(app)}/site"
