"""The tasks `notify` and `notify.test`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="notify",
    default=True,
    help={"message": "text of the message", "severity": "info, warning or critical; default: info"},
)
def notify(context: Any, env: str | None = None, message: str = "", severity: str = "info") -> None:
    """Send a message over every channel that accepts its severity."""


@task(workflow="send_test", name="test")
def send_test(context: Any, env: str | None = None) -> None:
    """Send a test message over every configured channel and show each result; exits with 1 if one failed."""
