"""The maintenance page: a file beside the flags. While it exists, Nginx answers visitors with it and status 503.

The file is both switch and page: one rename changes both, from the next request on, without a reload.
"""

from __future__ import annotations

from rolling_upgrade.engine import health_gate, request
from rolling_upgrade.engine.model import Application, Route, Service
from rolling_upgrade.engine.nginx import maintenance_page_path
from rolling_upgrade.engine.shell import Script, quote, script, shell_join, write_file

#: The origin of a page: an operator, a deploy with MAINTENANCE_MODE, or a run that replaces data and disables the page
#: itself. An unknown origin counts as an operator.
BY_HAND, BY_SETTING, BY_RUN = "hand", "setting", "run"
#: The header, with the value `on`, that only the page has.
HEADER = "x-maintenance"
#: The time limit for Nginx to serve the change.
VERIFY_SECONDS = 10


def enable(app: Application, page: str) -> Script:
    """Enable or replace the page, readable for Nginx's workers."""
    return write_file(maintenance_page_path(app), page, mode="0644")


def disable(app: Application) -> str:
    """Disable the page if it is enabled."""
    return shell_join("rm", "-f", maintenance_page_path(app))


def enable_verified(app: Application, page: str) -> Script:
    """Enable the page and verify that a visitor gets it; if not, restore the previous state."""
    path, previous = quote(maintenance_page_path(app)), quote(f"{app.home}/lock/page")
    return script(
        _watch(app, "503 on"),
        f"rm -f {previous}\nif [ -f {path} ]; then cp -p {path} {previous}; fi",
        enable(app, page),
        f"if ! watch; then\nif [ -f {previous} ]; then mv -f {previous} {path}; else {disable(app)}; fi\nexit 1\nfi",
        f"rm -f {previous}",
    )


def disable_verified(app: Application) -> Script:
    """Disable the page and verify that a visitor gets the application's answer; print its status."""
    return script(_watch(app, "[1-5]?? "), disable(app), "watch", 'echo "visitors get HTTP $answer"')


def origin(app: Application) -> str:
    """Return a shell command that prints who enabled the page, or nothing while it is disabled."""
    page = quote(maintenance_page_path(app))
    return (
        f"if [ -f {page} ]; then sed -n '2s/.* data-by=\"\\([a-z]*\\)\".*/\\1/p' {page} | grep . || echo {BY_HAND}; fi"
    )


def is_supported(app: Application, site: str) -> bool:
    """Whether a site text supports the page; those of early versions do not."""
    return maintenance_page_path(app) in site


def exempt_paths(app: Application, domain: str = "") -> tuple[tuple[str, Service, Route], ...]:
    """The health paths of a domain that visitors reach even during maintenance, each with its service and route.

    Without a domain, those of the primary one.
    """
    routes = _routes(app, domain or app.domain)
    paths = [service.gate.path for service in app.http_services]
    paths += [route.prefix.rstrip("/") + service.gate.path for service, route in routes if route.strip_prefix]
    paths += [app.full_chain.path] if app.full_chain else []
    exempt = []
    for path in dict.fromkeys(paths):
        matching = [(service, route) for service, route in routes if path.startswith(route.prefix)]
        if matching:
            exempt.append((path, *max(matching, key=lambda pair: len(pair[1].prefix))))
    return tuple(exempt)


def shown_path(app: Application) -> str:
    """Return a path that shows the page to visitors; "" if only health paths are public."""
    health = {path for path, _, _ in exempt_paths(app)}
    prefixes = [route.prefix for _, route in _routes(app, app.domain) if route.prefix not in health]
    return min(prefixes, key=len, default="")


def _routes(app: Application, domain: str) -> list[tuple[Service, Route]]:
    """The routes of a domain, with their services."""
    return [(service, route) for service in app.http_services for route in service.routes if route.applies(domain)]


def _watch(app: Application, pattern: str) -> str:
    """Define `watch` for a visitor's answer: its status, followed by `on` if it is the page."""
    path = shown_path(app)
    curl = request.status(request.to_site(app, path), request.VISITOR_SECONDS, f"%{{http_code}} %header{{{HEADER}}}")
    condition = f"""\
answer=$({curl}) || :
case "$answer" in
  {pattern.replace(" ", chr(92) + " ")}) true ;;
  *) why="{path} as a visitor sees it: HTTP $answer"; false ;;
esac"""
    return health_gate.watch([condition], seconds=0, passes=1, deadline_seconds=VERIFY_SECONDS, tolerance=1000)
