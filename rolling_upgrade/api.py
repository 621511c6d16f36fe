"""The public API for Python programs, which `rolling_upgrade` exports: deploys, rollbacks, and the state of hosts.

Each function runs the workflow of the task with the same name. It prints nothing and asks nothing, except for the
password of an encrypted env file on a terminal. Every returned text is safe to show: secrets are masked.

    >>> from rolling_upgrade import Environment, deploy

    >>> summary = deploy(Environment("production"), tag="v2.0.1", confirmed=True)
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rolling_upgrade import config
from rolling_upgrade.console.output import Output
from rolling_upgrade.console.reporter import Reporter
from rolling_upgrade.engine import masking, model
from rolling_upgrade.engine.model import Event, HealthReport, HostState, Summary
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.errors import ExitCode, HostUnreachable, RollingError
from rolling_upgrade.features.deploy import workflow as deploys
from rolling_upgrade.features.health import workflow as checks
from rolling_upgrade.features.operation import Caller
from rolling_upgrade.features.rollback import workflow as rollbacks
from rolling_upgrade.ssh.fleet import opened


@dataclass(frozen=True)
class Environment:
    """An environment of a project.

    Attributes:
        name: the name in `hosts.yaml`.
        root: the directory with `hosts.yaml`.
        hosts: the selected hosts, groups or roles; all hosts when empty.
    """

    name: str
    root: Path = Path()
    hosts: tuple[str, ...] = ()

    def load(self, *, tag: str = "") -> model.Environment:
        """Read and validate its configuration; `tag` overrides the tags of the images. Raises ConfigError."""
        return config.load(self.name, root=self.root.absolute(), hosts=self.hosts, tag=tag)


class RunFailed(RollingError):
    """A run changed hosts and did not succeed everywhere. `summary` has the result of each host."""

    def __init__(self, summary: Summary) -> None:
        super().__init__(summary.message)
        self.summary = summary
        self.exit_code = ExitCode(summary.exit_code)


def plan(environment: Environment, *, tag: str = "", force: bool = False) -> tuple[Plan, ...]:
    """Return what a deploy would do on each host, and change nothing. Raises RollingError."""
    watching = _Watcher()
    deploys.deploy(
        environment.name,
        root=environment.root.absolute(),
        hosts=environment.hosts,
        tag=tag,
        force=force,
        dry_run=True,
        caller=Caller(watching, confirmed=False),
    )
    return watching.plans


def deploy(
    environment: Environment,
    *,
    confirmed: bool,
    tag: str = "",
    batch: str = "",
    force: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Summary:
    """Upgrade the application on its hosts, and return the result of each host.

    Args:
        environment: the environment and its hosts.
        confirmed: the consent to change the hosts, in place of the question that the task asks. Without it, the
            function raises ConfigError if a host needs a change.
        tag: the tag of the images; default: the tag in the configuration.
        batch: hosts upgraded at the same time, as in `rollout.batch`.
        force: create new containers even where nothing changed.
        on_event: is called for each event of the run, from several threads. An exception in it ends nothing.

    Raises:
        RunFailed: if the run did not succeed on every host; completed steps are undone as the summary says.
        RollingError: if the run failed before it changed a host.
    """
    watching = _Watcher(on_event)
    deploys.deploy(
        environment.name,
        root=environment.root.absolute(),
        hosts=environment.hosts,
        tag=tag,
        batch=batch,
        force=force,
        caller=Caller(watching, confirmed=confirmed),
    )
    return watching.result()


def rollback(
    environment: Environment,
    *,
    confirmed: bool,
    to: str = "",
    restore_db: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Summary:
    """Bring the hosts back to an earlier release; see `deploy` for the arguments and errors.

    Args:
        to: the run id or image tag of the release; default: the last good one that is not running.
        restore_db: also restore the database of that release.
    """
    watching = _Watcher(on_event)
    rollbacks.rollback(
        environment.name,
        root=environment.root.absolute(),
        hosts=environment.hosts,
        to=to,
        restore_db=restore_db,
        caller=Caller(watching, confirmed=confirmed),
    )
    return watching.result()


def status(environment: Environment) -> Mapping[str, HostState | HostUnreachable]:
    """Observe every host: containers, active colors, release history, lock, answers. Raises ConfigError."""
    with opened(environment.load()) as fleet:
        return _masked(fleet.on_each(fleet.observe_one))


def health(environment: Environment) -> Mapping[str, HealthReport | HostUnreachable]:
    """Run every health check on each host once. Raises ConfigError."""
    with opened(environment.load()) as fleet:
        return _masked(checks.check_hosts(fleet))


T = TypeVar("T")


def _masked(value: T) -> T:
    """Return a copy without the secrets of the configurations that this process has read."""
    return Output(io.StringIO(), masking.remembered()).masked(value)


class _Watcher(Reporter):
    """Keeps the plans and the result of a run, and passes its events on."""

    def __init__(self, on_event: Callable[[Event], None] = lambda _: None) -> None:
        self._on_event = on_event
        self._summary: Summary | None = None
        self.plans: tuple[Plan, ...] = ()

    def plan(
        self,
        plans: Sequence[Plan],
        *,
        scripts: bool = False,  # noqa: ARG002 - as inherited
        batches: Sequence[Sequence[str]] = (),  # noqa: ARG002 - as inherited
    ) -> None:
        """Keep the plans."""
        self.plans = tuple(map(_masked, plans))

    def event(self, event: Event) -> None:
        """Pass the event on. An error of the receiver must not end the run."""
        with suppress(Exception):
            self._on_event(_masked(event))

    def summary(self, summary: Summary) -> None:
        """Keep the result."""
        self._summary = _masked(summary)

    def result(self) -> Summary:
        """Return the result. Raises RunFailed unless every host is in the desired state."""
        if self._summary is None:
            raise AssertionError("a run without a summary")
        if self._summary.exit_code:
            raise RunFailed(self._summary)
        return self._summary
