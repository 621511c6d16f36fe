"""The models of `build`, `building` and `suites` in services.yaml, and what follows from them. It builds nothing."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from fabfile import model
from fabfile.config import forms
from fabfile.config.validation import Strict

if TYPE_CHECKING:
    from fabfile.config.services import Services

_Boolean = Annotated[bool, BeforeValidator(forms.BOOLEAN)]
_File = Annotated[str, BeforeValidator(forms.LOCAL_FILE)]
_Word = Annotated[str, BeforeValidator(forms.WORD)]
_Text = Annotated[str, BeforeValidator(forms.TEXT)]
_Key = Annotated[str, BeforeValidator(forms.ENV_KEY)]

COMMAND = "a command: a list of words, or one text for sh"
ENGINE = "podman, docker, or a command that ends in one of them, such as `sudo podman`"
ENGINES = ("podman", "docker")


def _command(value: object) -> tuple[str, ...]:
    """The words of a command; a text is for `sh`. Raises ValueError."""
    words = ("sh", "-c", value) if isinstance(value, str) and value.strip() else value
    whole = isinstance(words, list | tuple) and words and all(isinstance(word, str) for word in words)
    if not whole or "\0" in "".join(words) or not words[0]:  # type: ignore[arg-type, index]
        raise ValueError(COMMAND)
    return tuple(words)  # type: ignore[arg-type]


def _engine(value: object) -> tuple[str, ...]:
    """The words of the engine's command. Raises ValueError."""
    try:
        words = tuple(shlex.split(value)) if isinstance(value, str) and "\0" not in value else ()
    except ValueError:
        words = ()
    if not any(PurePath(word).name in ENGINES for word in words):
        raise ValueError(ENGINE)
    return words


_Command = Annotated[tuple[str, ...], BeforeValidator(_command)]


class Build(Strict):
    """How the service's image is built, on this workstation: `inv build`."""

    context: _File = Field(description="Folder that is built, relative to hosts.yaml.")
    file: _File = Field(
        default="", description="Its Containerfile, relative to the context. Default: Containerfile, or Dockerfile."
    )
    target: _Word = Field(default="", description="Stage of the Containerfile to build. Default: the last one.")
    debug_target: _Word = Field(default="", description="The same with --build-type debug. Default: target.")
    args: dict[_Key, _Text] = Field(
        default={}, description="Build arguments by name. Never secrets: an image keeps them."
    )
    cache: _Boolean | None = Field(default=None, description="Layers are taken from earlier builds. Default: building.")
    squash: _Boolean | None = Field(default=None, description="New layers become one; Podman alone. Default: building.")
    scan: _Command | None = Field(default=None, description="As in building, for this image.")


class Building(Strict):
    """What holds for every build."""

    engine: Annotated[tuple[str, ...], BeforeValidator(_engine)] = Field(
        default=(),
        description="The program that builds: podman, docker, or a command. Default: what is found, Podman first.",
    )
    cache: _Boolean = Field(default=True, description="Layers are taken from earlier builds.")
    squash: _Boolean = Field(default=False, description="The new layers become one; Podman alone.")
    scan: _Command = Field(
        default=(),
        description="Command that judges a built image, which is its last word and $IMAGE: a status other than 0 "
        "refuses the image. A list of words, or one text for sh.",
    )


class Suite(Strict):
    """One of the application's own suites: `inv test`."""

    kind: Annotated[model.SuiteKind, BeforeValidator(forms.one_of(*(kind.value for kind in model.SuiteKind)))] = Field(
        description="What it proves; load is skipped for production."
    )
    command: _Command = Field(description="What is run: a list of words, or one text for sh.")
    name: Annotated[str, BeforeValidator(forms.WORD)] = Field(default="", description="Its name. Default: its kind.")
    folder: _File = Field(default=".", description="Where it is run, relative to hosts.yaml.")
    timeout_seconds: Annotated[float, BeforeValidator(forms.duration(1, 86_400))] = Field(
        default=1800.0, description="How long it may take."
    )
    env: dict[_Key, _Text] = Field(default={}, description="Variables that it gets beside those of this shell.")


def pipeline(services: Services, beside: Callable[[str], Path]) -> model.Pipeline:
    """What the file says of builds and suites; `beside` makes its paths those of this machine."""
    own = services.building
    return model.Pipeline(
        engine=own.engine,
        builds=tuple(_build(one.name, one.build, own, beside) for one in services.services if one.build),
        suites=tuple(_suite(suite, beside) for suite in services.suites),
        reports=str(beside(services.reports)),
    )


def _build(service: str, build: Build, own: Building, beside: Callable[[str], Path]) -> model.Build:
    context = beside(build.context)
    return model.Build(
        service=service,
        context=str(context),
        file=str(context / build.file) if build.file else "",
        target=build.target,
        debug_target=build.debug_target,
        args=tuple(build.args.items()),
        cache=own.cache if build.cache is None else build.cache,
        squash=own.squash if build.squash is None else build.squash,
        scan=own.scan if build.scan is None else build.scan,
    )


def _suite(suite: Suite, beside: Callable[[str], Path]) -> model.Suite:
    folder, env = str(beside(suite.folder)), tuple(suite.env.items())
    return model.Suite(suite.kind, suite.command, folder, suite.name, suite.timeout_seconds, env)
