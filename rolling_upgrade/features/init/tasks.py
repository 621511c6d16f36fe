"""The task `init`."""

from __future__ import annotations

from typing import Any

from rolling_upgrade.console.task import task


@task(
    workflow="init",
    needs_configuration=False,
    interrupted="nothing was written. Next: run the same command again",
    help={
        "app": "name of the application, its containers, directories and networks",
        "domain": "domain of the site",
        "service": "NAME=IMAGE:PORT with the port inside the container; once per service, in upgrade order",
        "from": "Compose file to convert, instead of --service, --health and --route",
        "host": "NAME=ADDRESS; once per host",
        "user": "login name on the hosts, owner of the containers; default: deploy",
        "env": "name of the environment; default: production",
        "certificate": "none (http), self-signed, acme or files; default: none",
        "email": "with --certificate acme: contact address for the certificate authority",
        "health": "NAME=PATH that answers 2xx when the service is healthy; default: /health",
        "route": "NAME=PATH[,PATH…] routed to the service, or NAME=none; default: / for the last service that has paths, else /NAME/",
        "directory": "directory for the files; default: the one with hosts.yaml, else the current one",
        "yes": "do not prompt; use defaults for missing options",
        "force": "replace existing files; the old ones are kept as .bak",
    },
)
def init(
    context: Any,
    app: str | None = None,
    domain: str | None = None,
    env: str | None = None,
    service: list[str] | None = None,
    host: list[str] | None = None,
    user: str | None = None,
    certificate: str | None = None,
    email: str | None = None,
    health: list[str] | None = None,
    route: list[str] | None = None,
    from_: str | None = None,
    directory: str = "",
    yes: bool = False,
    force: bool = False,
) -> None:
    """Write hosts.yaml, services.yaml and an env file for your application; asks for missing options."""
