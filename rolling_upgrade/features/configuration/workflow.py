"""Check the configuration and show its effective values; no host is contacted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from rolling_upgrade import config, rendering
from rolling_upgrade.config.cross_checks import conflicts, local_warnings
from rolling_upgrade.config.files import EnvFile, read_yaml
from rolling_upgrade.config.issues import Issues, conceals, validate
from rolling_upgrade.config.loader import load_located, read_env_file
from rolling_upgrade.config.locate import Located, expanded, locate
from rolling_upgrade.config.schema import SCHEMA_DIRECTORY, schema_comment, schema_files
from rolling_upgrade.config.services import Services
from rolling_upgrade.config.settings import KEYS, Settings
from rolling_upgrade.console.output import issues_json, print_lines, print_result
from rolling_upgrade.console.text import count, one_line, table
from rolling_upgrade.engine import request
from rolling_upgrade.engine.local_file import PUBLIC, replace
from rolling_upgrade.engine.masking import MASK
from rolling_upgrade.engine.model import (
    Accessory,
    Application,
    Color,
    ContainerOptions,
    Environment,
    Job,
    Overlap,
    RolloutPolicy,
    Route,
    Service,
    Target,
)
from rolling_upgrade.engine.paths import backup_directory
from rolling_upgrade.engine.podman import accessory_container, volume_name
from rolling_upgrade.engine.shell import shell_join, shown_command
from rolling_upgrade.errors import PROGRAM, ConfigError, ConfigIssue, ExitCode


@dataclass(frozen=True)
class Effective:
    """An effective value and its source."""

    value: str
    source: str


@dataclass(frozen=True)
class HostValues:
    """The keys and the derived values of a host, by name."""

    keys: Mapping[str, Effective]
    derived: Mapping[str, Effective]


@dataclass(frozen=True)
class Explained:
    """An environment, its rollout policy, its hooks, and the values of each selected host."""

    environment: Environment
    rollout: Mapping[str, Effective]
    hooks: Mapping[str, Effective]
    hosts: Mapping[str, HostValues]


def check(env: str | None, *, root: Path, strict: bool = False, json: bool = False) -> ExitCode:
    """Check one environment or all of them, and conflicts between them. Return USAGE when there is an error."""
    names = (env,) if env else config.environments(root)
    issues: dict[ConfigIssue, None] = {}
    warnings: dict[str, None] = {}
    loaded: list[Environment] = []
    for name in names or (None,):
        try:
            found = config.load(name, root=root, strict=strict)
        except ConfigError as error:
            if not error.issues:
                raise
            issues |= dict.fromkeys(error.issues)
            continue
        loaded.append(found)
        warnings |= dict.fromkeys((*found.warnings, *local_warnings(found, root)))
        _render(found)
    warnings |= dict.fromkeys(_stale_schemas(root))
    issues |= dict.fromkeys(conflicts(_with_conflicting(loaded, env, root)))
    secrets = tuple(secret for found in loaded for secret in found.secrets)
    content: object = _check_lines(loaded, tuple(issues), tuple(warnings))
    if json:
        environments = [dict(zip(("environment", "hosts", "services"), row, strict=True)) for row in _counts(loaded)]
        errors = issues_json(tuple(issues))
        content = {"ok": not issues, "environments": environments, "errors": errors, "warnings": list(warnings)}
    print_result(content, secrets)
    return ExitCode.USAGE if issues else ExitCode.DONE


def _with_conflicting(loaded: list[Environment], environment: str | None, root: Path) -> list[Environment]:
    """Return the environments to compare: a named one is compared with all others that load."""
    if environment is None or not loaded:
        return loaded
    others = []
    for name in config.environments(root):
        if name != environment:
            try:
                others.append(config.load(name, root=root, prompt=False))
            except ConfigError:
                continue
    return [*loaded, *(other for other in others if conflicts([*loaded, other]))]


def _render(environment: Environment) -> None:
    """Render every template, so that an invalid one fails here and not in a deploy."""
    for target in environment.targets:
        rendering.nginx_site(target.application)
        rendering.systemd_unit("boot.service", target.application)
        rendering.maintenance_page(target.application)


def show(env: str | None, *, root: Path, hosts: tuple[str, ...] = (), tag: str = "", json: bool = False) -> ExitCode:
    """Print every effective value and its source, secrets masked."""
    explained = explain_environment(env, root=root, hosts=hosts, tag=tag)
    report = {
        "environment": explained.environment.name,
        "rollout": explained.rollout,
        "hooks": explained.hooks,
        "hosts": explained.hosts,
    }
    print_result(report if json else _show_lines(explained), explained.environment.secrets)
    return ExitCode.DONE


def _stale_schemas(root: Path) -> Iterator[str]:
    directory = root / SCHEMA_DIRECTORY
    if directory.is_dir():
        for name, text in schema_files().items():
            path = directory / name
            if path.is_file() and path.read_text("utf-8", "replace") != text:
                yield f"{SCHEMA_DIRECTORY}/{name} is the schema of another version; {PROGRAM} config.schema replaces it"


def schema(*, root: Path, directory: str) -> ExitCode:
    """Write the JSON Schemas of the YAML files, and print the comment that makes editors use them."""
    target = root / expanded(directory)
    for name, text in schema_files().items():
        replace(target / name, text.encode(), PUBLIC)
    comments = [
        f"  {file}: {schema_comment(target / name, root / file)}"
        for file, name in (("hosts.yaml", "hosts.json"), ("deploy/services.yaml", "services.json"))
    ]
    written = f"Written in {target}: {', '.join(schema_files())}."
    print_lines([written, "Editors with a YAML language server use them with a comment in the first line:", *comments])
    return ExitCode.DONE


def _check_lines(
    environments: Sequence[Environment], issues: Sequence[ConfigIssue], warnings: Sequence[str]
) -> list[str]:
    """Format the errors, the warnings, the checked environments and a summary."""
    lines = [f"ERROR    {issue}" for issue in issues] + [f"warning  {warning}" for warning in warnings]
    lines += [
        f"{name}: {count(hosts, 'host')}, {count(services, 'service')}"
        for name, hosts, services in _counts(environments)
    ]
    if issues:
        return [*lines, f"{count(len(issues), 'error')}; nothing was contacted. Next: correct the lines above"]
    return [*lines, f"No errors, {count(len(warnings), 'warning')}; nothing was contacted."]


def _counts(environments: Sequence[Environment]) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each environment, and how many hosts and services it has."""
    for environment in environments:
        services = {service.name for target in environment.targets for service in target.application.services}
        yield environment.name, len(environment.targets), len(services)


