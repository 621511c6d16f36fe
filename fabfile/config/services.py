"""The model of `deploy/services.yaml`: what runs, in upgrade order, as data. It resolves no env key.

Where a value stands in capitals, it is the *name* of an env key, whose value the env file gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BeforeValidator, Field

from fabfile import model
from fabfile.config import forms
from fabfile.config.building import Build, Building, Suite
from fabfile.config.validation import Strict

_Name = Annotated[str, BeforeValidator(forms.SERVICE_NAME)]
_Key = Annotated[str, BeforeValidator(forms.ENV_KEY)]
_UrlPath = Annotated[str, BeforeValidator(forms.URL_PATH)]
_Boolean = Annotated[bool, BeforeValidator(forms.BOOLEAN)]
_Interval = Annotated[float, BeforeValidator(forms.duration(0.1, 60))]
_Deadline = Annotated[float, BeforeValidator(forms.duration(1, 900))]
_Wait = Annotated[float, BeforeValidator(forms.duration(0, 3600))]


class Gate(Strict):
    """When a new container counts as healthy."""

    passes: Annotated[int, BeforeValidator(forms.whole(1, 100))] = Field(
        default=model.Gate.passes, description="Consecutive good answers that pass the gate."
    )
    interval_seconds: _Interval = Field(default=model.Gate.interval_seconds, description="Pause between two questions.")
    deadline_seconds: _Deadline = Field(
        default=model.Gate.deadline_seconds,
        description="Latest end of the gate; made longer where the HEALTH_CHECK_ keys need more.",
    )


class Drain(Strict):
    """How the old container ends."""

    deadline_seconds: _Wait = Field(
        default=model.Drain.deadline_seconds, description="How long open connections may keep it running."
    )
    stop_seconds: _Wait = Field(default=model.Drain.stop_seconds, description="Time between SIGTERM and SIGKILL.")


class Route(Strict):
    """A path prefix that Nginx sends to the service."""

    prefix: _UrlPath = Field(description="Beginning of the path, such as /api/.")
    stream: _Boolean = Field(default=False, description="Long-lived answers and WebSocket upgrades flow unbuffered.")


class Mount(Strict):
    """A directory of the host inside the container."""

    source: _Key = Field(description="Env key that holds the path on the host.")
    target: Annotated[str, BeforeValidator(forms.HOST_PATH)] = Field(description="Path inside the container.")
    parent: _Boolean = Field(default=False, description="The key names a file; the directory around it is mounted.")
    read_only: _Boolean = Field(default=False, description="The container cannot write there.")
    optional: _Boolean = Field(default=False, description="Without the key there is no mount.")


class Limits(Strict):
    """Env keys that hold what a container may use at most; a key that is not set is no limit."""

    memory: _Key = Field(default="", description="Env key of the memory limit.")
    cpus: _Key = Field(default="", description="Env key of the CPU limit.")


class Service(Strict):
    """One service."""

    name: _Name = Field(description="Its name: part of container, flag and upstream names.")
    image: _Key = Field(description="Env key that holds the image.")
    container_port: Annotated[int, BeforeValidator(forms.PORT)] = Field(
        description="Port on which the process in the container listens."
    )
    port: _Key = Field(description="Env key that holds the stable port on the host.")
    default_port: Annotated[int, BeforeValidator(forms.STABLE_PORT)] | None = Field(
        default=None, description="Stable port where that key is not set."
    )
    health: _UrlPath = Field(default=model.Gate.path, description="Path that answers 2xx when the service is well.")
    gate: Gate = Field(default=Gate(), description="When a new container counts as healthy.")
    drain: Drain = Field(default=Drain(), description="How the old container ends.")
    routes: tuple[Route, ...] = Field(default=(), description="Path prefixes that Nginx sends to it.")
    mounts: tuple[Mount, ...] = Field(default=(), description="Directories of the host inside the container.")
    alias: Annotated[str, BeforeValidator(forms.SERVICE_NAME)] = Field(
        default="", description="Name for other containers to reach it. Default: the name of the service."
    )
    env: tuple[_Key, ...] = Field(default=(), description="Env keys that the container receives where they are set.")
    required: tuple[_Key, ...] = Field(default=(), description="Env keys that it receives and that must be set.")
    limits: Limits = Field(default=Limits(), description="What it may use at most.")
    build: Build | None = Field(default=None, description="How its image is built. Default: it is built elsewhere.")

    @property
    def env_keys(self) -> tuple[str, ...]:
        """The keys whose values the container receives, each once."""
        return tuple(dict.fromkeys((*self.required, *self.env)))

    def named_keys(self) -> Iterator[str]:
        """Every env key that the service names."""
        yield from (self.image, self.port, *self.env_keys)
        yield from (mount.source for mount in self.mounts)
        yield from (key for key in (self.limits.memory, self.limits.cpus) if key)


class FullChain(Strict):
    """The one request that proves that the services work together."""

    service: _Name = Field(description="Service on whose stable port it is asked.")
    path: _UrlPath = Field(description="Path that answers 2xx when the whole chain works.")


class Services(Strict):
    """The whole file."""

    full_chain: FullChain | None = Field(default=None, description="The request that proves the whole chain.")
    services: tuple[Service, ...] = Field(min_length=1, description="The services, in upgrade order.")
    building: Building = Field(default=Building(), description="What holds for every build.")
    suites: tuple[Suite, ...] = Field(
        default=(), description="The application's own tests, in the order in which they run."
    )
    reports: Annotated[str, BeforeValidator(forms.LOCAL_FILE)] = Field(
        default="reports", description="Folder for the reports of `inv full`, relative to hosts.yaml."
    )
