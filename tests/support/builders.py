"""Sample plans, states and streams for tests of reports."""

from __future__ import annotations

import io

from rolling_upgrade.engine.model import (
    Application,
    Color,
    Container,
    Environment,
    HostState,
    Image,
    ProbeResult,
    Service,
    Target,
)
from rolling_upgrade.engine.plan import Change, Plan, ServicePlan, Step
from rolling_upgrade.engine.shell import Script, script

OLD = Image("registry.lab/app/backend", "v1.0.0", "sha256:" + "ab12" * 16)
NEW = Image("registry.lab/app/backend", "v2.0.0", "sha256:" + "cd34" * 16)


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def replaced(service: str = "backend") -> ServicePlan:
    return ServicePlan(
        service, Change.REPLACE, NEW, Color.GREEN, OLD, Color.BLUE, ("+NEW_KEY",), ("the image differs",)
    )


def kept(service: str = "backend") -> ServicePlan:
    return ServicePlan(service, Change.KEEP, OLD, Color.BLUE, OLD, Color.BLUE)


def plan(host: str = "web1", *services: ServicePlan, secret: str = "") -> Plan:
    start = script(Script(f"podman run --env {secret}", (secret,) if secret else ()), "podman start x")
    step = Step("backend.start", "Start backend green", start, 60, script("podman stop x"), "Stop backend green")
    if services and all(service.change is Change.KEEP for service in services):
        return Plan(host, "deploy", "r2", services)
    return Plan(
        host,
        "deploy",
        "r2",
        services or (replaced(),),
        ("the Nginx text changes",),
        acquire=(Step("lock", "Take the lock", script("mkdir lock"), 10),),
        prepare=(Step("backup", "Back up the database", script("sqlite3 x"), 60),),
        steps=(step,),
        finalize=(Step("record", "Record the release", script("printf done"), 10),),
        abort=(Step("abandon", "Record the failure", script("printf failed"), 10),),
    )


def environment(*hosts: str, secrets: tuple[str, ...] = ()) -> Environment:
    services = (Service("backend", OLD, 8080, 8080),)
    app = Application("app", "production", "app.test", services)
    return Environment("production", tuple(Target(host, "10.0.0.1", "deploy", app) for host in hosts), secrets=secrets)


def container(*, running: bool = True, started_at: str = "2026-11-23 03:00:00.123456789 +0000 UTC") -> Container:
    status = "running" if running else "exited"
    return Container("app-backend-blue", "backend", Color.BLUE, running, status, started_at, 2, image=OLD)


#: 03:12:45 UTC on 23 November 2026, a quarter of an hour after the container above was started.
NOW = 1_795_403_565


def state(host: str = "web1", *, ok: bool = True, running: bool = True) -> HostState:
    probe = ProbeResult("backend", "http://127.0.0.1:8080/api/health", ok, "200" if ok else "502", 3)
    return HostState(host, NOW, containers=(container(running=running),), probes=(probe,))
