"""Drive the site program of a host: the application's site as data on standard input, never as Nginx text."""

from __future__ import annotations

from rolling_upgrade.engine import history, maintenance
from rolling_upgrade.engine.model import Application, Color
from rolling_upgrade.engine.nginx import site_file, site_helper
from rolling_upgrade.engine.resource import as_user
from rolling_upgrade.engine.shell import Script, quote, shell_join
from rolling_upgrade.engine.site import HealthPath, Route, Rules, Site, SiteError, SiteService, Tls, parse_rules
from rolling_upgrade.engine.site.schema import dump, dump_request


def site(app: Application) -> Site:
    """What a deploy of the application asks of the host's Nginx."""
    return Site(
        services=tuple(
            SiteService(
                name=service.name,
                port=service.service_port,
                blue=service.port(Color.BLUE),
                green=service.port(Color.GREEN),
                routes=tuple(Route(route.prefix, route.stream) for route in service.routes),
            )
            for service in app.services
        ),
        full_chain=app.full_chain.service if app.full_chain else "",
        max_upload_bytes=app.max_upload_bytes,
        request_metrics=app.request_metrics,
        health=tuple(
            HealthPath(path, service.name, route.stream) for path, service, route in maintenance.excepted(app)
        ),
    )


def rules(app: Application, live: Application | None = None) -> Rules:
    """What root grants the application: its address for visitors, its certificate, its loopback ports.

    `live` is what a host of an earlier version runs: it keeps its ports until a deploy replaces it.
    """
    ports = {port for one in (app, live) if one for service in site(one).services for port in service.ports}
    return Rules(
        app=app.name,
        domain=app.domain,
        http_port=app.http_port,
        https_port=app.https_port,
        tls=Tls(app.tls.certificate, app.tls.key, app.tls.chain, app.tls.acme) if app.tls else None,
        ports=tuple(sorted(ports)),
    )


def rules_file(app: str) -> str:
    """Where root keeps the rules; anyone may read them."""
    return f"{site_helper(app).rpartition('/')[0]}/rules.json"


def lacking(granted: str, app: Application) -> str:
    """What the rules of a host, as it printed them, do not grant this application, in words; '' for nothing."""
    try:
        return parse_rules(granted.encode(errors="replace")).lacks(rules(app))
    except SiteError:
        return "anything in a form that this version understands"


def install(app: Application, expected_hash: str) -> str:
    """Replace the site; the host proves the new one live or puts the old one back. The hash is that of the plan."""
    return f"{_say(dump_request(site(app), expected_hash))} | sudo -n {quote(site_helper(app.name))} install"


def restore(app: Application, current_hash: str) -> str:
    """Bring back the site before the one of that hash; nothing happens when another one is in place."""
    return f"{_say(current_hash)} | sudo -n {quote(site_helper(app.name))} restore"


def grant(app: Application, live: Application | None = None) -> str:
    """As root: grant the application what `rules` says, where no other application on the host has it."""
    return f"{_say(dump(rules(app, live)))} | {quote(site_helper(app.name))} rules"


def is_granted(app: Application, live: Application | None = None) -> str:
    """As root, a shell condition: `grant` would change nothing."""
    return f"{_say(dump(rules(app, live)))} | {quote(site_helper(app.name))} check-rules"


def refresh(app: Application, live: Application) -> str:
    """As root: make the site in place anew by today's program and rules.

    `live` is what the host runs: its site is taken where there is none, or one of an earlier version.
    """
    return f"{_say(dump(site(live)))} | {quote(site_helper(app.name))} refresh"


def is_current(app: Application) -> str:
    """As root, a shell condition: `refresh` would change nothing, and Nginx runs the site."""
    return f"{quote(site_helper(app.name))} check"


def history_of_earlier_version(app: Application, user: str) -> Script:
    """As root: print the release history where the site in place carries no data, by the deploy user's own rights."""
    show = shell_join("tail", "-n", 100, history.history_file(app.home))
    condition = f"test -s {quote(site_file(app.name))} && ! grep -q '^# rolling-data: ' {quote(site_file(app.name))}"
    return Script(f"if {condition}; then {as_user(user, show)} 2>/dev/null || :; fi\n")


def definition_of_release(app: Application, user: str, release: str) -> Script:
    """As root: print what a release was made of, by the deploy user's own rights; nothing where the host has none."""
    return Script(f"{as_user(user, history.read_definition(app.home, release))}\n")


def ports_of_earlier_version(app: Application) -> Script:
    """As root: print the loopback ports that the site in place names; its text is root's, unlike what the user keeps."""
    pattern = r"s/^ *\(listen\|server\) 127\.0\.0\.1:\([0-9]\{4,5\}\)[ ;].*/\2/p"
    return Script(f"sed -n {quote(pattern)} {quote(site_file(app.name))} | sort -u\n")


def stands_in(live: Application, named: str) -> bool:
    """Whether the site in place, by the ports that it names, is of that application; root grants no others on its word."""
    return {str(port) for port in site(live).ports} <= set(named.split())


def _say(text: str) -> str:
    return f"printf %s {quote(text)}"
