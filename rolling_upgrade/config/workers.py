"""Workers in `deploy/services.yaml`: services without a port, and the commands that containers run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from rolling_upgrade.config import validators
from rolling_upgrade.config.issues import Issues, Strict
from rolling_upgrade.engine import model

if TYPE_CHECKING:
    from rolling_upgrade.config.services import Service, Services

#: Words of a shell that no shell interprets here.
_OPERATORS = {"&&", "||", "|", ";", "&", "<", ">", ">>", "2>&1"}
_EXPECTED = "a command: a list of arguments, or a text that is split at its spaces; for a shell [sh, -c, TEXT]"
_SCALAR = {"type": ["string", "number", "boolean"]}


def _split(text: str) -> tuple[str, ...] | None:
    """Split a text as a shell does; None for a text that needs a shell, or whose quotes do not match."""
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    return None if _OPERATORS.intersection(words) else tuple(words)


class ContainerCommand(validators.Validator[tuple[str, ...]]):
    """Validates the command of a container: a list as it is, or a text that is split as a shell does.

    An entrypoint may be empty: the command itself is the program.
    """

    def __init__(self, *, empty: bool = False) -> None:
        self._empty = empty
        schema = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 0 if empty else 1, "items": _SCALAR}]}
        super().__init__(_EXPECTED, _split, schema)

    def __call__(self, value: object) -> tuple[str, ...]:
        words = tuple(value) if isinstance(value, list | tuple) else super().__call__(value)
        if self._empty and words in {(), ("",)}:
            return ()
        if not all(isinstance(word, str) and "\0" not in word for word in words) or not any(words[:1]):
            raise ValueError(self.expected)
        return words


Command = Annotated[tuple[str, ...], ContainerCommand()]
Entrypoint = Annotated[tuple[str, ...], ContainerCommand(empty=True)]


class Ready(Strict):
    """A command inside the container that ends with 0 when the container is ready."""

    command: Command = Field(description="The command: a list of arguments, or a text that is split at its spaces.")
    timeout_seconds: Annotated[float, validators.duration(1, 60)] = Field(
        default=model.Gate.ready_timeout_seconds, description="Time limit of one run of the command."
    )


def check_workers(services: Services, file: str, complete: bool, issues: Issues) -> None:
    """Check that a worker sets nothing that needs a port, and that the full chain's service has one.

    `complete` is false when invalid services were removed.
    """
    for index, service in enumerate(services.services):
        if service.entrypoint == () and not service.command:
            expected = "a command beside it, because an empty entrypoint also drops the command of the image"
            issues.add(file, f"services[{index}].entrypoint", found="an empty one", expected=expected)
        if service.container_port is None and (names := _needing_port(service)):
            hint = "; the check of a worker is `ready: {command: […]}`" if "health" in names else ""
            expected = f"the port of the process, because {', '.join(names)} cannot be set for a worker{hint}"
            issues.add(file, f"services[{index}].container_port", found="", expected=expected)
    chain = services.full_chain
    workers = [service.name for service in services.services if service.container_port is None]
    if complete and chain is not None and chain.service in workers:
        found = f"{chain.service!r}, a worker"
        issues.add(file, "full_chain.service", found=found, expected="a service with container_port")


def _needing_port(service: Service) -> list[str]:
    """Return the fields of a service that need a port."""
    return [name for name in ("port", "default_port", "health", "routes") if name in service.model_fields_set]
