"""`job.list` and `job.run`: what they show, what they refuse, and the exit code of a job."""

from __future__ import annotations

import json

import pytest
import yaml

from rolling_upgrade.errors import ConfigError, ExitCode, PreflightError
from rolling_upgrade.features.job.workflow import list_jobs, run_job
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.shell import Programs

#: A stub of systemctl: `$here/state` is the state of every job, and `show` prints the next start and the invocation.
SYSTEMCTL = """\
case " $* " in
*" is-active "*.timer*) echo active ;;
*" is-active "*) cat "$here/state" 2>/dev/null || echo inactive ;;
*NextElapse*) cat "$here/next" 2>/dev/null || echo 'Tue 2026-12-01 03:00:00 UTC' ;;
*InvocationID*) echo 0123456789abcdef0123456789abcdef ;;
esac"""
#: A stub of journalctl: the output of the run, then its last line.
JOURNAL = """\
case " $* " in *_TRANSPORT*) ;; *) echo '-- cursor: s=1'; exit ;; esac
case " $* " in *after-cursor\\ s=2*) ;; *)
  echo 'deleted 7 sessions'
  echo 'the job has ended: success'
  echo 'the job has ended: success 0123456789abcdef0123456789abcdef' ;;
esac
echo '-- cursor: s=2'"""


@pytest.fixture
def jobs(project: Project, machines: Machines, programs: Programs) -> Project:
    path = project.root / "deploy/services.yaml"
    content = yaml.safe_load(path.read_text())
    job = {"name": "cleanup", "service": "backend", "schedule": "0 3 * * *", "command": ["./clean"]}
    content["jobs"] = [job, job | {"name": "everywhere", "hosts": "all"}]
    path.write_text(yaml.safe_dump(content))
    programs.add("systemctl", SYSTEMCTL)
    programs.add("journalctl", JOURNAL)
    return project


def record(machines: Machines, last: str, started: str = "", *, host: str = "web1", job: str = "cleanup") -> None:
    results = machines.home(host) / "jobs/results"
    results.mkdir(parents=True, exist_ok=True)
    (results / job).write_text(f"{last}\n")
    (results / f"{job}.started").write_text(f"{started or ' '.join((last.split()[2], last.split()[4]))}\n")


def state(programs: Programs, text: str) -> None:
    (programs.directory.parent / "state").write_text(f"{text}\n" * 2)


def test_list_shows_schedule_last_and_next_run(
    jobs: Project, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    record(machines, "success 0 1796007600 1796007630 r1")

    assert list_jobs("demo", root=jobs.root) is ExitCode.DONE

    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["HOST", "JOB", "SCHEDULE", "NEXT", "RUN", "LAST", "RUN", "TOOK", "RESULT"]
    assert rows[0].split() == (
        [
            "web1",
            "cleanup",
            "0",
            "3",
            "*",
            "*",
            "*",
            "2026-12-01",
            "03:00:00",
            "UTC",
            "2026-11-30",
            "03:00:00",
            "UTC",
            "30.0s",
            "success",
        ]
    )
    assert [row.split()[:2] for row in rows[1:]] == [["web1", "everywhere"], ["web2", "everywhere"]]
    assert rows[2].endswith("has not run yet")


@pytest.mark.parametrize("json_form", [False, True])
def test_list_of_a_failed_job_fails(
    json_form: bool, jobs: Project, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    record(machines, "exit-code 7 1796007600 1796007630 r1")

    assert list_jobs("demo", root=jobs.root, json=json_form) is ExitCode.FAILED

    out = capsys.readouterr().out
    if json_form:
        found = json.loads(out)["hosts"][0]["jobs"][0]
        assert found == {
            "job": "cleanup",
            "service": "backend",
            "schedule": "0 3 * * *",
            "next_at": 1796094000,
            "running": False,
            "result": "exit-code",
            "status": "7",
            "started_at": 1796007600,
            "ended_at": 1796007630,
            "release": "r1",
            "failed": True,
        }
    else:
        assert "FAILED: exit code 7" in out


def test_list_without_a_timer_and_of_an_unreachable_host_fails(
    jobs: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    (programs.directory.parent / "next").write_text("\n")
    machines.unreachable.add("web2")

    assert list_jobs("demo", root=jobs.root) is ExitCode.FAILED

    out = capsys.readouterr().out
    assert "no timer" in out
    assert "web2  UNREACHABLE" in out


def test_list_without_jobs_says_so(project: Project, machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_jobs("demo", root=project.root) is ExitCode.DONE
    assert capsys.readouterr().out == "demo has no jobs on these hosts.\n"


def test_run_prints_the_output_without_the_marks_and_exits_with_the_code(
    jobs: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line of the job that looks like the last line has no invocation."""
    record(machines, "exit-code 7 1796007600 1796007630 r1")

    assert run_job("demo", root=jobs.root, name="cleanup") == 7

    assert capsys.readouterr().out == "deleted 7 sessions\nthe job has ended: success\n"
    started = [call[1:] for call in programs.calls("systemctl") if "start" in call]
    assert started == [["--user", "start", "--no-block", "memoryark-job-cleanup.service"]]


def test_run_on_all_hosts_prefixes_the_output_and_fails_if_one_fails(
    jobs: Project, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    record(machines, "success 0 1 2 r1", host="web1", job="everywhere")
    record(machines, "exit-code 7 1 2 r1", host="web2", job="everywhere")

    assert run_job("demo", root=jobs.root, name="everywhere") == ExitCode.FAILED

    out = capsys.readouterr().out
    assert "web1 | deleted 7 sessions" in out
    assert "web2 | deleted 7 sessions" in out


def test_run_that_systemd_ended_fails_with_the_reason(
    jobs: Project, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    record(machines, "timeout TERM 1796007600 1796007630 r1")

    assert run_job("demo", root=jobs.root, name="cleanup") == 1
    assert "the job cleanup was ended by systemd: timeout" in capsys.readouterr().err


def test_run_of_a_job_that_runs_is_refused(jobs: Project, machines: Machines, programs: Programs) -> None:
    record(machines, "success 0 1 2 r1", "1796007600 r1")
    state(programs, "activating")

    with pytest.raises(PreflightError, match=r"web1: the job cleanup runs already, since 2026-11-30 03:00:00 UTC"):
        run_job("demo", root=jobs.root, name="cleanup")
    assert not any("start" in call for call in programs.calls("systemctl"))


def test_run_of_a_job_without_a_timer_is_refused(jobs: Project, machines: Machines, programs: Programs) -> None:
    (programs.directory.parent / "next").write_text("\n")

    with pytest.raises(PreflightError, match=r"has no timer; nothing was started\. Next: rolling-upgrade deploy"):
        run_job("demo", root=jobs.root, name="cleanup")


@pytest.mark.parametrize(
    ("name", "hosts", "expected"),
    [
        ("", (), "one of: cleanup, everywhere"),
        ("clean", (), "one of: cleanup, everywhere"),
        ("cleanup", ("web2",), "one of: everywhere"),
    ],
)
def test_run_of_an_unknown_job_is_refused(
    name: str, hosts: tuple[str, ...], expected: str, jobs: Project, machines: Machines
) -> None:
    machines.unreachable |= {"web1", "web2"}

    with pytest.raises(ConfigError) as caught:
        run_job("demo", root=jobs.root, name=name, hosts=hosts)
    assert caught.value.issues[0].expected == expected
