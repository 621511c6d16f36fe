"""The tasks that tell people something: notify, notify.test. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import COMMON, ROOT, end_with
from fabfile.tasks.names import task

_ENV = {"env": COMMON["env"]}


@task(default=True, help=_ENV | {"message": "what to say", "severity": "info, warning or critical; info without it"})
def notify(context: Any, env: str | None = None, message: str = "", severity: str = "info") -> None:  # noqa: ARG001
    """Send a message of your own over every channel that takes its severity."""
    from fabfile.workflows.messages import Request
    from fabfile.workflows.messages import notify as run

    end_with(lambda: run(Request(env, ROOT, message, severity)))


@task(name="test", help=_ENV)
def try_out(context: Any, env: str | None = None) -> None:  # noqa: ARG001
    """Send a test message over every configured channel and say how each fared; exits with 1 when one failed."""
    from fabfile.workflows.messages import Request
    from fabfile.workflows.messages import try_out as run

    end_with(lambda: run(Request(env, ROOT)))
