"""The requested site (`Site`), root's rules (`Rules`), and the validation of the site against the rules.

A site names no file, address or variable: it selects loopback ports and domains that root granted, and describes routes.
Public listeners, certificates and trusted proxies come from the rules, which setup writes as root.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rolling_upgrade.engine.site.document import Fields, SiteError, read

#: Paths that belong to this product on every listener of the application.
OWN_PATHS = "/_rolling"

_NAME = r"[a-z][a-z0-9-]{0,30}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
URL_PATH = r"/(?:[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*/?)?"
_FILE = r"(?:/[A-Za-z0-9_.@+=-]+)+"
_NETWORK = r"[0-9a-fA-F.:]{2,45}/[0-9]{1,3}"
#: The name of a header, and its value: visible ASCII and spaces, without `$` (a variable of Nginx) and backslashes.
HEADER_NAME = r"[A-Za-z][A-Za-z0-9-]{0,63}"
HEADER_VALUE = r"(?:[!-#%-\[\]-~](?:[ -#%-\[\]-~]{0,2046}[!-#%-\[\]-~])?)?"
LONGEST_HEADER = 2048
#: Headers of one connection, which a proxy must not set.
_CONNECTION = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
)
#: Request headers that carry the visitor's address, host and scheme.
RESERVED_REQUEST_HEADERS = _CONNECTION | {
    *("host", "forwarded", "x-real-ip", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-prefix"),
}
#: Response headers that Nginx or another option of the site sets, and those whose replacement breaks an application.
RESERVED_RESPONSE_HEADERS = _CONNECTION | {
    *("content-encoding", "content-range", "content-type", "date", "location", "server", "set-cookie"),
    *("strict-transport-security", "x-maintenance", "x-served-by"),
}
#: The name of a user of basic authentication, and a salted hash that the host's crypt(3) knows. Nginx computes it for
#: every request, so the costs have limits. Source: crypt(5); ngx_crypt.c for apr1.
USER_NAME = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}"
_CRYPT = r"[./A-Za-z0-9]"
PASSWORD_HASH = (
    rf"\$2[aby]\$(?:0[4-9]|1[0-2])\${_CRYPT}{{53}}"
    rf"|\$5\$(?:rounds=[1-9][0-9]{{3,4}}\$)?{_CRYPT}{{1,16}}\${_CRYPT}{{43}}"
    rf"|\$6\$(?:rounds=[1-9][0-9]{{3,4}}\$)?{_CRYPT}{{1,16}}\${_CRYPT}{{86}}"
    rf"|\$y\$j9T\${_CRYPT}{{1,86}}\${_CRYPT}{{43}}"
    rf"|\$apr1\${_CRYPT}{{1,8}}\${_CRYPT}{{22}}"
)
_ID = r"[0-9a-f]{16}"
_MOST_USERS = 256
#: The buffer that one header of a request and all headers of a response must fit in, in bytes.
SMALLEST_HEADER_BUFFER, LARGEST_HEADER_BUFFER, HEADER_BUFFER = 4096, 262_144, 32_768
LONGEST_TIMEOUT, LONGEST_HSTS = 86_400, 126_144_000
#: Lower ports are for services of root, such as a mail server on loopback.
_LOWEST_LOOPBACK_PORT = 1024
_HIGHEST_PORT, _LARGEST_UPLOAD = 65_535, 2**50
_MOST_SERVICES, _MOST_ROUTES, _MOST_PORTS, _MOST_HEADERS = 64, 64, 512, 32
MOST_DOMAINS, MOST_NETWORKS = 64, 256


@dataclass(frozen=True)
class Header:
    """A header that a route sets; an empty value removes it."""

    name: str
    value: str


@dataclass(frozen=True)
class Route:
    """A path prefix that Nginx sends to the service.

    Attributes:
        stream: turns buffering off, and waits up to an hour.
        domains: the domains with this route; empty for all.
        timeout_seconds: how long the application may be silent; 0 for a minute, or an hour with `stream`.
        max_body_bytes: the limit of a request's body; -1 for the limit of the site.
        strip_prefix: removes the prefix from the path that the application gets.
        users: the id of the list of users who may enter with a password; '' for everybody.
    """

    prefix: str
    stream: bool
    domains: tuple[str, ...] = ()
    timeout_seconds: int = 0
    max_body_bytes: int = -1
    strip_prefix: bool = False
    users: str = ""
    request_headers: tuple[Header, ...] = ()
    response_headers: tuple[Header, ...] = ()


@dataclass(frozen=True)
class User:
    """A user of basic authentication, and the salted hash of the password."""

    name: str
    password_hash: str = dataclasses.field(repr=False)


@dataclass(frozen=True)
class UserList:
    """Users who may enter a route. Its id depends on the hashes, so that a new password changes the text of the site."""

    users: tuple[User, ...]

    @property
    def text(self) -> str:
        """The file that Nginx reads for each request."""
        return "".join(f"{user.name}:{user.password_hash}\n" for user in self.users)

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Request:
    """The request of a deploy: the site, the users of its routes, and the hash of the text in the plan."""

    site: Site
    users: tuple[UserList, ...]
    expected_hash: str


@dataclass(frozen=True)
class HealthPath:
    """An exact path that visitors reach even during maintenance, and the service that answers it on these domains."""

    path: str
    service: str
    stream: bool
    domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class SiteService:
    """A service: its service port, which belongs to Nginx, and the candidate ports of both colors.

    `assets` is the prefix below which files of earlier releases stay reachable; '' without such files.
    """

    name: str
    port: int
    blue: int
    green: int
    routes: tuple[Route, ...]
    assets: str = ""

    @property
    def ports(self) -> tuple[int, int, int]:
        """All loopback ports."""
        return self.port, self.blue, self.green


@dataclass(frozen=True)
class Redirect:
    """A domain whose visitors are sent to another one, with the same path and query."""

    source: str
    target: str


@dataclass(frozen=True)
class Hsts:
    """The header that makes browsers use https only, for so many seconds."""

    max_age_seconds: int
    include_subdomains: bool = False
    preload: bool = False


@dataclass(frozen=True)
class Site:
    """The site that a deploy requests; `full_chain` names the service whose port reaches all others, or is empty.

    `domains` are the ones besides the domain of the rules, including those that only redirect.
    """

    services: tuple[SiteService, ...]
    full_chain: str
    max_upload_bytes: int
    request_metrics: bool
    health: tuple[HealthPath, ...]
    domains: tuple[str, ...] = ()
    redirects: tuple[Redirect, ...] = ()
    http2: bool = False
    gzip: bool = False
    hsts: Hsts | None = None
    header_bytes: int = HEADER_BUFFER

    @property
    def ports(self) -> tuple[int, ...]:
        """All loopback ports."""
        return tuple(port for service in self.services for port in service.ports)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes of all services."""
        return tuple(route for service in self.services for route in service.routes)

    @property
    def limited(self) -> tuple[Route | HealthPath, ...]:
        """Everything that may be limited to some domains."""
        return (*self.routes, *self.health)

    @property
    def named_domains(self) -> tuple[str, ...]:
        """Every domain that the site names, each once."""
        limited = (domain for item in self.limited for domain in item.domains)
        redirected = (domain for redirect in self.redirects for domain in (redirect.source, redirect.target))
        return tuple(dict.fromkeys((*self.domains, *limited, *redirected)))

    def served(self, rules: Rules) -> tuple[str, ...]:
        """The domains whose visitors reach the application, the one of the rules first."""
        sources = {redirect.source for redirect in self.redirects}
        further = (domain for domain in self.domains if domain.lower() != rules.domain.lower())
        return tuple(domain for domain in (rules.domain, *further) if domain not in sources)


