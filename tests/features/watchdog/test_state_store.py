"""The watchdog's files: settings, recovery state, and the live application that the host's history names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import history
from rolling_upgrade.engine.model import (
    Application,
    Channels,
    Hook,
    Mail,
    Outcome,
    Release,
    RolloutPolicy,
    Severity,
    Thresholds,
    Transfer,
    WatchRules,
)
from rolling_upgrade.errors import ConfigError
from rolling_upgrade.features.watchdog import state_store
from rolling_upgrade.features.watchdog.policy import FailureCounter, RecoveryState
from rolling_upgrade.features.watchdog.state_store import Settings
from tests.engine.test_history import RELEASE
from tests.support.history_line import history_line
from tests.support.sample import application

SETTINGS = Settings(
    "shop",
    "web1",
    "production",
    WatchRules(False, 1.5, 2, 1, 60, 0),
    RolloutPolicy("25%", 2, 1.5, transfer=Transfer.PUSH),
    Thresholds(free_percent=5.0),
    Channels(Hook("https://hooks.test/s3cret", Severity.WARNING), Mail("mx", "a@b.c", ("d@e.f",), password="p")),
)
STATE = RecoveryState((FailureCounter("backend", 2, 1, 0, 1), FailureCounter("前端")), (12.5, 99.0), "r1", True, 7.25)
#: Contents of a file after a crash, a full disk or an edit by hand.
DAMAGED = (b"", b"{", b"[]", b"null", b"7", b'"text"', b"\0" * 200, b"\xff\xfe", b'{"boot": 1}', b'{"memory": []}')


@pytest.fixture
def app(tmp_path: Path) -> Application:
    """An application whose directory is the test's own."""
    found = application(name=f"../..{tmp_path}/home")
    for name in ("watchdog", "config"):
        (Path(found.home) / name).mkdir(parents=True)
    return found


@pytest.fixture
def home(app: Application) -> Path:
    return Path(app.home)


def write(home: Path, *releases: Release) -> None:
    """Write the host's history."""
    text = "".join(f"{history_line(release)}\n" for release in releases)
    Path(history.history_file(str(home))).write_text(text, encoding="utf-8")


def define(home: Path, app: Application, *releases: str) -> None:
    """Write the definitions of these releases; each has its own domain, which identifies it."""
    for release in releases:
        text = history.dump_definition(replace(app, domain=f"{release}.test"))
        Path(history.definition_file(str(home), release)).write_text(text, encoding="utf-8")


def test_load_settings_reads_what_dump_settings_wrote(home: Path) -> None:
    (home / "watchdog/settings.json").write_text(state_store.dump_settings(SETTINGS), encoding="utf-8")

    assert state_store.load_settings(home) == SETTINGS


def test_load_settings_ignores_keys_of_a_later_version(home: Path) -> None:
    later = json.loads(state_store.dump_settings(SETTINGS)) | {"colour": "blue"}
    (home / "watchdog/settings.json").write_text(json.dumps(later), encoding="utf-8")

    assert state_store.load_settings(home) == SETTINGS


@pytest.mark.parametrize("content", [None, *DAMAGED, b'{"app": "shop"}', b'{"app": 1, "host": "w"}'])
def test_load_settings_of_a_missing_or_malformed_file_names_it_and_the_next_command(
    content: bytes | None, home: Path
) -> None:
    if content is not None:
        (home / "watchdog/settings.json").write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        state_store.load_settings(home)

    assert str(home / "watchdog/settings.json") in str(caught.value)
    assert caught.value.next_step == "rolling-upgrade monitor.install"


def test_load_state_reads_what_was_saved_last(home: Path) -> None:
    state_store.save_state(home, RecoveryState())
    state_store.save_state(home, STATE)

    assert state_store.load_state(home) == STATE
    assert [path.name for path in (home / "watchdog").iterdir()] == ["memory.json"]


def test_load_state_reads_the_file_of_an_earlier_version(home: Path) -> None:
    state_store.save_state(home, RecoveryState())
    path = home / "watchdog/memory.json"
    earlier = {
        "pulses": [{"service": "backend", "bad": 2, "crashes": 1, "good": 0, "tried": 1, "since": None}],
        "recoveries": [12.5, 99],
        "release": "r1",
        "given_up": True,
        "pruned_at": 7.25,
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | {"memory": earlier}), encoding="utf-8")

    assert state_store.load_state(home) == replace(STATE, counters=STATE.counters[:1])


