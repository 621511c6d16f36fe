"""The tasks `notify` and `notify.test`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import exit_with, root, task


@task(default=True, help={"message": "text of the message", "severity": "info, warning or critical; default: info"})
def notify(context: Any, env: str | None = None, message: str = "", severity: str = "info") -> None:  # noqa: ARG001
    """Send a message over every channel that accepts its severity."""
    from rolling_upgrade.features.notify import workflow

    exit_with(lambda: workflow.notify(env, root=root(), message=message, severity=severity))


@task(name="test")
def send_test(context: Any, env: str | None = None) -> None:  # noqa: ARG001
    """Send a test message over every configured channel and show each result; exits with 1 if one failed."""
    from rolling_upgrade.features.notify import workflow

    exit_with(lambda: workflow.send_test(env, root=root()))