def _show_lines(explained: Explained) -> list[str]:
    """Format the rollout policy, then the keys and derived values of each host."""
    lines = [f"rollout policy of {explained.environment.name}", *_rows(explained.rollout)]
    if explained.hooks:
        lines += ["", "hooks on this workstation", *_rows(explained.hooks)]
    for host, values in explained.hosts.items():
        derived = table([("", name, value.value) for name, value in values.derived.items()])
        lines += ["", f"{host}: keys", *_rows(values.keys), "", f"{host}: derived values", *derived]
    return lines


def _rows(values: Mapping[str, Effective]) -> list[str]:
    return table([("", name, value.value or "-", value.source) for name, value in values.items()])


def explain_environment(environment: str | None, *, root: Path, hosts: Sequence[str] = (), tag: str = "") -> Explained:
    """Read the files and collect the effective values. Raises ConfigError with every error."""
    issues = Issues(root.resolve())
    located = locate(environment, root.resolve(), issues)
    env = read_env_file(located, issues, prompt=True)
    loaded = load_located(located, env, issues, hosts=hosts, tag=tag, strict=False)
    sources = _Sources(located, env or EnvFile({}, {}), issues, tag)
    return Explained(
        loaded,
        rollout=dict(_rollout(located, issues, loaded.rollout)),
        hooks={hook.name: Effective(shown_command(hook.command), hook.source) for hook in loaded.hooks},
        hosts={
            target.name: HostValues(
                keys=dict(sources.keys(target.name)), derived=_derived(target) | dict(sources.assigned_ports(target))
            )
            for target in loaded.targets
        },
    )


