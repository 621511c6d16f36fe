"""The requested site (`Site`), root's rules (`Rules`), and the validation of the site against the rules.

A site names no file, address or variable: it selects loopback ports that root granted, and describes routes. Domains,
public listeners, certificates and ports come from the rules, which setup writes as root. `read` parses both from bounded
JSON documents field by field; unknown fields are errors.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

#: The size limit of a document in bytes, and its nesting limit.
LARGEST, DEEPEST = 65_536, 8
#: Paths that belong to this product on every listener of the application.
OWN_PATHS = "/_rolling"

_NAME = r"[a-z][a-z0-9-]{0,30}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_URL_PATH = r"/(?:[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*/?)?"
_FILE = r"(?:/[A-Za-z0-9_.@+=-]+)+"
#: Lower ports are for services of root, such as a mail server on loopback.
_LOWEST_LOOPBACK_PORT = 1024
_HIGHEST_PORT, _LARGEST_UPLOAD = 65_535, 2**50
_MOST_SERVICES, _MOST_ROUTES, _MOST_PORTS = 64, 64, 512


class SiteError(Exception):
    """The document is malformed or violates the rules; the message names the field."""


@dataclass(frozen=True)
class Route:
    """A path prefix that Nginx sends to the service; `stream` turns buffering off and waits up to an hour."""

    prefix: str
    stream: bool


@dataclass(frozen=True)
class HealthPath:
    """An exact path that visitors reach even during maintenance, and the service that answers it."""

    path: str
    service: str
    stream: bool


@dataclass(frozen=True)
class SiteService:
    """A service: its service port, which belongs to Nginx, and the candidate ports of both colors."""

    name: str
    port: int
    blue: int
    green: int
    routes: tuple[Route, ...]

    @property
    def ports(self) -> tuple[int, int, int]:
        """All loopback ports."""
        return self.port, self.blue, self.green


@dataclass(frozen=True)
class Site:
    """The site that a deploy requests; `full_chain` names the service whose port reaches all others, or is empty."""

    services: tuple[SiteService, ...]
    full_chain: str
    max_upload_bytes: int
    request_metrics: bool
    health: tuple[HealthPath, ...]

    @property
    def ports(self) -> tuple[int, ...]:
        """All loopback ports."""
        return tuple(port for service in self.services for port in service.ports)


@dataclass(frozen=True)
class Tls:
    """The files of the certificate; `acme` forwards the challenges of an authority to certbot."""

    certificate: str
    key: str
    chain: str
    acme: bool


@dataclass(frozen=True)
class Rules:
    """The rules of root for an application on a host: its name, public address, certificate and ports."""

    app: str
    domain: str
    http_port: int
    https_port: int
    tls: Tls | None
    ports: tuple[int, ...]

    @property
    def home(self) -> str:
        """The directory of the application's flags."""
        return f"/var/lib/{self.app}"

    @property
    def listeners(self) -> tuple[int, ...]:
        """The ports that visitors reach."""
        return (self.http_port, self.https_port) if self.tls else (self.http_port,)

    def missing(self, wanted: Rules) -> str:
        """Describe the first grant of `wanted` that these rules lack; '' if there is none."""
        if self.app != wanted.app:
            return f"the name {wanted.app}"
        if self.domain != wanted.domain:
            return f"the domain {wanted.domain}"
        if self.listeners != wanted.listeners:
            return f"the public ports {_listed(wanted.listeners)}"
        if self.tls != wanted.tls:
            return f"the certificate {wanted.tls.certificate}" if wanted.tls else "a site without a certificate"
        missing = sorted(set(wanted.ports) - set(self.ports))
        return f"the loopback ports {_listed(missing)}" if missing else ""

    def conflict(self, other: Rules) -> str:
        """Describe the first domain or port that another application's rules also claim; '' if there is none."""
        if shared := sorted(set(self.ports) & set(other.ports)):
            return f"the loopback ports {_listed(shared)}"
        if taken := sorted(set(self.listeners) & set(other.ports) | set(other.listeners) & set(self.ports)):
            return f"the ports {_listed(taken)}"
        if self.domain.lower() == other.domain.lower() and set(self.listeners) & set(other.listeners):
            return f"the domain {self.domain}"
        return ""


