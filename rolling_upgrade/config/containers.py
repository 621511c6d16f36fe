"""The parts of a container that services and accessories share, in the forms that Compose users write."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue

from rolling_upgrade.config import validators
from rolling_upgrade.config.issues import Strict
from rolling_upgrade.config.validators import is_key
from rolling_upgrade.engine import model
from rolling_upgrade.engine.podman import has_line_break

_Boolean = Annotated[bool, validators.BOOLEAN]
_Key = Annotated[str, validators.ENV_KEY]
_Text = Annotated[str, validators.TEXT]

_VOLUME = "a volume such as media:/app/media or media:/app/media:ro; directories of the host belong to `mounts`"
_TMPFS = "a path, or a path with options, such as /cache:size=64MB,mode=1777"
_DEVICE = "a device such as /dev/fuse or /dev/ttyUSB0:/dev/modem:rw"
_ULIMIT = "a limit such as nofile=1024:4096 or nproc=512; -1 is unlimited"
_HOST = "a host name and an IP address, such as db:10.0.0.5; the host itself is host.containers.internal"
_LABEL = "a label such as team=web, whose name does not start with rolling., io.podman. or io.containers."
#: Source: getrlimit(2).
_LIMITS = "as|core|cpu|data|fsize|locks|memlock|msgqueue|nice|nofile|nproc|rss|rtprio|rttime|sigpending|stack"
#: Options of a tmpfs without a value. Source: podman-run(1), --tmpfs.
_FLAGS = frozenset({"ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev"})
#: Labels of this program and of Podman. Podman replaces a container labelled io.containers.autoupdate by itself.
_RESERVED = ("rolling.", "io.podman.", "io.containers.")


def _tmpfs(text: str) -> str | None:
    """Normalize `PATH[:OPTION,…]`; the size becomes a number of bytes."""
    path, colon, given = text.partition(":")
    options = [_tmpfs_option(option) for option in given.split(",")] if colon else []
    try:
        target = validators.HOST_PATH(path)
        return None if None in options else f"{target}:{','.join(map(str, options))}" if options else target
    except ValueError:
        return None


def _tmpfs_option(text: str) -> str | None:
    name, _, value = text.partition("=")
    if name == "size":
        return f"size={validators.SIZE(value)}"
    valid = re.fullmatch(r"0?[0-7]{3,4}", value) if name == "mode" else text in _FLAGS
    return text if valid else None


def _device(text: str) -> str | None:
    """Normalize `DEVICE[:PATH[:rwm]]`; a name such as nvidia.com/gpu=all stays."""
    if re.fullmatch(r"[a-z0-9][a-z0-9.-]*/[A-Za-z0-9_-]+=[A-Za-z0-9._:-]+", text):
        return text
    path = r"/dev(?:/(?!\.{1,2}(?:/|:|$))[\w.+-]+)+"
    return text if re.fullmatch(rf"{path}(?::{path})?(?::[rwm]{{1,3}})?", text) else None


def _ulimit(text: str) -> str | None:
    match = re.fullmatch(rf"({_LIMITS})=(-1|[0-9]{{1,18}})(?::(-1|[0-9]{{1,18}}))?", text)
    if match is None:
        return None
    soft, hard = int(match[2]), int(match[3] or match[2])
    return f"{match[1]}={soft}:{hard}" if hard == -1 or 0 <= soft <= hard else None


def _host(text: str) -> str | None:
    """Normalize `NAME:ADDRESS` or `NAME=ADDRESS`."""
    name, _, address = text.partition("=") if "=" in text else text.partition(":")
    try:
        return f"{validators.DOMAIN(name)}:{ipaddress.ip_address(address.removeprefix('[').removesuffix(']'))}"
    except ValueError:
        return None


def _label(text: str) -> str | None:
    name, equals, _ = text.partition("=")
    valid = re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9._/-]{{0,127}}=[^{validators.UNPRINTABLE}]*", text)
    return text if equals and valid and not name.startswith(_RESERVED) else None


def _owner(text: str) -> str | None:
    """Normalize `UID[:GID]` to both ids. Source: podman(1): a deploy user has 65,536 subordinate ids."""
    match = re.fullmatch(r"([0-9]{1,5})(?::([0-9]{1,5}))?", text)
    ids = (int(match[1]), int(match[2] or match[1])) if match else (65_536,)
    return ":".join(map(str, ids)) if max(ids) < 65_536 else None


_USER = re.compile(r"(?:[0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31})(?::(?:[0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31}))?")
USER = validators.Validator(
    "a user of the image such as app, 1000 or 1000:1000", lambda text: text if _USER.fullmatch(text) else None
)
MOUNT_OWNER = validators.Validator("a user id of the container, or user and group: 1000 or 1000:1000", _owner)
TMPFS = validators.Validator(_TMPFS, _tmpfs)
DEVICE = validators.Validator(_DEVICE, _device)
ULIMIT = validators.Validator(_ULIMIT, _ulimit)
EXTRA_HOST = validators.Validator(_HOST, _host)
CONTAINER_LABEL = validators.Validator(_LABEL, _label)
SHM_SIZE = validators.size(1024**2)


class _Listed(BeforeValidator):
    """Accepts a list, or a single text."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema["schema"]), {"type": "string"}]}


