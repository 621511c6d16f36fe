"""The desired state of a host in a deploy or a rollback."""

from __future__ import annotations

from dataclasses import dataclass

from rolling_upgrade.engine.model import Application, Lock
from rolling_upgrade.engine.plan import Step
from rolling_upgrade.engine.transfer import Push


@dataclass(frozen=True)
class DeploySpec:
    """The desired state of a host: the application with all digests, the site, and the run itself.

    Attributes:
        lock: the lock that the run acquires on the host.
        dead_token: the token of a dead run, whose lock this run takes over.
        renew: services that get a new container of the same image and configuration.
        page: the text of the maintenance page, '' for none, None to keep the current one.
        target: the release that a rollback goes to.
        left: the release that a rollback leaves.
        pushes: images that the workstation serves.
        notes: further lines of the plan.
        data: the steps that also roll the data back.
        observed: the application for the observation under the lock; default: `application`.
    """

    environment: str
    application: Application
    site: str
    site_hash: str
    run_id: str
    time: str
    owner: str
    lock: Lock
    dead_token: str = ""
    force: bool = False
    renew: frozenset[str] = frozenset()
    page: str | None = None
    action: str = "deploy"
    target: str = ""
    left: str = ""
    workstation: str = ""
    revision: str = ""
    reason: str = ""
    pushes: tuple[Push, ...] = ()
    notes: tuple[str, ...] = ()
    data: DataSteps | None = None
    observed: Application | None = None


@dataclass(frozen=True)
class DataSteps:
    """The steps that roll the data back with a release. `before` stops all writers.

    Attributes:
        prepare: steps without an effect for visitors.
        before: steps before the steps of the services.
        after: steps after the steps of the services.
        cleanup: shell text that deletes the former data after the record.
        note: the line of the plan about the data.
    """

    prepare: tuple[Step, ...] = ()
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    cleanup: str = ""
    note: str = ""
