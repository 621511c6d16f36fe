"""The plan and the results of a build as lines and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from rolling_upgrade.console.text import table
from rolling_upgrade.features.build.builder import BuildResult


def build_plan_lines(commands: Mapping[str, Sequence[str]], references: Mapping[str, str], *, push: bool) -> list[str]:
    """Return the plan of a build, with every command."""
    lines = []
    for service, argv in commands.items():
        lines += [f"{service}: build {references[service]}", f"  {shlex.join(argv)}"]
    return [*lines, *(f"{service}: push {reference}" for service, reference in references.items() if push)]


def build_lines(built: Sequence[BuildResult]) -> list[str]:
    """Return a table of the built images, each with its size and the change from the previous image."""
    rows = [("SERVICE", "IMAGE", "SECONDS", "SIZE", "CHANGE", "DIGEST")]
    for image in built:
        size = f"{image.bytes / 1e6:.1f} MB" if image.bytes else "-"
        digest = image.digest or "not pushed"
        rows.append((image.service, image.reference, f"{image.seconds:.1f}", size, _change(image), digest))
    return ["", *table(rows)]


def _change(built: BuildResult) -> str:
    if not built.previous_bytes or not built.bytes:
        return "-"
    change = built.bytes - built.previous_bytes
    return f"{change / 1e6:+.1f} MB, {change * 100 / built.previous_bytes:+.0f}%"


def build_json(built: BuildResult) -> dict[str, object]:
    """Return the JSON object of one image."""
    return {
        "service": built.service,
        "image": built.reference,
        "id": built.id,
        "digest": built.digest,
        "bytes": built.bytes,
        "bytes_before": built.previous_bytes,
        "seconds": round(built.seconds, 1),
    }