@dataclass(frozen=True)
class Tls:
    """The files of the certificate; `acme` forwards the challenges of an authority to certbot."""

    certificate: str
    key: str
    chain: str
    acme: bool


@dataclass(frozen=True)
class Rules:
    """The rules of root for an application on a host: its name, public address, certificate and ports.

    `domain` is the primary one, `domains` are further ones. `trusted` are the networks of proxies whose X-Forwarded
    headers count.
    """

    app: str
    domain: str
    http_port: int
    https_port: int
    tls: Tls | None
    ports: tuple[int, ...]
    domains: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """The directory of the application's flags."""
        return f"/var/lib/{self.app}"

    @property
    def certificate(self) -> str:
        """The file with the certificate that Nginx sends: with intermediates, the joined one."""
        if self.tls and self.tls.chain:
            return joined_certificate(self.app)
        return self.tls.certificate if self.tls else ""

    @property
    def listeners(self) -> tuple[int, ...]:
        """The ports that visitors reach."""
        return (self.http_port, self.https_port) if self.tls else (self.http_port,)

    @property
    def names(self) -> frozenset[str]:
        """All domains in lower case, as Nginx compares them."""
        return frozenset(domain.lower() for domain in (self.domain, *self.domains))

    def missing(self, wanted: Rules) -> str:
        """Describe the first grant of `wanted` that these rules lack; '' if there is none."""
        if self.app != wanted.app:
            return f"the name {wanted.app}"
        if self.domain != wanted.domain:
            return f"the domain {wanted.domain}"
        if ungranted := sorted(wanted.names - self.names):
            return f"the domain {ungranted[0]}"
        if self.listeners != wanted.listeners:
            return f"the public ports {_listed(wanted.listeners)}"
        if self.tls != wanted.tls:
            return f"the certificate {wanted.tls.certificate}" if wanted.tls else "a site without a certificate"
        if self.trusted != wanted.trusted:
            return (
                f"the trusted proxies {_some(wanted.trusted)}" if wanted.trusted else "a site without trusted proxies"
            )
        missing = sorted(set(wanted.ports) - set(self.ports))
        return f"the loopback ports {_listed(missing)}" if missing else ""

    def conflict(self, other: Rules) -> str:
        """Describe the first domain or port that another application's rules also claim; '' if there is none."""
        if shared := sorted(set(self.ports) & set(other.ports)):
            return f"the loopback ports {_listed(shared)}"
        if taken := sorted(set(self.listeners) & set(other.ports) | set(other.listeners) & set(self.ports)):
            return f"the ports {_listed(taken)}"
        if (claimed := sorted(self.names & other.names)) and set(self.listeners) & set(other.listeners):
            return f"the domain {claimed[0]}"
        return ""


