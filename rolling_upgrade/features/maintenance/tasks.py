"""The task `maintenance`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="maintenance", positional=["switch"], help={"switch": "on or off", "message": "with on: text of the page"}
)
def maintenance(
    context: Any,
    switch: str,
    env: str | None = None,
    hosts: list[str] | None = None,
    message: str = "",
    force: bool = False,
) -> None:
    """Turn the maintenance page (503) for visitors on or off; health paths answer as before."""
