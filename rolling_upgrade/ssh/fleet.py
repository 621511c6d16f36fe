"""The hosts of one environment, reached over SSH and let go of at the end. It decides nothing about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from fabfile.model import MONITORING_HOST, Environment, HostState, Target
from fabfile.remote import observe
from fabfile.remote.fabric_host import FabricHost


@dataclass(frozen=True)
class Fleet:
    """An environment with its hosts open for work."""

    environment: Environment
    hosts: Sequence[FabricHost]

    @property
    def targets(self) -> Mapping[str, Target]:
        """The inventory's entries by name."""
        return {target.name: target for target in self.environment.targets}

    def host(self, name: str) -> FabricHost:
        """The host of that name. Raises StopIteration when there is none."""
        return next(host for host in self.hosts if host.name == name)

    def observe(self) -> dict[str, HostState]:
        """Look at every host. Raises HostUnreachable that names all that could not be reached."""
        return observe.observe_all(self.hosts, self.targets, self.environment.rollout.parallel)


@contextmanager
def opened(environment: Environment, *, as_setup_user: bool = False) -> Iterator[Fleet]:
    """The environment's hosts; connections open at first use and close at the end."""
    rollout = environment.rollout
    hosts = [
        FabricHost(
            target,
            known_hosts=environment.known_hosts,
            connect_timeout_seconds=rollout.connect_timeout_seconds,
            user=target.setup_user if as_setup_user else target.user,
        )
        for target in environment.targets
    ]
    try:
        yield Fleet(environment, hosts)
    finally:
        for host in hosts:
            host.close()


def monitor_of(environment: Environment) -> Target | None:
    """The monitoring host of an environment as a host to connect to; None where `hosts.yaml` names none."""
    wanted, first = environment.monitoring, environment.targets[0]
    if not wanted.address:
        return None
    return Target(
        MONITORING_HOST,
        wanted.address,
        wanted.user,
        first.application,
        wanted.port,
        setup_user=wanted.user,
        jump=wanted.jump,
        identity_file=first.identity_file,
    )
