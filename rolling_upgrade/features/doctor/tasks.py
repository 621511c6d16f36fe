"""The task `doctor`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import ONE_OBJECT, task


@task(workflow="doctor", help=ONE_OBJECT)
def doctor(context: Any, env: str | None = None, hosts: list[str] | None = None, json: bool = False) -> None:
    """Find problems on this workstation and the hosts; exits with 3 if a deploy would be refused."""
