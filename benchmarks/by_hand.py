"""The same deploy without the suite: every step's script, one after the other, on the host itself.

It owns no script: they are those of the plan that `inv deploy` would make. There is no SSH, no lock, no stage and no
journal around them, and the host's own clock times them.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from typing import Any

from fabfile import config, render
from fabfile.commands.journal import ENVIRONMENT
from fabfile.commands.shell import Script, quote
from fabfile.model import Application, Environment
from fabfile.plans.deploy import plan_deploy
from fabfile.plans.step import Plan
from fabfile.plans.wanted import Wanted
from fabfile.remote import observe
from fabfile.remote.host import Answer
from lab.host import Host as LabHost
from lab.laboratory import PROJECT, Lab

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
    return plan_deploy(observe.observe(host, app), wanted, environment.rollout)


def _pinned(host: OnTheHost, app: Application) -> Application:
    digests = observe.resolve(host, [service.image for service in app.services])
    services = [replace(service, image=digests[service.image.reference]) for service in app.services]
    return replace(app, services=tuple(services))


def _wanted(app: Application, environment: Environment) -> Wanted:
    now, site = datetime.now(UTC), render.nginx_site(app)
    return Wanted(
        environment=environment.name,
        application=app,
        site=site,
        site_hash=render.site_hash(site),
        release=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        time=now.isoformat(timespec="seconds"),
        owner="benchmark",
        force=True,
    )


def _run(host: OnTheHost, plan: Plan) -> float:
    answer = host.run(timed(plan), timeout_seconds=_DEPLOY_SECONDS)
    if not answer.ok:
        raise SystemExit(f"{host.name}: the deploy by hand ended with {answer.status}:\n{answer.last_words}")
    return float(answer.output.splitlines()[-1])


def timed(plan: Plan) -> Script:
    """All steps of the plan in order, each in a shell of its own; the last line tells the seconds they took."""
    steps = [*plan.prepare, *plan.steps, *plan.finish]
    blocks = [f"sh -c {quote(step.script.text)} </dev/null" for step in steps]
    clock = "date +%s.%N"
    took = 'printf "%s %s\\n" "$began" "$ended" | awk \'{ printf "%.3f\\n", $2 - $1 }\''
    return Script("\n".join((ENVIRONMENT, f"began=$({clock})", *blocks, f"ended=$({clock})", took)))
