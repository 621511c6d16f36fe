"""The metrics of one application on one host, in Prometheus' text format.

docs/guides/monitoring.md lists them; templates/observe/ has the alerts and the dashboard that query them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rolling_upgrade.engine.masking import safe
from rolling_upgrade.engine.model import Application, Check, HealthReport, HostState, Kind, Release, WatchRules
from rolling_upgrade.features.watchdog.policy import (
    RECOVERIES,
    RecoveryAction,
    RecoveryState,
    is_deployment,
    released_at,
)
from rolling_upgrade.features.watchdog.request_log import BOUNDS, RequestCounts, Series

#: Characters of a label's value; an operator may have written a longer text.
LONGEST_LABEL = 200
_NAME = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True)
class Sample:
    """One value with its labels; `suffix` names a part of a histogram, such as `_bucket`."""

    value: float
    labels: tuple[tuple[str, str], ...] = ()
    suffix: str = ""


@dataclass(frozen=True)
class Family:
    """The samples of one metric. `kind` is gauge, counter or histogram."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def gauge(name: str, help: str, *samples: Sample) -> Family:
    """A gauge, which can increase and decrease."""
    return Family(name, "gauge", help, samples)


def counter(name: str, help: str, *samples: Sample) -> Family:
    """A counter, which only increases."""
    return Family(name, "counter", help, samples)


def sample(value: float, suffix: str = "", **labels: str) -> Sample:
    """A value with its labels."""
    return Sample(float(value), tuple(labels.items()), suffix)


def exposition(families: Iterable[Family], common: Mapping[str, str], secrets: Sequence[str] = ()) -> str:
    """Render families as text; every sample gets the common labels, and secrets are masked in labels.

    Families without samples and repeated series are left out.
    """
    lines: list[str] = []
    for family in families:
        if not _NAME.fullmatch(family.name):
            raise ValueError(f"{family.name!r} is not a metric name")
        rows: dict[str, str] = {}
        for sample in family.samples:
            labels = {**common, **dict(sample.labels)}
            inner = ",".join(f'{name}="{_escaped(value, secrets)}"' for name, value in labels.items())
            series = f"{family.name}{sample.suffix}{{{inner}}}"
            rows.setdefault(series, f"{series} {_number(sample.value)}")
        if rows:
            lines += [
                f"# HELP {family.name} {_help(family.help)}",
                f"# TYPE {family.name} {family.kind}",
                *rows.values(),
            ]
    return "".join(f"{line}\n" for line in lines)


def _escaped(value: str, secrets: Sequence[str]) -> str:
    shown = " ".join(safe(value, secrets).split())[:LONGEST_LABEL]
    return shown.replace("\\", "\\\\").replace('"', '\\"')


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else repr(value)


@dataclass(frozen=True)
class Counters:
    """The counters that survive a restart of the watchdog. The keys of the fields are those of metrics.json.

    `restarts` counts the restarts of each service, `podman_restarts` is Podman's count for each container, by name and release.
    """

    counted: RequestCounts = field(default_factory=RequestCounts)
    restarts: tuple[tuple[str, int], ...] = ()
    podman_restarts: tuple[tuple[str, int], ...] = field(default=(), metadata={"key": "seen"})
    recoveries: tuple[tuple[RecoveryAction, int], ...] = ()
    failed: tuple[tuple[RecoveryAction, int], ...] = ()
    errors: int = 0


@dataclass(frozen=True)
class NginxStatus:
    """The counts of Nginx's stub_status page."""

    states: tuple[tuple[str, int], ...] = ()
    accepted: int = 0
    requests: int = 0


@dataclass(frozen=True)
class Snapshot:
    """The input of one exposition.

    `app` is None before the first deploy, `report` where the host could not be observed, `nginx` without an answer to
    the status request; `backup` is the time of the newest good backup in Unix seconds.
    """

    now: float
    rules: WatchRules
    state: RecoveryState
    releases: tuple[Release, ...] = ()
    app: Application | None = None
    report: HealthReport | None = None
    answered: bool = False
    nginx: NginxStatus | None = None
    backup: float | None = None


