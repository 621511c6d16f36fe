"""How images come about before a deploy: builds, the application's own suites, what a run of them left. Shapes only.

Standard library only (Python 3.10+).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BuildType(str, Enum):
    """What an image is built for; the build is told as BUILD_TYPE."""

    RELEASE = "release"
    DEBUG = "debug"


class SuiteKind(str, Enum):
    """What a suite proves; `load` is never run against production."""

    UNIT = "unit"
    INTEGRATION = "integration"
    LOAD = "load"


@dataclass(frozen=True)
class Build:
    """How one service's image is built; paths are those of this workstation, `scan` is a command or empty."""

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
    """One of the application's own test commands."""

    kind: SuiteKind
    command: tuple[str, ...]
    folder: str
    name: str = ""
    timeout_seconds: float = 1800.0
    env: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.kind.value

    def skipped(self, *, production: bool) -> bool:
        """Whether it is not run there: production is not put under load."""
        return production and self.kind is SuiteKind.LOAD


@dataclass(frozen=True)
class Pipeline:
    """What comes before a deploy; `engine` is the command that builds (empty: what is found), `reports` a folder."""

    engine: tuple[str, ...] = ()
    builds: tuple[Build, ...] = ()
    suites: tuple[Suite, ...] = ()
    reports: str = ""


@dataclass(frozen=True)
class Source:
    """The Git work tree that a context lies in; all empty where it lies in none. `dirty` lists what differs."""

    root: str = ""
    revision: str = ""
    branch: str = ""
    version: str = ""
    origin: str = ""
    dirty: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """One image that was built here: its size in bytes, that of the one before (0: none or unknown), its digest once
    it was pushed."""

    service: str
    reference: str
    seconds: float
    id: str = ""
    bytes: int = 0
    before: int = 0
    digest: str = ""


@dataclass(frozen=True)
class Ran:
    """How one suite ended: `passed`, `failed`, `timed out` or `skipped`, and why."""

    suite: Suite
    result: str
    seconds: float = 0.0
    detail: str = ""

    @property
    def well(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.result in {"passed", "skipped"}


@dataclass(frozen=True)
class StageResult:
    """How one stage of the whole pipeline went; `began` is Unix seconds, 0 for one that was not run."""

    name: str
    result: str
    began: float = 0.0
    seconds: float = 0.0
    exit_code: int = 0
    detail: str = ""
