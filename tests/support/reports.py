"""Health reports for the tests of the dashboard: one service and a few checks."""

from __future__ import annotations

from rolling_upgrade.engine.model import Check, Color, Container, HealthReport, HostState, Image, Kind, Lock
from tests.support.builders import NOW

CHAIN = "full chain"


def report(
    *,
    color: Color = Color.BLUE,
    tag: str = "v1",
    release: str = "r1",
    restarts: int = 0,
    started_at: str = "earlier",
    running: bool = True,
    container: bool = True,
    chain: str = "200",
    milliseconds: int = 7,
    lock: str = "",
    lease_seconds: int = 60,
    page: str = "",
) -> HealthReport:
    """Return a healthy host's report with changes; `lock` is a lock's reason, `page` the maintenance page's origin."""
    state = HostState(
        "web1",
        NOW,
        facts=(("maintenance", page),),
        active=(("backend", color),),
        containers=(
            Container(
                f"app-backend-{color.value}",
                "backend",
                color,
                running,
                "running" if running else "exited",
                started_at,
                restarts,
                image=Image("registry.lab/app/backend", tag),
                release=release,
            ),
        )
        if container
        else (),
        lock=Lock(f"token of {lock}", "ann", "laptop", 1, lock, NOW, NOW + lease_seconds) if lock else None,
    )
    up = running and container
    checks = (
        Check(Kind.CONTAINER, "backend container", up, "blue runs" if up else "it is down", "backend"),
        Check(Kind.HTTP, CHAIN, chain == "200", f"HTTP {chain}", "backend", milliseconds),
        Check(Kind.HTTP, "site", True, "HTTP 200", "", 3),
    )
    return HealthReport(state, checks)