def parse_site(data: bytes) -> Site:
    """Read a site from JSON. Raises SiteError."""
    fields = read(data)
    site = _site(fields)
    fields.done()
    return site


def parse_request(data: bytes) -> tuple[Site, str]:
    """Read the request of a deploy: the site, and the hash of the text in its plan. Raises SiteError."""
    fields = read(data)
    expected = fields.text("hash", r"[0-9a-f]{16}")
    site = fields.optional("site", _site)
    fields.done()
    if site is None:
        raise SiteError("the document: site is missing")
    return site, expected


def dump_request(site: Site, expected: str) -> str:
    """The request for `parse_request`."""
    return _compact({"hash": expected, "site": dataclasses.asdict(site)})


def dump(value: Site | Rules) -> str:
    """A site or rules as one line of JSON; equal values give equal bytes."""
    return _compact(dataclasses.asdict(value))


def parse_rules(data: bytes) -> Rules:
    """Read root's rules from JSON. Raises SiteError."""
    fields = read(data)
    rules = Rules(
        app=fields.text("app", _NAME),
        domain=fields.text("domain", _DOMAIN, longest=253),
        http_port=fields.number("http_port", 1, _HIGHEST_PORT),
        https_port=fields.number("https_port", 1, _HIGHEST_PORT),
        tls=fields.optional("tls", _tls),
        ports=fields.numbers("ports", _LOWEST_LOOPBACK_PORT, _HIGHEST_PORT, longest=_MOST_PORTS),
    )
    fields.done()
    if rules.tls and any(".." in path for path in (rules.tls.certificate, rules.tls.key, rules.tls.chain)):
        raise SiteError("tls: a path must not contain ..")
    return rules


def check(site: Site, rules: Rules) -> None:
    """Check a site against the rules and for contradictions. Raises SiteError."""
    if foreign := sorted(set(site.ports) - set(rules.ports)):
        raise SiteError(
            f"loopback ports {_listed(foreign)} do not belong to {rules.app}; run rolling-upgrade setup first"
        )
    _check_distinct("loopback port", site.ports)
    names = [service.name for service in site.services]
    _check_distinct("service name", names)
    _check_distinct("route", [route.prefix for service in site.services for route in service.routes])
    _check_distinct("health path", [health.path for health in site.health])
    for name in (*(health.service for health in site.health), *([site.full_chain] if site.full_chain else [])):
        if name not in names:
            raise SiteError(f"there is no service {name}")
    paths = [route.prefix for service in site.services for route in service.routes]
    for path in (*paths, *(health.path for health in site.health)):
        if f"{path}/".startswith(f"{OWN_PATHS}/") or ".." in path.split("/"):
            raise SiteError(f"the path {path} is reserved")


def _site(fields: Fields) -> Site:
    return Site(
        services=fields.objects("services", _service, least=1, most=_MOST_SERVICES),
        full_chain=fields.text("full_chain", _NAME, empty=True),
        max_upload_bytes=fields.number("max_upload_bytes", 0, _LARGEST_UPLOAD),
        request_metrics=fields.flag("request_metrics"),
        health=fields.objects("health", _health, most=2 * _MOST_SERVICES),
    )


def _service(fields: Fields) -> SiteService:
    name = fields.text("name", _NAME)
    port, blue, green = (fields.number(key, _LOWEST_LOOPBACK_PORT, _HIGHEST_PORT) for key in ("port", "blue", "green"))
    return SiteService(name, port, blue, green, fields.objects("routes", _route, most=_MOST_ROUTES))


def _route(fields: Fields) -> Route:
    return Route(fields.text("prefix", _URL_PATH), fields.flag("stream"))


