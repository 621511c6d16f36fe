"""Builds and test suites: the steps before a deploy.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BuildType(str, Enum):
    """The purpose of an image; the build gets it as BUILD_TYPE."""

    RELEASE = "release"
    DEBUG = "debug"


class SuiteKind(str, Enum):
    """The kind of a test suite; `load` never runs against production."""

    UNIT = "unit"
    INTEGRATION = "integration"
    LOAD = "load"


@dataclass(frozen=True)
class Build:
    """How to build the image of one service; paths are on this workstation, `scan` is a command or empty."""

    service: str
    context: str
    file: str = ""
    target: str = ""
    debug_target: str = ""
    args: tuple[tuple[str, str], ...] = ()
    cache: bool = True
    squash: bool = False
    scan: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """One of the application's test commands; `pass_env` names the variables of this shell that it gets."""

    kind: SuiteKind
    command: tuple[str, ...]
    folder: str
    name: str = ""
    timeout_seconds: float = 1800.0
    env: tuple[tuple[str, str], ...] = ()
    pass_env: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name in output."""
        return self.name or self.kind.value

    def skipped(self, *, production: bool) -> bool:
        """Return whether the suite is skipped in that environment: load tests do not run in production."""
        return production and self.kind is SuiteKind.LOAD


@dataclass(frozen=True)
class Pipeline:
    """Everything before a deploy; `engine` is the build command (empty: detected), `reports` a directory.

    `pass_env` names the variables of this shell that the engine and the scan hook get.
    """

    engine: tuple[str, ...] = ()
    pass_env: tuple[str, ...] = ()
    builds: tuple[Build, ...] = ()
    suites: tuple[Suite, ...] = ()
    reports: str = ""


@dataclass(frozen=True)
class Source:
    """The Git work tree around a build context; empty if there is none. `dirty` lists the changed files."""

    root: str = ""
    revision: str = ""
    branch: str = ""
    version: str = ""
    origin: str = ""
    dirty: tuple[str, ...] = ()