def joined_certificate(app: str) -> str:
    """The root-owned file with the certificate and its intermediates; see chain.py."""
    return f"/usr/local/lib/{app}/certificate.pem"


def parse_site(data: bytes) -> Site:
    """Read a site from JSON. Raises SiteError."""
    fields = read(data)
    site = _site(fields)
    fields.done()
    return site


def parse_request(data: bytes) -> Request:
    """Read the request of a deploy. Raises SiteError."""
    fields = read(data)
    expected = fields.text("hash", _ID)
    site = fields.optional("site", _site)
    users = fields.objects("users", _user_list, most=_MOST_SERVICES, default=[])
    fields.done()
    if site is None:
        raise SiteError("the document: site is missing")
    named, given = {route.users for route in site.routes if route.users}, {one.id for one in users}
    if missing := sorted(named - given):
        raise SiteError(f"the document: users {missing[0]} are missing")
    # Root stores each list: without this, a request without an effect could fill the disk.
    if unused := sorted(given - named):
        raise SiteError(f"the document: no route names the users {unused[0]}")
    # The text of the site carries it in this form: escapes in the request must not make that unreadable.
    parse_site(dump(site).encode())
    return Request(site, users, expected)


def dump_request(request: Request) -> str:
    """The document for `parse_request`."""
    users = {"users": _plain(request.users)} if request.users else {}
    return _compact({"hash": request.expected_hash, "site": _plain(request.site)} | users)


def dump(value: Site | Rules) -> str:
    """A site or rules as one line of JSON without default values; equal values give equal bytes."""
    return _compact(_plain(value))


def _plain(value: Any) -> Any:
    """Convert to JSON types, and leave out fields that have their default value: most routes have no options."""
    if dataclasses.is_dataclass(value):
        found = {field.name: (getattr(value, field.name), field.default) for field in dataclasses.fields(value)}
        return {name: _plain(item) for name, (item, default) in found.items() if item != default}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def parse_rules(data: bytes) -> Rules:
    """Read root's rules from JSON. Raises SiteError."""
    fields = read(data)
    rules = Rules(
        app=fields.text("app", _NAME),
        domain=fields.text("domain", DOMAIN, longest=253),
        http_port=fields.number("http_port", 1, _HIGHEST_PORT),
        https_port=fields.number("https_port", 1, _HIGHEST_PORT),
        tls=fields.optional("tls", _tls),
        ports=fields.numbers("ports", _LOWEST_LOOPBACK_PORT, _HIGHEST_PORT, longest=_MOST_PORTS),
        domains=_domains(fields),
        trusted=fields.texts("trusted", _NETWORK, most=MOST_NETWORKS, default=[]),
    )
    fields.done()
    if rules.tls and any(".." in path for path in (rules.tls.certificate, rules.tls.key, rules.tls.chain)):
        raise SiteError("tls: a path must not contain ..")
    for network in rules.trusted:
        if canonical_network(network) != network:
            raise SiteError(f"trusted: {network} is not the address of a network of proxies")
    _check_distinct("domain", [domain.lower() for domain in (rules.domain, *rules.domains)])
    _check_distinct("trusted proxy", rules.trusted)
    return rules


