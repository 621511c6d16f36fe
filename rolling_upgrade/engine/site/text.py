"""The text of a site, rendered from root's template, and the header that identifies it.

The first lines of the text contain its hash, the loopback port that answers with that hash once Nginx serves it, and
the site as data.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rolling_upgrade.engine.site.schema import (
    OWN_PATHS,
    Hsts,
    Route,
    Rules,
    Site,
    SiteService,
    applies,
    check,
    dump,
    parse_site,
)

if TYPE_CHECKING:
    from jinja2 import Template

#: The path at which Nginx answers with the hash of its site, on the service port of each service.
HASH_PATH = f"{OWN_PATHS}/site"
#: The path of Nginx's own metrics (stub_status), on the first service port.
STATUS_PATH = f"{OWN_PATHS}/nginx"
#: The loopback port of certbot for the certificate authority; only root can listen on it.
ACME_PORT = 402
#: The User-Agent of this product's checks, which are not counted as visitors.
PROBE_AGENT = "rolling-upgrade-probe"
#: The value of Retry-After during maintenance, in seconds; the page reloads itself after the same time.
RETRY_AFTER = 120
_HASH = re.compile(r"# rolling-site: ([0-9a-f]{16})")
_PORT = re.compile(r"# rolling-port: ([0-9]{1,5})")
_DATA = "# rolling-data: "
_UNKNOWN = "0" * 16
#: The types of content that Nginx compresses beside text/html. Event streams are not among them.
_COMPRESSED = (
    *("text/plain", "text/css", "text/javascript", "text/xml", "application/javascript", "application/json"),
    *("application/manifest+json", "application/wasm", "application/xml", "image/svg+xml"),
)
#: How long a stream may be silent, in seconds.
_STREAM_SECONDS = 3600


@dataclass(frozen=True)
class Location:
    """A location of Nginx: a path with its modifier, the service behind it, and the route whose options apply.

    `exempt` locations stay reachable during maintenance. `assets` locations serve files of earlier releases in place of
    a 404 of the application.
    """

    path: str
    service: SiteService
    route: Route
    exempt: bool = False
    assets: bool = False

    @property
    def assets_pattern(self) -> str:
        """The regular expression that captures the path below the prefix of the assets, as the application sees it."""
        prefix = self.path.rstrip("/")
        if self.route.strip_prefix:
            prefix = prefix.removeprefix(self.route.prefix.rstrip("/"))
        return rf"(?s)^{prefix.replace('.', '[.]')}/(.*)\z"

    @property
    def timeout(self) -> int:
        """The time in which the application must send something, in seconds; 0 for Nginx's default of a minute."""
        return self.route.timeout_seconds or (_STREAM_SECONDS if self.route.stream else 0)

    def replaces(self, header: str) -> bool:
        """Whether the route sets this request header, given in lower case."""
        return any(found.name.lower() == header for found in self.route.request_headers)

    @property
    def pattern(self) -> str:
        """The regular expression that captures the path below the prefix of the route."""
        return rf"(?s)^{self.route.prefix.rstrip('/').replace('.', '[.]')}(?:/(.*))?\z"


@dataclass(frozen=True)
class PublicServer:
    """The domains with the same routes, and their locations."""

    names: tuple[str, ...]
    locations: tuple[Location, ...]


def render(site: Site, rules: Rules, source: str) -> str:
    """Render the Nginx text of a site from the template `source`. Raises SiteError if the rules forbid the site."""
    check(site, rules)
    unhashed = _render(site, rules, source, _UNKNOWN)
    return _render(site, rules, source, hashlib.sha256(unhashed.encode()).hexdigest()[:16])


def text_hash(text: str) -> str:
    """The hash in the first line of a text; '' without one."""
    return _marked(_HASH, text, 0)


def text_port(text: str) -> int:
    """The loopback port that answers with the hash, from the second line; 0 without one."""
    return int(_marked(_PORT, text, 1) or 0)


def text_site(text: str) -> Site | None:
    """The site as data, from the third line; None for a text of an earlier version. Raises SiteError."""
    row = _row(text, 2)
    return parse_site(row[len(_DATA) :].encode()) if row.startswith(_DATA) else None


def _marked(mark: re.Pattern[str], text: str, number: int) -> str:
    match = mark.fullmatch(_row(text, number))
    return match[1] if match else ""


def _row(text: str, number: int) -> str:
    rows = text.split("\n", number + 1)
    return rows[number] if len(rows) > number else ""


def listen_file(app: str) -> str:
    """The root-owned file that a TLS server of a site with HTTP/2 includes; see `listen_text`."""
    return f"/usr/local/lib/{app}/listen.conf"


def users_file(app: str, id: str) -> str:
    """The root-owned file with a list of users, which the workers of Nginx may read."""
    return f"/usr/local/lib/{app}/users-{id}"


