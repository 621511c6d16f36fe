"""The maintenance page: a file beside the flags; while it exists, Nginx answers visitors with it and 503.

The file is both switch and page. One rename changes both, from the next request on, without a reload.
"""

from __future__ import annotations

from rolling_upgrade.engine import probe
from rolling_upgrade.engine.model import Application, Route, Service
from rolling_upgrade.engine.nginx import maintenance_page
from rolling_upgrade.engine.shell import Script, quote, script, shell_join, write_file
from rolling_upgrade.engine.site import text as site_text

#: The value of Retry-After in seconds; the page reloads itself after the same time.
RETRY_AFTER_SECONDS = site_text.RETRY_AFTER
#: Who put a page up: a person at the task, a deploy because MAINTENANCE_MODE says so, or a run that replaces data and
#: takes it down itself. Anything else is a person's.
BY_HAND, BY_SETTING, BY_RUN = "hand", "setting", "run"
#: The header that the page's answer has, with the value `on`, and no other.
HEADER = "x-maintenance"
#: The time limit for Nginx to serve the change.
PROOF_SECONDS = 10


def on(app: Application, page: str) -> Script:
    """Put the page up, or replace it; Nginx's workers must be able to read it."""
    return write_file(maintenance_page(app), page, mode="0644")


def off(app: Application) -> str:
    """Take the page down if it is up."""
    return shell_join("rm", "-f", maintenance_page(app))


def prove_on(app: Application, page: str) -> Script:
    """Put the page up and prove that a visitor gets it; if not, restore the former page or none."""
    up, former = quote(maintenance_page(app)), quote(f"{app.home}/lock/page")
    return script(
        _watch(app, "503 on"),
        f"rm -f {former}\nif [ -f {up} ]; then cp -p {up} {former}; fi",
        on(app, page),
        f"if ! watch; then\nif [ -f {former} ]; then mv -f {former} {up}; else {off(app)}; fi\nexit 1\nfi",
        f"rm -f {former}",
    )


def prove_off(app: Application) -> Script:
    """Take the page down and prove that a visitor gets the application's answer; print its status."""
    return script(_watch(app, "[1-5]?? "), off(app), "watch", 'echo "visitors get HTTP $answer"')


def origin(app: Application) -> str:
    """A shell line that prints who put the page up; nothing while it is down."""
    page = quote(maintenance_page(app))
    return (
        f"if [ -f {page} ]; then sed -n '2s/.* data-by=\"\\([a-z]*\\)\".*/\\1/p' {page} | grep . || echo {BY_HAND}; fi"
    )


def is_known(app: Application, site: str) -> bool:
    """Whether a site text supports the page; those of early versions do not."""
    return maintenance_page(app) in site


def excepted(app: Application) -> tuple[tuple[str, Service, Route], ...]:
    """The health paths that visitors reach even during maintenance, each with its service and route."""
    paths = [service.gate.path for service in app.services]
    paths += [app.full_chain.path] if app.full_chain else []
    routes = [(service, route) for service in app.services for route in service.routes]
    found = []
    for path in dict.fromkeys(paths):
        fitting = [(service, route) for service, route in routes if path.startswith(route.prefix)]
        if fitting:
            found.append((path, *max(fitting, key=lambda pair: len(pair[1].prefix))))
    return tuple(found)


def shown_path(app: Application) -> str:
    """A path on which a visitor gets the page; "" if visitors reach nothing but health paths."""
    health = {path for path, _, _ in excepted(app)}
    prefixes = [route.prefix for service in app.services for route in service.routes if route.prefix not in health]
    return min(prefixes, key=len, default="")


def _watch(app: Application, pattern: str) -> str:
    """Define `watch` for a visitor's answer: its status, followed by `on` if it is the page."""
    path = shown_path(app)
    curl = probe.visit(app, path, f"%{{http_code}} %header{{{HEADER}}}")
    condition = f"""\
answer=$({curl}) || :
case "$answer" in
  {pattern.replace(" ", chr(92) + " ")}) true ;;
  *) why="{path} as a visitor sees it: HTTP $answer"; false ;;
esac"""
    return probe.watch([condition], seconds=0, passes=1, deadline_seconds=PROOF_SECONDS, tolerance=1000)
