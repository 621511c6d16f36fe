"""What the configuration says, and what is wrong with it, in words and as JSON. It reads no file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from fabfile.config.explaining import Effective, Explained
from fabfile.errors import Mistake
from fabfile.model import Environment
from fabfile.model.masking import safe
from fabfile.report.text import count, table


def checked_lines(
    environments: Sequence[Environment], mistakes: Sequence[Mistake], warnings: Sequence[str]
) -> list[str]:
    """Every mistake, every warning, and what was checked; the verdict last."""
    lines = [f"MISTAKE  {mistake}" for mistake in mistakes] + [f"warning  {warning}" for warning in warnings]
    for environment in environments:
        services = {service.name for target in environment.targets for service in target.application.services}
        lines.append(
            f"{environment.name}: {count(len(environment.targets), 'host')}, {count(len(services), 'service')}"
        )
    if mistakes:
        return [*lines, f"{count(len(mistakes), 'mistake')}; nothing was contacted. Next: correct the lines above"]
    return [*lines, f"No mistake, {count(len(warnings), 'warning')}; nothing was contacted."]


def explained_lines(explained: Explained) -> list[str]:
    """A table for the rollout, then for each host its keys and what follows from them."""
    lines = [f"rollout of {explained.environment.name}", *_rows(explained.rollout)]
    derived = dict(explained.derived)
    for host, keys in explained.keys:
        lines += ["", f"{host}: keys", *_rows(keys), "", f"{host}: what follows", *_facts(derived[host])]
    return lines


def _rows(values: Sequence[Effective]) -> list[str]:
    return table([("", value.name, value.value or "-", value.source) for value in values])


def _facts(values: Sequence[Effective]) -> list[str]:
    return table([("", value.name, value.value) for value in values])


def explained_json(explained: Explained, secrets: Sequence[str]) -> str:
    """The same as one JSON object."""

    def rows(values: Sequence[Effective]) -> Iterator[tuple[str, dict[str, str]]]:
        # Masked before it is encoded: a secret with a quote in it looks different afterwards.
        for value in values:
            yield value.name, {"value": safe(value.value, secrets), "source": safe(value.source, secrets)}

    derived = dict(explained.derived)
    hosts = {host: {"keys": dict(rows(keys)), "derived": dict(rows(derived[host]))} for host, keys in explained.keys}
    found = {"environment": explained.environment.name, "rollout": dict(rows(explained.rollout)), "hosts": hosts}
    return json.dumps(found, indent=2)
