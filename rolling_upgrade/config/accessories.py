"""The accessories of `services.yaml`: databases and caches that no deploy touches, and their place on the hosts."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

from rolling_upgrade.config import validators
from rolling_upgrade.config.containers import (
    MOUNT,
    VARIABLE,
    VARIABLE_TEXT,
    ContainerOptions,
    Limits,
    Mounts,
    Variables,
    is_unpassable,
    listed,
    resolve_options,
)
from rolling_upgrade.config.issues import Issues, Strict
from rolling_upgrade.config.values import Values, named_keys, references
from rolling_upgrade.engine import model

_Boolean = Annotated[bool, validators.BOOLEAN]
_Capability = Annotated[str, validators.CAPABILITY]
_Dropped = Annotated[str, validators.DROPPED_CAPABILITY]
_PORT = (
    "a port such as 5432, 15432:5432 or 10.0.0.5:5432:5432; without an address it is on loopback; from 1024 on the host"
)


def _published(text: str) -> str | None:
    """Validate `[[ADDRESS:]HOST-PORT:]CONTAINER-PORT`."""
    return text if parse_port(text) is not None else None


def parse_port(text: str) -> model.PublishedPort | None:
    """Parse a published port; None for an invalid one."""
    match = re.fullmatch(r"(?:(?:(\[[0-9a-fA-F:]+\]|[0-9.]+):)?([0-9]{1,5}):)?([0-9]{1,5})", text)
    if match is None:
        return None
    address = (match[1] or "127.0.0.1").removeprefix("[").removesuffix("]")
    try:
        address = str(ipaddress.ip_address(address))
        host, inside = validators.PORT(match[2] or match[3]), validators.PORT(match[3])
    except ValueError:
        return None
    return model.PublishedPort(host, inside, address) if host >= 1024 else None


PUBLISHED_PORT = validators.Validator(_PORT, _published)


_HealthCommand = Annotated[tuple[str, ...], validators.COMMAND]


class AccessoryHealth(Strict):
    """The health check of an accessory."""

    command: _HealthCommand = Field(
        default=(),
        description="Command inside the container that exits with 0 when the accessory is healthy. Default: the health "
        "check of the image; without one, the accessory is healthy while it runs.",
    )
    timeout_seconds: Annotated[float, validators.duration(1, 60)] = Field(
        default=model.Accessory.health_timeout_seconds, description="Time limit of the command."
    )
    deadline_seconds: Annotated[float, validators.duration(1, 3600)] = Field(
        default=model.Accessory.deadline_seconds, description="Maximum time from the start until it is healthy."
    )


def _health(value: object) -> object:
    """Accept a command in place of the mapping."""
    return {"command": value} if isinstance(value, str | list | tuple) else value


class Accessory(ContainerOptions):
    """One accessory. Its name is its host name for the services."""

    name: Annotated[str, validators.SERVICE_NAME] = Field(description="Name of the accessory, and its host name.")
    image: Annotated[str, validators.or_key(validators.IMAGE)] = Field(
        description="Image with a tag or digest. A tag is resolved to its digest when the accessory starts."
    )
    host: Annotated[str, validators.or_key(validators.WORD)] = Field(
        default="", description="Host that runs the accessory. Default: the only host of the environment."
    )
    roles: tuple[Annotated[str, validators.WORD], ...] = Field(
        default=(), description="Roles of the hosts that run it, each with its own data; instead of `host`."
    )
    command: Annotated[
        tuple[str, ...], BeforeValidator(lambda value: value or (), json_schema_input_type=tuple[str, ...])
    ] = Field(
        default=(), description="Arguments for the entrypoint of the image, a list. Default: the image's command."
    )
    env: Variables = Field(
        default=(), description=f"Environment variables of the container: {VARIABLE}. Each key must be set."
    )
    mounts: Mounts = Field(default=(), description=f"Mounted directories of the host: {MOUNT}, or the keys of a mount.")
    ports: Annotated[tuple[Annotated[str, PUBLISHED_PORT], ...], listed()] = Field(
        default=(), description="Ports that the host publishes, on loopback unless an address is given."
    )
    health: Annotated[
        AccessoryHealth, BeforeValidator(_health, json_schema_input_type=_HealthCommand | AccessoryHealth)
    ] = Field(default=AccessoryHealth(), description="Health check: a command, or a mapping.")
    stop_seconds: Annotated[float, validators.duration(0, 3600)] = Field(
        default=model.Accessory.stop_seconds, description="Time between the stop signal and SIGKILL."
    )
    limits: Limits = Field(default=Limits(), description="Resource limits.")
    cap_add: tuple[_Capability, ...] = Field(default=(), description="Capabilities to add.")
    cap_drop: tuple[_Dropped, ...] = Field(
        default=model.Confinement.cap_drop, description="Capabilities to drop from Podman's defaults."
    )
    no_new_privileges: _Boolean = Field(
        default=True, description="Prevent programs in the container from gaining privileges."
    )
    backup: _Boolean = Field(
        default=True, description="Back up its PostgreSQL and MariaDB databases, which the URLs of the services name."
    )
    pids_limit: Annotated[int, validators.PIDS_LIMIT] = Field(
        default=model.Confinement.pids_limit, description="Maximum number of processes and threads."
    )

    def named_keys(self) -> Iterator[str]:
        """Yield every env key that the accessory names."""
        sources = (mount.source for mount in self.mounts)
        for text in (self.image, self.host, self.limits.memory, self.limits.cpus, *sources):
            yield from named_keys(text)
        for variable in self.env:
            yield from [variable.key] if variable.key else references(variable.literal)


def check_accessories(accessories: Sequence[Accessory], taken: Sequence[str], file: str, issues: Issues) -> None:
    """Check that the names are unique among services and accessories, and that host and roles are not both given."""
    seen = dict.fromkeys(taken, "a service")
    for index, accessory in enumerate(accessories):
        place = f"accessories[{index}]"
        if accessory.name in seen:
            found = f"{accessory.name!r}, already used by {seen[accessory.name]}"
            issues.add(file, f"{place}.name", found=found, expected="a unique value")
        seen.setdefault(accessory.name, f"{place}.name")
        if accessory.name in {color.value for color in model.Color}:
            issues.add(file, f"{place}.name", found=repr(accessory.name), expected="a name other than a color's")
        if accessory.host and accessory.roles:
            issues.add(file, f"{place}.roles", found="`roles` beside `host`", expected="one of the two")
        targets = [*accessory.targets, *((f"mounts[{n}].target", m.target) for n, m in enumerate(accessory.mounts))]
        for number, (where, target) in enumerate(targets):
            if target in {other for _, other in targets[:number]}:
                issues.add(file, f"{place}.{where}", found=f"{target!r}, used twice", expected="a unique value")


def resolve_accessories(
    declared: Sequence[Accessory], hosts: Mapping[str, Sequence[str]], host: str, values: Values
) -> tuple[model.Accessory, ...]:
    """Build the accessories of one host; one with errors is missing.

    Args:
        hosts: the roles of each host of the environment, by its name.
    """
    found = []
    for index, accessory in enumerate(declared):
        place = f"accessories[{index}]"
        if _is_placed(accessory, place, hosts, host, values):
            resolved = _resolve(accessory, place, values)
            if resolved is not None:
                found.append(resolved)
    return tuple(found)


def _is_placed(accessory: Accessory, place: str, hosts: Mapping[str, Sequence[str]], host: str, values: Values) -> bool:
    """Return whether the accessory runs on the host; report one without a host."""
    if accessory.host:
        name = values.resolve(accessory.host, validators.WORD, f"{place}.host", required=True)
        if name is not None and name not in hosts:
            expected = f"a host of the environment: {', '.join(hosts)}"
            values.reject_declared(accessory.host, f"{place}.host", found=repr(name), expected=expected)
        return name == host
    if accessory.roles:
        known = {role for roles in hosts.values() for role in roles}
        for number, role in enumerate(accessory.roles):
            if role not in known:
                expected = f"a role of a host: {', '.join(sorted(known)) or 'no host has one'}"
                values.issues.add(values.services_file, f"{place}.roles[{number}]", found=repr(role), expected=expected)
        return bool(set(accessory.roles) & set(hosts.get(host, ())))
    if len(hosts) > 1:
        expected = f"`host` or `roles`, because the environment has {len(hosts)} hosts"
        values.issues.add(values.services_file, place, found=f"{accessory.name} without a host", expected=expected)
    return True


def _resolve(accessory: Accessory, place: str, values: Values) -> model.Accessory | None:
    image = values.resolve(accessory.image, validators.IMAGE, f"{place}.image", required=True)
    memory = values.resolve(accessory.limits.memory, validators.MEMORY, f"{place}.limits.memory")
    cpus = values.resolve(accessory.limits.cpus, validators.CPUS, f"{place}.limits.cpus")
    mounts = tuple(_mounts(accessory, place, values))
    env = tuple(_environment(accessory, place, values))
    if image is None:
        return None
    if not image.tag and not image.digest:
        values.reject_declared(accessory.image, f"{place}.image", expected="an image with a tag or a digest")
        return None
    return model.Accessory(
        name=accessory.name,
        image=image,
        env=env,
        mounts=mounts,
        options=resolve_options(accessory),
        command=accessory.command,
        ports=tuple(port for text in accessory.ports if (port := parse_port(text)) is not None),
        health=accessory.health.command,
        health_timeout_seconds=accessory.health.timeout_seconds,
        deadline_seconds=accessory.health.deadline_seconds,
        stop_seconds=accessory.stop_seconds,
        memory_bytes=memory,
        cpus=cpus,
        confinement=model.Confinement(
            cap_add=tuple(sorted(set(accessory.cap_add))),
            cap_drop=tuple(sorted(set(accessory.cap_drop) - set(accessory.cap_add))),
            no_new_privileges=accessory.no_new_privileges,
            pids_limit=accessory.pids_limit,
        ),
    )


def _mounts(accessory: Accessory, place: str, values: Values) -> Iterator[model.Mount]:
    for number, mount in enumerate(accessory.mounts):
        where = f"{place}.mounts[{number}].source"
        validator = validators.FILE_IN_DIRECTORY if mount.parent else validators.HOST_PATH
        path = values.resolve(mount.source, validator, where, required=not mount.optional)
        if path is not None:
            source = posixpath.dirname(path) if mount.parent else path
            yield model.Mount(source, mount.target, mount.read_only, mount.owner)


def _environment(accessory: Accessory, place: str, values: Values) -> Iterator[tuple[str, str]]:
    """Yield the environment. Each key must be set: a database without its password would be a surprise."""
    for number, variable in enumerate(accessory.env):
        if variable.key:
            text = values.get(variable.key)
            if not text:
                values.reject(variable.key, expected=f"a value for the accessory {accessory.name}")
            elif is_unpassable(variable.name, text):
                values.reject(variable.key, expected=VARIABLE_TEXT)
            else:
                yield variable.name, text
            continue
        replaced = values.interpolate(variable.literal, f"{place}.env[{number}]")
        if replaced is not None:
            yield variable.name, replaced


def check_ports(declared: Sequence[Accessory], app: model.Application, file: str, issues: Issues) -> None:
    """Report published ports of accessories on one host that another accessory, a service or the site uses."""
    taken = dict.fromkeys(app.public_ports, "the site") if app.has_site else {}
    for service in app.http_services:
        taken[service.service_port] = f"the service {service.name}"
        taken |= {service.port(color): f"the service {service.name} ({color.value})" for color in model.Color}
    places = {accessory.name: f"accessories[{index}]" for index, accessory in enumerate(declared)}
    for accessory in app.accessories:
        for number, port in enumerate(accessory.ports):
            if port.host_port in taken:
                found = f"port {port.host_port}, already used by {taken[port.host_port]}"
                place = f"{places[accessory.name]}.ports[{number}]"
                issues.add(file, place, found=found, expected="an unused port")
            taken.setdefault(port.host_port, f"the accessory {accessory.name}")