class _Sources:
    """Look up the source of each key in the three files."""

    def __init__(self, located: Located, env: EnvFile, issues: Issues, tag: str) -> None:
        self._located, self._tag = located, tag
        self._base, self._lines = env.values, env.lines
        self._env_name, self._inventory_name = located.values_name(issues), issues.name(located.file)
        path = located.resolve(located.entry.services_file)
        content = read_yaml(path, issues, remedy="") or {}
        services = validate(Services, content, issues.name(path), issues)
        self._services_name = issues.name(path)
        self._services = services.services if services else ()
        self._accessories = services.accessories if services else ()

    def assigned_ports(self, target: Target) -> Iterator[tuple[str, Effective]]:
        """Yield the service ports that the configuration leaves open."""
        declared = {service.name for service in self._services if not service.port and service.default_port is None}
        for service in target.application.http_services:
            if service.name in declared:
                yield f"{service.name}: service port", Effective(str(service.service_port), "assigned; see `port`")

    def keys(self, host: str) -> Iterator[tuple[str, Effective]]:
        """Yield the keys of the settings and services, then unknown keys."""
        named = [key for service in self._services for key in service.named_keys()]
        named += [key for accessory in self._accessories for key in accessory.named_keys()]
        for key in dict.fromkeys((*KEYS, *named, *self._base)):
            value, source = self._value(host, key)
            yield key, Effective(MASK if value and conceals(key, value) else value, source)

    def _value(self, host: str, key: str) -> tuple[str, str]:
        overrides = self._located.entry.hosts[host].env
        if key == "APP_VERSION" and self._tag:
            return self._tag, "--tag"
        if key in overrides:
            return overrides[key], f"{self._inventory_name} environments.{self._located.name}.hosts.{host}.env"
        if self._base.get(key):
            return self._base[key], f"{self._env_name} line {self._lines[key]}"
        if key == "ENVIRONMENT":
            return self._located.name, f"name in {self._inventory_name}"
        for service in self._services:
            if key == service.port and service.default_port is not None:
                return str(service.default_port), f"{self._services_name} {service.name}.default_port"
        field = Settings.model_fields.get(key.lower())
        default = field.default if field is not None else ""
        return ("" if default is None else _plain(default)), "default" if field is not None else "not set"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rollout(located: Located, issues: Issues, rollout: RolloutPolicy) -> Iterator[tuple[str, Effective]]:
    written = located.entry.rollout.model_fields_set
    # The signing key is shown by the name of its file.
    for name, value in (asdict(rollout) | {"signed_by": located.entry.rollout.signed_by}).items():
        place = f"{issues.name(located.file)} environments.{located.name}.rollout.{name}"
        yield name, Effective(_plain(value), place if name in written else "default")


