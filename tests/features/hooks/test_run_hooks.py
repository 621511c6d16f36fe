"""Hooks of a deploy and of a rollback: when they run, what they know, and what their failure does."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from rolling_upgrade.errors import ExitCode, HostUnreachable, Interrupted, PreflightError
from rolling_upgrade.features.deploy.workflow import deploy
from rolling_upgrade.features.hooks.run_hooks import hook_environment
from rolling_upgrade.features.rollback.workflow import rollback
from tests.support.project import Project
from tests.support.simulated_fleet import FIRST, SimulatedFleet

#: Writes its name and the variables of the run to the file `ran`, then exits with the status in STATUS.
HOOK = """\
#!/bin/sh
{ echo "hook $ROLLING_HOOK"; env | grep '^ROLLING_' | sort; } >> "$RAN"
echo "output of $ROLLING_HOOK"
exit STATUS
"""
ALL = ("before_connect", "before_deploy", "after_deploy", "after_rollback", "on_failure")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    monkeypatch.setenv("ROLLING_OPERATOR", "ann")
    return tmp_path / "ran"


def write(project: Project, name: str, status: int = 0, text: str = HOOK) -> None:
    project.write(f"deploy/hooks/{name}", text.replace("STATUS", str(status))).chmod(0o755)


def write_all(project: Project, **statuses: int) -> None:
    for name in ALL:
        write(project, name, statuses.get(name, 0))


def names(ran: Path) -> list[str]:
    """Return the hooks that ran, in order."""
    rows = ran.read_text().splitlines() if ran.exists() else []
    return [row.removeprefix("hook ") for row in rows if row.startswith("hook ")]


def facts(ran: Path, name: str) -> dict[str, str]:
    """Return the variables of a hook that ran."""
    _, _, block = ran.read_text().partition(f"hook {name}\n")
    return dict(row.split("=", 1) for row in block.partition("\nhook ")[0].splitlines())


def test_deploy_runs_its_hooks_with_the_facts_of_the_run(
    project: Project, fleet: SimulatedFleet, ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all(project)

    assert deploy("demo", root=project.root, batch="100%") is ExitCode.DONE

    assert names(ran) == ["before_connect", "before_deploy", "after_deploy"]
    found = facts(ran, "after_deploy")
    run_id = found.pop("ROLLING_RUN_ID")
    assert {name: found[name] for name in found if name not in {"ROLLING_SECONDS", "ROLLING_STARTED_AT"}} == {
        "ROLLING_APPLICATION": "memoryark",
        "ROLLING_CHANGED_HOSTS": "web1,web2",
        "ROLLING_COMMAND": "deploy",
        "ROLLING_ENVIRONMENT": "demo",
        "ROLLING_EXIT_CODE": "0",
        "ROLLING_HOOK": "after_deploy",
        "ROLLING_HOSTS": "web1,web2",
        "ROLLING_MESSAGE": "web1, web2 upgraded.",
        "ROLLING_PERFORMER": "ann",
        "ROLLING_RESULT": "done",
        "ROLLING_REVISION": "",
        "ROLLING_SERVICES": "backend,frontend",
        "ROLLING_VERSION": "2.0.1",
    }
    assert facts(ran, "before_connect")["ROLLING_VERSION"] == "2.0.1"
    assert float(found["ROLLING_SECONDS"]) >= 0
    output = capsys.readouterr().out
    assert f"Plan: deploy {run_id}" in output
    assert "before_deploy  | output of before_deploy\n" in output


@pytest.mark.parametrize(("name", "before"), [("before_connect", []), ("before_deploy", ["before_connect"])])
def test_failing_hook_before_a_deploy_stops_it_with_nothing_done(
    name: str, before: list[str], project: Project, fleet: SimulatedFleet, ran: Path
) -> None:
    write_all(project, **{name: 7})

    with pytest.raises(
        PreflightError, match=rf"the hook {name} failed with exit code 7; nothing was touched"
    ) as caught:
        deploy("demo", root=project.root, batch="100%")

    assert caught.value.exit_code is ExitCode.REFUSED
    assert names(ran) == [*before, name, "on_failure"]
    assert facts(ran, "on_failure")["ROLLING_RESULT"] == "refused"
    assert fleet.changed() == []
    if name == "before_connect":
        assert fleet.ran() == []


def test_failing_hook_after_a_deploy_is_a_warning(
    project: Project, fleet: SimulatedFleet, ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all(project, after_deploy=1)

    assert deploy("demo", root=project.root, batch="100%", json=True) is ExitCode.DONE

    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["warnings"][-1] == "the hook after_deploy failed with exit code 1; the run itself is not affected"
    assert names(ran)[-1] == "after_deploy"


def test_failed_deploy_runs_on_failure_with_its_result(project: Project, fleet: SimulatedFleet, ran: Path) -> None:
    write_all(project)
    fleet.fail("web1", "step backend.start")

    assert deploy("demo", root=project.root, batch="1") is ExitCode.FAILED

    assert names(ran) == ["before_connect", "before_deploy", "on_failure"]
    found = facts(ran, "on_failure")
    assert (found["ROLLING_RESULT"], found["ROLLING_EXIT_CODE"]) == ("failed", "1")
    assert "Back on the old release: web1." in found["ROLLING_MESSAGE"]


def test_unreachable_host_runs_on_failure(project: Project, fleet: SimulatedFleet, ran: Path) -> None:
    write_all(project)
    fleet.answers["web1", "observe"] = HostUnreachable("web1: cannot reach it.")

    with pytest.raises(PreflightError):
        deploy("demo", root=project.root)

    assert names(ran) == ["before_connect", "on_failure"]
    assert "cannot reach it" in facts(ran, "on_failure")["ROLLING_MESSAGE"]


def test_deploy_with_nothing_to_do_runs_only_before_connect(project: Project, fleet: SimulatedFleet, ran: Path) -> None:
    write_all(project)
    for host in ("web1", "web2"):
        fleet.upgrade(host)

    assert deploy("demo", root=project.root) is ExitCode.DONE

    assert names(ran) == ["before_connect"]


def test_deploy_that_is_not_confirmed_is_no_failure(
    project: Project, fleet: SimulatedFleet, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(project)

    def decline(*_: object, **__: object) -> None:
        raise Interrupted("not confirmed; nothing was touched.")

    monkeypatch.setattr("rolling_upgrade.console.prompt.confirm", decline)

    with pytest.raises(Interrupted):
        deploy("demo", root=project.root)

    assert names(ran) == ["before_connect"]


def test_dry_run_names_the_hooks_and_runs_none(
    project: Project, fleet: SimulatedFleet, ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all(project)

    assert deploy("demo", root=project.root, dry_run=True) is ExitCode.DONE

    output = capsys.readouterr().out
    assert [name for name in ALL if f"hook {name}, not run in a dry run: " in output] == [
        "before_connect",
        "before_deploy",
        "after_deploy",
        "on_failure",
    ]
    assert names(ran) == []


def test_rollback_runs_its_own_hooks(project: Project, fleet: SimulatedFleet, ran: Path) -> None:
    write_all(project)
    for host in ("web1", "web2"):
        fleet.upgrade(host)

    assert rollback("demo", root=project.root, to=FIRST) is ExitCode.DONE

    assert names(ran) == ["before_connect", "after_rollback"]
    found = facts(ran, "after_rollback")
    assert (found["ROLLING_COMMAND"], found["ROLLING_VERSION"]) == ("rollback", "v1")


def test_hook_that_exceeds_its_time_limit_is_ended(project: Project, fleet: SimulatedFleet, ran: Path) -> None:
    write(project, "before_connect", text='#!/bin/sh\nsleep 61 & echo $! > "$RAN"; wait\n')
    project.edit("deploy/services.yaml", "services:\n", "hooks: {timeout_seconds: 1}\nservices:\n")

    with pytest.raises(PreflightError, match="the hook before_connect did not end within 1 s"):
        deploy("demo", root=project.root)

    state = Path(f"/proc/{int(ran.read_text())}/stat")
    assert not state.exists() or " Z " in state.read_text()


def test_hook_that_does_not_exist_cannot_be_started(project: Project, fleet: SimulatedFleet) -> None:
    project.edit("deploy/services.yaml", "services:\n", "hooks: {before_connect: [./missing]}\nservices:\n")

    with pytest.raises(PreflightError, match="the hook before_connect cannot be started: No such file or directory"):
        deploy("demo", root=project.root)


def test_ctrl_c_in_a_hook_ends_the_hook_and_the_run(project: Project, fleet: SimulatedFleet, ran: Path) -> None:
    write(project, "before_connect", text=f"#!/bin/sh\ncat; kill -INT {os.getpid()}; exec sleep 61\n")
    write(project, "on_failure")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            deploy("demo", root=project.root)
    finally:
        signal.signal(signal.SIGINT, before)

    assert facts(ran, "on_failure")["ROLLING_RESULT"] == "interrupted"
    assert fleet.ran() == []


def test_output_of_a_hook_is_masked(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, "before_connect", text="#!/bin/sh\necho correct-horse-battery; echo err >&2\n")

    deploy("demo", root=project.root, batch="100%")

    output = capsys.readouterr().out
    assert "correct-horse-battery" not in output
    assert "before_connect  | err" in output


def test_hook_environment_has_no_credentials_and_no_variables_of_another_run() -> None:
    given = {"PATH": "/bin", "SLACK": "x", "DEPLOY_SSH_KEY": "k", "SSH_AUTH_SOCK": "s", "ROLLING_RESULT": "done"}

    assert hook_environment(given) == {"PATH": "/bin", "SLACK": "x"}