def families(snapshot: Snapshot, counters: Counters) -> Iterator[Family]:
    """Every metric, in a fixed order."""
    yield from _watchdog(snapshot, counters)
    if snapshot.report is not None:
        yield from _checks(snapshot.report)
        yield from _host(snapshot.report)
        yield _release_info(snapshot)
    if snapshot.app is not None:
        yield from _services(snapshot.app, snapshot.state, counters)
    yield from _history(snapshot)
    if snapshot.app is not None and snapshot.app.request_metrics:
        yield from _nginx(snapshot)
        yield from _requests(counters.counted.series)
    text = "Errors while collecting metrics, and malformed lines of the request log"
    yield counter("rolling_metrics_errors_total", text, sample(counters.errors + counters.counted.errors))


def add_restarts(totals: Mapping[str, int], before: Mapping[str, int], state: HostState) -> dict[str, int]:
    """The restarts of each service, increased by those since `before`; a new container starts at 0."""
    increased = dict(totals)
    for container in state.containers:
        known = before.get(f"{container.name} {container.release}", 0 if before else container.restarts)
        since = container.restarts - known if container.restarts >= known else container.restarts
        increased[container.service] = increased.get(container.service, 0) + since
    return increased


def _watchdog(snapshot: Snapshot, counters: Counters) -> Iterator[Family]:
    done, failed = dict(counters.recoveries), dict(counters.failed)
    actions = sorted(RECOVERIES, key=lambda action: action.value)
    yield gauge(
        "rolling_watchdog_heartbeat_timestamp_seconds", "Time of the watchdog's last observation", sample(snapshot.now)
    )
    yield gauge(
        "rolling_watchdog_interval_seconds", "Pause between two observations", sample(snapshot.rules.interval_seconds)
    )
    yield gauge("rolling_watchdog_given_up", "The watchdog gave up recovery", sample(snapshot.state.given_up))
    yield gauge("rolling_look_ok", "The host could be observed", sample(snapshot.report is not None))
    text = "Recoveries started"
    yield counter(
        "rolling_recoveries_total", text, *(sample(done.get(action, 0), act=action_label(action)) for action in actions)
    )
    text = "Recoveries failed"
    yield counter(
        "rolling_recoveries_failed_total",
        text,
        *(sample(failed.get(action, 0), act=action_label(action)) for action in actions),
    )


def action_label(action: RecoveryAction) -> str:
    """The value of the label `act`."""
    return action.value.replace(" ", "_")


def _checks(report: HealthReport) -> Iterator[Family]:
    names = [(check, *check_labels(check)) for check in report.checks]
    text = "Result of each check of rolling-upgrade health"
    rows = (sample(check.ok, check=name, subject=subject) for check, name, subject in names)
    yield gauge("rolling_check_ok", text, *rows)
    answered = [row for row in names if row[0].kind is Kind.HTTP and row[0].answered]
    times = (sample(check.milliseconds / 1000, check=name, subject=subject) for check, name, subject in answered)
    yield gauge("rolling_check_seconds", "Response time of each HTTP check", *times)


def check_labels(check: Check) -> tuple[str, str]:
    """The labels `check` and `subject`: the kind of check, and its service or mount point."""
    if check.name == "full chain":
        return "chain", ""
    first, _, last = check.name.partition(" ")
    return (last, first) if last and check.kind in {Kind.CONTAINER, Kind.HTTP} else (first, last)


