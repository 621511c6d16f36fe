"""What one look gives to Prometheus: every family of samples of one application on one host. Pure.

The names are what alerts and dashboards ask for, see docs/operations.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from fabfile.model import Application, Check, HealthReport, HostState, Kind, Release
from fabfile.model.watch import RECOVERIES, Act, Memory, WatchRules
from fabfile.watchdog.exposition import Family, Sample, counter, gauge, sample
from fabfile.watchdog.requests import BOUNDS, Counted, Series


@dataclass(frozen=True)
class Tally:
    """What the watchdog counts for good, kept in a file.

    `restarts` are those of each service, `seen` those that Podman last said of each container, by name and release.
    """

    counted: Counted = field(default_factory=Counted)
    restarts: tuple[tuple[str, int], ...] = ()
    seen: tuple[tuple[str, int], ...] = ()
    recoveries: tuple[tuple[Act, int], ...] = ()
    failed: tuple[tuple[Act, int], ...] = ()
    errors: int = 0


@dataclass(frozen=True)
class Figures:
    """What Nginx says of itself (stub_status)."""

    states: tuple[tuple[str, int], ...] = ()
    accepted: int = 0
    requests: int = 0


@dataclass(frozen=True)
class Seen:
    """Everything that one look found. `report` is None where the host could not be looked at, `app` before the first
    deploy, `figures` without an answer of Nginx; `backup` is the time of the newest good one, Unix seconds."""

    now: float
    rules: WatchRules
    memory: Memory
    releases: tuple[Release, ...] = ()
    app: Application | None = None
    report: HealthReport | None = None
    answered: bool = False
    figures: Figures | None = None
    backup: float | None = None


def families(seen: Seen, tally: Tally) -> Iterator[Family]:
    """All of it, in a fixed order."""
    yield from _watchdog(seen, tally)
    if seen.report is not None:
        yield from _checks(seen.report)
        yield from _host(seen.report)
        yield _release_info(seen)
    if seen.app is not None:
        yield from _services(seen.app, seen.memory, tally)
    yield from _history(seen)
    if seen.app is not None and seen.app.request_metrics:
        yield from _nginx(seen)
        yield from _requests(tally.counted.series)
    text = "Texts and log lines that could not be used"
    yield counter("rolling_metrics_errors_total", text, sample(tally.errors + tally.counted.errors))


def restarted(tally: Mapping[str, int], before: Mapping[str, int], state: HostState) -> dict[str, int]:
    """The restarts of each service with those since `before`; a container that is new began with none."""
    found = dict(tally)
    for one in state.containers:
        known = before.get(f"{one.name} {one.release}", 0 if before else one.restarts)
        since = one.restarts - known if one.restarts >= known else one.restarts
        found[one.service] = found.get(one.service, 0) + since
    return found


def _watchdog(seen: Seen, tally: Tally) -> Iterator[Family]:
    done, failed = dict(tally.recoveries), dict(tally.failed)
    acts = sorted(RECOVERIES, key=lambda act: act.value)
    yield gauge("rolling_watchdog_heartbeat_timestamp_seconds", "When the watchdog last looked", sample(seen.now))
    yield gauge("rolling_watchdog_interval_seconds", "Pause between two looks", sample(seen.rules.interval_seconds))
    yield gauge("rolling_watchdog_given_up", "Recovery was given up", sample(seen.memory.given_up))
    yield gauge("rolling_look_ok", "The host could be looked at", sample(seen.report is not None))
    text = "Recoveries that were begun"
    yield counter("rolling_recoveries_total", text, *(sample(done.get(act, 0), act=label(act)) for act in acts))
    text = "Recoveries that failed"
    yield counter(
        "rolling_recoveries_failed_total", text, *(sample(failed.get(act, 0), act=label(act)) for act in acts)
    )


def label(act: Act) -> str:
    """How a recovery is called in a label."""
    return act.value.replace(" ", "_")


def _checks(report: HealthReport) -> Iterator[Family]:
    names = [(check, *named(check)) for check in report.checks]
    text = "What inv health says of each check"
    rows = (sample(check.ok, check=name, subject=subject) for check, name, subject in names)
    yield gauge("rolling_check_ok", text, *rows)
    asked = [row for row in names if row[0].kind is Kind.HTTP and row[0].answered]
    times = (sample(check.milliseconds / 1000, check=name, subject=subject) for check, name, subject in asked)
    yield gauge("rolling_check_seconds", "How long the answer to a check took", *times)


def named(check: Check) -> tuple[str, str]:
    """The labels `check` and `subject`: its word, and the service or the mount that it is about."""
    if check.name == "full chain":
        return "chain", ""
    first, _, last = check.name.partition(" ")
    return (last, first) if last and check.kind in {Kind.CONTAINER, Kind.HTTP} else (first, last)


def _host(report: HealthReport) -> Iterator[Family]:
    state = report.state
    ends = () if report.certificate_ends is None else (sample(report.certificate_ends),)
    yield gauge("rolling_certificate_expiry_timestamp_seconds", "When the certificate runs out", *ends)
    lock = state.lock if state.lock is not None and state.lock.expires_at > state.now else None
    yield gauge("rolling_lock_held", "Somebody holds the lock", sample(lock is not None))
    if lock is not None:
        yield gauge("rolling_lock_since_timestamp_seconds", "When the lock was taken", sample(lock.acquired_at))
        yield gauge("rolling_lock_info", "Who holds the lock, and why", sample(1, who=lock.owner, reason=lock.reason))
    page = bool(state.fact("maintenance"))
    yield gauge("rolling_maintenance", "Visitors get the maintenance page", sample(page))


def _release_info(seen: Seen) -> Family:
    rows: list[Sample] = []
    if seen.app is not None and seen.report is not None:
        state = seen.report.state
        for service in seen.app.services:
            color = state.active_color(service.name)
            if (live := state.container(service.name, color)) is not None:
                image = live.image
                version = {"version": image.tag, "digest": image.digest, "color": color.value}
                rows.append(sample(1, release=live.release, service=service.name, **version))
    return gauge("rolling_release_info", "What serves", *rows)


def _services(app: Application, memory: Memory, tally: Tally) -> Iterator[Family]:
    names, restarts = [service.name for service in app.services], dict(tally.restarts)
    bad = (sample(memory.pulse(name).bad, service=name) for name in names)
    yield gauge("rolling_service_failures", "Consecutive bad looks", *bad)
    rows = (sample(restarts.get(name, 0), service=name) for name in names)
    yield counter("rolling_service_restarts_total", "Crashes after which Podman restarted it", *rows)


def _history(seen: Seen) -> Iterator[Family]:
    newest = next((one for one in reversed(seen.releases) if one.action in {"deploy", "rollback"}), None)
    if newest is not None:
        at = _when(newest)
        times = () if at is None else (sample(at),)
        took = sample(newest.seconds, action=newest.action)
        yield gauge("rolling_deploy_last_timestamp_seconds", "When the last deploy or rollback was", *times)
        yield gauge("rolling_deploy_last_success", "It ended well", sample(newest.good))
        yield gauge("rolling_deploy_last_duration_seconds", "How long it took", took)
    if seen.backup is not None:
        text = "When the newest backup that is not damaged was whole"
        yield gauge("rolling_backup_last_good_timestamp_seconds", text, sample(seen.backup))


def _when(release: Release) -> float | None:
    try:
        return datetime.fromisoformat(release.time).timestamp()
    except ValueError:
        return None


def _nginx(seen: Seen) -> Iterator[Family]:
    yield gauge("rolling_nginx_up", "Nginx answers on loopback", sample(seen.answered))
    if seen.figures is not None:
        rows = (sample(count, state=name) for name, count in seen.figures.states)
        yield gauge("rolling_nginx_connections", "Connections of visitors", *rows)
        accepted, requests = seen.figures.accepted, seen.figures.requests
        yield counter("rolling_nginx_accepted_total", "Connections since Nginx started", sample(accepted))
        yield counter("rolling_nginx_requests_total", "Requests since Nginx started", sample(requests))


def _requests(series: tuple[Series, ...]) -> Iterator[Family]:
    total: list[Sample] = []
    durations: list[Sample] = []
    for one in series:
        whose = {"service": one.service, "color": one.color.value}
        for digit, count in enumerate(one.codes, 1):
            if digit > 1 or count:
                total.append(sample(count, **whose, code=f"{digit}xx"))
        below = 0
        for bound, count in zip((*BOUNDS, None), one.classes, strict=True):
            below += count
            durations.append(sample(below, "_bucket", **whose, le="+Inf" if bound is None else f"{bound:g}"))
        durations += [sample(one.seconds, "_sum", **whose), sample(below, "_count", **whose)]
    yield counter("rolling_http_requests_total", "Requests that a color was asked for", *total)
    text = "How long they took; upgraded connections and streams of events are left out"
    yield Family("rolling_http_request_duration_seconds", "histogram", text, tuple(durations))
