"""Check the configuration and show its effective values; no host is contacted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rolling_upgrade import config, rendering
from rolling_upgrade.config.cross_checks import conflicts, local_warnings
from rolling_upgrade.console.output import print_json, print_lines
from rolling_upgrade.console.text import count, table
from rolling_upgrade.engine.model import Environment
from rolling_upgrade.errors import ConfigError, ConfigIssue, ExitCode
from rolling_upgrade.features.configuration.effective import Effective, Explained, explain_environment


def check(environment: str | None, *, root: Path, strict: bool = False) -> ExitCode:
    """Check one environment or all of them, and conflicts between them. Return USAGE when there is an error."""
    names = (environment,) if environment else config.environments(root)
    issues: dict[ConfigIssue, None] = {}
    warnings: dict[str, None] = {}
    loaded: list[Environment] = []
    for name in names or (None,):
        try:
            found = config.load(name, root=root, strict=strict)
        except ConfigError as error:
            if not error.issues:
                raise
            issues |= dict.fromkeys(error.issues)
            continue
        loaded.append(found)
        warnings |= dict.fromkeys((*found.warnings, *local_warnings(found, root)))
        _render(found)
    issues |= dict.fromkeys(conflicts(_with_conflicting(loaded, environment, root)))
    secrets = tuple(secret for found in loaded for secret in found.secrets)
    print_lines(check_lines(loaded, tuple(issues), tuple(warnings)), sys.stdout, secrets)
    return ExitCode.USAGE if issues else ExitCode.DONE


def _with_conflicting(loaded: list[Environment], environment: str | None, root: Path) -> list[Environment]:
    """Return the environments to compare: a named one is compared with all others that load."""
    if environment is None or not loaded:
        return loaded
    others = []
    for name in config.environments(root):
        if name != environment:
            try:
                others.append(config.load(name, root=root, prompt=False))
            except ConfigError:
                continue
    return [*loaded, *(other for other in others if conflicts([*loaded, other]))]


def _render(environment: Environment) -> None:
    """Render every template, so that an invalid one fails here and not in a deploy."""
    for target in environment.targets:
        rendering.nginx_site(target.application)
        rendering.boot_unit(target.application)
        rendering.maintenance_page(target.application)


def show(
    environment: str | None, *, root: Path, hosts: tuple[str, ...] = (), tag: str = "", json: bool = False
) -> ExitCode:
    """Print every effective value and its source, secrets masked."""
    explained = explain_environment(environment, root=root, hosts=hosts, tag=tag)
    secrets = explained.environment.secrets
    if json:
        print_json(show_json(explained), sys.stdout, secrets)
    else:
        print_lines(show_lines(explained), sys.stdout, secrets)
    return ExitCode.DONE


def check_lines(
    environments: Sequence[Environment], issues: Sequence[ConfigIssue], warnings: Sequence[str]
) -> list[str]:
    """Format the errors, the warnings, the checked environments and a summary."""
    lines = [f"ERROR    {issue}" for issue in issues] + [f"warning  {warning}" for warning in warnings]
    for environment in environments:
        services = {service.name for target in environment.targets for service in target.application.services}
        lines.append(
            f"{environment.name}: {count(len(environment.targets), 'host')}, {count(len(services), 'service')}"
        )
    if issues:
        return [*lines, f"{count(len(issues), 'error')}; nothing was contacted. Next: correct the lines above"]
    return [*lines, f"No errors, {count(len(warnings), 'warning')}; nothing was contacted."]


def show_lines(explained: Explained) -> list[str]:
    """Format the rollout policy, then the keys and derived values of each host."""
    lines = [f"rollout policy of {explained.environment.name}", *_rows(explained.rollout)]
    derived = dict(explained.derived)
    for host, keys in explained.keys:
        lines += ["", f"{host}: keys", *_rows(keys), "", f"{host}: derived values", *_facts(derived[host])]
    return lines


def _rows(values: Sequence[Effective]) -> list[str]:
    return table([("", value.name, value.value or "-", value.source) for value in values])


def _facts(values: Sequence[Effective]) -> list[str]:
    return table([("", value.name, value.value) for value in values])


def show_json(explained: Explained) -> dict[str, Any]:
    """Return the report as a JSON object."""

    def values(found: Sequence[Effective]) -> dict[str, dict[str, str]]:
        return {value.name: {"value": value.value, "source": value.source} for value in found}

    derived = dict(explained.derived)
    hosts = {host: {"keys": values(keys), "derived": values(derived[host])} for host, keys in explained.keys}
    return {"environment": explained.environment.name, "rollout": values(explained.rollout), "hosts": hosts}
