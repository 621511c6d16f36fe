"""The same deploy without the suite: every step's script, one after the other, on the host itself.

It owns no script: they are those of the plan that `inv deploy` would make. There is no SSH, no lock, no stage and no
journal around them, and the host's own clock times them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from typing import Any

from lab.host import Host as LabHost
from lab.laboratory import PROJECT, Lab
from rolling_upgrade import config, rendering
from rolling_upgrade.console import operator
from rolling_upgrade.engine import observation
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import Application, Environment
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.run_id import new_run_id
from rolling_upgrade.engine.shell import Script, quote
from rolling_upgrade.engine.stage import ENVIRONMENT
from rolling_upgrade.features.deploy.digests import resolve_on_host
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.spec import DeploySpec

_DEPLOY_SECONDS = 300.0


class OnTheHost:
    """A lab host as the suite's Host, entered through the lab and not over SSH."""

    def __init__(self, host: LabHost) -> None:
        self._host = host
        self.name = host.name

    def run(self, script: Script, *, timeout_seconds: float, cancelled: Event | None = None) -> Answer:  # noqa: ARG002
        """Run the script as the deploy user; nothing cancels it."""
        done: Any = self._host.sh(script.text, user="deploy", check=False, timeout=timeout_seconds)
        return Answer(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        """Nothing to let go of."""


def deploy(lab: Lab, names: Sequence[str], tag: str) -> float:
    """Deploy the tag again to these hosts at once; seconds that the slowest one took. Raises SystemExit."""
    environment = config.load(lab.name, root=PROJECT, hosts=tuple(names), tag=tag)
    hosts = [OnTheHost(lab.host(name)) for name in names]
    plans = [_plan(host, environment) for host in hosts]
    with ThreadPoolExecutor(len(hosts)) as pool:
        return max(pool.map(_run, hosts, plans))


def _plan(host: OnTheHost, environment: Environment) -> Plan:
    app = {target.name: target for target in environment.targets}[host.name].application
    wanted = _wanted(_pinned(host, app), environment)
    return plan_deploy(observation.observe(host, app), wanted, environment.rollout)


def _pinned(host: OnTheHost, app: Application) -> Application:
    digests = resolve_on_host(host, [service.image for service in app.services])
    services = [replace(service, image=digests[service.image.reference]) for service in app.services]
    return replace(app, services=tuple(services))


def _wanted(app: Application, environment: Environment) -> DeploySpec:
    now, site = datetime.now(UTC), rendering.nginx_site(app)
    run_id = new_run_id()
    return DeploySpec(
        environment=environment.name,
        application=app,
        site=site,
        site_hash=rendering.site_hash(site),
        run_id=run_id,
        time=now.isoformat(timespec="seconds"),
        owner="benchmark",
        lock=operator.lock(run_id, "benchmark"),
        force=True,
    )


def _run(host: OnTheHost, plan: Plan) -> float:
    answer = host.run(timed(plan), timeout_seconds=_DEPLOY_SECONDS)
    if not answer.ok:
        raise SystemExit(f"{host.name}: the deploy by hand ended with {answer.status}:\n{answer.output_tail}")
    return float(answer.output.splitlines()[-1])


def timed(plan: Plan) -> Script:
    """All steps of the plan in order, each in a shell of its own; the last line tells the seconds they took."""
    steps = [*plan.prepare, *plan.steps, *plan.finalize]
    blocks = [f"sh -c {quote(step.script.text)} </dev/null" for step in steps]
    clock = "date +%s.%N"
    took = 'printf "%s %s\\n" "$began" "$ended" | awk \'{ printf "%.3f\\n", $2 - $1 }\''
    return Script("\n".join((ENVIRONMENT, f"began=$({clock})", *blocks, f"ended=$({clock})", took)))
