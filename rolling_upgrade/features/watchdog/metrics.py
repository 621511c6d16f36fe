"""The metrics of an application, collected after each observation and written to a file for node-exporter.

docs/guides/monitoring.md lists them; templates/observe/ has the alerts and the dashboard that query them. Errors never
stop the watchdog: they are counted, and the count is a metric.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.masking import safe
from rolling_upgrade.engine.model import Application, Check, HealthReport, HostState, Kind, Release, WatchRules
from rolling_upgrade.engine.nginx import request_log
from rolling_upgrade.engine.paths import backup_directory
from rolling_upgrade.engine.serialization import from_plain, to_plain
from rolling_upgrade.engine.site.text import STATUS_PATH
from rolling_upgrade.features.watchdog import policy, state_store
from rolling_upgrade.features.watchdog.policy import (
    RECOVERIES,
    RecoveryAction,
    RecoveryState,
    is_deployment,
    released_at,
)
from rolling_upgrade.features.watchdog.request_log import BOUNDS, RequestCounts, Series, read_new
from rolling_upgrade.features.watchdog.state_store import Settings

#: Characters of a label's value; an operator may have written a longer text.
LONGEST_LABEL = 200
_NAME = re.compile(r"[a-z_][a-z0-9_]*")


class Sample:
    """One value with its labels; `suffix` names a part of a histogram, such as `_bucket`."""

    def __init__(self, value: float, suffix: str = "", **labels: str) -> None:
        self.value, self.suffix, self.labels = float(value), suffix, labels


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
            labels = {**common, **sample.labels}
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

    `restarts` counts the restarts of each service, `podman_restarts` those of each container, by name and release.
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
    yield counter("rolling_metrics_errors_total", text, Sample(counters.errors + counters.counted.errors))


def add_restarts(totals: Mapping[str, int], before: Mapping[str, int], state: HostState) -> dict[str, int]:
    """The restarts of each service, increased by those since `before`; a new container starts at 0."""
    increased = dict(totals)
    for container in state.containers:
        known = before.get(f"{container.name} {container.release}", 0 if before else container.restarts)
        since = container.restarts - known if container.restarts >= known else container.restarts
        increased[container.service] = increased.get(container.service, 0) + since
    return increased


def _watchdog(snapshot: Snapshot, counters: Counters) -> Iterator[Family]:
    yield gauge(
        "rolling_watchdog_heartbeat_timestamp_seconds", "Time of the watchdog's last observation", Sample(snapshot.now)
    )
    yield gauge(
        "rolling_watchdog_interval_seconds", "Pause between two observations", Sample(snapshot.rules.interval_seconds)
    )
    yield gauge("rolling_watchdog_given_up", "The watchdog gave up recovery", Sample(snapshot.state.given_up))
    yield gauge("rolling_look_ok", "The host could be observed", Sample(snapshot.report is not None))
    yield counter("rolling_recoveries_total", "Recoveries started", *_of_each_action(counters.recoveries))
    yield counter("rolling_recoveries_failed_total", "Recoveries failed", *_of_each_action(counters.failed))


def _of_each_action(counts: Iterable[tuple[RecoveryAction, int]]) -> Iterator[Sample]:
    known = dict(counts)
    for action in sorted(RECOVERIES, key=lambda action: action.value):
        yield Sample(known.get(action, 0), act=action.value.replace(" ", "_"))


def _checks(report: HealthReport) -> Iterator[Family]:
    names = [(check, *check_labels(check)) for check in report.checks]
    text = "Result of each check of rolling-upgrade health"
    rows = (Sample(check.ok, check=name, subject=subject) for check, name, subject in names)
    yield gauge("rolling_check_ok", text, *rows)
    answered = [row for row in names if row[0].kind is Kind.HTTP and row[0].answered]
    times = (Sample(check.milliseconds / 1000, check=name, subject=subject) for check, name, subject in answered)
    yield gauge("rolling_check_seconds", "Response time of each HTTP check", *times)


def check_labels(check: Check) -> tuple[str, str]:
    """The labels `check` and `subject`: the kind of check, and its service or mount point."""
    if check.name == "full chain":
        return "chain", ""
    first, _, last = check.name.partition(" ")
    of_a_subject = {Kind.CONTAINER, Kind.HTTP, Kind.READY, Kind.JOB}
    return (last, first) if last and check.kind in of_a_subject else (first, last)


def _host(report: HealthReport) -> Iterator[Family]:
    state = report.state
    ends = () if report.certificate_ends is None else (Sample(report.certificate_ends),)
    yield gauge("rolling_certificate_expiry_timestamp_seconds", "Expiry of the certificate", *ends)
    lock = state.held_lock
    yield gauge("rolling_lock_held", "The lock is held", Sample(lock is not None))
    if lock is not None:
        yield gauge(
            "rolling_lock_since_timestamp_seconds", "Time at which the lock was acquired", Sample(lock.acquired_at)
        )
        yield gauge("rolling_lock_info", "Owner and reason of the lock", Sample(1, who=lock.owner, reason=lock.reason))
    page = bool(state.fact("maintenance"))
    yield gauge("rolling_maintenance", "The maintenance page is on", Sample(page))


def _release_info(snapshot: Snapshot) -> Family:
    rows: list[Sample] = []
    if snapshot.app is not None and snapshot.report is not None:
        state = snapshot.report.state
        for service in snapshot.app.services:
            color = state.active_color(service.name)
            if (live := state.container(service.name, color)) is not None:
                image = live.image
                version = {"version": image.tag, "digest": image.digest, "color": color.value}
                rows.append(Sample(1, release=live.release, service=service.name, **version))
    return gauge("rolling_release_info", "Live release of each service", *rows)


def _services(app: Application, state: RecoveryState, counters: Counters) -> Iterator[Family]:
    names, restarts = [service.name for service in app.services], dict(counters.restarts)
    failures = (Sample(state.counter(name).failures, service=name) for name in names)
    yield gauge("rolling_service_failures", "Consecutive failed observations", *failures)
    rows = (Sample(restarts.get(name, 0), service=name) for name in names)
    yield counter("rolling_service_restarts_total", "Restarts by Podman after a crash", *rows)


def _history(snapshot: Snapshot) -> Iterator[Family]:
    newest = next((release for release in reversed(snapshot.releases) if is_deployment(release)), None)
    if newest is not None:
        at = released_at(newest)
        times = () if at is None else (Sample(at),)
        took = Sample(newest.seconds, action=newest.action)
        yield gauge("rolling_deploy_last_timestamp_seconds", "Time of the last deploy or rollback", *times)
        yield gauge("rolling_deploy_last_success", "The last deploy or rollback succeeded", Sample(newest.good))
        yield gauge("rolling_deploy_last_duration_seconds", "Duration of the last deploy or rollback", took)
    if snapshot.backup is not None:
        text = "Time of the newest backup that is not damaged"
        yield gauge("rolling_backup_last_good_timestamp_seconds", text, Sample(snapshot.backup))


def _nginx(snapshot: Snapshot) -> Iterator[Family]:
    yield gauge("rolling_nginx_up", "Nginx answers on loopback", Sample(snapshot.answered))
    if snapshot.nginx is not None:
        rows = (Sample(count, state=name) for name, count in snapshot.nginx.states)
        yield gauge("rolling_nginx_connections", "Client connections by state", *rows)
        accepted, requests = snapshot.nginx.accepted, snapshot.nginx.requests
        yield counter("rolling_nginx_accepted_total", "Client connections since Nginx started", Sample(accepted))
        yield counter("rolling_nginx_requests_total", "Requests since Nginx started", Sample(requests))


def _requests(all_series: tuple[Series, ...]) -> Iterator[Family]:
    total: list[Sample] = []
    durations: list[Sample] = []
    for series in all_series:
        labels = {"service": series.service, "color": series.color.value}
        for digit, count in enumerate(series.codes, 1):
            if digit > 1 or count:
                total.append(Sample(count, **labels, code=f"{digit}xx"))
        below = 0
        for bound, count in zip((*BOUNDS, None), series.classes, strict=True):
            below += count
            durations.append(Sample(below, "_bucket", **labels, le="+Inf" if bound is None else f"{bound:g}"))
        durations += [Sample(series.seconds, "_sum", **labels), Sample(below, "_count", **labels)]
    yield counter("rolling_http_requests_total", "Requests by service, color and status class", *total)
    text = "Response times, without upgraded connections and event streams"
    yield Family("rolling_http_request_duration_seconds", "histogram", text, tuple(durations))


#: Characters of the file: Prometheus reads it every few seconds.
LONGEST_TEXT = 512 * 1024
_STATUS_SECONDS = 2.0
_STUB_STATUS = re.compile(
    r"Active connections: ([0-9]{1,18})\s+server accepts handled requests\s+([0-9]{1,18}) [0-9]{1,18} ([0-9]{1,18})\s+"
    r"Reading: ([0-9]{1,18}) Writing: ([0-9]{1,18}) Waiting: ([0-9]{1,18})"
)
#: The number of backups that are searched for a good one.
_NEWEST_BACKUPS = 20


class MetricsWriter:
    """Writes the metrics of one application on its host. `now` gives Unix seconds."""

    def __init__(self, home: Path, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._home, self._settings, self._now = home, settings, now
        self._file = state_store.directory(home) / "metrics.json"
        self._counters = _load(self._file)

    def recovered(self, action: RecoveryAction, *, failed: bool) -> None:
        """Count one finished recovery."""
        started, failures = dict(self._counters.recoveries), dict(self._counters.failed)
        started[action] = started.get(action, 0) + 1
        failures[action] = failures.get(action, 0) + failed
        self._counters = replace(self._counters, recoveries=tuple(started.items()), failed=tuple(failures.items()))
        self._save()

    def write(
        self, app: Application | None, report: HealthReport | None, releases: tuple[Release, ...], state: RecoveryState
    ) -> None:
        """Update the counters and write the file, if METRICS_DIR names a writable directory."""
        path = Path(state_store.metrics_file(self._settings.metrics_dir, self._settings.app))
        if not self._settings.metrics_dir or not os.access(path.parent, os.W_OK):
            return
        try:
            if app is not None:
                app = replace(app, request_metrics=self._settings.request_metrics and app.has_site)
                self._count(app, report)
            snapshot = self._snapshot(app, report, releases, state)
            common = {"app": self._settings.app, "environment": self._settings.environment}
            text = exposition(families(snapshot, self._counters), common, self._settings.channels.secrets)
            if len(text) > LONGEST_TEXT:
                raise ValueError("too long")
            write_public(path, text)
        except (OSError, ValueError):
            self._counters = replace(self._counters, errors=self._counters.errors + 1)
        self._save()

    def _snapshot(
        self, app: Application | None, report: HealthReport | None, releases: tuple[Release, ...], state: RecoveryState
    ) -> Snapshot:
        now, rules = self._now(), self._settings.rules
        answered, nginx = (False, None) if app is None or not app.request_metrics else nginx_status(app)
        backup = newest_backup(app) if app is not None else None
        return Snapshot(now, rules, state, releases, app, report, answered, nginx, backup)

    def _count(self, app: Application, report: HealthReport | None) -> None:
        counters = self._counters
        if report is not None:
            totals = add_restarts(dict(counters.restarts), dict(counters.podman_restarts), report.state)
            restarts = tuple((service.name, totals.get(service.name, 0)) for service in app.services)
            counters = replace(
                counters, restarts=restarts, podman_restarts=tuple(policy.restart_counts(report).items())
            )
        if app.request_metrics:
            log = Path(request_log(app.name))
            try:
                counters = replace(counters, counted=read_new(counters.counted, app, log, self._now()))
            except OSError:
                counters = replace(counters, errors=counters.errors + 1)
        self._counters = counters

    def _save(self) -> None:
        """Save the counters; on a full disk they live in this process alone."""
        with suppress(OSError):
            state_store.replace_file(self._file, json.dumps(to_plain(self._counters)))


def _load(path: Path) -> Counters:
    try:
        counters: Counters = from_plain(Counters, untrusted.json_object(state_store.read_or_empty(path)))
    except (ValueError, TypeError, KeyError):
        return Counters()
    return counters


def write_public(path: Path, text: str) -> None:
    """Write a file that everyone may read, atomically. Raises OSError.

    Other users may write to the directory: an existing file or link of this name is replaced, never followed.
    Source: open(2): O_EXCL, mode `x`, fails for an existing link.
    """
    new = path.with_suffix(".new")
    with suppress(FileNotFoundError):
        new.unlink()
    try:
        with new.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def nginx_status(app: Application) -> tuple[bool, NginxStatus | None]:
    """Whether Nginx answers on loopback, and its status; None from a site without a status page."""
    request = f"GET {STATUS_PATH} HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", app.http_services[0].service_port), _STATUS_SECONDS) as connection:
            connection.sendall(request.encode())
            while len(answer) < 4096 and (block := connection.recv(4096)):
                answer += block
    except OSError:
        pass
    return answer.startswith(b"HTTP/1."), _parse_stub_status(answer.decode("ascii", "replace"))


def _parse_stub_status(answer: str) -> NginxStatus | None:
    match = _STUB_STATUS.search(answer)
    if match is None:
        return None
    active, accepted, requests, *rest = (int(number) for number in match.groups())
    states = zip(("active", "reading", "writing", "waiting"), (active, *rest), strict=True)
    return NginxStatus(tuple(states), accepted, requests)


def newest_backup(app: Application) -> float | None:
    """When the newest complete backup was made that no verification found damaged; Unix seconds, None without one."""
    directory = Path(backup_directory(app) or "/nonexistent")
    name = re.compile(re.escape(app.name) + r"-[0-9]{8}T[0-9]{6}Z-[0-9a-z]{6}")
    try:
        backups = sorted((path for path in directory.iterdir() if name.fullmatch(path.name)), reverse=True)
    except OSError:
        return None
    for backup in backups[:_NEWEST_BACKUPS]:
        with suppress(OSError):
            completed = (backup / "manifest.json").stat().st_mtime
            if not state_store.read_or_empty(backup / "verified").startswith("damaged"):
                return completed
    return None
