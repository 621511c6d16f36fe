"""The models of `deploy/services.yaml`: services in upgrade order, image builds and test suites.

A value in capitals is the *name* of an env key, whose value is in the env file; any other value is a literal.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Annotated

from pydantic import BeforeValidator, Field

from rolling_upgrade.config import validators
from rolling_upgrade.config.accessories import Accessory
from rolling_upgrade.config.commands import Hooks, Release
from rolling_upgrade.config.containers import (
    MOUNT,
    VARIABLE,
    ContainerOptions,
    Limits,
    Mounts,
    Secret,
    Variable,
    Variables,
    listed,
    secret_form,
)
from rolling_upgrade.config.issues import Strict
from rolling_upgrade.config.jobs import Job
from rolling_upgrade.config.site import Assets, Route, Site, route_keys
from rolling_upgrade.config.values import named_keys, references
from rolling_upgrade.config.workers import Command, Entrypoint, Ready
from rolling_upgrade.engine import local_command, model

_File = Annotated[str, validators.LOCAL_FILE]
_Word = Annotated[str, validators.WORD]
_Text = Annotated[str, validators.TEXT]
_Name = Annotated[str, validators.SERVICE_NAME]
_Key = Annotated[str, validators.ENV_KEY]
_UrlPath = Annotated[str, validators.URL_PATH]
_Boolean = Annotated[bool, validators.BOOLEAN]
_Capability = Annotated[str, validators.CAPABILITY]
_Dropped = Annotated[str, validators.DROPPED_CAPABILITY]
_Interval = Annotated[float, validators.duration(0.1, 60)]
_Deadline = Annotated[float, validators.duration(1, 900)]
_Wait = Annotated[float, validators.duration(0, 3600)]

ENGINE = "podman, docker, or a command that ends in one of them, such as `sudo podman`"
ENGINES = ("podman", "docker")
PASSABLE = f"the name of a variable other than {', '.join(sorted(local_command.SECRET_VARIABLES))}"


def _passable(text: str) -> str | None:
    """Validate the name of a variable to pass on; the secrets of this program are refused."""
    return None if text in local_command.SECRET_VARIABLES else validators.ENV_KEY(text)


def _engine(text: str) -> tuple[str, ...] | None:
    """Parse the engine's command into arguments."""
    try:
        words = tuple(shlex.split(text)) if "\0" not in text else ()
    except ValueError:
        return None
    return words if any(PurePath(word).name in ENGINES for word in words) else None


_Passable = Annotated[str, validators.Validator(PASSABLE, _passable)]
_Command = Annotated[tuple[str, ...], validators.COMMAND]


class Health(Strict):
    """The request that checks a service. Without these keys it is a visitor's request to the site."""

    path: _UrlPath = Field(default=model.Gate.path, description="Path that answers 2xx when the service is healthy.")
    host: Annotated[str, validators.or_key(validators.HOST_HEADER)] = Field(
        default="", description="Host header. Default: the site's domain, with the port if it is not the default."
    )
    scheme: Annotated[str, validators.one_of("http", "https")] = Field(
        default="",
        description="X-Forwarded-Proto. Default: PROTOCOL. `https` for a site behind a proxy that ends TLS.",
    )
    headers: dict[
        Annotated[str, validators.HEADER_NAME], Annotated[str, validators.or_key(validators.HEADER_VALUE)]
    ] = Field(default={}, description="More headers, such as Authorization, each with an env key or a literal.")


def _health(written: object) -> object:
    """Convert a path alone into a health check. Raises ValueError."""
    return {"path": validators.URL_PATH(written)} if isinstance(written, str) else written


class Gate(Strict):
    """The health gate: conditions under which a new container is healthy."""

    passes: Annotated[int, validators.integer(1, 100)] = Field(
        default=model.Gate.passes, description="Consecutive successful probes that pass the gate."
    )
    interval_seconds: _Interval = Field(default=model.Gate.interval_seconds, description="Interval between two probes.")
    deadline_seconds: _Deadline = Field(
        default=model.Gate.deadline_seconds,
        description="Deadline of the gate. Extended if the HEALTH_CHECK_ keys need more time.",
    )
    running_seconds: Annotated[float, validators.duration(1, 600)] = Field(
        default=model.Gate.running_seconds,
        description="Time that a worker must run without a restart, if it has no other check.",
    )


