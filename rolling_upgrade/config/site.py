"""The site in `deploy/services.yaml`: its domains, trusted proxies and protocols, and the options of its routes.

The patterns and limits are those of the root-owned program on the host, see engine/site/schema.py; and `check_site`
validates the result by the function that the program uses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from rolling_upgrade.config import validators
from rolling_upgrade.config.issues import Issues, Strict, conceals
from rolling_upgrade.config.validators import Validator
from rolling_upgrade.config.values import Values, named_keys, references
from rolling_upgrade.engine import model
from rolling_upgrade.engine.site import client, schema
from rolling_upgrade.engine.site.document import SiteError

#: The networks of Cloudflare's proxies. They change every few years. To refresh them, compare both sources, change the
#: date, and run setup for the hosts; until then a project may list the networks themselves.
#: Source: https://www.cloudflare.com/ips-v4 and https://www.cloudflare.com/ips-v6, as of 2026-11-30.
CLOUDFLARE = (
    *("173.245.48.0/20", "103.21.244.0/22", "103.22.200.0/22", "103.31.4.0/22", "141.101.64.0/18"),
    *("108.162.192.0/18", "190.93.240.0/20", "188.114.96.0/20", "197.234.240.0/22", "198.41.128.0/17"),
    *("162.158.0.0/15", "104.16.0.0/13", "104.24.0.0/14", "172.64.0.0/13", "131.0.72.0/22"),
    *("2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32", "2405:8100::/32"),
    *("2a06:98c0::/29", "2c0f:f248::/32"),
)


def _networks(text: str) -> tuple[str, ...] | None:
    if text.casefold() == "cloudflare":
        return CLOUDFLARE
    network = schema.canonical_network(text)
    return (network,) if network else None


def _header_value(text: str) -> str | None:
    return text if len(text) <= schema.LONGEST_HEADER and re.fullmatch(schema.HEADER_VALUE, text) else None


def _templated(text: str) -> str | None:
    """Accept a header's value with references; it is validated when they are replaced."""
    return validators.TEXT(text) if "${" in text else _header_value(text)


TRUSTED_PROXY = Validator("cloudflare, an IP address, or a network such as 10.0.0.0/8", _networks)
USER_NAME = validators.text_matching("a user name of letters, digits and . _ @ + -", schema.USER_NAME)
PASSWORD_HASH = validators.text_matching(
    "a password hash, as `openssl passwd -6` or `mkpasswd` prints it (bcrypt up to cost 12)", schema.PASSWORD_HASH
)
HEADER_NAME = validators.text_matching("the name of a header", schema.HEADER_NAME)
HEADER_VALUE = Validator("printable ASCII without `$` and backslashes", _header_value)

#: In capitals: a password written here by mistake is an error, and no message shows it.
_HASH_KEY = validators.text_matching("the env key with the hash of the password, such as ANN_HASH", r"[A-Z][A-Z0-9_]*")
_HEADER_SIZE = validators.size(schema.SMALLEST_HEADER_BUFFER, schema.LARGEST_HEADER_BUFFER)

_Boolean = Annotated[bool, validators.BOOLEAN]
_Domain = Annotated[str, validators.or_key(validators.DOMAIN)]
_Proxy = Annotated[str, validators.or_key(TRUSTED_PROXY)]
_Headers = dict[Annotated[str, HEADER_NAME], Annotated[str, Validator(HEADER_VALUE.expected, _templated)]]


class Hsts(Strict):
    """The Strict-Transport-Security header: browsers then refuse plain HTTP for that time."""

    max_age: Annotated[float, validators.duration(0, schema.LONGEST_HSTS)] = Field(
        description="How long browsers remember it, such as 365d. Begin with 1h; 0 makes browsers forget it."
    )
    include_subdomains: _Boolean = Field(default=False, description="Include all subdomains, on other servers too.")
    preload: _Boolean = Field(default=False, description="Ask browsers to ship the rule. It is hard to take back.")


