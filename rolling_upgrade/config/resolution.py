"""Resolve the settings and services of one host into a `model.Application`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from pydantic import ValidationError

from rolling_upgrade.config import schedule, validators
from rolling_upgrade.config.containers import VARIABLE_TEXT, Mount, is_unpassable, resolve_options
from rolling_upgrade.config.databases import parse_url
from rolling_upgrade.config.issues import report
from rolling_upgrade.config.jobs import resolve_jobs
from rolling_upgrade.config.ports import service_ports
from rolling_upgrade.config.services import Health, Service, Services
from rolling_upgrade.config.settings import Settings
from rolling_upgrade.config.site import resolve_assets, resolve_route, resolve_site
from rolling_upgrade.config.values import Values
from rolling_upgrade.engine import model
from rolling_upgrade.engine.model import WatchRules

#: Upper bound for the deadline of a gate that the HEALTH_CHECK_ keys extend.
LONGEST_GATE_SECONDS = 900.0


def _settings(values: Values) -> Settings | None:
    """Validate the settings; an empty value counts as not set. None when any is invalid."""
    present = {key: text for key, text in values.merged.items() if text}
    try:
        return Settings.model_validate(present)
    except ValidationError as error:
        for detail in error.errors():
            key = str(detail["loc"][0])
            if detail["type"] == "missing":
                values.reject(key, expected=_expectation(key))
            elif "error" in detail.get("ctx", {}):
                values.reject(key, expected=str(detail["ctx"]["error"]))
            else:
                report(detail, Settings, values.env_file, values.issues)
    return None


def is_log_path(text: str) -> bool:
    """Return whether the value of a log key is a file on the host. Others, such as `stdout`, are for the services."""
    try:
        return bool(validators.FILE_PATH(text))
    except ValueError:
        return False


def _expectation(key: str) -> str:
    """Return what the validator of a setting expects."""
    validator = validators.validator_of(None, Settings.model_fields[key.lower()].metadata)
    return validator.expected if validator else "a value"


def resolve(values: Values, declared: Services | None, tag: str, roles: Sequence[str] = ()) -> model.Application | None:
    """Build the application of one host with these roles, None when it has errors."""
    settings = _settings(values)
    ports = service_ports(declared, values, settings) if declared else {}
    resolved = [
        _resolve_service(service, f"services[{index}]", values, settings, ports.get(service.name), tag)
        for index, service in enumerate(declared.services if declared else ())
        if service.runs_on(roles)
    ]
    services = tuple(service for service in resolved if service is not None)
    if settings is None or declared is None:
        return None
    full_chain = declared.full_chain
    if full_chain and full_chain.service not in {service.name for service in services}:
        full_chain = None
    return model.Application(
        name=settings.app_name,
        environment=settings.environment,
        domain=settings.domain_name,
        services=services,
        full_chain=model.Probe(full_chain.service, full_chain.path) if full_chain else None,
        http_port=settings.nginx_port,
        https_port=settings.https_port,
        tls=_tls(settings, values),
        max_upload_bytes=settings.max_upload_size,
        database=settings.database_path,
        database_backups=settings.database_backup_path,
        uploads=settings.uploads_path,
        uploads_backups=settings.uploads_backup_path,
        config_path=settings.config_path,
        log_files=tuple(filter(is_log_path, (settings.log_file, settings.access_log, settings.error_log))),
        database_server=_database_server(settings, values, (one.name for one in declared.accessories)),
        backup_retention_days=settings.backup_retention_days,
        auto_backup=settings.auto_backup_enabled,
        backup_calendar=schedule.on_calendar(settings.backup_schedule),
        maintenance=settings.maintenance_mode,
        metrics_dir=_metrics_dir(settings),
        request_metrics=settings.request_metrics
        and bool(_metrics_dir(settings))
        and any(not service.is_worker for service in services),
        login=_login(settings, values),
        channels=_channels(settings, values),
        thresholds=_thresholds(settings),
        watch=_watch_rules(settings),
        release_command=_release_command(declared),
        site=resolve_site(declared.site, declared.routes, settings.domain_name, values),
        jobs=resolve_jobs(declared.jobs, values),
    )


def _release_command(declared: Services) -> model.ReleaseCommand | None:
    release = declared.release
    if release is None:
        return None
    service = release.service or declared.services[0].name
    return model.ReleaseCommand(service, release.command, release.timeout_seconds, release.entrypoint)


def _resolve_service(
    declared: Service, place: str, values: Values, settings: Settings | None, port: int | None, tag: str
) -> model.Service | None:
    """Build one service with the values of its keys, None when it has errors. `place` is its place in the file."""
    image = read_image(declared.image, f"{place}.image", values, tag)
    mounts = tuple(_mounts(declared, place, values))
    memory = values.resolve(declared.limits.memory, validators.MEMORY, f"{place}.limits.memory")
    cpus = values.resolve(declared.limits.cpus, validators.CPUS, f"{place}.limits.cpus")
    env = tuple(_container_env(declared, place, values, tag))
    secret_files = tuple(_secret_files(declared, values))
    port = port if declared.container_port else 0
    if image is None or port is None or settings is None:
        return None
    return model.Service(
        name=declared.name,
        image=image,
        container_port=declared.container_port or 0,
        service_port=port,
        gate=_gate(declared, place, values, settings),
        drain=model.Drain(declared.drain.deadline_seconds, declared.drain.stop_seconds),
        routes=tuple(
            resolve_route(route, f"{place}.routes[{index}]", settings.domain_name, values)
            for index, route in enumerate(declared.routes)
        ),
        assets=resolve_assets(declared.assets),
        mounts=mounts,
        alias=declared.alias or (declared.name if declared.container_port else ""),
        env=env,
        memory_bytes=memory,
        cpus=cpus,
        restart_policy=settings.restart_policy,
        confinement=_confinement(declared),
        start=declared.start,
        options=resolve_options(declared),
        secret_files=secret_files,
        command=declared.command,
        entrypoint=declared.entrypoint,
        handoff=declared.handoff,
    )


def _confinement(declared: Service) -> model.Confinement:
    """Build the privileges of the container; an added capability is not dropped."""
    return model.Confinement(
        cap_add=tuple(sorted(set(declared.cap_add))),
        cap_drop=tuple(sorted(set(declared.cap_drop) - set(declared.cap_add))),
        no_new_privileges=declared.no_new_privileges,
        pids_limit=declared.pids_limit,
        log_driver=declared.log_driver,
        log_max_bytes=declared.log_max_size,
    )


def read_image(text: str, place: str, values: Values, tag: str) -> model.Image | None:
    """Read the image that services.yaml names at a place, with the tag of the run or its own tag or APP_VERSION."""
    image = values.resolve(text, validators.IMAGE, place, required=True)
    if image is None:
        return None
    if tag:
        return image.with_tag(tag)
    if image.digest or image.tag:
        return image
    if not values.get("APP_VERSION"):
        expected = "the tag of the images without one, such as v1; or a tag in `image`, or --tag of the deploy"
        values.reject("APP_VERSION", expected=expected)
    version = values.read("APP_VERSION", validators.TAG)
    return image.with_tag(version) if version else None


def _mounts(declared: Service, place: str, values: Values) -> Iterator[model.Mount]:
    for index, mount in enumerate(declared.mounts):
        validator = validators.FILE_IN_DIRECTORY if mount.parent else validators.HOST_PATH
        required = not mount.optional and values.services_complete
        path = values.resolve(mount.source, validator, f"{place}.mounts[{index}].source", required=required)
        if path is not None:
            source = posixpath.dirname(path) if mount.parent else path
            yield model.Mount(source, mount.target, mount.read_only, mount.owner)


def _container_env(declared: Service, place: str, values: Values, tag: str) -> Iterator[tuple[str, str]]:
    """Yield the environment of a container. The key of a mount gets the path inside the container."""
    inside = {mount.source: mount for mount in declared.mounts if validators.is_key(mount.source)}
    for key in declared.required:
        if not values.get(key):
            values.reject(key, expected=f"a value for the service {declared.name}")
    for variable in declared.variables:
        name, key = variable.name, variable.key
        if not key:
            text = values.interpolate(variable.literal, f"{place}.env")
            if text is not None and is_unpassable(name, text):
                values.reject_declared(variable.literal, f"{place}.env", expected=VARIABLE_TEXT)
            elif text is not None:
                yield name, text
            continue
        text = values.get(key)
        if key not in values.merged:
            continue
        if key in inside and text:
            yield name, _path_inside(inside[key], text)
        elif is_unpassable(name, text):
            values.reject(key, expected=VARIABLE_TEXT)
        else:
            yield name, tag if key == "APP_VERSION" and tag else text


def _secret_files(declared: Service, values: Values) -> Iterator[model.SecretFile]:
    for secret in declared.secrets:
        text = values.get(secret.source)
        if not text and values.services_complete:
            values.reject(secret.source, expected=f"a value, because it is a secret of the service {declared.name}")
        elif "\0" in text:
            values.reject(secret.source, expected=VARIABLE_TEXT)
        elif text:
            yield model.SecretFile(secret.source, secret.path, text)


def _path_inside(mount: Mount, text: str) -> str:
    return posixpath.join(mount.target, posixpath.basename(text)) if mount.parent else mount.target


def _gate(declared: Service, place: str, values: Values, settings: Settings) -> model.Gate:
    """Build the gate. Its deadline leaves time for the start period, then for `retries` failures and `passes`."""
    gate, health, timeout = declared.gate, declared.health, settings.health_check_timeout
    attempts = settings.health_check_retries + gate.passes
    needed = settings.health_check_start_period + attempts * (gate.interval_seconds + timeout)
    by_running = declared.container_port is None and declared.ready is None
    running = gate.running_seconds + 30 if by_running else 0
    return model.Gate(
        path=health.path,
        passes=gate.passes,
        interval_seconds=gate.interval_seconds,
        timeout_seconds=timeout,
        start_period_seconds=settings.health_check_start_period,
        retries=settings.health_check_retries,
        deadline_seconds=max(gate.deadline_seconds, min(needed, LONGEST_GATE_SECONDS), running),
        host=values.resolve(health.host, validators.HOST_HEADER, f"{place}.health.host", required=True) or "",
        scheme=health.scheme,
        headers=tuple(_headers(health, f"{place}.health.headers", values)),
        ready=declared.ready.command if declared.ready else (),
        ready_timeout_seconds=declared.ready.timeout_seconds if declared.ready else model.Gate.ready_timeout_seconds,
        running_seconds=gate.running_seconds,
    )


def _headers(health: Health, place: str, values: Values) -> Iterator[tuple[str, str]]:
    for name, text in health.headers.items():
        value = values.resolve(text, validators.HEADER_VALUE, f"{place}.{name}", required=True)
        if value is not None:
            yield name, value


def _tls(settings: Settings, values: Values) -> model.Tls | None:
    if settings.protocol != "https":
        return None
    for key, path in (("SSL_CERT_PATH", settings.ssl_cert_path), ("SSL_KEY_PATH", settings.ssl_key_path)):
        if not path:
            values.reject(key, expected=f"{validators.FILE_PATH.expected}, because PROTOCOL is https")
    return model.Tls(settings.ssl_cert_path, settings.ssl_key_path, settings.ssl_chain_path)


def _database_server(settings: Settings, values: Values, accessories: Iterable[str]) -> model.DatabaseServer | None:
    """Return the server of DATABASE_URL; None if that is an accessory, whose own programs back it up."""
    url = parse_url(settings.database_url)
    if url is not None and url.host in set(accessories):
        return None
    try:
        server = parse_database_url(settings.database_url)
    except ValueError as error:
        values.reject("DATABASE_URL", expected=str(error))
        return None
    if server and settings.database_path:
        what = "DATABASE_URL names a PostgreSQL server, so backups contain its database, not the file at DATABASE_PATH"
        values.issues.warn(f"{values.env_file}: {what}")
    return server


def _login(settings: Settings, values: Values) -> model.Login | None:
    given = {
        "REGISTRY": settings.registry,
        "REGISTRY_USERNAME": settings.registry_username,
        "REGISTRY_PASSWORD": settings.registry_password,
    }
    if not any(given.values()):
        return None
    for key in (key for key, value in given.items() if not value):
        others = next(name for name, value in given.items() if value)
        values.reject(key, expected=f"a value, because {others} is set: a login needs all three")
    return model.Login(*given.values())


#: The port on which mail servers expect TLS from the first byte. Source: RFC 8314, section 3.3.
IMPLICIT_TLS_PORT = 465


def _channels(settings: Settings, values: Values) -> model.Channels:
    """Build the notification channels."""
    return model.Channels(
        slack=_hook(settings.slack_webhook, settings.notify_slack),
        mail=_mail(settings, values),
        webhook=_hook(settings.webhook_url, settings.notify_webhook),
        language=settings.notify_language,
        repeat_seconds=settings.notify_repeat,
    )


def _lowest(word: str) -> model.Severity | None:
    return None if word == "off" else model.Severity(word)


def _hook(url: str, lowest: str) -> model.Hook | None:
    return model.Hook(url, _lowest(lowest)) if url else None


def _mail(settings: Settings, values: Values) -> model.Mail | None:
    if not settings.smtp_host:
        if settings.smtp_from or settings.smtp_to or settings.smtp_user or settings.smtp_password:
            why = "no mail is sent, because SMTP_HOST is empty although other SMTP_ keys are set"
            values.issues.warn(f"{values.env_file}: {why}")
        return None
    _check_mail(settings, values)
    return model.Mail(
        host=settings.smtp_host,
        sender=settings.smtp_from,
        recipients=tuple(re.split(r"\s*,\s*", settings.smtp_to)),
        port=settings.smtp_port,
        user=settings.smtp_user,
        password=settings.smtp_password,
        security=model.Security(settings.smtp_security),
        lowest=_lowest(settings.notify_mail),
    )


def _check_mail(settings: Settings, values: Values) -> None:
    for key in ("SMTP_FROM", "SMTP_TO"):
        if not values.get(key):
            values.reject(key, expected="a value, because SMTP_HOST is set: mail needs SMTP_FROM and SMTP_TO")
    for key, other in (("SMTP_USER", "SMTP_PASSWORD"), ("SMTP_PASSWORD", "SMTP_USER")):
        if values.get(other) and not values.get(key):
            values.reject(key, expected=f"a value, because {other} is set: a login needs both")
    for key, text in (("SMTP_USER", settings.smtp_user), ("SMTP_PASSWORD", settings.smtp_password)):
        if not text.isascii():
            values.reject(key, expected="ASCII characters only, as SMTP logins require")
    if settings.smtp_security == "none" and settings.smtp_password:
        values.reject("SMTP_SECURITY", expected="starttls or tls: SMTP_PASSWORD is never sent unencrypted")
    if settings.smtp_security == "starttls" and settings.smtp_port == IMPLICIT_TLS_PORT:
        values.reject(
            "SMTP_SECURITY",
            expected=f"tls, because SMTP_PORT is {IMPLICIT_TLS_PORT}: servers expect TLS there from the first byte",
        )


_DATABASE_URL = "a URL such as postgresql://user:password@host:5432/name, with special characters percent-encoded"

#: Parameters that psql and pg_dump accept; they refuse those of other libraries.
#: Source: PostgreSQL manual, libpq, Parameter Key Words.
_KNOWN = frozenset(
    {"host", "port", "user", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "options"}
    | {"target_session_attrs", "channel_binding", "gssencmode", "sslnegotiation", "require_auth"}
)
#: Names of the host inside a container; the host itself does not resolve them.
_HOST_ALIASES = frozenset({"host.containers.internal", "host.docker.internal"})


def parse_database_url(url: str) -> model.DatabaseServer | None:
    """Parse a DATABASE_URL; None when it is not PostgreSQL. Raises ValueError when it is invalid."""
    if not re.match(r"postgres(?:ql)?(?:\+\w+)?://", url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(_DATABASE_URL) from None
    query = parse_qsl(parts.query)
    password = unquote(parts.password or "") or dict(query).get("password", "")
    if re.search(rf"[\t{validators.UNPRINTABLE}]", url + password) or not re.fullmatch(r"[!-~]+", url):
        raise ValueError(_DATABASE_URL)
    user = f"{quote(unquote(parts.username), safe='')}@" if parts.username else ""
    place = "127.0.0.1" if host in _HOST_ALIASES else f"[{host}]" if ":" in host else host
    kept = urlencode([(key, value) for key, value in query if key in _KNOWN], quote_via=quote)
    address = f"postgresql://{user}{place}{f':{port}' if port else ''}{parts.path}{f'?{kept}' if kept else ''}"
    return model.DatabaseServer(address, password)


def _thresholds(settings: Settings) -> model.Thresholds:
    """Build the thresholds of the health checks."""
    return model.Thresholds(
        free_percent=settings.min_free_percent,
        memory_percent=settings.max_memory_percent,
        certificate_days=settings.min_certificate_days,
        clock_seconds=settings.max_clock_offset,
        backup_age_seconds=settings.max_backup_age,
    )


def _metrics_dir(settings: Settings) -> str:
    """Return the directory for the watchdog's metrics, empty for none."""
    return "" if settings.metrics_dir == validators.NONE else settings.metrics_dir


def _watch_rules(settings: Settings) -> WatchRules:
    """Build the rules of the watchdog."""
    return WatchRules(
        enabled=settings.auto_recovery_enabled,
        interval_seconds=settings.health_check_interval,
        failures=settings.health_check_retries,
        limit=settings.recovery_limit,
        window_seconds=settings.recovery_window,
        fresh_seconds=settings.fresh_release,
    )
