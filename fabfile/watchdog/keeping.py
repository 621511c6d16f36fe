"""The watchdog's files in `/var/lib/APP/watchdog/`, and what the host's history says runs. It decides nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from fabfile.commands import definition, record
from fabfile.commands.form import plain, typed
from fabfile.errors import ConfigError
from fabfile.model import Application, Channels, Release, Rollout, Thresholds
from fabfile.model.watch import Memory, WatchRules

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: How much of the history is read: the newest lines are at its end.
_HISTORY_BYTES = 256 * 1024


@dataclass(frozen=True)
class Settings:
    """What `inv monitor.install` gives the watchdog besides the program."""

    app: str
    host: str
    environment: str
    rules: WatchRules
    rollout: Rollout
    thresholds: Thresholds = field(default_factory=Thresholds)
    channels: Channels = field(default=Channels(), repr=False)
    metrics_dir: str = ""
    request_metrics: bool = False


@dataclass(frozen=True)
class _Kept:
    """The memory with the boot that its times belong to."""

    boot: str
    memory: Memory = field(default_factory=Memory)


def directory(home: Path) -> Path:
    """Where the watchdog's files are."""
    return home / "watchdog"


def dump(settings: Settings) -> str:
    """The settings as their file has them, secrets included."""
    return json.dumps(plain(settings, secrets=True), indent=1) + "\n"


def load(home: Path) -> Settings:
    """Read the settings. Raises ConfigError for a file that is missing or is none."""
    path = directory(home) / "settings.json"
    try:
        found: Settings = typed(Settings, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: no settings of a watchdog ({error}).", next_step="inv monitor.install") from error
    return found


def keep(path: Path, content: str) -> None:
    """Write a file, whole or not at all. Raises OSError."""
    new = path.with_suffix(".new")
    new.write_text(content, encoding="utf-8")
    new.replace(path)


def text(path: Path) -> str:
    """What a file has; '' for one that is not there."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def remember(home: Path, memory: Memory) -> None:
    """Keep the memory; on a full disk it is kept in this process alone."""
    with suppress(OSError):
        keep(directory(home) / "memory.json", json.dumps(plain(_Kept(_boot(), memory))))


def recall(home: Path) -> Memory:
    """The memory of this boot; an empty one after a boot, or where the file says nothing sensible."""
    try:
        kept: _Kept = typed(_Kept, json.loads(text(directory(home) / "memory.json")))
    except (ValueError, TypeError, KeyError):
        return Memory()
    return kept.memory if kept.boot == _boot() else Memory()


def _boot() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def history(home: Path) -> tuple[Release, ...]:
    """The newest lines of the host's history, oldest first."""
    try:
        with Path(record.history_file(str(home))).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _HISTORY_BYTES))
            return record.parse(file.read().decode(errors="replace"))
    except OSError:
        return ()


def running(home: Path, releases: tuple[Release, ...]) -> tuple[Release, Application] | None:
    """The release that brought what runs, and what it is made of; None before the first deploy."""
    for release in reversed(releases):
        if not release.good or release.action not in {"deploy", "rollback"}:
            continue
        made_of = defined(home, release.target if release.action == "rollback" else release.id)
        return (release, made_of) if made_of else None
    return None


def defined(home: Path, release: str) -> Application | None:
    """What a release is made of, as the host keeps it; None past its retention."""
    try:
        text = Path(definition.file(str(home), release)).read_text(encoding="utf-8")
        return definition.parse(text, str(home))
    except (OSError, ValueError):
        return None


def say(text: str) -> None:
    """Lines of the log, each with the UTC time; a full disk takes none, and is no reason to stop."""
    with suppress(OSError):
        for line in text.splitlines():
            print(f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} {line}", flush=True)