def listen_text(rules: Rules, nginx_version: tuple[int, ...]) -> str:
    """The listeners of the TLS servers of a site with HTTP/2, in the syntax of the host's Nginx.

    So the text of the site is the same for all hosts. Source: CHANGES of Nginx 1.25.1: the directive `http2` replaces
    the parameter of `listen`, which causes a warning since then.
    """
    directive = nginx_version >= (1, 25, 1)
    parameters = "ssl" if directive else "ssl http2"
    rows = [f"listen {address}{rules.https_port} {parameters};\n" for address in ("", "[::]:")]
    return "".join([*rows, "http2 on;\n"] if directive else rows)


def public_servers(site: Site, rules: Rules) -> tuple[PublicServer, ...]:
    """The served domains by their locations, the domain of the rules first."""
    found: dict[tuple[Location, ...], list[str]] = {}
    for domain in site.served(rules):
        found.setdefault(_locations(site, domain), []).append(domain)
    return tuple(PublicServer(tuple(names), locations) for locations, names in found.items())


def _locations(site: Site, domain: str) -> tuple[Location, ...]:
    """The locations of a domain: the health paths with the options of their routes, then the routes."""
    routes = [
        Location(route.prefix, service, route)
        for service in site.services
        for route in service.routes
        if applies(route, domain)
    ]
    exempt = []
    for health in (health for health in site.health if applies(health, domain)):
        service = next(service for service in site.services if service.name == health.service)
        matching = [found.route for found in routes if found.service is service and health.path.startswith(found.path)]
        route = max(matching, key=lambda route: len(route.prefix), default=Route(health.path, health.stream))
        exempt.append(Location(f"= {health.path}", service, route, exempt=True))
    return (*exempt, *_with_assets(site, routes))


def _with_assets(site: Site, routes: list[Location]) -> list[Location]:
    """Add the locations of assets, each with the options of the route that leads there; one with that path is replaced."""
    found = {location.path: location for location in routes}
    for service in (service for service in site.services if service.assets):
        path = f"{service.assets}/"
        leading = max((one for one in routes if path.startswith(one.path)), key=lambda one: len(one.path), default=None)
        if leading is not None and leading.service is service:
            found[path] = Location(path, service, leading.route, assets=True)
    return list(found.values())


def internal_locations(site: Site, rules: Rules, service: SiteService) -> tuple[Location, ...]:
    """The locations of a service port: on the port of the full chain, also the routes of the other services.

    Only routes of all domains of the service count there: this port also gets the requests that a color refused.
    """
    reached = site.services if site.full_chain == service.name else ()
    domains = [
        domain for domain in site.served(rules) if any(applies(route, domain) for route in service.routes)
    ] or site.served(rules)
    others = [
        Location(route.prefix, other, route)
        for other in reached
        for route in other.routes
        if other is not service and route.prefix != "/" and all(applies(route, domain) for domain in domains)
    ]
    longest = max((route.timeout_seconds for route in service.routes), default=0)
    return (*others, Location("/", service, Route("/", stream=True, timeout_seconds=max(longest, _STREAM_SECONDS))))


def _hsts_value(hsts: Hsts) -> str:
    """The value of Strict-Transport-Security. Source: RFC 6797; hstspreload.org for `preload`."""
    words = [f"max-age={hsts.max_age_seconds}"]
    words += ["includeSubDomains"] if hsts.include_subdomains else []
    words += ["preload"] if hsts.preload else []
    return "; ".join(words)


def _render(site: Site, rules: Rules, source: str, digest: str) -> str:
    limits = [site.max_upload_bytes, *(route.max_body_bytes for route in site.routes if route.max_body_bytes >= 0)]
    values: dict[str, Any] = {
        "site": site,
        "rules": rules,
        "served": site.served(rules),
        "servers": public_servers(site, rules),
        "internal": lambda service: internal_locations(site, rules, service),
        "listen_file": listen_file(rules.app),
        "users_file": lambda id: users_file(rules.app, id),
        "hsts": _hsts_value(site.hsts) if site.hsts else "",
        "gzip_types": " ".join(_COMPRESSED),
        # 0 means no limit.
        "largest_body": 0 if 0 in limits else max(limits),
        "hash": digest,
        "data": dump(site),
        "ident": rules.app.replace("-", "_"),
        "hash_path": HASH_PATH,
        "status_path": STATUS_PATH,
        "acme_port": ACME_PORT,
        "retry_after": RETRY_AFTER,
        "probe_agent": PROBE_AGENT,
        "request_log": f"/var/log/{rules.app}-requests/requests.log",
    }
    return _template(source).render(values)


@lru_cache(maxsize=2)
def _template(source: str) -> Template:
    """Compile the template once: that takes twenty times as long as to render it."""
    from jinja2 import Environment, StrictUndefined

    # Nginx text needs no escaping: the schema restricts every value.
    environment = Environment(  # noqa: S701
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["quoted"] = _quoted
    return environment.from_string(source)


def _quoted(text: str) -> str:
    """Quote a text for Nginx. The schema allows neither backslashes nor `$`, which would start a variable."""
    return '"' + text.replace('"', '\\"') + '"'
