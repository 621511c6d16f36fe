"""Shell text that runs the site program of a host with the application's site as data on standard input."""

from __future__ import annotations

from rolling_upgrade.engine import history, maintenance, model
from rolling_upgrade.engine.model import Application, Color
from rolling_upgrade.engine.nginx import program_directory, site_file, site_helper
from rolling_upgrade.engine.resource import as_user
from rolling_upgrade.engine.shell import Script, quote, shell_join
from rolling_upgrade.engine.site.document import SiteError
from rolling_upgrade.engine.site.schema import (
    Header,
    HealthPath,
    Hsts,
    Redirect,
    Request,
    Route,
    Rules,
    Site,
    SiteService,
    Tls,
    User,
    UserList,
    dump,
    dump_request,
    parse_rules,
)


def site(app: Application) -> Site:
    """The site that a deploy of the application requests."""
    options = app.site
    return Site(
        services=tuple(
            SiteService(
                name=service.name,
                port=service.service_port,
                blue=service.port(Color.BLUE),
                green=service.port(Color.GREEN),
                routes=tuple(_route(route, options) for route in service.routes),
                assets=service.assets.prefix if service.assets else "",
            )
            for service in app.http_services
        ),
        full_chain=app.full_chain.service if app.full_chain else "",
        max_upload_bytes=app.max_upload_bytes,
        request_metrics=app.request_metrics,
        health=_health_paths(app),
        domains=options.domains,
        redirects=tuple(Redirect(source, target) for source, target in options.redirects),
        http2=options.http2 and app.tls is not None,
        gzip=options.gzip,
        hsts=Hsts(**vars(options.hsts)) if options.hsts else None,
        header_bytes=options.header_bytes,
    )


def _users(route: model.Route, options: model.SiteOptions) -> UserList:
    """The users of a route with their current passwords; without one, a user cannot enter."""
    hashes = dict(options.password_hashes)
    return UserList(tuple(User(name, hashes[name]) for name in route.users if name in hashes))


def request(app: Application, expected_hash: str) -> Request:
    """The request of a deploy of the application."""
    routes = [route for service in app.http_services for route in service.routes if route.users]
    lists = dict.fromkeys(_users(route, app.site) for route in routes)
    return Request(site(app), tuple(lists), expected_hash)


def _route(route: model.Route, options: model.SiteOptions) -> Route:
    return Route(
        prefix=route.prefix,
        stream=route.stream,
        domains=route.domains,
        timeout_seconds=route.timeout_seconds,
        max_body_bytes=-1 if route.max_body_bytes is None else route.max_body_bytes,
        strip_prefix=route.strip_prefix,
        users=_users(route, options).id if route.users else "",
        request_headers=tuple(Header(name, value) for name, value in route.request_headers),
        response_headers=tuple(Header(name, value) for name, value in route.response_headers),
    )


def _health_paths(app: Application) -> tuple[HealthPath, ...]:
    """The health paths; one that all domains send to the same service names no domains."""
    found: dict[tuple[str, str, bool], list[str]] = {}
    for domain in app.served_domains:
        for path, service, route in maintenance.exempt_paths(app, domain):
            found.setdefault((path, service.name, route.stream), []).append(domain)
    everywhere = list(app.served_domains)
    return tuple(HealthPath(*key, () if domains == everywhere else tuple(domains)) for key, domains in found.items())


def rules(app: Application, live: Application | None = None) -> Rules:
    """The rules that root grants the application: its public address, certificate, trusted proxies, loopback ports.

    `live` is the application that a host of an earlier version runs: it keeps its ports until a deploy replaces it.
    """
    ports = {*site(app).ports, *(site(live).ports if live else ())}
    return Rules(
        app=app.name,
        domain=app.domain,
        http_port=app.http_port,
        https_port=app.https_port,
        tls=Tls(app.tls.certificate, app.tls.key, app.tls.chain, app.tls.acme) if app.tls else None,
        ports=tuple(sorted(ports)),
        domains=tuple(sorted(app.site.domains)),
        trusted=app.site.trusted_proxies,
    )


def rules_file(app: str) -> str:
    """The root-owned file with the rules; every user may read it."""
    return f"{program_directory(app)}/rules.json"


def missing_grant(granted: str, app: Application) -> str:
    """Describe the first grant that this application needs and the host's rules lack; '' if there is none."""
    try:
        return parse_rules(granted.encode(errors="replace")).missing(rules(app))
    except SiteError:
        return "any rules that this version can read"


def install(app: Application, expected_hash: str) -> str:
    """Replace the site; on failure the host restores the old one. `expected_hash` is the hash in the plan."""
    return f"{_print(dump_request(request(app, expected_hash)))} | sudo -n {quote(site_helper(app.name))} install"


def restore(app: Application, current_hash: str) -> str:
    """Restore the site before the one with that hash; nothing happens if another one is installed."""
    return f"{_print(current_hash)} | sudo -n {quote(site_helper(app.name))} restore"


def grant(app: Application, live: Application | None = None) -> str:
    """As root: write the rules, unless they conflict with another application on the host."""
    return f"{_print(dump(rules(app, live)))} | {quote(site_helper(app.name))} rules"


def is_granted(app: Application, live: Application | None = None) -> str:
    """As root, a shell condition: `grant` would change nothing."""
    return f"{_print(dump(rules(app, live)))} | {quote(site_helper(app.name))} check-rules"


def refresh(app: Application, live: Application) -> str:
    """As root: render the installed site again with the current program and rules.

    `live` is the application that the host runs; its site is the fallback if none is installed, or one of an earlier
    version.
    """
    return f"{_print(dump_request(request(live, '0' * 16)))} | {quote(site_helper(app.name))} refresh"


def is_current(app: Application) -> str:
    """As root, a shell condition: `refresh` would change nothing, and Nginx runs the site."""
    return f"{quote(site_helper(app.name))} check"


def history_of_earlier_version(app: Application, user: str) -> Script:
    """As root: print the release history with the deploy user's rights, if the installed site carries no data."""
    show = shell_join("tail", "-n", 100, history.history_file(app.home))
    condition = f"test -s {quote(site_file(app.name))} && ! grep -q '^# rolling-data: ' {quote(site_file(app.name))}"
    return Script(f"if {condition}; then {as_user(user, show)} 2>/dev/null || :; fi\n")


def definition_of_release(app: Application, user: str, release: str) -> Script:
    """As root: print the definition of a release with the deploy user's rights; nothing if the host has none."""
    return Script(f"{as_user(user, history.read_definition(app.home, release))}\n")


def ports_of_earlier_version(app: Application) -> Script:
    """As root: print the loopback ports in the installed site. Only root can write that text."""
    pattern = r"s/^ *\(listen\|server\) 127\.0\.0\.1:\([0-9]\{4,5\}\)[ ;].*/\2/p"
    return Script(f"sed -n {quote(pattern)} {quote(site_file(app.name))} | sort -u\n")


def is_site_of(live: Application, printed_ports: str) -> bool:
    """Whether the ports of the installed site include all ports of that application: root grants no others."""
    return {str(port) for port in site(live).ports} <= set(printed_ports.split())


def _print(text: str) -> str:
    return f"printf %s {quote(text)}"