class _ListedOrMapped(BeforeValidator):
    """Accepts a list, a single text, or a mapping."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema["schema"]), {"type": "string"}, {"type": "object"}]}


def listed(join: Callable[[str, Any], object] | None = None) -> BeforeValidator:
    """Accept a list, a single text, or, with `join`, a mapping whose entries `join` converts into items of the list."""

    def convert(value: object) -> object:
        if isinstance(value, Mapping) and join is not None:
            return [join(str(name), item) for name, item in value.items()]
        return [value] if isinstance(value, str) and value else value or []

    return _Listed(convert) if join is None else _ListedOrMapped(convert)


def _joined_limit(name: str, value: Any) -> object:
    """Convert `nofile: 1024` and `nofile: {soft: 1024, hard: 4096}`."""
    if isinstance(value, Mapping) and set(value) == {"soft", "hard"}:
        value = f"{value['soft']}:{value['hard']}"
    return f"{name}={value}"


def _volume(value: object) -> object:
    """Convert `NAME:PATH[:ro]`. Raises ValueError."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*):(/[^:]+)(?::(ro|rw))?", value)
    if match is None:
        raise ValueError(_VOLUME)
    return {"name": match[1], "target": match[2], "read_only": "true" if match[3] == "ro" else "false"}


class Volume(Strict):
    """A named volume of Podman; also written as `NAME:PATH` or `NAME:PATH:ro`."""

    name: Annotated[str, validators.WORD] = Field(
        description="Name of the volume; on the host, it starts with the application's name."
    )
    target: Annotated[str, validators.HOST_PATH] = Field(description="Path inside the container.")
    read_only: _Boolean = Field(default=False, description="Mount read-only.")


#: Variables that Podman itself reads, so that their values have to be lines of an env file.
_PODMANS_NAMES = ("HOME", "PATH", "TMPDIR")
_PODMANS_PREFIXES = ("CONTAINER", "LD_", "XDG_")
VARIABLE_TEXT = "a value without NUL bytes; for HOME, PATH, TMPDIR and CONTAINER…, LD_… and XDG_…, a single line"


def is_unpassable(name: str, text: str) -> bool:
    """Whether a container cannot get the value: Podman takes one of several lines from its own environment."""
    is_podmans = name in _PODMANS_NAMES or name.startswith(_PODMANS_PREFIXES)
    return "\0" in text or (is_podmans and has_line_break(text))


def secret_form(value: object) -> object:
    """Convert `KEY` and `KEY:PATH`."""
    if not isinstance(value, str):
        return value
    source, _, target = value.partition(":")
    return {"source": source, **({"target": target} if target else {})}


class Secret(Strict):
    """A value that the container reads from a file; also written as `KEY` or `KEY:PATH`."""

    source: Annotated[str, validators.ENV_KEY] = Field(
        description="Env key with the value, which may have several lines."
    )
    target: Annotated[str, validators.FILE_PATH] = Field(
        default="", description="Path inside the container, readable for every user there. Default: /run/secrets/KEY."
    )

    @property
    def path(self) -> str:
        """The path inside the container."""
        return self.target or f"/run/secrets/{self.source}"


class ContainerOptions(Strict):
    """Options of a container, for services and accessories."""

    user: Annotated[str, USER] = Field(default="", description="User of the processes. Default: the image's.")
    volumes: Annotated[
        tuple[Annotated[Volume, BeforeValidator(_volume, json_schema_input_type=str | Volume)], ...], listed()
    ] = Field(
        default=(),
        description="Named volumes, kept by deploys and teardowns, and shared by all services that name them.",
    )
    tmpfs: Annotated[tuple[Annotated[str, TMPFS], ...], listed()] = Field(
        default=(), description="Directories in memory, such as /cache:size=64MB."
    )
    shm_size: Annotated[int, SHM_SIZE] | None = Field(
        default=None, description="Size of /dev/shm. Default: Podman's, 64 MB."
    )
    read_only: _Boolean = Field(
        default=False, description="Read-only root file system; /tmp, /var/tmp and /run are in memory."
    )
    devices: Annotated[tuple[Annotated[str, DEVICE], ...], listed()] = Field(
        default=(), description="Devices of the host to which the deploy user has access."
    )
    ulimits: Annotated[tuple[Annotated[str, ULIMIT], ...], listed(_joined_limit)] = Field(
        default=(), description="Resource limits of processes, such as nofile=1024:4096, or a mapping."
    )
    add_host: Annotated[tuple[Annotated[str, EXTRA_HOST], ...], listed(lambda name, value: f"{name}:{value}")] = Field(
        default=(), description="Host names for /etc/hosts, such as db:10.0.0.5, or a mapping."
    )
    labels: Annotated[tuple[Annotated[str, CONTAINER_LABEL], ...], listed(lambda name, value: f"{name}={value}")] = (
        Field(default=(), description="Labels of the container, such as team=web, or a mapping.")
    )
    init: _Boolean = Field(
        default=False, description="Run an init process as process 1, which forwards signals and reaps zombies."
    )

    @property
    def targets(self) -> tuple[tuple[str, str], ...]:
        """The place in the file and the path inside the container of each volume and tmpfs."""
        volumes = ((f"volumes[{number}].target", volume.target) for number, volume in enumerate(self.volumes))
        tmpfs = ((f"tmpfs[{number}]", text.partition(":")[0]) for number, text in enumerate(self.tmpfs))
        return (*volumes, *tmpfs)