def _derived(target: Target) -> dict[str, Effective]:
    """Return the values derived from the keys of a host."""
    app = target.application
    scheme, port, usual = ("https", app.https_port, 443) if app.tls else ("http", app.http_port, 80)
    through = f" through {target.jump}" if target.jump else ""
    rows = [
        ("login", f"{target.user}@{target.address} port {target.port}" + through),
        ("setup login", target.setup_user),
        ("roles", ", ".join(target.roles)),
        ("groups", ", ".join(target.groups)),
        ("identity file", target.identity_file),
        (
            "public address",
            f"{scheme}://{app.domain}" + ("" if port == usual else f":{port}") if app.has_site else "none: no site",
        ),
        *_site(app),
        ("services", ", ".join(service.name for service in app.services)),
        ("home on the host", app.home),
        ("backups of the database", backup_directory(app) if app.has_database else ""),
        ("backups of the uploads", app.uploads_backups or backup_directory(app) if app.uploads else ""),
        ("full chain", f"{app.full_chain.path} on {app.full_chain.service}'s service port" if app.full_chain else ""),
    ]
    if (release := app.release_command) is not None:
        limit = f"in a new container of {release.service}, within {release.timeout_seconds:g} s"
        rows.append(("release command", f"{shown_command(release.command)}: {limit}"))
    for service in app.services:
        rows += [(f"{service.name}: {name}", value) for name, value in _service(app, service)]
    for accessory in app.accessories:
        rows += [(f"accessory {accessory.name}: {name}", value) for name, value in _accessory(app, accessory)]
    rows += [(f"job {job.name}", _job(job)) for job in app.jobs]
    return {name: Effective(value or "none", "derived") for name, value in rows}


def _job(job: Job) -> str:
    late = "replaces a run that has not ended" if job.overlap is Overlap.REPLACE else "skipped while the last one runs"
    return f"{job.schedule}: {shlex.join(job.command)} in {job.service}, at most {job.timeout_seconds:g} s, {late}"


def _options(app: Application, options: ContainerOptions) -> Iterator[tuple[str, str]]:
    """Yield the options of a container that differ from Podman's defaults."""
    volumes = (
        f"{volume_name(app.name, volume.name)} at {volume.target}{' (read only)' if volume.read_only else ''}"
        for volume in options.volumes
    )
    given = (
        ("user", options.user),
        ("volumes", ", ".join(volumes)),
        ("tmpfs", ", ".join(options.tmpfs)),
        ("shared memory", f"{options.shm_bytes // 1024**2} MiB" if options.shm_bytes else ""),
        ("root file system", "read only" if options.read_only else ""),
        ("devices", ", ".join(options.devices)),
        ("ulimits", ", ".join(options.ulimits)),
        ("add_host", ", ".join(options.add_host)),
        ("labels", ", ".join(f"{name}={value}" for name, value in options.labels)),
        ("init", "yes" if options.init else ""),
    )
    yield from ((name, value) for name, value in given if value)


def _accessory(app: Application, accessory: Accessory) -> Iterator[tuple[str, str]]:
    yield "image", accessory.image.exact
    yield "container", accessory_container(app.name, accessory.name)
    yield "command", shell_join(*accessory.command) if accessory.command else "the image's"
    yield "ports", ", ".join(f"{port.address}:{port.host_port} to {port.container_port}" for port in accessory.ports)
    yield "mounts", ", ".join(f"{mount.source} at {mount.target}" for mount in accessory.mounts)
    yield from _options(app, accessory.options)
    yield "health check", shell_join(*accessory.health) if accessory.health else "the image's, else that it runs"
    yield "deadline", f"{accessory.deadline_seconds:g} s until it is healthy, {accessory.stop_seconds:g} s to stop"
    memory = f"{accessory.memory_bytes // 1024**2} MiB" if accessory.memory_bytes else "no memory limit"
    yield "limits", f"{memory}, {f'{accessory.cpus:g} CPUs' if accessory.cpus else 'no CPU limit'}"
    yield "environment keys", ", ".join(key for key, _ in accessory.env)


def _site(app: Application) -> Iterator[tuple[str, str]]:
    """Yield the domains of the site, and the options that differ from a plain one."""
    if not app.has_site:
        return
    site = app.site
    yield "domains", ", ".join(app.served_domains)
    if site.redirects:
        yield "redirects", ", ".join(f"{source} to {target}" for source, target in site.redirects)
    if site.trusted_proxies:
        yield "trusted proxies", ", ".join(site.trusted_proxies)
    if app.tls:
        yield "HTTP/2", "on" if site.http2 else "off"
    if site.gzip:
        yield "gzip", "on"
    if hsts := site.hsts:
        words = [f"{hsts.max_age_seconds} s"]
        words += ["with subdomains"] if hsts.include_subdomains else []
        words += ["preload"] if hsts.preload else []
        yield "HSTS", ", ".join(words)
    yield "largest headers", f"{site.header_bytes // 1024} KiB"


