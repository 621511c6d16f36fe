"""The units of jobs in a real shell, with a stub of systemctl; and the states that hosts report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine import history, jobs
from rolling_upgrade.engine.jobs import JobState
from rolling_upgrade.engine.model import Application, HostState, Job, Overlap
from rolling_upgrade.engine.observation import FACT
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.shell import Script
from tests.support.sample import application, backend, image
from tests.support.shell import Programs, moved, sh

CLEANUP = Job("cleanup", "backend", ("sh", "-c", "echo it's $HOME"), "0 3 * * *", ("*-*-* 03:00:00",))
REPORT = Job("report", "backend", ("./report",), "@hourly", ("*-*-* *:00:00",), overlap=Overlap.REPLACE)


def with_jobs(*found: Job) -> Application:
    return replace(application(), jobs=found)


class Systemd:
    """The directories of a user, and the units that the stub of systemctl has started."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self.home, self.user, self.programs = folder / "shop", folder / "user", programs
        self.home.mkdir()
        self.user.mkdir()
        self.units = self.user / ".config/systemd/user"
        programs.add("systemctl", 'case " $* " in *" is-active "*) echo active ;; esac')

    def adapted(self, script: Script | str, app: Application) -> str:
        """Return the text with the directories of this test, and with its programs."""
        text = moved(script, app, self.home).replace("cd || exit\n", "").replace("/srv/", f"{self.user}/")
        return text.replace("\nPATH=/usr/local/sbin:", f"\nPATH={self.programs.directory}:/usr/local/sbin:")

    def run(self, script: Script | str, app: Application) -> str:
        text = self.adapted(script, app)
        done = sh(f"export HOME={self.user} XDG_DATA_HOME={self.user}/data\n{text}", path=self.programs.path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def calls(self) -> list[str]:
        """Return the commands of systemctl since the last call, without --user."""
        found = [" ".join(call[2:]) for call in self.programs.calls("systemctl")]
        (self.programs.directory.parent / "calls").write_text("")
        return found

    def linked(self) -> set[str]:
        return {path.name for path in self.units.iterdir() if path.is_symlink()}

    def wanted(self) -> set[str]:
        return {path.name for path in (self.units / "timers.target.wants").iterdir()}


@pytest.fixture
def systemd(tmp_path: Path, programs: Programs) -> Systemd:
    (tmp_path / "host").mkdir()
    return Systemd(tmp_path / "host", programs)


def test_install_links_the_units_and_starts_the_timers(systemd: Systemd) -> None:
    app = with_jobs(CLEANUP, REPORT)

    systemd.run(jobs.install(app, "r1"), app)

    names = {"shop-job-cleanup.timer", "shop-job-cleanup.service"}
    assert systemd.linked() == names | {
        "shop-job-report.timer",
        "shop-job-report.service",
        "shop-job-report-again.service",
    }
    assert systemd.wanted() == {"shop-job-cleanup.timer", "shop-job-report.timer"}
    timer = (systemd.units / "shop-job-cleanup.timer").read_text()
    assert "OnCalendar=*-*-* 03:00:00\n" in timer
    assert "Persistent=true\n" in timer
    assert systemd.calls() == [
        "daemon-reload",
        "restart shop-job-cleanup.timer",
        "restart shop-job-report.timer",
    ]


def test_unchanged_timers_are_not_restarted_and_removed_ones_are_stopped(systemd: Systemd) -> None:
    first, second = with_jobs(CLEANUP, REPORT), with_jobs(CLEANUP)
    systemd.run(jobs.install(first, "r1"), first)
    systemd.calls()

    systemd.run(jobs.install(second, "r2"), second)

    assert systemd.calls() == ["stop shop-job-report.timer", "daemon-reload", "start shop-job-cleanup.timer"]
    assert systemd.linked() == {"shop-job-cleanup.timer", "shop-job-cleanup.service"}
    assert systemd.wanted() == {"shop-job-cleanup.timer"}


def test_new_schedule_counts_from_now_on(systemd: Systemd) -> None:
    """Otherwise systemd catches up a run that was due by the new schedule before the deploy."""
    stamp = systemd.user / "data/systemd/timers/stamp-shop-job-cleanup.timer"
    first = with_jobs(CLEANUP)
    systemd.run(jobs.install(first, "r1"), first)
    stamp.unlink()
    systemd.run(jobs.install(first, "r2"), first)
    assert not stamp.exists()

    later = with_jobs(replace(CLEANUP, calendar=("*-*-* 04:00:00",)))
    systemd.run(jobs.install(later, "r3"), later)

    assert stamp.exists()


def test_restore_brings_the_former_jobs_back_and_may_be_repeated(systemd: Systemd) -> None:
    first, second = with_jobs(CLEANUP), with_jobs(REPORT)
    systemd.run(jobs.install(first, "r1"), first)
    systemd.run(jobs.install(second, "r2"), second)
    systemd.run(jobs.install(second, "r2"), second)

    for _ in range(2):
        systemd.run(jobs.restore(second, "r2"), second)

        assert systemd.linked() == {"shop-job-cleanup.timer", "shop-job-cleanup.service"}
        assert (systemd.home / "jobs/current").readlink() == Path("r1")


def test_restore_that_was_interrupted_after_its_link_is_completed(systemd: Systemd) -> None:
    first, second = with_jobs(CLEANUP), with_jobs(REPORT)
    systemd.run(jobs.install(first, "r1"), first)
    systemd.run(jobs.install(second, "r2"), second)
    current = systemd.home / "jobs/current"
    current.unlink()
    current.symlink_to("r1")

    systemd.run(jobs.restore(second, "r2"), second)

    assert systemd.linked() == {"shop-job-cleanup.timer", "shop-job-cleanup.service"}


def test_restore_of_first_jobs_removes_them(systemd: Systemd) -> None:
    app = with_jobs(CLEANUP)
    systemd.run(jobs.restore(app, "r1"), app)
    systemd.run(jobs.install(app, "r1"), app)

    systemd.run(jobs.restore(app, "r1"), app)

    assert systemd.linked() == set()
    assert not (systemd.home / "jobs/current").exists()


def test_only_current_and_former_jobs_are_kept(systemd: Systemd) -> None:
    app = with_jobs(CLEANUP)
    for run in ("r1", "r2", "r3"):
        systemd.run(jobs.install(app, run), app)

    assert {path.name for path in (systemd.home / "jobs").iterdir()} == {"r2", "r3", "current", "results"}


def test_units_of_other_applications_and_of_the_user_stay(systemd: Systemd) -> None:
    systemd.units.mkdir(parents=True)
    (systemd.units / "shop-job-own.timer").write_text("[Timer]\n")
    (systemd.units / "shop-job-other.timer").symlink_to("/var/lib/shop-job/jobs/current/shop-job-other.timer")
    app = with_jobs(CLEANUP)

    systemd.run(jobs.install(app, "r1"), app)
    systemd.run(jobs.remove(app), app)

    assert {path.name for path in systemd.units.iterdir()} == {
        "shop-job-own.timer",
        "shop-job-other.timer",
    }
    assert not (systemd.home / "jobs").exists()


def test_pause_ends_running_jobs_and_resume_starts_only_timers(systemd: Systemd) -> None:
    app = with_jobs(CLEANUP)
    systemd.run(jobs.install(app, "r1"), app)
    systemd.calls()

    systemd.run(jobs.pause(app), app)
    assert systemd.calls() == ["stop shop-job-cleanup.timer", "stop shop-job-cleanup.service"]
    systemd.run(jobs.resume(app), app)
    assert systemd.calls() == ["start shop-job-cleanup.timer"]


def program(systemd: Systemd, app: Application, word: str, *, podman: str = ":", **environ: str) -> int:
    """Run the installed script of the job `cleanup`."""
    systemd.programs.add("podman", podman)
    path = systemd.home / "jobs/current/shop-job-cleanup.sh"
    directory = systemd.home / "config" / f"backend-{spec_hash('shop', app.service('backend'))}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "env").touch()
    path.write_text(systemd.adapted(path.read_text(), app))
    words = " ".join(f"{name}={value}" for name, value in environ.items())
    return sh(f"{words} sh {path} {word}").returncode


def test_program_runs_the_pinned_image_and_records_the_result(systemd: Systemd) -> None:
    app = with_jobs(CLEANUP)
    systemd.run(jobs.install(app, "r1"), app)

    code = program(systemd, app, "run", podman='case "$*" in run*) exit 7 ;; esac')

    assert code == 7
    run = systemd.programs.calls("podman")[-1]
    assert run[1:4] == ["run", "--rm", "--name"]
    assert run[-4:] == [image("backend").pinned, "sh", "-c", "echo it's $HOME"]
    assert "rolling.release=r1" in run
    program(systemd, app, "end", SERVICE_RESULT="exit-code", EXIT_STATUS="7", INVOCATION_ID="ab")
    assert systemd.programs.calls("podman")[-1][1:3] == ["rm", "--force"]
    found = jobs.states(observed(systemd, app), app)[0]
    assert (found.result, found.status, found.release, found.failed) == ("exit-code", "7", "r1", True)
    assert found.ended_at >= found.started_at > 0


def observed(systemd: Systemd, app: Application) -> HostState:
    output = systemd.run(f"set -eu\n{FACT}\n{jobs.facts(app)}", app)
    return HostState("web1", facts=tuple((row.partition("=")[0], row.partition("=")[2]) for row in output.splitlines()))


def test_host_with_other_jobs_or_a_stopped_timer_differs(systemd: Systemd) -> None:
    app = with_jobs(CLEANUP, REPORT)
    assert jobs.differ(observed(systemd, app), app)
    systemd.run(jobs.install(app, "r1"), app)
    assert not jobs.differ(observed(systemd, app), app)
    assert jobs.differ(observed(systemd, with_jobs()), with_jobs())
    assert jobs.differ(observed(systemd, app), replace(app, services=(backend(image=image("worker")), app.services[1])))

    systemd.programs.add("systemctl", 'case " $* " in *" is-active "*) echo active; echo inactive ;; esac')
    assert jobs.differ(observed(systemd, app), app)


def test_host_without_jobs_does_not_differ(systemd: Systemd) -> None:
    assert not jobs.differ(observed(systemd, with_jobs()), with_jobs())
    assert not jobs.differ(HostState("web1"), with_jobs())
    assert systemd.calls() == []


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        ("inactive//", JobState("cleanup")),
        ("inactive/success 0 100 130 r1/100 r1", JobState("cleanup", False, "success", "0", 100, 130, "r1")),
        ("inactive/exit-code 7 100 130 r1/100 r1", JobState("cleanup", False, "exit-code", "7", 100, 130, "r1")),
        ("activating/success 0 100 130 r1/200 r2", JobState("cleanup", True, "success", "0", 200, 130, "r1")),
        ("activating//200 r2", JobState("cleanup", True, "", "", 200)),
        ("deactivating//200 r2", JobState("cleanup", True, "", "", 200)),
        ("inactive/success 0 100 130 r1/200 r2", JobState("cleanup", False, "interrupted", "", 200, 0, "r2")),
        ("", JobState("cleanup")),
        ("inactive/success 0 many 1e9 r1/x", JobState("cleanup", False, "success", "0", 0, 0, "r1")),
        ("inactive/too few/-", JobState("cleanup")),
    ],
)
def test_state_is_parsed(fact: str, expected: JobState) -> None:
    state = HostState("web1", facts=(("job.cleanup", fact),))

    assert jobs.states(state, with_jobs(CLEANUP)) == (expected,)


@pytest.mark.parametrize(
    ("state", "outcome", "failed"),
    [
        (JobState("a"), "has not run yet", False),
        (JobState("a", result="success", status="0"), "success", False),
        (JobState("a", result="exit-code", status="7"), "exit code 7", True),
        (JobState("a", result="timeout", status="TERM"), "exceeded its timeout", True),
        (JobState("a", result="signal", status="KILL"), "killed by KILL", True),
        (JobState("a", result="oom-kill", status="9"), "oom-kill", True),
        (JobState("a", result="interrupted"), "interrupted", True),
    ],
)
def test_outcome_is_described(state: JobState, outcome: str, failed: bool) -> None:
    assert (state.outcome, state.failed) == (outcome, failed)


def test_definition_of_a_release_keeps_its_jobs_and_an_earlier_one_has_none() -> None:
    app = with_jobs(CLEANUP, REPORT)
    kept = history.parse_definition(history.dump_definition(app), app.home)

    assert kept.jobs == app.jobs
    assert jobs.content_hash(kept) == jobs.content_hash(app)
    assert (
        history.parse_definition(history.dump_definition(application()).replace('"jobs": []', '"x": []'), app.home).jobs
        == ()
    )
