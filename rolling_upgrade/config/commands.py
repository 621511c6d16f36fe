"""The models of commands around a deploy: the release command."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rolling_upgrade.config import validators
from rolling_upgrade.config.issues import Strict
from rolling_upgrade.engine import model


class Release(Strict):
    """A command that a deploy runs once, such as a migration of the database."""

    service: Annotated[str, validators.SERVICE_NAME] = Field(
        default="", description="Service whose new image, environment and mounts it gets. Default: the first service."
    )
    command: Annotated[tuple[str, ...], validators.COMMAND] = Field(
        description="Command in the container: a list of arguments, or a string for sh. It must be safe to repeat."
    )
    entrypoint: Annotated[tuple[str, ...], validators.ENTRYPOINT] | None = Field(
        default=None, description="Replaces the entrypoint of the service; [] runs the command itself."
    )
    timeout_seconds: Annotated[float, validators.duration(1, 86_400)] = Field(
        default=model.ReleaseCommand.timeout_seconds, description="Time limit of the command."
    )
