"""From the three models to one host's `model.Application`: every key of every service replaced by its value.

It reads no file. What is wrong goes to the findings, at the place where the value was written.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from fabfile import model
from fabfile.config import forms, schedule, server, watching
from fabfile.config.channels import read_channels
from fabfile.config.findings import Findings, shown
from fabfile.config.services import Mount, Service, Services
from fabfile.config.settings import Settings
from fabfile.config.validation import report

T = TypeVar("T")

#: The gate's deadline never grows beyond this, whatever the HEALTH_CHECK_ keys say.
LONGEST_GATE_SECONDS = 900.0


@dataclass(frozen=True)
class Values:
    """The texts that one host gets: those of the env file and, over them, those of the inventory.

    `services_whole` is false when something faulty was left out of the services: a key that then seems to be
    missing may have a default, or be optional, in the part that was left out.
    """

    env_file: str
    base: dict[str, str]
    inventory_file: str
    inventory_path: str
    overrides: dict[str, str]
    services_whole: bool
    findings: Findings

    @property
    def merged(self) -> dict[str, str]:
        """What holds on this host."""
        return {**self.base, **self.overrides}

    def get(self, key: str) -> str:
        """The text of a key, '' when it is not set."""
        return self.overrides.get(key, self.base.get(key, ""))

    def add(self, key: str, *, found: str = "", expected: str) -> None:
        """Keep a mistake about a key where its value was written."""
        text = self.get(key)
        found = found or (shown(text, key) if text else "nothing")
        if key in self.overrides:
            self.findings.add(self.inventory_file, f"{self.inventory_path}.{key}", found=found, expected=expected)
        else:
            self.findings.add(self.env_file, key, found=found, expected=expected)

    def read(self, key: str, form: forms.Form[T]) -> T | None:
        """The value of a key in its form; None when it is not set, or when it is a mistake."""
        text = self.get(key)
        if not text:
            return None
        try:
            return form(text)
        except ValueError as error:
            self.add(key, expected=str(error))
            return None


def read_settings(values: Values) -> Settings | None:
    """The keys that the suite itself knows; an empty value counts as not set."""
    present = {key: text for key, text in values.merged.items() if text}
    try:
        return Settings.model_validate(present)
    except ValidationError as error:
        for detail in error.errors():
            key = str(detail["loc"][0])
            if detail["type"] == "missing":
                values.add(key, expected=f"{_expectation(key)} (required)")
            elif "error" in detail.get("ctx", {}):
                values.add(key, expected=str(detail["ctx"]["error"]))
            else:
                report(detail, Settings, values.env_file, values.findings)
    return None


def _expectation(key: str) -> str:
    """What the form of a key expects."""
    form = forms.of(None, Settings.model_fields[key.lower()].metadata)
    return form.expected if form else "a value"


def resolve(values: Values, declared: Services | None, tag: str) -> model.Application | None:
    """The application as one host runs it, or None when something is wrong with it."""
    settings = read_settings(values)
    resolved = [resolve_service(service, values, settings, tag) for service in declared.services] if declared else []
    services = tuple(service for service in resolved if service is not None)
    if settings is None or declared is None:
        return None
    tls = _tls(settings, values)
    _check_ports(declared, services, settings, tls, values)
    full_chain = declared.full_chain
    return model.Application(
        name=settings.app_name,
        environment=settings.environment,
        domain=settings.domain_name,
        services=services,
        full_chain=model.Probe(full_chain.service, full_chain.path) if full_chain else None,
        http_port=settings.nginx_port,
        https_port=settings.https_port,
        tls=tls,
        max_upload_bytes=settings.max_upload_size,
        database=settings.database_path,
        database_backups=settings.database_backup_path,
        uploads=settings.uploads_path,
        uploads_backups=settings.uploads_backup_path,
        config_path=settings.config_path,
        log_files=tuple(filter(None, (settings.log_file, settings.access_log, settings.error_log))),
        database_server=_database_server(settings, values),
        backup_retention_days=settings.backup_retention_days,
        auto_backup=settings.auto_backup_enabled,
        backup_calendar=schedule.on_calendar(settings.backup_schedule),
        maintenance=settings.maintenance_mode,
        metrics_dir=watching.metrics_dir(settings),
        request_metrics=settings.request_metrics and bool(watching.metrics_dir(settings)),
        login=_login(settings, values),
        channels=read_channels(settings, values),
        thresholds=watching.thresholds(settings),
        watch=watching.rules(settings),
    )


def resolve_service(declared: Service, values: Values, settings: Settings | None, tag: str) -> model.Service | None:
    """One service with every key replaced by its value, or None when something is wrong with it."""
    image = _image(declared.image, values, tag)
    port = _stable_port(declared, values)
    mounts = tuple(_mounts(declared, values))
    memory = values.read(declared.limits.memory, forms.MEMORY)
    cpus = values.read(declared.limits.cpus, forms.CPUS)
    env = tuple(_container_env(declared, values, tag))
    if image is None or port is None or settings is None:
        return None
    return model.Service(
        name=declared.name,
        image=image,
        container_port=declared.container_port,
        stable_port=port,
        gate=_gate(declared, settings),
        drain=model.Drain(declared.drain.deadline_seconds, declared.drain.stop_seconds),
        routes=tuple(model.Route(route.prefix, route.stream) for route in declared.routes),
        mounts=mounts,
        alias=declared.alias or declared.name,
        env=env,
        memory_bytes=memory,
        cpus=cpus,
        restart_policy=settings.restart_policy,
    )


def _image(key: str, values: Values, tag: str) -> model.Image | None:
    if not values.get(key):
        values.add(key, expected=f"{forms.IMAGE.expected} (required)")
    image = values.read(key, forms.IMAGE)
    if image is None:
        return None
    if tag:
        return image.with_tag(tag)
    if image.digest or image.tag:
        return image
    if not values.get("APP_VERSION"):
        values.add(key, expected="a tag: in the image, in APP_VERSION or with --tag")
    version = values.read("APP_VERSION", forms.TAG)
    return image.with_tag(version) if version else None


def _stable_port(declared: Service, values: Values) -> int | None:
    if not values.get(declared.port):
        if declared.default_port is None and values.services_whole:
            values.add(declared.port, expected=f"{forms.STABLE_PORT.expected} (required)")
        return declared.default_port
    return values.read(declared.port, forms.STABLE_PORT)


def _mounts(declared: Service, values: Values) -> Iterator[model.Mount]:
    for mount in declared.mounts:
        form = forms.FILE_IN_DIRECTORY if mount.parent else forms.HOST_PATH
        if not values.get(mount.source) and not mount.optional and values.services_whole:
            values.add(mount.source, expected=f"{form.expected} (required)")
        path = values.read(mount.source, form)
        if path is not None:
            source = posixpath.dirname(path) if mount.parent else path
            yield model.Mount(source, mount.target, mount.read_only)


def _container_env(declared: Service, values: Values, tag: str) -> Iterator[tuple[str, str]]:
    """The keys that a container receives. A mount's key arrives as the path inside the container."""
    inside = {mount.source: mount for mount in declared.mounts}
    for key in declared.env_keys:
        text = values.get(key)
        if key in declared.required and not text:
            values.add(key, expected=f"a value (required by {declared.name})")
        if key not in values.merged:
            continue
        if key in inside and text:
            yield key, _path_inside(inside[key], text)
        elif re.search(r"[\n\r\0]", text):
            values.add(key, expected="a value in one line: an env file of Podman cannot carry a line break")
        else:
            yield key, tag if key == "APP_VERSION" and tag else text


