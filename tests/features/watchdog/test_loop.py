"""The loop: observations from end to end, and the quick requests while it waits."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import history
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import Application, RolloutPolicy, WatchRules
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.watchdog import loop, state_store
from rolling_upgrade.features.watchdog.policy import RecoveryAction
from rolling_upgrade.features.watchdog.state_store import Settings
from tests.engine.test_history import RELEASE
from tests.engine.test_observation import EMPTY
from tests.support.history_line import history_line
from tests.support.prometheus import read
from tests.support.receiver import closed_port
from tests.support.sample import application, backend
from tests.support.shell import HOSTILE, Programs, sh

SETTINGS = Settings("shop", "web1", "production", WatchRules(), RolloutPolicy())


class Clock:
    """A clock that only sleeping advances."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Host:
    """A host without containers and of unknown disk space, on which recoveries exit with `status`."""

    name = "web1"

    def __init__(self, status: int = 0) -> None:
        self._status = status
        self.recoveries: list[str] = []

    def run(self, script: Script, *, timeout_seconds: float) -> Answer:
        if started := re.search(r"watchdog\.pyz recover \S+ (\w+)", script.text):
            self.recoveries.append(started[1])
            return Answer(self._status, "the lock is held\n" if self._status else "")
        return Answer(0, EMPTY)


@pytest.fixture
def app(tmp_path: Path) -> Application:
    """An application whose directory on the host is the test's own."""
    app = application(name=f"../..{tmp_path}/home")
    for name in ("watchdog", "config"):
        (Path(app.home) / name).mkdir(parents=True)
    return app


def deploy(app: Application) -> None:
    Path(history.history_file(app.home)).write_text(f"{history_line(RELEASE)}\n")
    Path(history.definition_file(app.home, RELEASE.id)).write_text(history.dump_definition(app))


def watching(app: Application, host: Host, settings: Settings = SETTINGS) -> loop.Watchdog:
    clock = Clock()
    watchdog = loop.Watchdog(Path(app.home), settings, clock, clock.sleep)
    watchdog._host = host  # type: ignore[assignment]
    return watchdog


def test_observe_once_before_the_first_deploy_waits(app: Application, capsys: pytest.CaptureFixture[str]) -> None:
    watchdog = watching(app, Host())

    assert [watchdog.observe_once(), watchdog.observe_once()] == [30.0, 30.0]
    assert capsys.readouterr().out.count("nothing is deployed here yet") == 1


def test_observe_once_recovers_a_stopped_service_after_the_third_failure(
    app: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(app)
    host = Host()
    watchdog = watching(app, host)

    pauses = [watchdog.observe_once() for _ in range(3)]

    assert (pauses, host.recoveries) == ([loop.FAILING_SECONDS] * 3, ["prune", "restart"])
    assert "restart backend: done" in capsys.readouterr().out
    state = state_store.load_state(Path(app.home))
    assert (len(state.recoveries), state.counter("backend").attempts) == (1, 1)


def test_observe_once_does_not_count_a_recovery_that_found_the_lock_held(app: Application) -> None:
    deploy(app)
    host = Host(status=ExitCode.LOCKED)
    watchdog = watching(app, host)

    for _ in range(4):
        watchdog.observe_once()

    assert host.recoveries == ["prune", "restart", "restart"]
    assert state_store.load_state(Path(app.home)).recoveries == ()


def test_observe_once_with_recovery_switched_off_only_observes(app: Application) -> None:
    deploy(app)
    host = Host()
    watchdog = watching(app, host, replace(SETTINGS, rules=WatchRules(enabled=False)))

    assert {watchdog.observe_once() for _ in range(4)} == {30.0}
    assert host.recoveries == []


@pytest.mark.parametrize(("healthy", "waited"), [(True, loop.QUICK_REQUEST_SECONDS), (False, 30.0)])
def test_wait_ends_at_a_failed_quick_request_only_while_all_services_are_healthy(
    healthy: bool, waited: float, tmp_path: Path
) -> None:
    clock = Clock()
    watchdog = loop.Watchdog(tmp_path, SETTINGS, clock, clock.sleep)
    watchdog._app, watchdog._healthy = application(backend(service_port=closed_port()), full_chain=None), healthy

    watchdog.wait(30.0)

    assert clock.now == waited


@pytest.mark.parametrize("reason", HOSTILE)
def test_recovery_script_passes_every_argument_unchanged_and_returns_the_exit_status(
    reason: str, tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    programs.add("systemd-run", "exit 4")
    script = loop.recovery_script(str(tmp_path), "shop", RecoveryAction.ROLL_BACK, "backend", 42.4, reason)

    done = sh(script.text.replace("PATH=/usr/local/sbin", f"PATH={programs.directory}:/usr/local/sbin"))

    (arguments,) = programs.calls("systemd-run")
    assert done.returncode == 4
    assert arguments[-6:-1] == ["recover", str(tmp_path), "roll back", "backend", "42"]
    # Source: systemd.service(5): the manager reads `$$` as `$`, and `$NAME` as a variable.
    assert arguments[-1] == reason.replace("$", "$$")
    assert re.fullmatch(r"shop-recovery-\d{19}", arguments[arguments.index("--unit") + 1])
    assert not (tmp_path / "pwned").exists()


def test_observe_once_counts_its_recovery_in_the_metrics(app: Application, tmp_path: Path) -> None:
    deploy(app)
    place = tmp_path / "metrics"
    place.mkdir()
    watchdog = watching(app, Host(), replace(SETTINGS, metrics_dir=str(place)))

    for _ in range(4):
        watchdog.observe_once()

    found = read((place / "rolling-shop.prom").read_text())
    assert found.value("rolling_recoveries_total", act="restart") == 1
    assert found.value("rolling_recoveries_failed_total", act="restart") == 0
