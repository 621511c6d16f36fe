"""The maintenance page: a file beside the flags that Nginx answers with 503 while it is there. Pure text.

The file is the switch and the page at once, so both change in one rename, from the next request on, without a reload.
"""

from __future__ import annotations

from fabfile.commands import probe
from fabfile.commands.nginx import maintenance_page
from fabfile.commands.shell import Script, quote, script, words, write_file
from fabfile.model import Application, Route, Service

#: How long a client is told to wait before it asks again; the page loads itself again after as long.
RETRY_AFTER_SECONDS = 120
#: Who put a page up: a person at the task, a deploy because MAINTENANCE_MODE says so, or a run that replaces data and
#: takes it down itself. Anything else is a person's.
BY_HAND, BY_SETTING, BY_RUN = "hand", "setting", "run"
#: The header that the page's answer has, with the value `on`, and no other.
HEADER = "x-maintenance"
#: How long Nginx may take to answer as it was told to.
PROOF_SECONDS = 10


def on(app: Application, page: str) -> Script:
    """Put the page up, or another one in its place; Nginx's workers must be able to read it."""
    return write_file(maintenance_page(app), page, mode="0644")


def off(app: Application) -> str:
    """Take the page down; nothing happens where none is up."""
    return words("rm", "-f", maintenance_page(app))


def prove_on(app: Application, page: str) -> Script:
    """Put the page up and prove that a visitor gets it; one that was put up in vain gives way to what was before."""
    up, former = quote(maintenance_page(app)), quote(f"{app.home}/lock/page")
    return script(
        _watch(app, "503 on"),
        f"rm -f {former}\nif [ -f {up} ]; then cp -p {up} {former}; fi",
        on(app, page),
        f"if ! watch; then\nif [ -f {former} ]; then mv -f {former} {up}; else {off(app)}; fi\nexit 1\nfi",
        f"rm -f {former}",
    )


def prove_off(app: Application) -> Script:
    """Take the page down and prove that a visitor gets the application's own answer; print its status."""
    return script(_watch(app, "[1-5]?? "), off(app), "watch", 'echo "visitors get HTTP $answer"')


def origin(app: Application) -> str:
    """A line of shell that prints who put the page up; nothing while none is up."""
    page = quote(maintenance_page(app))
    return (
        f"if [ -f {page} ]; then sed -n '2s/.* data-by=\"\\([a-z]*\\)\".*/\\1/p' {page} | grep . || echo {BY_HAND}; fi"
    )


def is_known(app: Application, site: str) -> bool:
    """Whether a site text answers with the page at all: one of before does not."""
    return maintenance_page(app) in site


def excepted(app: Application) -> tuple[tuple[str, Service, Route], ...]:
    """The health paths that visitors reach, each with the service and route that answer it, maintenance or not."""
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
    """A path on which a visitor gets the page; '' when the application has nothing for visitors but health paths."""
    health = {path for path, _, _ in excepted(app)}
    prefixes = [route.prefix for service in app.services for route in service.routes if route.prefix not in health]
    return min(prefixes, key=len, default="")


def _watch(app: Application, pattern: str) -> str:
    """`watch` for an answer to a visitor: its status, and `on` behind it where that is the page."""
    path = shown_path(app)
    curl = probe.visit(app, path, f"%{{http_code}} %header{{{HEADER}}}")
    condition = f"""\
answer=$({curl}) || :
case "$answer" in
  {pattern.replace(" ", chr(92) + " ")}) true ;;
  *) why="{path} as a visitor sees it: HTTP $answer"; false ;;
esac"""
    return probe.watch([condition], seconds=0, passes=1, deadline_seconds=PROOF_SECONDS, tolerance=1000)
