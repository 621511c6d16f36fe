"""The service ports of an application: those in the configuration, and assigned ones for all other services.

An assigned port depends only on APP_NAME and the name of the service, so it stays the same when services are added,
removed or reordered. Only a clash with another port, which is rare, leads to the next candidate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from rolling_upgrade.config import validators
from rolling_upgrade.config.services import Service, Services
from rolling_upgrade.config.settings import Settings
from rolling_upgrade.config.values import Values
from rolling_upgrade.engine.model import PORT_OFFSET

#: The range of assigned service ports. The candidate ports, 10000 and 20000 above, are outside of it and below the
#: ports that Linux gives to outgoing connections. Source: ip(7), ip_local_port_range, 32768 by default.
_LOWEST, _HIGHEST = 4000, 12_500
#: Ports that well-known programs use by default, which are never assigned, not even as candidate ports.
_WELL_KNOWN = frozenset(
    {4000, 4040, 4222, 4317, 4318, 4369, 4567, 4848, 5000, 5001, 5044, 5050, 5060, 5173, 5353, 5432, 5433, 5555, 5601}
    | {5666, 5671, 5672, 5900, 5984, 5985, 6000, 6006, 6379, 6380, 6432, 6443, 6660, 6667, 6789, 7000, 7001, 7077}
    | {7199, 7474, 7687, 7700, 8000, 8008, 8009, 8025, 8065, 8069, 8080, 8081, 8082, 8083, 8085, 8086, 8088, 8089}
    | {8090, 8091, 8096, 8108, 8123, 8125, 8161, 8200, 8300, 8333, 8400, 8443, 8500, 8529, 8545, 8686, 8761, 8787}
    | {8800, 8834, 8880, 8883, 8888, 8983, 9000, 9001, 9009, 9042, 9050, 9080, 9090, 9091, 9092, 9093, 9094, 9100}
    | {9104, 9115, 9117, 9121, 9150, 9160, 9187, 9200, 9300, 9411, 9418, 9443, 9999, 10000, 10050, 10051, 10250, 11211}
    | {11311, 11434, 12201, 15672, 16379, 18080, 19999, 22000, 25565, 25672, 26257, 26379, 27017, 27018, 27019, 28015}
    | {28017, 29092}
)


def service_ports(declared: Services, values: Values, settings: Settings | None) -> dict[str, int]:
    """Return the service port of each service with one, assigned when the configuration has none.

    A service whose port has an error is missing; without settings, those without a port are too. Reports ports with
    two uses.
    """
    written: dict[str, int] = {}
    missing: list[str] = []
    for place, service in _listening(declared):
        port = _configured(service, place, values)
        if port is not None:
            written[service.name] = port
        elif not service.port:
            missing.append(service.name)
    if settings is None:
        return written
    public = [settings.nginx_port, settings.https_port]
    taken = {*public, *(use for port in written.values() for use in uses(port))}
    ports = written | assigned(settings.app_name, missing, taken)
    _check(declared, ports, settings, values)
    return ports


def _listening(declared: Services) -> Iterator[tuple[str, Service]]:
    """Yield the services with a port, each name once, and the places of their service ports."""
    names: set[str] = set()
    for index, service in enumerate(declared.services):
        if service.container_port and service.name not in names:
            names.add(service.name)
            yield f"services[{index}].port", service


def _configured(service: Service, place: str, values: Values) -> int | None:
    required = service.default_port is None and values.services_complete
    port = values.resolve(service.port, validators.SERVICE_PORT, place, required=required)
    unset = validators.is_key(service.port) and not values.get(service.port)
    return service.default_port if unset or not service.port else port


def uses(port: int) -> tuple[int, ...]:
    """Return a service port and its candidate ports."""
    return (port, *(port + offset for offset in PORT_OFFSET.values()))


def assigned(app: str, names: Iterable[str], taken: Iterable[int]) -> dict[str, int]:
    """Assign a free port to each service of an application."""
    used, ports = {*taken, *_WELL_KNOWN}, {}
    for name in sorted(names):
        ports[name] = next(port for port in _candidates(app, name) if used.isdisjoint(uses(port)))
        used.update(uses(ports[name]))
    return ports


def _candidates(app: str, name: str) -> Iterator[int]:
    """Yield all ports of the range, from one that a hash of both names selects."""
    count = _HIGHEST - _LOWEST
    start = int.from_bytes(hashlib.sha256(f"{app}/{name}".encode()).digest()[:8], "big")
    for step in range(count):
        yield _LOWEST + (start + step) % count


def _check(declared: Services, ports: Mapping[str, int], settings: Settings, values: Values) -> None:
    """Report ports with two uses among the public ports, the service ports and the candidate ports, each pair once."""
    listed = [("", "", "NGINX_PORT", settings.nginx_port)]
    listed += [("HTTPS_PORT", "", "HTTPS_PORT", settings.https_port)] if settings.protocol == "https" else []
    candidates = []
    for place, service in _listening(declared):
        if service.name in ports:
            label = service.port if validators.is_key(service.port) else f"the service {service.name}"
            suffix = f" of {service.name}" if validators.is_key(service.port) else ""
            listed.append((service.port, place, label, ports[service.name]))
            candidates += [
                (service.port, place, f"{label} ({color.value}{suffix})", ports[service.name] + offset)
                for color, offset in PORT_OFFSET.items()
            ]
    taken: dict[int, tuple[str, str]] = {}
    reported: set[frozenset[str]] = set()
    for text, place, label, port in (*listed, *candidates):
        other, use = taken.setdefault(port, (place or label, label))
        pair = frozenset((other, place or label))
        if len(pair) == 2 and pair not in reported:
            reported.add(pair)
            values.reject_declared(text, place, found=f"port {port}, already used by {use}", expected="an unused port")
