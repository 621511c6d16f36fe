"""The configuration for people: is it right, and what does it say. Reads files of this machine, contacts nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from fabfile import config, render
from fabfile.errors import ConfigError, ExitCode, Mistake
from fabfile.model import Environment
from fabfile.report import tell
from fabfile.report.configuration import checked_lines, explained_json, explained_lines


def check(environment: str | None, *, root: Path, strict: bool = False) -> ExitCode:
    """Check one environment, or all of them and what they share; USAGE when there is a mistake."""
    names = (environment,) if environment else config.environments(root)
    mistakes: dict[Mistake, None] = {}
    warnings: dict[str, None] = {}
    loaded: list[Environment] = []
    for name in names or (None,):
        try:
            found = config.load(name, root=root, strict=strict)
        except ConfigError as error:
            if not error.mistakes:
                raise
            mistakes |= dict.fromkeys(error.mistakes)
            continue
        loaded.append(found)
        warnings |= dict.fromkeys((*found.warnings, *config.local_warnings(found, root)))
        _render(found)
    mistakes |= dict.fromkeys(config.clashes(_with_neighbours(loaded, environment, root)))
    secrets = tuple(secret for found in loaded for secret in found.secrets)
    tell(checked_lines(loaded, tuple(mistakes), tuple(warnings)), sys.stdout, secrets)
    return ExitCode.USAGE if mistakes else ExitCode.DONE


def _with_neighbours(loaded: list[Environment], environment: str | None, root: Path) -> list[Environment]:
    """The environments to compare: one that was named is compared with every other that can be read."""
    if environment is None or not loaded:
        return loaded
    others = []
    for name in config.environments(root):
        if name != environment:
            try:
                others.append(config.load(name, root=root, prompt=False))
            except ConfigError:
                continue
    return [*loaded, *(other for other in others if config.clashes([*loaded, other]))]


def _render(environment: Environment) -> None:
    """Every text that a host would be given, so that a template at fault shows here and not in a deploy."""
    for target in environment.targets:
        render.nginx_site(target.application)
        render.boot_unit(target.application)
        render.maintenance_page(target.application)


def show(
    environment: str | None, *, root: Path, hosts: tuple[str, ...] = (), tag: str = "", json: bool = False
) -> ExitCode:
    """Print every effective value and where it came from, secrets masked."""
    explained = config.explain(environment, root=root, hosts=hosts, tag=tag)
    secrets = explained.environment.secrets
    tell([explained_json(explained, secrets)] if json else explained_lines(explained), sys.stdout, secrets)
    return ExitCode.DONE
