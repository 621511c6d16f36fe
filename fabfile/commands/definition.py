"""What a release was made of, kept on the host as `config/RELEASE.json`: its form, and the look at it. Runs nothing.

Secrets are not in it: the environment of each container stays in the host's own 0600 file, found by its spec. Together
they are all that is needed to run the release again, whatever the workstation's files say by then.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from enum import Enum
from typing import Any

from fabfile.commands.podman import config_directory, env_fingerprints, spec_hash
from fabfile.commands.shell import Script, quote, words, write_file
from fabfile.model import Application, Image, Recorded


def file(home: str, release: str) -> str:
    """Where the host keeps the definition of a release."""
    return f"{home}/config/{release}.json"


def write(home: str, release: str, app: Application) -> Script:
    """Keep what the release is made of."""
    return write_file(file(home, release), dump(app))


def dump(app: Application) -> str:
    """The application as JSON, its secrets left out: a field that repr() does not show is not written."""
    services = tuple(
        dataclasses.replace(service, recorded=Recorded(spec_hash(app.name, service), env_fingerprints(service)))
        for service in app.services
    )
    return json.dumps(_plain(dataclasses.replace(app, services=services)), indent=1) + "\n"


def parse(text: str, home: str) -> Application:
    """Read what `dump` wrote for this home; what is missing has its default. Raises ValueError for anything else."""
    try:
        found: Application = _typed(Application, json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is no definition of a release ({error})") from error
    if not found.services or not all(service.recorded for service in found.services) or found.home != home:
        raise ValueError("this is no definition of a release")
    return found


def look(home: str, release: str) -> str:
    """Print the definition of a release; nothing when the host has none."""
    return f"cat {quote(file(home, release))} 2>/dev/null || :"


def available(app: Application) -> str:
    """Print `SERVICE image|env yes|registry|no` for all that the application's release needs to run again."""
    parts = []
    for service in app.services:
        env_file = quote(f"{config_directory(app, service)}/env")
        parts.append(
            f"if [ -f {env_file} ]; then echo {service.name} env yes; else echo {service.name} env no; fi\n"
            f"if {words('podman', 'image', 'exists', service.image.pinned)}; then echo {service.name} image yes\n"
            f"elif {_in_registry(service.image)}; then echo {service.name} image registry\n"
            f"else echo {service.name} image no; fi"
        )
    return "\n".join(parts)


def _in_registry(image: Image) -> str:
    command = words("timeout", 20, "skopeo", "inspect", "--raw", f"docker://{image.pinned}")
    return f"{command} >/dev/null 2>&1"


def _plain(value: Any) -> Any:
    """A dataclass as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, Enum):
        return value.value
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _typed(kind: Any, value: Any) -> Any:
    """What JSON has as the type says it is."""
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:
        if value is None:
            return None
        return _typed(next(one for one in typing.get_args(kind) if one is not types.NoneType), value)
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_typed(inner[0], item) for item in value)
        return tuple(_typed(one, item) for one, item in zip(inner, value, strict=True))
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _typed(hints[name], item) for name, item in value.items() if name in hints})  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float and isinstance(value, int):
        return float(value)
    if isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value