@pytest.mark.parametrize("content", [None, *DAMAGED])
def test_load_state_of_a_missing_or_malformed_file_is_new(content: bytes | None, home: Path) -> None:
    if content is not None:
        (home / "watchdog/memory.json").write_bytes(content)

    assert state_store.load_state(home) == RecoveryState()


def test_load_state_of_another_boot_is_new(home: Path) -> None:
    """Times from before the boot belong to another clock."""
    state_store.save_state(home, STATE)
    path = home / "watchdog/memory.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}), encoding="utf-8")

    assert state_store.load_state(home) == RecoveryState()


def test_save_state_that_cannot_be_written_keeps_the_previous_file(home: Path) -> None:
    state_store.save_state(home, STATE)
    (home / "watchdog/memory.new").mkdir()

    state_store.save_state(home, RecoveryState())

    assert state_store.load_state(home) == STATE


def test_recent_releases_before_the_first_deploy_are_empty(home: Path) -> None:
    assert state_store.recent_releases(home) == ()
    assert state_store.live_application(home, ()) is None


def test_recent_releases_skip_malformed_lines(home: Path) -> None:
    write(home, RELEASE)
    with Path(history.history_file(str(home))).open("ab") as file:
        file.write(b'\xff\xfe\n{}\n[]\nnull\n{"id": "half')

    assert state_store.recent_releases(home) == (RELEASE,)


def test_recent_releases_of_a_long_history_are_read_from_its_end(home: Path) -> None:
    write(home, *(replace(RELEASE, id=f"r{number}", reason="x" * 500) for number in range(2000)))

    found = state_store.recent_releases(home)

    assert 100 < len(found) < 1000
    assert found[-1].id == "r1999"
    assert [release.id for release in found] == [f"r{number}" for number in range(2000 - len(found), 2000)]


def line(action: str, id: str, outcome: Outcome = Outcome.GOOD, target: str = "") -> Release:
    return replace(RELEASE, action=action, id=id, outcome=outcome, target=target)


DEPLOYS = (line("deploy", "r1"), line("deploy", "r2"))


@pytest.mark.parametrize(
    ("more", "defined_by"),
    [
        ((), "r2"),
        ((line("deploy", "r3", Outcome.UNDONE),), "r2"),
        ((line("deploy", "r3", Outcome.UNDO_FAILED),), "r2"),
        ((line("rollback", "b1", target="r1"),), "r1"),
        ((line("rollback", "b1", Outcome.UNDONE, "r1"),), "r2"),
        ((line("rollback", "b1", target="r1"), line("rollback", "b2", target="r2")), "r2"),
        ((line("rollback", "b1", target="r1"), line("deploy", "r3")), "r3"),
        ((line("recovery", "x1"), line("recovery", "x2", Outcome.UNDONE)), "r2"),
        ((line("rollback", "b1", target="r1"), line("recovery", "x1")), "r1"),
        ((line("restore", "x1", target="backup"),), "r2"),
        ((line("something new", "x1"),), "r2"),
    ],
)
def test_live_application_is_defined_by_the_last_good_deploy_or_rollback(
    more: tuple[Release, ...], defined_by: str, home: Path, app: Application
) -> None:
    define(home, app, "r1", "r2", "r3")
    write(home, *DEPLOYS, *more)

    found = state_store.live_application(home, state_store.recent_releases(home))

    assert found is not None
    assert found.domain == f"{defined_by}.test"


@pytest.mark.parametrize("content", [None, *DAMAGED])
def test_live_application_without_a_definition_is_none(content: bytes | None, home: Path, app: Application) -> None:
    define(home, app, "r1")
    write(home, *DEPLOYS)
    if content is not None:
        Path(history.definition_file(str(home), "r2")).write_bytes(content)

    assert state_store.live_application(home, state_store.recent_releases(home)) is None


def test_definition_of_another_application_is_none(home: Path, app: Application) -> None:
    define(home, application(), "r1")

    assert state_store.definition(home, "r1") is None


def test_log_starts_each_line_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    state_store.log("one\ntwo")

    rows = capsys.readouterr().out.splitlines()
    assert [row[19:] for row in rows] == [" one", " two"]