def resolve_options(declared: ContainerOptions) -> model.ContainerOptions:
    """Build the engine's options; the order of labels does not count."""
    labels = (text.partition("=") for text in declared.labels)
    return model.ContainerOptions(
        user=declared.user,
        volumes=tuple(model.Volume(volume.name, volume.target, volume.read_only) for volume in declared.volumes),
        tmpfs=declared.tmpfs,
        shm_bytes=declared.shm_size,
        read_only=declared.read_only,
        devices=declared.devices,
        ulimits=declared.ulimits,
        add_host=declared.add_host,
        labels=tuple(sorted((name, value) for name, _, value in labels)),
        init=declared.init,
    )


class EnvValue(Strict):
    """The value of an environment variable, which is no key, whatever it looks like."""

    value: _Text = Field(description="The value. `${KEY}` and `${KEY:-default}` are replaced.")


class Variable(Strict):
    """An environment variable of a container, with the env key of its value or a literal."""

    name: _Key
    key: str = ""
    literal: _Text = ""


VARIABLE = "NAME, NAME: KEY, NAME: literal or NAME: {value: text}"


def _variable(written: object) -> object:
    """Convert the written form of one variable. Raises ValueError."""
    if isinstance(written, str) and "=" in written:
        raise ValueError(f"{VARIABLE}; a colon and a space in place of =")
    if isinstance(written, str):
        return {"name": validators.ENV_KEY(written), "key": written}
    if isinstance(written, dict) and len(written) == 1:
        ((name, value),) = written.items()
        validators.ENV_KEY(name)
        if isinstance(value, str):
            return {"name": name} | ({"key": value or name} if not value or is_key(value) else {"literal": value})
        if isinstance(value, dict) and list(value) == ["value"]:
            return {"name": name, "literal": value["value"]}
    raise ValueError(VARIABLE)


def _variables(written: object) -> object:
    """Convert a mapping of variables into a list."""
    return [{name: value} for name, value in written.items()] if isinstance(written, dict) else written


_WrittenVariable = _Key | dict[_Key, _Text | EnvValue]
_Variable = Annotated[Variable, BeforeValidator(_variable, json_schema_input_type=_WrittenVariable)]
Variables = Annotated[
    tuple[_Variable, ...],
    BeforeValidator(_variables, json_schema_input_type=tuple[_WrittenVariable, ...] | dict[_Key, _Text | EnvValue]),
]


class Mount(Strict):
    """A directory of the host, mounted into the container."""

    source: Annotated[str, validators.or_key(validators.HOST_PATH)] = Field(description="Path on the host.")
    target: Annotated[str, validators.HOST_PATH] = Field(description="Path inside the container.")
    parent: _Boolean = Field(default=False, description="`source` is a file; mount its directory.")
    read_only: _Boolean = Field(default=False, description="Mount read-only.")
    optional: _Boolean = Field(default=False, description="Omit the mount when the key is not set.")
    owner: Annotated[str, MOUNT_OWNER] = Field(
        default="",
        description="Owner of the directory inside the container, to which setup gives it. 1000 means 1000:1000.",
    )


MOUNT = "SOURCE:TARGET or SOURCE:TARGET:ro"


def _mount(written: object) -> object:
    """Convert the short form of a mount. Raises ValueError."""
    if not isinstance(written, str):
        return written
    words = written.rsplit(":", 2) if written.endswith((":ro", ":rw")) else [*written.rsplit(":", 1), "rw"]
    if len(words) != 3 or not words[0] or not words[1].startswith("/") or re.match(r"[^$]*:", words[0]):
        raise ValueError(MOUNT)
    return {"source": words[0], "target": words[1]} | ({"read_only": "true"} if words[2] == "ro" else {})


class Limits(Strict):
    """The resource limits of the container. An env key that is not set means no limit."""

    memory: Annotated[str, validators.or_key(validators.MEMORY)] = Field(default="", description="Memory limit.")
    cpus: Annotated[str, validators.or_key(validators.CPUS)] = Field(default="", description="CPU limit.")


Mounts = tuple[Annotated[Mount, BeforeValidator(_mount, json_schema_input_type=str | Mount)], ...]