def _path_inside(mount: Mount, text: str) -> str:
    return posixpath.join(mount.target, posixpath.basename(text)) if mount.parent else mount.target


def _gate(declared: Service, settings: Settings) -> model.Gate:
    """The gate; its deadline leaves room for the start period, then for `retries` failures and `passes`."""
    gate, timeout = declared.gate, settings.health_check_timeout
    attempts = settings.health_check_retries + gate.passes
    needed = settings.health_check_start_period + attempts * (gate.interval_seconds + timeout)
    return model.Gate(
        path=declared.health,
        passes=gate.passes,
        interval_seconds=gate.interval_seconds,
        timeout_seconds=timeout,
        start_period_seconds=settings.health_check_start_period,
        retries=settings.health_check_retries,
        deadline_seconds=max(gate.deadline_seconds, min(needed, LONGEST_GATE_SECONDS)),
    )


def _tls(settings: Settings, values: Values) -> model.Tls | None:
    if settings.protocol != "https":
        return None
    for key, path in (("SSL_CERT_PATH", settings.ssl_cert_path), ("SSL_KEY_PATH", settings.ssl_key_path)):
        if not path:
            values.add(key, expected=f"{forms.FILE_PATH.expected} (PROTOCOL is https)")
    return model.Tls(settings.ssl_cert_path, settings.ssl_key_path, settings.ssl_chain_path)


def _database_server(settings: Settings, values: Values) -> model.DatabaseServer | None:
    try:
        found = server.database_server(settings.database_url)
    except ValueError as error:
        values.add("DATABASE_URL", expected=str(error))
        return None
    if found and settings.database_path:
        what = "DATABASE_URL names a PostgreSQL server: backups hold its database, not the file of DATABASE_PATH"
        values.findings.warn(f"{values.env_file}: {what}")
    return found


def _login(settings: Settings, values: Values) -> model.Login | None:
    given = {
        "REGISTRY": settings.registry,
        "REGISTRY_USERNAME": settings.registry_username,
        "REGISTRY_PASSWORD": settings.registry_password,
    }
    if not any(given.values()):
        return None
    for key in (key for key, value in given.items() if not value):
        others = " and ".join(name for name in given if name != key)
        values.add(key, expected=f"a value: {others} make a login only together with it")
    return model.Login(*given.values())


def _check_ports(
    declared: Services,
    services: tuple[model.Service, ...],
    settings: Settings,
    tls: model.Tls | None,
    values: Values,
) -> None:
    """Every port belongs to one thing: public ports, stable ports and the ports of the colors."""
    keys = {service.name: service.port for service in declared.services}
    taken = {settings.nginx_port: "NGINX_PORT"}
    uses = [("HTTPS_PORT", "HTTPS_PORT", settings.https_port)] if tls else []
    uses += [(keys[service.name], keys[service.name], service.stable_port) for service in services]
    for service in services:
        key = keys[service.name]
        uses += [(key, f"{key} ({color.value} of {service.name})", service.port(color)) for color in model.Color]
    for key, label, port in uses:
        if port in taken:
            values.add(key, found=f"port {port}, which {taken[port]} has", expected="a port of its own")
        taken.setdefault(port, label)
