"""Collects the metrics and writes them to a file for node-exporter after each observation.

Errors never stop the watchdog: they are counted, and the count is a metric.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Application, HealthReport, Release
from rolling_upgrade.engine.nginx import STATUS_PATH, request_log
from rolling_upgrade.engine.paths import backup_directory
from rolling_upgrade.engine.serialization import from_plain, to_plain
from rolling_upgrade.features.watchdog import policy, state_store
from rolling_upgrade.features.watchdog.exposition import (
    Counters,
    NginxStatus,
    Snapshot,
    add_restarts,
    exposition,
    families,
)
from rolling_upgrade.features.watchdog.policy import RecoveryAction, RecoveryState
from rolling_upgrade.features.watchdog.request_log import read_new
from rolling_upgrade.features.watchdog.shell import text_file
from rolling_upgrade.features.watchdog.state_store import Settings

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
        """Update the counters and write the file, where METRICS_DIR names a writable directory."""
        path = Path(text_file(self._settings.metrics_dir, self._settings.app))
        if not self._settings.metrics_dir or not os.access(path.parent, os.W_OK):
            return
        try:
            if app is not None:
                app = replace(app, request_metrics=self._settings.request_metrics)
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
        with socket.create_connection(("127.0.0.1", app.services[0].service_port), _STATUS_SECONDS) as connection:
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