def canonical_network(text: str) -> str:
    """An address or a network as `ADDRESS/BITS`; '' for anything else, and for all addresses of the internet."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return ""
    return str(network) if network.prefixlen and "%" not in text else ""


def check(site: Site, rules: Rules) -> None:
    """Check a site against the rules and for contradictions. Raises SiteError."""
    if foreign := sorted(set(site.ports) - set(rules.ports)):
        raise SiteError(
            f"loopback ports {_listed(foreign)} do not belong to {rules.app}; run rolling-upgrade setup first"
        )
    for domain in site.named_domains:
        if domain.lower() not in rules.names:
            raise SiteError(f"the domain {domain} does not belong to {rules.app}; run rolling-upgrade setup first")
    _check_distinct("loopback port", site.ports)
    names = [service.name for service in site.services]
    _check_distinct("service name", names)
    for name in (*(health.service for health in site.health), *([site.full_chain] if site.full_chain else [])):
        if name not in names:
            raise SiteError(f"there is no service {name}")
    prefixes = (*(route.prefix for route in site.routes), *(service.assets for service in site.services))
    for path in (*prefixes, *(health.path for health in site.health)):
        if f"{path}/".startswith(f"{OWN_PATHS}/") or ".." in path.split("/"):
            raise SiteError(f"the path {path} is reserved")
    _check_domains(site, rules)
    for service in site.services:
        _check_assets(service)
    for route in site.routes:
        _check_route(route)


def _check_domains(site: Site, rules: Rules) -> None:
    """Every domain redirects, or has routes that Nginx can distinguish. The routes of one may be on other hosts."""
    _check_distinct("domain", [domain.lower() for domain in site.domains])
    sources = [redirect.source for redirect in site.redirects]
    _check_distinct("redirect of", sources)
    served = site.served(rules)
    for redirect in site.redirects:
        if redirect.source == rules.domain or redirect.source not in site.domains:
            raise SiteError(f"the domain {redirect.source} cannot redirect: it is not one of the further domains")
        if redirect.target not in served:
            raise SiteError(f"the redirect of {redirect.source} ends at {redirect.target}, which serves nothing")
    for item in site.limited:
        if unserved := sorted(set(item.domains) - set(served)):
            raise SiteError(f"there is no site at {unserved[0]}, which a route names")
    for domain in served:
        _check_distinct(f"route on {domain}", [route.prefix for route in site.routes if applies(route, domain)])
        _check_distinct(f"health path on {domain}", [path.path for path in site.health if applies(path, domain)])


def _check_assets(service: SiteService) -> None:
    prefix = service.assets
    if prefix.endswith("/"):
        raise SiteError(f"the assets of {service.name} need a prefix such as /assets, without a slash at its end")
    if prefix and not any(f"{prefix}/".startswith(route.prefix) for route in service.routes):
        raise SiteError(f"no route of {service.name} leads to its assets at {prefix}")


def applies(item: Route | HealthPath, domain: str) -> bool:
    """Whether the domain has the route or the health path."""
    return not item.domains or domain in item.domains


def _check_route(route: Route) -> None:
    _check_distinct(f"domain of the route {route.prefix}", route.domains)
    if route.strip_prefix and route.prefix == "/":
        raise SiteError("the route / has no prefix to strip")
    for headers, reserved in (
        (route.request_headers, RESERVED_REQUEST_HEADERS),
        (route.response_headers, RESERVED_RESPONSE_HEADERS),
    ):
        names = [header.name.lower() for header in headers]
        _check_distinct(f"header of the route {route.prefix}", names)
        for name in names:
            if is_reserved(name, reserved):
                raise SiteError(f"the route {route.prefix} cannot set the header {name}")


def is_reserved(name: str, reserved: frozenset[str]) -> bool:
    """Whether a route must not set this header. Source: Nginx obeys X-Accel headers of an application."""
    return name.lower() in reserved or name.lower().startswith("x-accel-")


def _site(fields: Fields) -> Site:
    return Site(
        services=fields.objects("services", _service, least=1, most=_MOST_SERVICES),
        full_chain=fields.text("full_chain", _NAME, empty=True),
        max_upload_bytes=fields.number("max_upload_bytes", 0, _LARGEST_UPLOAD),
        request_metrics=fields.flag("request_metrics"),
        health=fields.objects("health", _health, most=2 * _MOST_SERVICES),
        domains=_domains(fields),
        redirects=fields.objects("redirects", _redirect, most=MOST_DOMAINS, default=[]),
        http2=fields.flag("http2", default=False),
        gzip=fields.flag("gzip", default=False),
        hsts=fields.optional("hsts", _hsts, default=None),
        header_bytes=fields.number(
            "header_bytes", SMALLEST_HEADER_BUFFER, LARGEST_HEADER_BUFFER, default=HEADER_BUFFER
        ),
    )


def _service(fields: Fields) -> SiteService:
    name = fields.text("name", _NAME)
    port, blue, green = (fields.number(key, _LOWEST_LOOPBACK_PORT, _HIGHEST_PORT) for key in ("port", "blue", "green"))
    routes = fields.objects("routes", _route, most=_MOST_ROUTES)
    return SiteService(name, port, blue, green, routes, fields.text("assets", URL_PATH, empty=True, default=""))


def _route(fields: Fields) -> Route:
    return Route(
        prefix=fields.text("prefix", URL_PATH),
        stream=fields.flag("stream"),
        domains=_domains(fields),
        timeout_seconds=fields.number("timeout_seconds", 0, LONGEST_TIMEOUT, default=0),
        max_body_bytes=fields.number("max_body_bytes", -1, _LARGEST_UPLOAD, default=-1),
        strip_prefix=fields.flag("strip_prefix", default=False),
        users=fields.text("users", _ID, empty=True, default=""),
        request_headers=fields.objects("request_headers", _header, most=_MOST_HEADERS, default=[]),
        response_headers=fields.objects("response_headers", _header, most=_MOST_HEADERS, default=[]),
    )


def _user_list(fields: Fields) -> UserList:
    users = fields.objects("users", _user, most=_MOST_USERS)
    _check_distinct("user", [user.name for user in users])
    return UserList(users)


def _user(fields: Fields) -> User:
    return User(fields.text("name", USER_NAME), fields.text("password_hash", PASSWORD_HASH))


def _header(fields: Fields) -> Header:
    value = fields.text("value", HEADER_VALUE, longest=LONGEST_HEADER, empty=True)
    return Header(fields.text("name", HEADER_NAME), value)


def _health(fields: Fields) -> HealthPath:
    path, service = fields.text("path", URL_PATH), fields.text("service", _NAME)
    return HealthPath(path, service, fields.flag("stream"), _domains(fields))


def _redirect(fields: Fields) -> Redirect:
    return Redirect(fields.text("source", DOMAIN, longest=253), fields.text("target", DOMAIN, longest=253))


def _hsts(fields: Fields) -> Hsts:
    age = fields.number("max_age_seconds", 0, LONGEST_HSTS)
    return Hsts(age, fields.flag("include_subdomains", default=False), fields.flag("preload", default=False))


def _domains(fields: Fields) -> tuple[str, ...]:
    return fields.texts("domains", DOMAIN, longest=253, most=MOST_DOMAINS, default=[])


def _tls(fields: Fields) -> Tls:
    certificate, key = (fields.text(name, _FILE, longest=4096) for name in ("certificate", "key"))
    return Tls(certificate, key, fields.text("chain", _FILE, longest=4096, empty=True), fields.flag("acme"))


def _check_distinct(label: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise SiteError(f"the {label} {value} occurs twice")


def _listed(ports: Iterable[int]) -> str:
    return ", ".join(map(str, ports))


def _some(networks: Sequence[str]) -> str:
    rest = f" and {len(networks) - 3} more" if len(networks) > 3 else ""
    return ", ".join(networks[:3]) + rest


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