class Site(Strict):
    """The public site as a whole."""

    domains: tuple[_Domain, ...] = Field(
        default=(), description="Domains of the site beside DOMAIN_NAME, which stays the primary one."
    )
    redirects: dict[_Domain, _Domain] = Field(
        default={}, description="Domains whose visitors are sent to another domain, with the same path and query."
    )
    trusted_proxies: tuple[_Proxy, ...] = Field(
        default=(),
        description="Proxies whose X-Forwarded-For and X-Forwarded-Proto count: addresses, networks, or `cloudflare`.",
    )
    http2: _Boolean = Field(default=model.SiteOptions.http2, description="Offer HTTP/2 to visitors over https.")
    gzip: _Boolean = Field(
        default=model.SiteOptions.gzip,
        description="Compress text. Without it, the host's own Nginx configuration decides.",
    )
    hsts: Hsts | None = Field(default=None, description="Strict-Transport-Security. Default: no such header.")
    max_header_size: Annotated[int, _HEADER_SIZE] = Field(
        default=model.SiteOptions.header_bytes,
        description="Largest single header of a request, and largest sum of all headers of a response.",
    )

    def named_keys(self) -> Iterator[str]:
        """Yield every env key that the section names."""
        for text in (*self.domains, *self.redirects, *self.redirects.values(), *self.trusted_proxies):
            yield from named_keys(text)


class Assets(Strict):
    """Files in the image that stay reachable after an upgrade, such as scripts with a hash in their names."""

    path: Annotated[str, validators.HOST_PATH] = Field(
        description="Directory in the image, such as /app/public/assets."
    )
    prefix: Annotated[str, validators.URL_PATH] = Field(description="Path prefix of these files, such as /assets.")


class Route(Strict):
    """A path prefix that Nginx routes to the service."""

    prefix: Annotated[str, validators.URL_PATH] = Field(description="Path prefix such as /api/.")
    stream: _Boolean = Field(default=False, description="Disable buffering for event streams and WebSockets.")
    domains: tuple[_Domain, ...] = Field(default=(), description="Domains with this route. Default: all.")
    timeout: Annotated[float, validators.duration(1, schema.LONGEST_TIMEOUT)] | None = Field(
        default=None,
        description="How long the service may be silent before Nginx answers 504. Default: 60s, or 1h with `stream`.",
    )
    max_body: Annotated[int, validators.size(0)] | None = Field(
        default=None, description="Largest body of a request; 0 for no limit. Default: MAX_UPLOAD_SIZE."
    )
    strip_prefix: _Boolean = Field(
        default=False,
        description="Remove the prefix from the path that the service gets. X-Forwarded-Prefix contains it.",
    )
    basic_auth: dict[Annotated[str, USER_NAME], Annotated[str, _HASH_KEY]] = Field(
        default={}, description="Users who may enter, each with the env key of the password's hash. Default: everybody."
    )
    request_headers: _Headers = Field(
        default={}, description="Headers that the service gets; an empty value removes one. `${KEY}` is replaced."
    )
    response_headers: _Headers = Field(
        default={},
        description="Headers that visitors get in place of the service's; an empty value removes one. `${KEY}` is "
        "replaced.",
    )

    def named_keys(self) -> Iterator[str]:
        """Yield every env key that the route names."""
        yield from self.basic_auth.values()
        for domain in self.domains:
            yield from named_keys(domain)
        for value in (*self.request_headers.values(), *self.response_headers.values()):
            yield from references(value)


def resolve_site(declared: Site, routes: Iterable[Route], primary: str, values: Values) -> model.SiteOptions:
    """Build the options of the site with the values of its keys, and the passwords of the users of all routes."""
    domains = [_domain(text, f"site.domains[{index}]", primary, values) for index, text in enumerate(declared.domains)]
    redirects = []
    for source, target in declared.redirects.items():
        place = f"site.redirects.{source}"
        redirects.append((_domain(source, place, primary, values), _domain(target, place, primary, values)))
    networks = [
        values.resolve(text, TRUSTED_PROXY, f"site.trusted_proxies[{index}]", required=True) or ()
        for index, text in enumerate(declared.trusted_proxies)
    ]
    further = dict.fromkeys((*domains, *(source for source, _ in redirects)))
    hsts = declared.hsts
    return model.SiteOptions(
        domains=tuple(domain for domain in further if domain not in {"", primary}),
        redirects=tuple((source, target) for source, target in redirects if source and target),
        trusted_proxies=tuple(dict.fromkeys(network for found in networks for network in found)),
        http2=declared.http2,
        gzip=declared.gzip,
        hsts=model.Hsts(math.ceil(hsts.max_age), hsts.include_subdomains, hsts.preload) if hsts else None,
        header_bytes=declared.max_header_size,
        password_hashes=tuple(_password_hashes(routes, values)),
    )


