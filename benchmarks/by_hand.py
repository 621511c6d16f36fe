"""The scripts of a deploy's plan, run in its order on the host, without SSH, lock, stages and journal.

The host's clock measures their time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from typing import Any

from lab.host import Host as LabHost
from lab.laboratory import PROJECT, Lab
from rolling_upgrade import config, rendering
from rolling_upgrade.console import identity
from rolling_upgrade.engine import observation
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import Application, Environment, Outcome, Release, new_run_id
from rolling_upgrade.engine.plan import Plan, Step, step_groups
from rolling_upgrade.engine.shell import ENVIRONMENT, Script, lines, quote, shell_join
from rolling_upgrade.features.deploy.digests import resolve_on_host
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.steps import DeploySpec

_DEPLOY_SECONDS = 300.0


class DirectHost:
    """A lab host that runs scripts without SSH."""

    def __init__(self, host: LabHost) -> None:
        self._host = host
        self.name = host.name

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:  # noqa: ARG002
        """Run the script as the deploy user. It cannot be cancelled."""
        done: Any = self._host.sh(script.text, user="deploy", check=False, timeout=timeout_seconds)
        return Answer(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        """Hold no connection."""


def deploy(lab: Lab, names: Sequence[str], tag: str) -> float:
    """Deploy the tag again to these hosts at once. Return the seconds of the slowest one. Raises SystemExit."""
    environment = config.load(lab.name, root=PROJECT, hosts=tuple(names), tag=tag)
    hosts = [DirectHost(lab.host(name)) for name in names]
    plans = [_plan(host, environment) for host in hosts]
    with ThreadPoolExecutor(len(hosts)) as pool:
        return max(pool.map(_run, hosts, plans))


def _plan(host: DirectHost, environment: Environment) -> Plan:
    app = {target.name: target for target in environment.targets}[host.name].application
    spec = _spec(_pinned(host, app), environment)
    return plan_deploy(observation.observe(host, app), spec, environment.rollout)


def _pinned(host: DirectHost, app: Application) -> Application:
    digests = resolve_on_host(host, [service.image for service in app.services])
    services = [replace(service, image=digests[service.image.reference]) for service in app.services]
    return replace(app, services=tuple(services))


def _spec(app: Application, environment: Environment) -> DeploySpec:
    now, site = datetime.now(UTC), rendering.nginx_site(app)
    run_id = new_run_id()
    return DeploySpec(
        environment=environment.name,
        application=app,
        site=site,
        site_hash=rendering.site_hash(site),
        record=Release(run_id, now.isoformat(timespec="seconds"), "deploy", Outcome.GOOD, (), "benchmark"),
        lock=identity.lock(run_id, "benchmark"),
        force=True,
    )


def _run(host: DirectHost, plan: Plan) -> float:
    # Where the gates leave the processes that passed, as in a run.
    journal = shell_join("mkdir", "-p", f"{plan.home}/journal/{plan.run_id}")
    groups = step_groups((*plan.prepare, *plan.steps, *plan.finalize))
    return run_timed(host, [journal, *map(_together, groups)])


def _together(group: Sequence[Step]) -> str:
    """Return a text that runs the steps of a group at the same time, and fails if one fails."""
    started = (f'sh -c {quote(step.script.text)} &\nprocesses="$processes $!"' for step in group)
    return lines(("processes=''", *started, 'for process in $processes; do wait "$process" || exit; done'))


def run_timed(host: DirectHost, texts: Iterable[str]) -> float:
    """Run shell texts on the host and return the seconds. Raises SystemExit."""
    answer = host.run(timed(texts), timeout_seconds=_DEPLOY_SECONDS)
    if not answer.ok:
        raise SystemExit(f"{host.name}: the deploy by hand ended with {answer.status}:\n{answer.output_tail}")
    return float(answer.output.splitlines()[-1])


def timed(texts: Iterable[str]) -> Script:
    """Return a script that runs each text in a new shell, and prints the seconds last."""
    blocks = [f"sh -c {quote(text)} </dev/null" for text in texts]
    clock = "date +%s.%N"
    took = 'printf "%s %s\\n" "$began" "$ended" | awk \'{ printf "%.3f\\n", $2 - $1 }\''
    return Script("\n".join((ENVIRONMENT, f"began=$({clock})", *blocks, f"ended=$({clock})", took)))
