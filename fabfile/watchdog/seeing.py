"""From one look at the host to what it means for recovery. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from fabfile.model import Application, Check, HealthReport, HostState, Kind, Release
from fabfile.model.watch import Ailment, Look, Trouble, WatchRules
from fabfile.plans import rollback

#: How often Podman has restarted each container, by its name and release.
Restarts = Mapping[str, int]


def restarts(report: HealthReport) -> dict[str, int]:
    """How often Podman has restarted each container so far."""
    return {f"{one.name} {one.release}": one.restarts for one in report.state.containers}


def look(
    app: Application,
    report: HealthReport,
    before: Restarts,
    releases: tuple[Release, ...],
    rules: WatchRules,
    missed: str = "",
) -> Look:
    """What the report means; `before` are the restarts seen before, `missed` a service that just gave no answer."""
    failed = {check.name: check for check in report.failed}
    troubles = tuple(
        trouble for service in app.services if (trouble := _trouble(service.name, report, failed, before)) is not None
    )
    troubles = tuple(replace(one, misses=2) if one.service == missed else one for one in troubles)
    chain = failed.get("full chain")
    if chain is not None and not troubles and app.full_chain is not None:
        troubles = (Trouble(app.full_chain.service, Ailment.PATH, f"full chain: {chain.detail}"),)
    newest = next((one for one in reversed(releases) if one.good and one.action in {"deploy", "rollback"}), None)
    return Look(
        services=tuple(service.name for service in app.services),
        troubles=troubles,
        starved="; ".join(check.detail for check in report.failed if check.kind in {Kind.DISK, Kind.MEMORY}),
        hopeless=_hopeless(app, report),
        held=_held(report.state),
        release=newest.id if newest else "",
        fresh=newest is not None and 0 <= report.state.now - _when(newest) < rules.fresh_seconds,
        earlier=bool(rollback.candidates(releases, rollback.running(replace(report.state, releases=releases)))),
    )


def _trouble(service: str, report: HealthReport, failed: Mapping[str, Check], before: Restarts) -> Trouble | None:
    crashed = _crashed(service, report, before)
    for name in ("container", "http"):
        check = failed.get(f"{service} {name}")
        if check is None:
            continue
        if name == "http" and not check.answered and crashed is not None:
            return crashed
        ailment = Ailment.STOPPED if name == "container" else Ailment.ILL if check.answered else Ailment.SILENT
        return Trouble(service, ailment, f"{check.name}: {check.detail}")
    if crashed is not None:
        return replace(crashed, misses=0)
    check = failed.get(f"{service} nginx")
    return Trouble(service, Ailment.PATH, f"{check.name}: {check.detail}") if check else None


def _crashed(service: str, report: HealthReport, before: Restarts) -> Trouble | None:
    """Podman started the container again since the look before; that it gives no answer yet is no other trouble."""
    live = report.state.container(service, report.state.active_color(service))
    if live is None:
        return None
    # A container that came while the watchdog watched began with none; of the very first look nothing is known.
    unseen = 0 if before else live.restarts
    crashes = live.restarts - before.get(f"{live.name} {live.release}", unseen)
    reason = f"{live.name} crashed, Podman restarted it"
    return Trouble(service, Ailment.CRASHING, reason, crashes=crashes) if crashes > 0 else None


def _hopeless(app: Application, report: HealthReport) -> str:
    """Why nothing that the watchdog may do could help: an Nginx that does not run is root's."""
    names = {f"{service.name} nginx" for service in app.services}
    asked = [check for check in report.checks if check.name in names]
    own = [check for check in report.checks if check.name in {f"{service.name} http" for service in app.services}]
    if asked and not any(check.answered for check in asked) and all(check.ok for check in own):
        return "Nginx does not answer; starting it needs root"
    return ""


def _held(state: HostState) -> str:
    lock = state.lock
    return f"{lock.owner}: {lock.reason}" if lock is not None and lock.expires_at > state.now else ""


def _when(release: Release) -> float:
    try:
        return datetime.fromisoformat(release.time).timestamp()
    except ValueError:
        return 0.0