def _host(report: HealthReport) -> Iterator[Family]:
    state = report.state
    ends = () if report.certificate_ends is None else (sample(report.certificate_ends),)
    yield gauge("rolling_certificate_expiry_timestamp_seconds", "Expiry of the certificate", *ends)
    lock = state.held_lock
    yield gauge("rolling_lock_held", "The lock is held", sample(lock is not None))
    if lock is not None:
        yield gauge(
            "rolling_lock_since_timestamp_seconds", "Time at which the lock was acquired", sample(lock.acquired_at)
        )
        yield gauge("rolling_lock_info", "Owner and reason of the lock", sample(1, who=lock.owner, reason=lock.reason))
    page = bool(state.fact("maintenance"))
    yield gauge("rolling_maintenance", "The maintenance page is on", sample(page))


def _release_info(snapshot: Snapshot) -> Family:
    rows: list[Sample] = []
    if snapshot.app is not None and snapshot.report is not None:
        state = snapshot.report.state
        for service in snapshot.app.services:
            color = state.active_color(service.name)
            if (live := state.container(service.name, color)) is not None:
                image = live.image
                version = {"version": image.tag, "digest": image.digest, "color": color.value}
                rows.append(sample(1, release=live.release, service=service.name, **version))
    return gauge("rolling_release_info", "Live release of each service", *rows)


def _services(app: Application, state: RecoveryState, counters: Counters) -> Iterator[Family]:
    names, restarts = [service.name for service in app.services], dict(counters.restarts)
    failures = (sample(state.counter(name).failures, service=name) for name in names)
    yield gauge("rolling_service_failures", "Consecutive failed observations", *failures)
    rows = (sample(restarts.get(name, 0), service=name) for name in names)
    yield counter("rolling_service_restarts_total", "Restarts by Podman after a crash", *rows)


def _history(snapshot: Snapshot) -> Iterator[Family]:
    newest = next((release for release in reversed(snapshot.releases) if is_deployment(release)), None)
    if newest is not None:
        at = released_at(newest)
        times = () if at is None else (sample(at),)
        took = sample(newest.seconds, action=newest.action)
        yield gauge("rolling_deploy_last_timestamp_seconds", "Time of the last deploy or rollback", *times)
        yield gauge("rolling_deploy_last_success", "The last deploy or rollback succeeded", sample(newest.good))
        yield gauge("rolling_deploy_last_duration_seconds", "Duration of the last deploy or rollback", took)
    if snapshot.backup is not None:
        text = "Time of the newest backup that is not damaged"
        yield gauge("rolling_backup_last_good_timestamp_seconds", text, sample(snapshot.backup))


def _nginx(snapshot: Snapshot) -> Iterator[Family]:
    yield gauge("rolling_nginx_up", "Nginx answers on loopback", sample(snapshot.answered))
    if snapshot.nginx is not None:
        rows = (sample(count, state=name) for name, count in snapshot.nginx.states)
        yield gauge("rolling_nginx_connections", "Client connections by state", *rows)
        accepted, requests = snapshot.nginx.accepted, snapshot.nginx.requests
        yield counter("rolling_nginx_accepted_total", "Client connections since Nginx started", sample(accepted))
        yield counter("rolling_nginx_requests_total", "Requests since Nginx started", sample(requests))


def _requests(all_series: tuple[Series, ...]) -> Iterator[Family]:
    total: list[Sample] = []
    durations: list[Sample] = []
    for series in all_series:
        labels = {"service": series.service, "color": series.color.value}
        for digit, count in enumerate(series.codes, 1):
            if digit > 1 or count:
                total.append(sample(count, **labels, code=f"{digit}xx"))
        below = 0
        for bound, count in zip((*BOUNDS, None), series.classes, strict=True):
            below += count
            durations.append(sample(below, "_bucket", **labels, le="+Inf" if bound is None else f"{bound:g}"))
        durations += [sample(series.seconds, "_sum", **labels), sample(below, "_count", **labels)]
    yield counter("rolling_http_requests_total", "Requests by service, color and status class", *total)
    text = "Response times, without upgraded connections and event streams"
    yield Family("rolling_http_request_duration_seconds", "histogram", text, tuple(durations))
