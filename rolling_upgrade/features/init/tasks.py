"""The task that writes a starting configuration. Signatures and help only."""

from __future__ import annotations

from typing import Any

from fabfile.tasks.ending import ROOT, end_with
from fabfile.tasks.names import task


@task(
    iterable=["service", "host", "health", "route"],
    help={
        "app": "name of the application: of its containers, directories and networks",
        "domain": "domain of the site",
        "service": "NAME=IMAGE:PORT, PORT being that in the container; once for each service, in upgrade order",
        "host": "NAME=ADDRESS; once for each host",
        "user": "login name on the hosts, owns the containers (default: deploy)",
        "env": "name of the environment (default: production)",
        "certificate": "none (http, the default), self-signed, acme or files",
        "email": "with --certificate acme: whom the authority writes",
        "health": "NAME=PATH that answers 2xx when the service is well (default: /health)",
        "route": "NAME=PATH[,PATH…] of the site that go to a service, or none (default: / for the last, /NAME/)",
        "directory": "where the files go (default: here in the project)",
        "yes": "ask nothing: defaults for what no option says",
        "force": "replace files that are there; the old ones are kept beside them as .bak",
    },
)
def init(
    context: Any,  # noqa: ARG001
    app: str | None = None,
    domain: str | None = None,
    env: str | None = None,
    service: Any = None,
    host: Any = None,
    user: str | None = None,
    certificate: str | None = None,
    email: str | None = None,
    health: Any = None,
    route: Any = None,
    directory: str = "",
    yes: bool = False,
    force: bool = False,
) -> None:
    """Write hosts.yaml, services.yaml and an env file for your own application; asks what no option says."""
    from fabfile.workflows.starting import Request
    from fabfile.workflows.starting import init as run

    given = {"app": app, "domain": domain, "env": env, "user": user, "certificate": certificate, "email": email}
    values = {name: value for name, value in given.items() if value is not None}
    services, hosts, healths, routes = (tuple(words or ()) for words in (service, host, health, route))
    request = Request(ROOT, directory, values, services, hosts, healths, routes, yes=yes, force=force)
    end_with(lambda: run(request), interrupted="nothing was written. Next: the same command again")