def _health(fields: Fields) -> HealthPath:
    return HealthPath(fields.text("path", _URL_PATH), fields.text("service", _NAME), fields.flag("stream"))


def _tls(fields: Fields) -> Tls:
    certificate, key = (fields.text(name, _FILE, longest=4096) for name in ("certificate", "key"))
    return Tls(certificate, key, fields.text("chain", _FILE, longest=4096, empty=True), fields.flag("acme"))


def _check_distinct(label: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise SiteError(f"the {label} {value} occurs twice")


def _listed(ports: Iterable[int]) -> str:
    return ", ".join(map(str, ports))


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def read(data: bytes) -> Fields:
    """Parse a JSON object. Raises SiteError if it is too large, too deep, ambiguous or not an object."""
    if len(data) > LARGEST:
        raise SiteError(f"the document is larger than {LARGEST // 1024} KiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SiteError("the document is not UTF-8") from error
    if _depth(text) > DEEPEST:
        raise SiteError(f"the document nests deeper than {DEEPEST} levels")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise SiteError(f"the document is not JSON ({str(error)[:80]})") from error
    return Fields(value, "the document")


def _depth(text: str) -> int:
    """The deepest nesting of brackets; brackets inside strings count too, which only refuses more documents."""
    depth = deepest = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a duplicate key")
    return fields


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number has too many digits")
    return int(digits)


class Fields:
    """An object of the document. Each method reads one field; `done` rejects unread fields."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise SiteError(f"{path} must be an object")
        self._left, self._path = dict(value), path

    def text(self, name: str, pattern: str, *, longest: int = 255, empty: bool = False) -> str:
        """A string that matches the whole pattern; with `empty` it may be empty."""
        value = self._take(name)
        if isinstance(value, str) and len(value) <= longest:
            if empty and not value:
                return ""
            if re.fullmatch(pattern, value, re.ASCII):
                return value
        raise SiteError(f"{self._path}: {name} must match {pattern} and have at most {longest} characters")

    def number(self, name: str, least: int, most: int) -> int:
        """A whole number within both bounds."""
        value = self._take(name)
        if type(value) is int and least <= value <= most:
            return value
        raise SiteError(f"{self._path}: {name} must be a whole number from {least} to {most}")

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._take(name)
        if type(value) is bool:
            return value
        raise SiteError(f"{self._path}: {name} must be true or false")

    def objects(self, name: str, read_one: Callable[[Fields], T], *, least: int = 0, most: int) -> tuple[T, ...]:
        """A list of objects; `read_one` takes all fields of each."""
        items = []
        for number, value in enumerate(self._list(name, least, most), 1):
            fields = Fields(value, f"{name} {number}")
            items.append(read_one(fields))
            fields.done()
        return tuple(items)

    def numbers(self, name: str, least: int, most: int, *, longest: int) -> tuple[int, ...]:
        """A list of whole numbers, each within both bounds."""
        values = self._list(name, 0, longest)
        if all(type(value) is int and least <= value <= most for value in values):
            return tuple(values)
        raise SiteError(f"{self._path}: {name} must hold whole numbers from {least} to {most}")

    def optional(self, name: str, read_one: Callable[[Fields], T]) -> T | None:
        """An object, or null."""
        value = self._take(name)
        if value is None:
            return None
        fields = Fields(value, name)
        item = read_one(fields)
        fields.done()
        return item

    def done(self) -> None:
        """Refuse the remaining fields."""
        if self._left:
            raise SiteError(f"{self._path}: unknown field {sorted(self._left)[0][:40]!a}")

    def _take(self, name: str) -> Any:
        if name not in self._left:
            raise SiteError(f"{self._path}: {name} is missing")
        return self._left.pop(name)

    def _list(self, name: str, least: int, most: int) -> list[Any]:
        value = self._take(name)
        if isinstance(value, list) and least <= len(value) <= most:
            return value
        raise SiteError(f"{self._path}: {name} must be a list of {least} to {most} items")