class Drain(Strict):
    """How the old container is drained and stopped."""

    deadline_seconds: _Wait = Field(
        default=model.Drain.deadline_seconds, description="Maximum time to wait for open connections."
    )
    stop_seconds: _Wait = Field(default=model.Drain.stop_seconds, description="Time between SIGTERM and SIGKILL.")


def _route(written: object) -> object:
    """Convert a path prefix alone into a route."""
    return {"prefix": written} if isinstance(written, str) else written


class Build(Strict):
    """How `rolling-upgrade build` builds the image of the service on this workstation."""

    context: _File = Field(description="Build context, relative to hosts.yaml.")
    file: _File = Field(
        default="", description="Containerfile, relative to the context. Default: Containerfile or Dockerfile."
    )
    target: _Word = Field(default="", description="Stage of the Containerfile. Default: the last stage.")
    debug_target: _Word = Field(default="", description="Stage for `--build-type debug`. Default: target.")
    args: dict[_Key, _Text] = Field(default={}, description="Build arguments. Not for secrets: they stay in the image.")
    cache: _Boolean | None = Field(
        default=None, description="Reuse layers of earlier builds. Default: as in `building`."
    )
    squash: _Boolean | None = Field(
        default=None, description="Squash new layers into one (Podman only). Default: as in `building`."
    )
    scan: _Command | None = Field(default=None, description="Scan command for this image. Default: as in `building`.")


class Building(Strict):
    """Defaults for all builds."""

    engine: Annotated[tuple[str, ...], validators.Validator(ENGINE, _engine)] = Field(
        default=(),
        description="Build engine. Default: Podman if installed, else Docker.",
    )
    cache: _Boolean = Field(default=True, description="Reuse layers of earlier builds.")
    squash: _Boolean = Field(default=False, description="Squash new layers into one (Podman only).")
    scan: _Command = Field(
        default=(),
        description="Command that scans a built image, passed as the last argument and in $IMAGE. A nonzero exit code "
        "rejects the image. A list of arguments, or a string for sh.",
    )
    pass_env: tuple[_Passable, ...] = Field(
        default=(), description="Names of variables of the calling shell to pass to the engine and the scan command."
    )


class Suite(Strict):
    """One of the application's test suites, run by `rolling-upgrade test`."""

    kind: Annotated[model.SuiteKind, validators.one_of(*(kind.value for kind in model.SuiteKind))] = Field(
        description="Kind of the suite. `load` is skipped for production."
    )
    command: _Command = Field(description="Command: a list of arguments, or a string for sh.")
    name: Annotated[str, validators.WORD] = Field(default="", description="Name of the suite. Default: its kind.")
    folder: _File = Field(default=".", description="Working directory, relative to hosts.yaml.")
    timeout_seconds: Annotated[float, validators.duration(1, 86_400)] = Field(
        default=1800.0, description="Timeout of the suite."
    )
    env: dict[_Key, _Text] = Field(default={}, description="Environment variables for the command.")
    pass_env: tuple[_Passable, ...] = Field(
        default=(),
        description="Names of variables of the calling shell to pass on, in addition to PATH, HOME and similar ones.",
    )


