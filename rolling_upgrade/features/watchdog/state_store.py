"""The watchdog's files in `/var/lib/APP/watchdog/`, and the active release according to the host's history."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rolling_upgrade.engine import history, untrusted
from rolling_upgrade.engine.model import Application, Channels, Release, RolloutPolicy, Thresholds, WatchRules
from rolling_upgrade.engine.serialization import from_plain, to_plain
from rolling_upgrade.errors import PROGRAM, ConfigError
from rolling_upgrade.features.watchdog.policy import RecoveryState

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Bytes read from the end of the history, where its newest lines are.
_HISTORY_BYTES = 256 * 1024
#: Field names in files of earlier versions, and the current names.
_RENAMED = {"pulses": "counters", "bad": "failures", "good": "successes", "tried": "attempts"}


@dataclass(frozen=True)
class Settings:
    """The configuration that `inv monitor.install` puts on the host beside the program."""

    app: str
    host: str
    environment: str
    rules: WatchRules
    rollout: RolloutPolicy
    thresholds: Thresholds = field(default_factory=Thresholds)
    channels: Channels = field(default=Channels(), repr=False)
    metrics_dir: str = ""
    request_metrics: bool = False


@dataclass(frozen=True)
class _StateFile:
    """The recovery state, with the boot whose clock its times belong to."""

    boot: str
    memory: RecoveryState = field(default_factory=RecoveryState)


def directory(home: Path) -> Path:
    """The directory of the watchdog's files."""
    return home / "watchdog"


def metrics_file(directory: str, app: str) -> str:
    """The file that an application's watchdog writes for node-exporter."""
    return f"{directory}/rolling-{app}.prom"


def dump_settings(settings: Settings) -> str:
    """The content of the settings file, secrets included."""
    return json.dumps(to_plain(settings, secrets=True), indent=1) + "\n"


def load_settings(home: Path) -> Settings:
    """Read the settings. Raises ConfigError for a missing or malformed file."""
    path = directory(home) / "settings.json"
    try:
        settings: Settings = from_plain(Settings, untrusted.json_object(read(path)))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path}: the watchdog's settings cannot be read ({error}).", next_step=f"{PROGRAM} monitor.install"
        ) from error
    return settings


def save_state(home: Path, state: RecoveryState) -> None:
    """Write the recovery state; on a full disk it lives in this process alone."""
    with suppress(OSError):
        replace_file(directory(home) / "memory.json", json.dumps(to_plain(_StateFile(_boot(), state))))


def load_state(home: Path) -> RecoveryState:
    """Read the recovery state of this boot; a new state after a boot, or for a missing or malformed file."""
    try:
        content = _with_new_names(untrusted.json_object(read_or_empty(directory(home) / "memory.json")))
        stored: _StateFile = from_plain(_StateFile, content)
    except (ValueError, TypeError, KeyError):
        return RecoveryState()
    return stored.memory if stored.boot == _boot() else RecoveryState()


def _with_new_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {_RENAMED.get(name, name): _with_new_names(item) for name, item in value.items()}
    return [_with_new_names(item) for item in value] if isinstance(value, list) else value


def _boot() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def replace_file(path: Path, content: str) -> None:
    """Write a file atomically. Raises OSError."""
    new = path.with_suffix(".new")
    new.write_text(content, encoding="utf-8")
    new.replace(path)


def read(path: Path) -> str:
    """The text of a file. Raises OSError, or ValueError for a file that is too long or is not UTF-8."""
    with path.open("rb") as file:
        content = file.read(untrusted.JSON_BYTES + 1)
    if len(content) > untrusted.JSON_BYTES:
        raise untrusted.Malformed(f"{path} has more than {untrusted.size(untrusted.JSON_BYTES)}")
    return content.decode()


def read_or_empty(path: Path) -> str:
    """The text of a file; '' for a file that cannot be read."""
    try:
        return read(path)
    except (OSError, ValueError):
        return ""


def recent_releases(home: Path) -> tuple[Release, ...]:
    """The newest lines of the host's history, oldest first."""
    try:
        with Path(history.history_file(str(home))).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _HISTORY_BYTES))
            return history.parse(file.read().decode(errors="replace"))
    except (OSError, ValueError):
        return ()


def live_application(home: Path, releases: tuple[Release, ...]) -> Application | None:
    """The application as the last good deploy or rollback defined it; None before the first deploy."""
    live = history.live_release(releases)
    return definition(home, live) if live else None


def definition(home: Path, release: str) -> Application | None:
    """The application as a release defined it; None past the retention of its definition."""
    try:
        return history.parse_definition(read(Path(history.definition_file(str(home), release))), str(home))
    except (OSError, ValueError):
        return None


def log(text: str) -> None:
    """Print lines to the log, each with the time in UTC; a full disk loses them and stops nothing."""
    with suppress(OSError):
        for line in text.splitlines():
            print(f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} {line}", flush=True)
