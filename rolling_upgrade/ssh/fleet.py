"""The hosts of one environment, with their SSH connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rolling_upgrade.engine import observation, parallel
from rolling_upgrade.engine.host import Host
from rolling_upgrade.engine.model import MONITORING_HOST, Environment, HostState, Target
from rolling_upgrade.errors import HostUnreachable
from rolling_upgrade.ssh.fabric_host import FabricHost

T = TypeVar("T")


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

    def observe(self, on_connected: Callable[[Host], None] | None = None) -> dict[str, HostState]:
        """Observe every host. Raises HostUnreachable that names every unreachable host.

        `on_connected` is called for each host between its connection and its observation.
        """

        def observe_one(host: Host) -> HostState:
            if on_connected is not None:
                self.host(host.name).connect()
                on_connected(host)
            return self.observe_one(host)

        return self.on_all(observe_one)

    def observe_one(self, host: Host) -> HostState:
        """Observe one of the hosts. Raises HostUnreachable."""
        return observation.observe(host, self.targets[host.name].application)

    def on_each(
        self,
        do: Callable[[Host], T],
        *,
        hosts: Sequence[Host] | None = None,
        finish: bool = False,
        on_interrupt: Callable[[], None] = lambda: None,
    ) -> dict[str, T | HostUnreachable]:
        """Call `do` for every host, or only for `hosts`, in parallel; see `parallel.on_each`."""
        chosen, most = self.hosts if hosts is None else hosts, self.environment.rollout.parallel
        return parallel.on_each(chosen, most, do, finish=finish, on_interrupt=on_interrupt)

    def on_reachable(
        self, do: Callable[[Host], T], *, hosts: Sequence[Host] | None = None
    ) -> tuple[dict[str, T], dict[str, str]]:
        """Like `on_each`; return the results, and the error text of each unreachable host."""
        results = self.on_each(do, hosts=hosts)
        found = {name: result for name, result in results.items() if not isinstance(result, HostUnreachable)}
        return found, {name: str(error) for name, error in results.items() if isinstance(error, HostUnreachable)}

    def on_all(self, do: Callable[[Host], T], *, hosts: Sequence[Host] | None = None) -> dict[str, T]:
        """Like `on_each`. Raises one HostUnreachable that names every unreachable host."""
        found, unreachable = self.on_reachable(do, hosts=hosts)
        if unreachable:
            raise HostUnreachable("\n".join(unreachable.values()))
        return found


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