class Service(ContainerOptions):
    """One service."""

    name: _Name = Field(description="Name of the service, part of the names of containers, flags and upstreams.")
    image: Annotated[str, validators.or_key(validators.IMAGE)] = Field(description="Image of the containers.")
    command: Command = Field(
        default=(),
        description="Command of the container: a list of arguments, or a text that is split as a shell does, without a "
        "shell. Default: that of the image.",
    )
    entrypoint: Entrypoint | None = Field(
        default=None,
        description="Entrypoint of the container, in the same form. Empty: the command is the program. Default: that "
        "of the image.",
    )
    container_port: Annotated[int, validators.PORT] | None = Field(
        default=None,
        description="Port on which the process in the container answers HTTP requests. Without it, the service is a "
        "worker: it has no routes and no part in the Nginx site.",
    )
    port: Annotated[str, validators.or_key(validators.SERVICE_PORT)] = Field(
        default="",
        description="Service port on the host's loopback. Default: assigned by APP_NAME and the name of the service. "
        "A worker has none.",
    )
    default_port: Annotated[int, validators.SERVICE_PORT] | None = Field(
        default=None, description="Service port when that key is not set."
    )
    health: Annotated[Health, BeforeValidator(_health, json_schema_input_type=_UrlPath | Health)] = Field(
        default=Health(),
        description=f"Path that answers 2xx when the service is healthy ({model.Gate.path}), or the keys below.",
    )
    gate: Gate = Field(default=Gate(), description="Health gate of a new container.")
    ready: Ready | None = Field(
        default=None,
        description="Command that checks the container from inside, in addition to `health`. Default for a worker: the "
        "HEALTHCHECK of its image, or else running for `gate.running_seconds`.",
    )
    handoff: Annotated[model.Handoff, validators.one_of(*(handoff.value for handoff in model.Handoff))] = Field(
        default=model.Handoff.OVERLAP,
        description="`overlap`: the new container starts while the old one runs. `exclusive`: the old one stops before "
        "the new one starts, for work that must never run twice at the same time.",
    )
    start: Annotated[model.Start, validators.one_of(*(start.value for start in model.Start))] = Field(
        default=model.Start.TOGETHER,
        description="`together`: at the same time as the other changed services. `after_previous`: after the cutover "
        "of the changed services before it.",
    )
    drain: Drain = Field(default=Drain(), description="Draining and stopping of the old container.")
    routes: tuple[Annotated[Route, BeforeValidator(_route, json_schema_input_type=_UrlPath | Route)], ...] = Field(
        default=(), description="Path prefixes that Nginx routes to the service."
    )
    assets: Assets | None = Field(
        default=None, description="Files in the image that stay reachable after an upgrade. Default: none."
    )
    mounts: Mounts = Field(default=(), description=f"Mounted directories of the host: {MOUNT}, or the keys below.")
    alias: Annotated[str, validators.SERVICE_NAME] = Field(
        default="",
        description="Network alias for other containers. Default: the name of the service; none for a worker.",
    )
    env: Variables = Field(
        default=(),
        description=f"Environment variables of the container: {VARIABLE}. A variable whose key is not set is left out.",
    )
    required: tuple[_Key, ...] = Field(default=(), description="Env keys passed to the container that must be set.")
    secrets: Annotated[
        tuple[Annotated[Secret, BeforeValidator(secret_form, json_schema_input_type=str | Secret)], ...], listed()
    ] = Field(default=(), description="Values that the container reads from files instead of its environment.")
    limits: Limits = Field(default=Limits(), description="Resource limits.")
    cap_add: tuple[_Capability, ...] = Field(default=(), description="Capabilities to add.")
    cap_drop: tuple[_Dropped, ...] = Field(
        default=model.Confinement.cap_drop,
        description="Capabilities to drop from Podman's defaults. ALL drops all except those in `cap_add`.",
    )
    no_new_privileges: _Boolean = Field(
        default=model.Confinement.no_new_privileges,
        description="Prevent programs in the container from gaining privileges, such as by set-user-ID (sudo, su).",
    )
    pids_limit: Annotated[int, validators.PIDS_LIMIT] = Field(
        default=model.Confinement.pids_limit, description="Maximum number of processes and threads."
    )
    log_driver: Annotated[str, validators.LOG_DRIVER] = Field(
        default=model.Confinement.log_driver,
        description="Log driver of the container: a file, or the host's journal.",
    )
    log_max_size: Annotated[int, validators.LOG_SIZE] = Field(
        default=model.Confinement.log_max_bytes,
        description="Maximum size of the log file before Podman truncates it. journald has its own limits.",
    )
    roles: tuple[_Word, ...] = Field(
        default=(), description="Roles of the hosts that run the service, from hosts.yaml. Default: every host."
    )
    build: Build | None = Field(
        default=None, description="How `rolling-upgrade build` builds the image. Default: the image is built elsewhere."
    )

    def runs_on(self, roles: Iterable[str]) -> bool:
        """Return whether a host with these roles runs the service."""
        return not self.roles or not set(self.roles).isdisjoint(roles)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables of the container, each once."""
        required = {name: Variable(name=name, key=name) for name in self.required}
        return tuple({**required, **{variable.name: variable for variable in self.env}}.values())

    def named_keys(self) -> Iterator[str]:
        """Yield every env key that the service names."""
        sources = (mount.source for mount in self.mounts)
        request = (self.health.host, *self.health.headers.values())
        for text in (self.image, self.port, *sources, self.limits.memory, self.limits.cpus, *request):
            yield from named_keys(text)
        yield from route_keys(self.routes)
        yield from self.required
        yield from (secret.source for secret in self.secrets)
        for variable in self.env:
            yield from (variable.key,) if variable.key else references(variable.literal)


class FullChain(Strict):
    """The request that checks that all services work together."""

    service: _Name = Field(description="Service that receives the request on its service port.")
    path: _UrlPath = Field(description="Path that answers 2xx when all services work.")


class Services(Strict):
    """The content of the file."""

    full_chain: FullChain | None = Field(
        default=None, description="Request that checks that all services work together."
    )
    services: tuple[Service, ...] = Field(min_length=1, description="The services, in upgrade order.")
    release: Release | None = Field(
        default=None,
        description="Command that a deploy runs once in a container of the new image, before new containers start.",
    )
    accessories: tuple[Accessory, ...] = Field(
        default=(), description="Databases, caches and other containers that the services use and no deploy touches."
    )
    site: Site = Field(default=Site(), description="The public site as a whole.")
    jobs: tuple[Job, ...] = Field(default=(), description="Commands on a schedule.")
    hooks: Hooks = Field(default=Hooks(), description="Commands on the workstation during a deploy or a rollback.")
    building: Building = Field(default=Building(), description="Defaults for all builds.")
    suites: tuple[Suite, ...] = Field(
        default=(), description="Test suites of the application, in the order in which they run."
    )
    reports: Annotated[str, validators.LOCAL_FILE] = Field(
        default="reports",
        description="Directory for the reports of `rolling-upgrade full`, relative to hosts.yaml. "
        "The CI job summarises `reports`.",
    )

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes of all services."""
        return tuple(route for service in self.services for route in service.routes)


