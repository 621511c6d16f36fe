"""The file of metrics: what is counted between looks, and the text that is left for node-exporter after each.

It decides nothing, and nothing that fails here stops the watchdog: it is counted and shows in the next text.
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

from fabfile.commands.backup import backup_directory
from fabfile.commands.form import plain, typed
from fabfile.commands.metrics import text_file
from fabfile.commands.nginx import NGINX_STATUS_PATH, request_log
from fabfile.model import Application, HealthReport, Release
from fabfile.model.watch import Act, Memory
from fabfile.watchdog import keeping, seeing
from fabfile.watchdog.exposition import exposition
from fabfile.watchdog.keeping import Settings
from fabfile.watchdog.measures import Figures, Seen, Tally, families, restarted
from fabfile.watchdog.requests import read_on

#: No text is longer: whoever reads it reads it every few seconds.
LONGEST_TEXT = 512 * 1024
_STATUS_SECONDS = 2.0
_FIGURES = re.compile(
    r"Active connections: (\d+)\s+server accepts handled requests\s+(\d+) \d+ (\d+)\s+"
    r"Reading: (\d+) Writing: (\d+) Waiting: (\d+)"
)
#: How many backups are looked at for a good one.
_BACKUPS = 20


class Metering:
    """The metrics of one application on its host. `now` gives Unix seconds."""

    def __init__(self, home: Path, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._home, self._settings, self._now = home, settings, now
        self._file = keeping.directory(home) / "metrics.json"
        self._tally = _recall(self._file)

    def recovered(self, act: Act, *, failed: bool) -> None:
        """One recovery was begun and has ended."""
        done, lost = dict(self._tally.recoveries), dict(self._tally.failed)
        done[act] = done.get(act, 0) + 1
        lost[act] = lost.get(act, 0) + failed
        self._tally = replace(self._tally, recoveries=tuple(done.items()), failed=tuple(lost.items()))
        self._remember()

    def looked(
        self, app: Application | None, report: HealthReport | None, releases: tuple[Release, ...], memory: Memory
    ) -> None:
        """Count what came since the look before, and leave the text of this one, where there is a place for it."""
        path = Path(text_file(self._settings.metrics_dir, self._settings.app))
        if not self._settings.metrics_dir or not os.access(path.parent, os.W_OK):
            return
        try:
            if app is not None:
                app = replace(app, request_metrics=self._settings.request_metrics)
                self._count(app, report)
            seen = self._seen(app, report, releases, memory)
            common = {"app": self._settings.app, "environment": self._settings.environment}
            text = exposition(families(seen, self._tally), common, _secrets(self._settings))
            if len(text) > LONGEST_TEXT:
                raise ValueError("too long")
            leave(path, text)
        except (OSError, ValueError):
            self._tally = replace(self._tally, errors=self._tally.errors + 1)
        self._remember()

    def _seen(
        self, app: Application | None, report: HealthReport | None, releases: tuple[Release, ...], memory: Memory
    ) -> Seen:
        now, rules = self._now(), self._settings.rules
        answered, figures = (False, None) if app is None or not app.request_metrics else ask_nginx(app)
        backup = newest_backup(app) if app is not None else None
        return Seen(now, rules, memory, releases, app, report, answered, figures, backup)

    def _count(self, app: Application, report: HealthReport | None) -> None:
        tally = self._tally
        if report is not None:
            counts = restarted(dict(tally.restarts), dict(tally.seen), report.state)
            restarts = tuple((service.name, counts.get(service.name, 0)) for service in app.services)
            tally = replace(tally, restarts=restarts, seen=tuple(seeing.restarts(report).items()))
        if app.request_metrics:
            log = Path(request_log(app.name))
            try:
                tally = replace(tally, counted=read_on(tally.counted, app, log, self._now()))
            except OSError:
                tally = replace(tally, errors=tally.errors + 1)
        self._tally = tally

    def _remember(self) -> None:
        """On a full disk it is kept in this process alone."""
        with suppress(OSError):
            keeping.keep(self._file, json.dumps(plain(self._tally)))


def _recall(path: Path) -> Tally:
    try:
        found: Tally = typed(Tally, json.loads(keeping.text(path)))
    except (ValueError, TypeError, KeyError):
        return Tally()
    return found


def _secrets(settings: Settings) -> tuple[str, ...]:
    return tuple(secret for _, channel in settings.channels.configured for secret in channel.secrets)


def leave(path: Path, text: str) -> None:
    """Write a text that everyone may read, whole or not at all. Raises OSError.

    The directory may be one that others write too: what lies under our name is replaced, and no link is followed.
    Source: open(2): O_EXCL, which `x` is, fails where there is a link already.
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


def ask_nginx(app: Application) -> tuple[bool, Figures | None]:
    """Whether Nginx answers on loopback, and its figures. An older site has no place for them, and so gives none."""
    asked = f"GET {NGINX_STATUS_PATH} HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    said = b""
    try:
        with socket.create_connection(("127.0.0.1", app.services[0].stable_port), _STATUS_SECONDS) as connection:
            connection.sendall(asked.encode())
            while len(said) < 4096 and (block := connection.recv(4096)):
                said += block
    except OSError:
        pass
    return said.startswith(b"HTTP/1."), _figures(said.decode("ascii", "replace"))


def _figures(said: str) -> Figures | None:
    found = _FIGURES.search(said)
    if found is None:
        return None
    active, accepted, requests, *rest = (int(number) for number in found.groups())
    states = zip(("active", "reading", "writing", "waiting"), (active, *rest), strict=True)
    return Figures(tuple(states), accepted, requests)


def newest_backup(app: Application) -> float | None:
    """When the newest backup was whole that no verification found damaged, Unix seconds; None without one."""
    place = Path(backup_directory(app) or "/nonexistent")
    try:
        found = sorted((one for one in place.iterdir() if re.fullmatch(_backups(app), one.name)), reverse=True)
    except OSError:
        return None
    for one in found[:_BACKUPS]:
        with suppress(OSError):
            whole = (one / "manifest.json").stat().st_mtime
            if not keeping.text(one / "verified").startswith("damaged"):
                return whole
    return None


def _backups(app: Application) -> str:
    return re.escape(app.name) + r"-[0-9]{8}T[0-9]{6}Z-[0-9a-z]{6}"