def _password_hashes(routes: Iterable[Route], values: Values) -> Iterator[tuple[str, str]]:
    """Read the hash of each user. An error does not show the value, which may be a password by mistake."""
    keys: dict[str, str] = {}
    for name, key in dict.fromkeys(user for route in routes for user in route.basic_auth.items()):
        if keys.setdefault(name, key) != key:
            values.reject(key, found=f"another password of {name}", expected=f"{keys[name]}, as in another route")
            continue
        text = values.get(key)
        try:
            yield name, PASSWORD_HASH(text)
        except ValueError as error:
            values.reject(key, found="not a password hash" if text else "", expected=str(error))


def resolve_assets(declared: Assets | None) -> model.Assets | None:
    """Build the assets of a service."""
    return model.Assets(declared.path, declared.prefix.rstrip("/") or "/") if declared else None


def resolve_route(declared: Route, place: str, primary: str, values: Values) -> model.Route:
    """Build one route with the values of its keys. `place` is its place in services.yaml."""
    domains = [
        _domain(text, f"{place}.domains[{index}]", primary, values) for index, text in enumerate(declared.domains)
    ]
    return model.Route(
        prefix=declared.prefix,
        stream=declared.stream,
        domains=tuple(dict.fromkeys(filter(None, domains))),
        timeout_seconds=math.ceil(declared.timeout or 0),
        max_body_bytes=declared.max_body,
        strip_prefix=declared.strip_prefix,
        users=tuple(declared.basic_auth),
        request_headers=tuple(_headers(declared.request_headers, f"{place}.request_headers", values)),
        response_headers=tuple(_headers(declared.response_headers, f"{place}.response_headers", values)),
    )


def _domain(text: str, place: str, primary: str, values: Values) -> str:
    """Read a domain, in the spelling of DOMAIN_NAME if it is that one; '' when it is invalid."""
    domain = values.resolve(text, validators.DOMAIN, place, required=True) or ""
    return primary if domain.lower() == primary.lower() else domain.lower()


def _headers(declared: Mapping[str, str], place: str, values: Values) -> Iterator[tuple[str, str]]:
    """Read headers. Every user of the host can read the site, so secrets are refused."""
    for name, text in declared.items():
        secret = next((key for key in references(text) if conceals(key, values.get(key))), "")
        if secret:
            expected = "a value without secrets: every user of the host can read the site"
            values.issues.add(values.services_file, f"{place}.{name}", found=secret, expected=expected)
            continue
        value = values.interpolate(text, f"{place}.{name}")
        if value is None:
            continue
        try:
            yield name, HEADER_VALUE(value)
        except ValueError as error:
            values.issues.add(values.services_file, f"{place}.{name}", found=repr(value[:80]), expected=str(error))


def check_site(app: model.Application, values: Values) -> None:
    """Report what the root-owned program on the host would refuse, by its own functions."""
    if not app.has_site:
        return
    unknown = [
        (domain, service.name)
        for service in app.http_services
        for route in service.routes
        for domain in route.domains
        if domain not in app.domains
    ]
    for domain, name in unknown:
        expected = f"a domain of the site, one of {', '.join(app.served_domains)}; add others to `site.domains`"
        found = f"{domain} in a route of the service {name}"
        values.issues.add(values.services_file, "site.domains", found=found, expected=expected)
    if unknown:
        return
    try:
        rules = schema.parse_rules(schema.dump(client.rules(app)).encode())
        schema.check(schema.parse_site(schema.dump(client.site(app)).encode()), rules)
    except SiteError as error:
        values.issues.add(values.services_file, "site", found=str(error), expected="a site that the host accepts")


def check_routed(applications: Iterable[model.Application], file: str, issues: Issues) -> None:
    """Report domains without a route on any host. The services of a domain may run on some hosts only."""
    sites = [app for app in applications if app.has_site]
    routes = [route for app in sites for service in app.http_services for route in service.routes]
    for domain in dict.fromkeys(domain for app in sites for domain in app.served_domains):
        if routes and not any(route.applies(domain) for route in routes):
            issues.add(file, "site.domains", found=f"{domain} without a route", expected="a route for each domain")


def route_keys(routes: Iterable[Route]) -> Iterator[str]:
    """Yield every env key that the routes name."""
    for route in routes:
        yield from route.named_keys()