def pipeline(services: Services, resolve_path: Callable[[str], Path]) -> model.Pipeline:
    """Build the pipeline model; `resolve_path` resolves paths relative to hosts.yaml."""
    defaults = services.building
    return model.Pipeline(
        engine=defaults.engine,
        pass_env=defaults.pass_env,
        builds=tuple(
            _build(service.name, service.build, defaults, resolve_path)
            for service in services.services
            if service.build
        ),
        suites=tuple(_suite(suite, resolve_path) for suite in services.suites),
        reports=str(resolve_path(services.reports)),
    )


def _build(service: str, build: Build, defaults: Building, resolve_path: Callable[[str], Path]) -> model.Build:
    context = resolve_path(build.context)
    return model.Build(
        service=service,
        context=str(context),
        file=str(context / build.file) if build.file else "",
        target=build.target,
        debug_target=build.debug_target,
        args=tuple(build.args.items()),
        cache=defaults.cache if build.cache is None else build.cache,
        squash=defaults.squash if build.squash is None else build.squash,
        scan=defaults.scan if build.scan is None else build.scan,
    )


def _suite(suite: Suite, resolve_path: Callable[[str], Path]) -> model.Suite:
    folder, env = str(resolve_path(suite.folder)), tuple(suite.env.items())
    return model.Suite(suite.kind, suite.command, folder, suite.name, suite.timeout_seconds, env, suite.pass_env)
