"""The hosts of one environment, with their SSH connections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rolling_upgrade.engine import observe
from rolling_upgrade.engine.model import MONITORING_HOST, Environment, HostState, Target
from rolling_upgrade.ssh.fabric_host import FabricHost


@dataclass(frozen=True)
class Fleet:
    """An environment with its connected hosts."""

    environment: Environment
    hosts: Sequence[FabricHost]

    @property
    def targets(self) -> Mapping[str, Target]:
        """The entries of the inventory by name."""
        return {target.name: target for target in self.environment.targets}

    def host(self, name: str) -> FabricHost:
        """Return the host of that name. Raises StopIteration for an unknown one."""
        return next(host for host in self.hosts if host.name == name)

    def observe(self) -> dict[str, HostState]:
        """Observe every host. Raises HostUnreachable that names every unreachable host."""
        return observe.observe_all(self.hosts, self.targets, self.environment.rollout.parallel)


@contextmanager
def opened(environment: Environment, *, as_setup_user: bool = False) -> Iterator[Fleet]:
    """Yield the hosts of the environment; connections open at first use and close at the end."""
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
    """Return the monitoring host as a target; None when `hosts.yaml` names none."""
    monitoring, first = environment.monitoring, environment.targets[0]
    if not monitoring.address:
        return None
    return Target(
        MONITORING_HOST,
        monitoring.address,
        monitoring.user,
        first.application,
        monitoring.port,
        setup_user=monitoring.user,
        jump=monitoring.jump,
        identity_file=first.identity_file,
    )
