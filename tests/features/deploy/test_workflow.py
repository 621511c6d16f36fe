"""Deploys of two hosts from the command to the summary: which scripts ran on which host, and what the operator sees."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.console import identity
from rolling_upgrade.engine import remote_run
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.lock_file import HELD_STATUS, LOST_STATUS
from rolling_upgrade.engine.model import HostState, Lock
from rolling_upgrade.errors import ConfigError, ConnectionDropped, ExitCode, HostUnreachable, LockHeld, PreflightError
from rolling_upgrade.features.deploy.workflow import deploy
from rolling_upgrade.features.registry.workflow import REFUSED_STATUS
from tests.support import saved_images
from tests.support.project import Project
from tests.support.simulated_fleet import READ_ONLY, SimulatedFleet, observation
from tests.support.states import as_wanted

PREPARED = ["lock", "step backup", "step pull"]
UPGRADED = [
    *PREPARED,
    "step backend.start",
    "step frontend.start",
    "step backend.cutover",
    "step frontend.cutover",
    "step verify",
    "step drain",
    "step record",
]
#: The scripts of a host whose step failed, after that step.
UNDONE = ["step undo", "step abandon"]
BEN = Lock("r9", "ben", "laptop", 7, "deploy v3", 1000, 4_000_000_000)


def test_deploy_upgrades_both_hosts_in_the_order_of_the_plan(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy("demo", root=project.root, batch="100%") is ExitCode.DONE

    assert fleet.changed("web1") == fleet.changed("web2") == UPGRADED
    out = capsys.readouterr().out
    assert "backend   v1 (111111111111) blue → 2.0.1 (aaaaaaaaaaaa) green" in out
    assert "digests: web1 and web2 agree" in out
    assert "web1, web2 upgraded." in out
    assert "rolling-upgrade rollback --env demo\n" in out


def test_deploy_starts_the_images_by_the_digests_of_the_registry(project: Project, fleet: SimulatedFleet) -> None:
    assert deploy("demo", root=project.root, tag="2.1.0") is ExitCode.DONE

    backend, frontend = (service.image for service in fleet.app.services)
    assert backend.pinned in fleet.text("web1", "step backend.start")
    assert frontend.pinned in fleet.text("web2", "step frontend.start")
    assert "backend:2.1.0" in fleet.text("web1", "step record")


def test_deploy_in_batches_finishes_each_batch_before_the_next(project: Project, fleet: SimulatedFleet) -> None:
    assert deploy("demo", root=project.root, batch="1") is ExitCode.DONE

    ran = [(host, kind) for host, kind in fleet.log if kind.startswith("step ")]
    assert ran.index(("web1", "step record")) < ran.index(("web2", "step backend.start"))
    barrier = ran.index(("web1", "step backend.start"))
    assert ran.index(("web2", "step pull")) < barrier


def test_deploy_of_one_host_does_not_contact_the_other(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy("demo", root=project.root, hosts=("web2",)) is ExitCode.DONE

    assert (fleet.ran("web1"), fleet.changed("web2")) == ([], UPGRADED)
    output = capsys.readouterr().out
    assert "rolling-upgrade rollback --env demo --hosts web2\n" in output
    assert "digests: resolved by web2 alone; no other host can query a registry" in output


def test_deploy_of_the_running_release_has_nothing_to_do(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in fleet.states:
        fleet.states[host] = fleet.fit(replace(as_wanted(fleet.app), host=host))

    assert deploy("demo", root=project.root) is ExitCode.DONE

    assert fleet.changed() == []
    assert "Nothing to do: every host is up to date." in capsys.readouterr().out


def test_deploy_leaves_a_host_alone_that_is_up_to_date(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.states["web1"] = fleet.fit(as_wanted(fleet.app))

    assert deploy("demo", root=project.root) is ExitCode.DONE

    assert (fleet.changed("web1"), fleet.changed("web2")) == ([], UPGRADED)
    assert "web2 upgraded." in capsys.readouterr().out


def test_deploy_dry_run_shows_every_script_and_runs_only_scripts_that_read(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy("demo", root=project.root, dry_run=True) is ExitCode.DONE

    assert set(fleet.ran()) <= READ_ONLY
    out = capsys.readouterr().out
    assert "podman run" in out
    assert "rm -f held" in out
    assert "correct-horse-battery" not in out


def test_deploy_json_prints_only_json(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy("demo", root=project.root, json=True) is ExitCode.DONE

    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["host"], row["empty"]) for row in rows if row.get("type") == "plan"] == [
        ("web1", False),
        ("web2", False),
    ]
    assert rows[-1]["exit_code"] == 0
    assert {host["host"]: host["result"] for host in rows[-1]["hosts"]} == {"web1": "upgraded", "web2": "upgraded"}
    assert err == ""


def test_deploy_with_one_unfit_host_is_refused_and_changes_none(project: Project, fleet: SimulatedFleet) -> None:
    fleet.states["web2"] = fleet.fit(fleet.states["web2"], linger="no", has_flock="no")

    with pytest.raises(PreflightError) as refused:
        deploy("demo", root=project.root, force=True)

    assert fleet.changed() == []
    assert refused.value.exit_code is ExitCode.REFUSED
    findings = refused.value.message.splitlines()[1:]
    assert [line.split(". ")[0].strip() for line in findings] == [
        "web2: flock missing",
        "web2: linger is off: rootless containers would die after logout",
    ]


def test_deploy_with_an_unreachable_host_changes_none(project: Project, fleet: SimulatedFleet) -> None:
    fleet.answers["web2", "observe"] = HostUnreachable("web2: cannot reach 192.0.2.12.")

    with pytest.raises(HostUnreachable, match="web2"):
        deploy("demo", root=project.root)

    assert fleet.changed() == []


def test_deploy_asks_two_hosts_once_for_the_digests(project: Project, fleet: SimulatedFleet) -> None:
    assert deploy("demo", root=project.root) is ExitCode.DONE

    assert [fleet.ran(host).count("resolve") for host in ("web1", "web2")] == [1, 1]


def test_deploy_whose_early_question_was_lost_asks_again(project: Project, fleet: SimulatedFleet) -> None:
    fleet.answers["web1", "resolve"] = ConnectionDropped("web1: the connection dropped.")

    with pytest.raises(HostUnreachable, match="the connection dropped"):
        deploy("demo", root=project.root)

    assert fleet.ran("web1").count("resolve") == 2
    assert fleet.changed() == []


def test_deploy_of_a_tag_that_hosts_resolve_differently_is_refused(project: Project, fleet: SimulatedFleet) -> None:
    other = "sha256:" + "e" * 64
    rows = [f"{replace(service.image, digest='').exact} {other}" for service in fleet.app.services]
    fleet.answers["web2", "resolve"] = Answer(0, "\n".join(rows), "")

    with pytest.raises(PreflightError, match=f"backend:2.0.1: web1 says sha256:a*, web2 says {other}"):
        deploy("demo", root=project.root)

    assert fleet.changed() == []


def test_deploy_without_confirmation_changes_nothing(project: Project, fleet: SimulatedFleet) -> None:
    project.rollout("confirm: true")

    with pytest.raises(ConfigError, match="confirmation required") as refused:
        deploy("demo", root=project.root)

    assert fleet.changed() == []
    assert "deploy --env demo --force" in refused.value.next_step
    assert deploy("demo", root=project.root, force=True) is ExitCode.DONE


def test_deploy_to_a_locked_host_is_refused_with_its_holder(project: Project, fleet: SimulatedFleet) -> None:
    fleet.states["web2"] = replace(fleet.states["web2"], lock=BEN, now=2000)

    with pytest.raises(LockHeld, match=r"web2: locked by ben@laptop \(process 7\): deploy v3"):
        deploy("demo", root=project.root, force=True)

    assert fleet.changed() == []


def test_deploy_that_loses_the_race_for_a_lock_releases_the_others(project: Project, fleet: SimulatedFleet) -> None:
    fleet.answers["web2", "lock"] = Answer(HELD_STATUS, "token=r9\nowner=ben\nworkstation=laptop\nnow=2000\n", "")

    with pytest.raises(LockHeld, match="web2: locked by ben@laptop"):
        deploy("demo", root=project.root)

    assert fleet.changed("web1") == ["lock", "unlock"]
    assert fleet.changed("web2") == ["lock"]


def test_deploy_with_a_failed_pull_on_one_host_starts_no_container_on_any(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.fail("web2", "step pull", "no space left on device")

    assert deploy("demo", root=project.root) is ExitCode.FAILED

    assert fleet.changed("web1") == [*PREPARED, "unlock"]
    assert fleet.changed("web2") == [*PREPARED, "step abandon"]
    assert "no space left on device" in capsys.readouterr().out


def test_deploy_with_a_failed_gate_undoes_the_started_steps_in_reverse(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.fail("web1", "step frontend.start", "GET /health: 502")

    assert deploy("demo", root=project.root, hosts=("web1",)) is ExitCode.FAILED

    failed = UPGRADED.index("step frontend.start")
    assert fleet.changed("web1") == [*UPGRADED[: failed + 1], *UNDONE]
    undo = fleet.text("web1", "step undo")
    assert re.findall(r"podman stop \S.*?-(\w+-green)", undo) == ["frontend-green", "backend-green"]
    assert "live/backend.green" not in undo.replace("test -e /var/lib/memoryark/live/backend.green", "")
    assert "run_outcome=undone" in fleet.text("web1", "step abandon")
    out = capsys.readouterr().out
    assert "GET /health: 502" in out
    assert "Back on the old release: web1." in out


def test_deploy_stops_after_the_batch_that_fails(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.fail("web1", "step backend.start")

    assert deploy("demo", root=project.root, batch="1") is ExitCode.FAILED

    assert fleet.changed("web1") == [*PREPARED, "step backend.start", "step frontend.start", *UNDONE]
    assert fleet.changed("web2") == [*PREPARED, "unlock"]
    assert "Back on the old release: web1. Left as it was: web2." in capsys.readouterr().out


def test_deploy_that_fails_in_the_second_batch_keeps_the_first_and_names_its_undo(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.fail("web2", "step verify")

    assert deploy("demo", root=project.root, batch="1") is ExitCode.PARTLY_DONE

    assert fleet.changed("web1") == UPGRADED
    assert fleet.changed("web2")[-2:] == UNDONE
    out = capsys.readouterr().out
    assert "On the new release: web1. Back on the old release: web2." in out
    assert "rolling-upgrade rollback --env demo --hosts web1\n" in out


def test_deploy_with_a_failed_undo_says_so(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.fail("web1", "step verify")
    fleet.fail("web1", "step undo", "cannot stop")

    assert deploy("demo", root=project.root, hosts=("web1",)) is ExitCode.UNDO_FAILED

    assert "run_outcome=undo-failed" in fleet.text("web1", "step abandon")
    assert "The undo failed; manual intervention is required: web1." in capsys.readouterr().out


def test_deploy_to_a_new_host_starts_every_service_and_names_no_undo(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    helper_sum = rendering.site_program_sum()
    fleet.states["web1"] = replace(fleet.fit(HostState("web1"), helper_sum=helper_sum), site="", live_site_hash="")

    assert deploy("demo", root=project.root, hosts=("web1",)) is ExitCode.DONE

    assert fleet.changed("web1") == [
        *PREPARED,
        "step backend.start",
        "step frontend.start",
        "step site",
        "step backend.cutover",
        "step frontend.cutover",
        *UPGRADED[-3:],
    ]
    assert "rolling-upgrade rollback" not in capsys.readouterr().out


def test_deploy_with_force_replaces_containers_that_are_up_to_date(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.states["web1"] = fleet.fit(as_wanted(fleet.app))

    assert deploy("demo", root=project.root, hosts=("web1",), force=True) is ExitCode.DONE

    assert fleet.changed("web1") == UPGRADED
    assert "because forced" in capsys.readouterr().out


def test_deploy_plans_a_host_again_that_changed_before_its_lock(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.answers["web1", "lock"] = Answer(0, observation(fleet.app, fleet.fit(as_wanted(fleet.app))), "")

    assert deploy("demo", root=project.root) is ExitCode.DONE

    assert (fleet.changed("web1"), fleet.changed("web2")) == (["lock", "unlock"], UPGRADED)
    out = capsys.readouterr().out
    _, _, new_plan = out.partition("the host changed after it was observed; a new plan was made")
    assert "nothing to do" in new_plan
    assert "web2 upgraded." in out


def test_deploy_takes_over_the_lock_of_its_own_dead_run(project: Project, fleet: SimulatedFleet) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = replace(BEN, workstation=identity.workstation(), pid=ended.pid)
    fleet.states["web1"] = replace(fleet.states["web1"], lock=dead, now=2000)

    assert deploy("demo", root=project.root, hosts=("web1",)) is ExitCode.DONE

    assert fleet.changed("web1") == UPGRADED
    assert '[ "$token" != r9 ]' in fleet.text("web1", "lock")


def test_deploy_that_loses_its_lock_stops_and_leaves_the_host_to_the_other_run(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.answers["web1", "step frontend.start"] = Answer(LOST_STATUS, "the lock was taken over:\nowner=ben\n", "")

    assert deploy("demo", root=project.root, batch="1") is ExitCode.LOCKED

    assert fleet.changed("web1")[-1] == "step frontend.start"
    assert fleet.changed("web2") == [*PREPARED, "unlock"]
    out = capsys.readouterr().out
    assert "owner=ben" in out
    assert "Outcome unknown; the active color has passed its gate: web1." in out


def test_deploy_to_a_host_that_becomes_unreachable_undoes_nothing_there(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_run, "RECONNECT_SECONDS", -1)
    fleet.answers["web1", "step verify"] = ConnectionDropped("web1: no answer.")

    assert deploy("demo", root=project.root) is ExitCode.PARTLY_DONE

    assert not set(UNDONE) & set(fleet.changed("web1"))
    assert fleet.changed("web2") == UPGRADED
    out = capsys.readouterr().out
    assert "Outcome unknown; the active color has passed its gate: web1." in out
    assert "Next: rolling-upgrade attach --env demo, once the host answers" in out


LOGIN = {"REGISTRY": "registry.example.org", "REGISTRY_USERNAME": "robot", "REGISTRY_PASSWORD": "pass-word-1"}


def test_deploy_logs_the_hosts_in_before_they_ask_the_registry(project: Project, fleet: SimulatedFleet) -> None:
    project.env(LOGIN)

    assert deploy("demo", root=project.root, dry_run=True) is ExitCode.DONE
    assert fleet.ran("web1") == ["observe", "resolve"]

    assert deploy("demo", root=project.root) is ExitCode.DONE
    assert fleet.ran("web1")[2:6] == ["observe", "login", "resolve", "lock"]


def test_deploy_with_a_login_that_the_registry_refuses_is_refused(project: Project, fleet: SimulatedFleet) -> None:
    project.env(LOGIN)
    fleet.answers["web2", "login"] = Answer(REFUSED_STATUS, "invalid username/password", "")

    with pytest.raises(PreflightError, match=r"web2: .*invalid username/password"):
        deploy("demo", root=project.root)

    assert set(fleet.ran()) == {"observe", "login"}


def test_deploy_with_push_serves_the_archives_without_a_registry(
    project: Project, fleet: SimulatedFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = {}
    for name in ("backend", "frontend"):
        layers = [saved_images.layer("base"), saved_images.layer(name)]
        reference = f"registry.example.org/memoryark/{name}:2.0.1"
        archives[name] = saved_images.docker_archive(
            tmp_path / f"{name}.tar", {reference: layers}, {reference: saved_images.configuration(layers)}
        )
    given = [f"{name}={path}" for name, path in archives.items()]

    assert deploy("demo", root=project.root, transfer="push", image=given) is ExitCode.DONE

    assert "resolve" not in fleet.ran()
    pushed = ["step push" if kind == "step pull" else kind for kind in UPGRADED]
    assert fleet.changed("web1") == fleet.changed("web2") == pushed
    assert "images_at=127.0.0.1:5000" in fleet.text("web1", "step push")
    out = capsys.readouterr().out
    assert f"backend: reading registry.example.org/memoryark/backend:2.0.1 from {archives['backend']}" in out
    assert "push backend 2.0.1 (2 of 2 layers" in out
    assert "frontend 2.0.1 (1 of 2 layers" in out


def test_deploy_with_push_of_signed_images_is_refused(project: Project, fleet: SimulatedFleet) -> None:
    project.require_signatures()

    with pytest.raises(ConfigError, match="only a registry has signatures"):
        deploy("demo", root=project.root, transfer="push")

    assert fleet.ran() == []


def test_deploy_shows_the_warning_of_an_unknown_key_and_is_refused_if_strict(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    project.env(extra="COLOUR=red")

    with pytest.raises(ConfigError, match="COLOUR"):
        deploy("demo", root=project.root, strict=True)
    assert fleet.ran() == []

    assert deploy("demo", root=project.root) is ExitCode.DONE
    assert re.search("warning: .*COLOUR", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"batch": "0"}, "--batch"),
        ({"transfer": "copy"}, "--transfer"),
        ({"image": ["backend=a.tar"]}, "--image"),
        ({"image": ["a.tar"], "transfer": "push"}, "--image"),
    ],
)
def test_deploy_with_an_invalid_option_contacts_no_host(
    options: dict[str, object], problem: str, project: Project, fleet: SimulatedFleet
) -> None:
    with pytest.raises(ConfigError, match=problem):
        deploy("demo", root=project.root, **options)  # type: ignore[arg-type]

    assert fleet.ran() == []


def test_deploy_with_push_of_a_damaged_archive_changes_no_host(
    project: Project, fleet: SimulatedFleet, tmp_path: Path
) -> None:
    given = []
    for name in ("backend", "frontend"):
        layers = [saved_images.layer(name)]
        reference = f"registry.example.org/memoryark/{name}:2.0.1"
        path = saved_images.docker_archive(
            tmp_path / f"{name}.tar", {reference: layers}, {reference: saved_images.configuration(layers)}
        )
        given.append(f"{name}={path}")
    content = bytearray(path.read_bytes())
    content[content.index(layers[0]) + 1000] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(PreflightError, match="is damaged"):
        deploy("demo", root=project.root, transfer="push", image=given)

    assert fleet.changed() == []


def with_release(project: Project, fleet: SimulatedFleet) -> None:
    """Give the application a release command."""
    project.edit("deploy/services.yaml", "services:\n", "release: {command: [migrate, --all]}\nservices:\n")


def test_deploy_release_command_runs_on_the_first_host_before_any_start(
    project: Project, fleet: SimulatedFleet
) -> None:
    with_release(project, fleet)

    assert deploy("demo", root=project.root, batch="100%") is ExitCode.DONE

    assert fleet.changed("web1") == [*PREPARED, "step release", *UPGRADED[len(PREPARED) :]]
    assert fleet.changed("web2") == UPGRADED
    released = fleet.log.index(("web1", "step release"))
    assert released < min(n for n, (_, kind) in enumerate(fleet.log) if kind == "step backend.start")


def test_deploy_dry_run_shows_the_release_command_on_its_host_only(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    with_release(project, fleet)

    assert deploy("demo", root=project.root, dry_run=True, json=True) is ExitCode.DONE

    plans = {row["host"]: row for row in map(json.loads, capsys.readouterr().out.splitlines()) if row["type"] == "plan"}
    assert [step["title"] for step in plans["web1"]["release_command"]] == [
        "run the release command in a new container of backend: migrate --all"
    ]
    assert plans["web2"]["release_command"] == []
    assert fleet.changed() == []


def test_deploy_failed_release_command_names_the_backup(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    with_release(project, fleet)
    fleet.fail("web1", "step release", "column exists\n")

    assert deploy("demo", root=project.root, batch="100%") is ExitCode.FAILED

    out = capsys.readouterr().out
    assert "column exists" in out
    assert re.search(
        r"warning: web1: the release command was started, .* The backup taken before it is (\S+); "
        r"to restore it: rolling-upgrade restore \1 --env demo --hosts web1\n",
        out,
    )
    assert "step backend.start" not in fleet.ran()
    assert fleet.changed("web2")[-1] == "unlock"


def test_deploy_that_fails_after_its_release_command_names_the_backup(
    project: Project, fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    with_release(project, fleet)
    fleet.fail("web2", "step backend.start")

    assert deploy("demo", root=project.root, batch="100%") is ExitCode.PARTLY_DONE

    assert "to restore it: rolling-upgrade restore " in capsys.readouterr().out


def test_deploy_of_an_up_to_date_fleet_runs_no_release_command(project: Project, fleet: SimulatedFleet) -> None:
    with_release(project, fleet)
    for host in ("web1", "web2"):
        fleet.upgrade(host)

    assert deploy("demo", root=project.root, batch="100%") is ExitCode.DONE

    assert fleet.changed() == []