def _route(route: Route) -> str:
    options = [f"only {', '.join(route.domains)}"] if route.domains else []
    options += ["stream"] if route.stream else []
    options += [f"timeout {route.timeout_seconds} s"] if route.timeout_seconds else []
    if route.max_body_bytes is not None:
        options.append(f"bodies up to {route.max_body_bytes} bytes" if route.max_body_bytes else "bodies of any size")
    options += ["prefix stripped"] if route.strip_prefix else []
    options += [f"only users {', '.join(route.users)}"] if route.users else []
    for what, headers in (("request", route.request_headers), ("response", route.response_headers)):
        options += [f"{what} headers {', '.join(name for name, _ in headers)}"] if headers else []
    return route.prefix + (f" ({'; '.join(options)})" if options else "")


def _command(words: Sequence[str]) -> str:
    return one_line(shlex.join(words))


def _probe(service: Service) -> str:
    """Describe the check that passes a gate."""
    if service.is_worker:
        running = f"the image's HEALTHCHECK, or running for {service.gate.running_seconds:g} s"
        return "ready" if service.gate.ready else running
    return f"{service.gate.path} and ready" if service.gate.ready else service.gate.path


def _service(app: Application, service: Service) -> Iterator[tuple[str, str]]:
    gate, drain = service.gate, service.drain
    yield "image", f"{service.image.reference}" + (f"@{service.image.digest}" if service.image.digest else "")
    yield "service port", "none, a worker" if service.is_worker else str(service.service_port)
    for color in Color:
        port = "" if service.is_worker else f" on port {service.port(color)}"
        yield color.value, f"{app.name}-{service.name}-{color.value}{port}"
    yield "entrypoint", "that of the image" if service.entrypoint is None else _command(service.entrypoint)
    yield "command", _command(service.command) or "that of the image"
    yield (
        "gate",
        f"{_probe(service)}: {gate.passes} passes, every {gate.interval_seconds:g} s, answers within "
        f"{gate.timeout_seconds:g} s, start period {gate.start_period_seconds:g} s, {gate.retries} failures end it, "
        f"deadline {gate.deadline_seconds:g} s",
    )
    if not service.is_worker:
        headers = "".join(f", {name}" for name, _ in gate.headers)
        yield "checks send", request.to_service(app, service, service.service_port).sent + headers
    yield "ready", f"{_command(gate.ready)}, ends within {gate.ready_timeout_seconds:g} s" if gate.ready else ""
    yield "start", service.start.value
    yield "handoff", service.handoff.value
    yield "drain", f"{drain.deadline_seconds:g} s, then {drain.stop_seconds:g} s to stop"
    yield "routes", ", ".join(map(_route, service.routes))
    if service.assets:
        yield "assets", f"{service.assets.path} of the image, at {service.assets.prefix}"
    mounts = (
        f"{mount.source} at {mount.target}{' (read only)' if mount.read_only else ''}"
        f"{f' (owner {mount.owner})' if mount.owner else ''}"
        for mount in service.mounts
    )
    yield "mounts", ", ".join(mounts)
    yield from _options(app, service.options)
    yield "alias", service.alias
    memory = f"{service.memory_bytes // 1024**2} MiB" if service.memory_bytes else "no memory limit"
    yield "limits", f"{memory}, {f'{service.cpus:g} CPUs' if service.cpus else 'no CPU limit'}"
    yield "restart policy", service.restart_policy
    if service.secret_files:
        yield "secret files", ", ".join(f"{secret.name} at {secret.target}" for secret in service.secret_files)
    yield "environment keys", ", ".join(key for key, _ in service.env)
