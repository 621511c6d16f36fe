"""Rollbacks of two hosts; the undo command, the choice of the backup for the data, and the steps that restore it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from rolling_upgrade.engine import maintenance
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import (
    Color,
    Environment,
    HostState,
    Outcome,
    RolloutPolicy,
    Target,
)
from rolling_upgrade.engine.nginx import maintenance_page_path
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.engine.rollout import HostRun
from rolling_upgrade.errors import ExitCode, PreflightError
from rolling_upgrade.features.backup.manifest import Backup, BackupFile, BackupKind
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.restore.plan import DataRestore
from rolling_upgrade.features.rollback import workflow as rollback
from rolling_upgrade.features.rollback.workflow import RollbackTarget
from tests.features.rollback.test_selection import back, digest, host, release
from tests.support.project import Project
from tests.support.sample import application
from tests.support.simulated_fleet import FIRST, READ_ONLY, SECOND, SimulatedFleet, observation
from tests.support.states import RUN, ids, text, undo, upgradable, wanted


@pytest.mark.parametrize("tag", ["v1; touch pwned", "$(touch pwned)", "`id`", "a b", "'", "v1\nid", "-x", "--force"])
def test_undo_command_quotes_a_tag_of_the_history(tag: str) -> None:
    app = application()
    environment = Environment("demo", tuple(Target(name, name, "deploy", app) for name in ("web1", "web2")))
    targets = {
        name: RollbackTarget(release("r9", "v0"), release(f"r{number}", tag), app)
        for number, name in enumerate(("web1", "web2"))
    }
    host_runs = [cast(HostRun, SimpleNamespace(name=name)) for name in targets]

    command = rollback._operation_spec(environment, targets, (), "r3").undo_command(host_runs)

    expected = [] if tag.startswith("-") else ["rolling-upgrade", "rollback", "--env", "demo", "--to", tag]
    assert shlex.split(command) == expected


APP = application()


def backups(*names: str) -> tuple[Backup, ...]:
    files = (BackupFile("database.db", 4096, "a" * 64), BackupFile("rows", 10, "b" * 64))
    return tuple(Backup(name, database="sqlite", files=files) for name in names)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (host(release("A", "v1"), release("B", "v2"), runs="v2"), "B"),
        (host(release("A", "v1"), release("B", "v2", outcome=Outcome.UNDONE), release("C", "v3"), runs="v3"), "C"),
        # A served again after the rollback: C's backup has its data, B's does not.
        (host(release("A", "v1"), release("B", "v2"), back("B5", "v1", "A", "B"), release("C", "v3"), runs="v3"), "C"),
        # A deploy of the same content does not end the release for the data.
        (host(release("A", "v1"), release("A2", "v1"), release("C", "v3"), runs="v3"), "C"),
        (host(release("A", "v1"), release("B", "v2"), release("C", "v3"), runs="v3"), "B"),
    ],
)
def test_choose_returns_the_backup_of_the_run_that_replaced_the_release(state: HostState, expected: str) -> None:
    choice = rollback.choose_backup(state, state.releases[0], backups("A", "B", "C"))

    assert isinstance(choice, Backup)
    assert choice.id == expected


def ran(id: str, tag: str, kind: BackupKind = BackupKind.DEPLOY) -> Backup:
    """A backup that was taken while the backend ran this tag."""
    return replace(backups(id)[0], kind=kind, services=(("backend", f"r.test/b:{tag}@{digest(tag)}"),))


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        # B was killed after its cutover, C repeated it: C's backup contains data that v2 wrote.
        ((ran("B", "v1"), ran("C", "v2")), "B"),
        # Killed before its cutover: v1 served on until C.
        ((ran("B", "v1"), ran("C", "v1")), "C"),
        # Killed twice.
        ((ran("A9", "v1"), ran("B", "v2"), ran("C", "v2")), "A9"),
        # A manual backup in between is older than the end of v1.
        ((ran("A9", "v1", BackupKind.MANUAL), ran("C", "v2")), ""),
        # A backup from an earlier time of v1.
        ((ran("0", "v1"), ran("C", "v2")), ""),
        # The backup of the run that replaced v1 is missing: v1 may have served after B.
        ((ran("B", "v1"),), ""),
    ],
)
def test_choose_after_a_repeated_killed_run_compares_the_running_images(
    listed: tuple[Backup, ...], expected: str
) -> None:
    state = host(release("A", "v1"), release("C", "v2"), runs="v2")

    choice = rollback.choose_backup(state, state.releases[0], listed)

    assert (choice.id if isinstance(choice, Backup) else "") == expected


def test_choose_after_an_unrepeated_killed_run_returns_its_backup() -> None:
    state = host(release("A", "v1"), runs="v2")

    choice = rollback.choose_backup(state, state.releases[0], (ran("B", "v1"),))

    assert isinstance(choice, Backup)
    assert choice.id == "B"


def test_choose_without_the_right_backup_is_refused() -> None:
    state = host(release("A", "v1"), release("B", "v2"), release("C", "v3"), runs="v3")

    choice = rollback.choose_backup(state, state.releases[0], backups("A", "C"))

    assert isinstance(choice, Finding)
    assert "the backup of B is missing" in choice.problem


DATA = DataRestore(replace(APP, uploads=""), backups("B")[0], "r2", files=False)


def test_unfit_with_moved_database_is_refused() -> None:
    state = HostState("web1", facts=(("home", "yes"),))
    earlier = replace(APP, database="/elsewhere/shop.db")

    assert "/elsewhere/shop.db" in rollback.unfit_for_data(state, DATA, earlier)[0].problem
    assert rollback.unfit_for_data(state, DATA, APP) == ()


def plan_rollback(state: HostState) -> Plan:
    steps = rollback.data_steps(state, DATA, "<html>")
    spec = replace(wanted(APP, force=True), record=replace(RUN, action="rollback", target="r0"), data=steps)
    return plan_deploy(state, spec, RolloutPolicy())


def with_page(up: str = "") -> HostState:
    """A host whose site knows the page; `up` says who put up its current page, '' for none."""
    return replace(upgradable(APP), site=f"if (-f {maintenance_page_path(APP)})", facts=(("maintenance", up),))


def test_plan_with_data_stops_the_writers_before_backup_and_restore() -> None:
    plan = plan_rollback(with_page())

    assert plan.prepare[0].id == "check"
    assert ids(plan)[:5] == ["maintenance.on", "stop", "backup", "database", "backend.start"]
    assert ids(plan)[-2:] == ["maintenance.off", "drain"]
    # Not undone: visitors write to the data as soon as the page is off.
    assert [step.id for step in plan.finalize] == ["maintenance.off", "drain", "record"]


def test_plan_with_data_starts_services_one_by_one_each_with_its_alias() -> None:
    """The writers are stopped: until a candidate has the alias, no container has it."""
    plan = plan_rollback(with_page())

    assert [step.group for step in plan.steps if step.id.endswith(".start")] == ["", ""]
    assert ids(plan).index("frontend.start") < ids(plan).index("backend.cutover")
    assert "network connect --alias backend " in text(plan, "backend.start")
    assert "network connect" not in text(plan, "backend.cutover")


def test_undo_of_cutover_with_data_flips_without_a_check() -> None:
    """An undo goes in reverse: the former color starts only after the former data is back."""
    text = undo(plan_rollback(with_page()), "backend.cutover")

    assert "podman start" not in text
    assert "live/backend.green" in text


def test_plan_with_data_replaces_every_service() -> None:
    steps = {step.id for step in plan_rollback(with_page()).steps}

    assert {"backend.start", "frontend.start"} <= steps


@pytest.mark.parametrize(
    ("up", "shown"),
    [("", True), (maintenance.BY_RUN, True), (maintenance.BY_HAND, False), (maintenance.BY_SETTING, False)],
)
def test_plan_with_data_removes_only_the_page_of_a_run(up: str, shown: bool) -> None:
    assert ("maintenance.off" in ids(plan_rollback(with_page(up)))) is shown


def test_plan_with_data_notes_the_backups_and_deletes_the_former_data_at_the_end() -> None:
    plan = plan_rollback(with_page())

    assert any("backup r2 keeps the current one" in note for note in plan.notes)
    assert ".before-" in plan.finalize[-1].script.text


ROLLED_BACK = [
    "lock",
    "step backend.start",
    "step frontend.start",
    "step backend.cutover",
    "step frontend.cutover",
    "step verify",
    "step drain",
    "step record",
]
WITH_DATA = [
    "lock",
    "step check",
    "step maintenance.on",
    "step stop",
    "step backup",
    "step database",
    *ROLLED_BACK[1:6],
    "step maintenance.off",
    *ROLLED_BACK[6:],
]
UNDONE = ["step undo", "step abandon"]


@pytest.fixture
def upgraded(fleet: SimulatedFleet) -> SimulatedFleet:
    """Both hosts run release SECOND, and keep the stopped containers of FIRST and the backup of its data."""
    for name in fleet.states:
        fleet.upgrade(name)
        fleet.backups[name] = [fleet.backup(kind=BackupKind.DEPLOY)]
    return fleet


def test_rollback_starts_the_kept_containers_of_the_earlier_release_on_both_hosts(
    project: Project, upgraded: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rollback.rollback("demo", root=project.root) is ExitCode.DONE

    assert upgraded.changed("web1") == upgraded.changed("web2") == ROLLED_BACK
    assert "podman start memoryark-backend-blue" in upgraded.text("web1", "step backend.start")
    assert "podman stop --ignore --time 10 memoryark-backend-green" in upgraded.text("web1", "step drain")
    assert f'"target": "{FIRST}", "left": "{SECOND}"' in upgraded.text("web2", "step record")
    out = capsys.readouterr().out
    assert f"rolls back to {FIRST} (v1)" in out
    assert "web1, web2 rolled back." in out
    assert f"rolling-upgrade rollback --env demo --to {SECOND}\n" in out


def test_rollback_on_a_host_that_changed_before_its_lock_records_the_release_that_it_left(
    project: Project, upgraded: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    third, observed = "20261124T080000Z-dddddd", upgraded.states["web1"]
    deployed = replace(observed, releases=(*observed.releases, replace(observed.releases[-1], id=third)))
    upgraded.answers["web1", "lock"] = Answer(0, observation(upgraded.app, deployed), "")

    assert rollback.rollback("demo", root=project.root, hosts=("web1",)) is ExitCode.DONE

    assert f'"target": "{FIRST}", "left": "{third}"' in upgraded.text("web1", "step record")
    assert f"rollback --env demo --to {third} --hosts web1\n" in capsys.readouterr().out


def test_rollback_brings_each_host_to_its_own_last_good_release(
    project: Project, upgraded: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "20261120T080000Z-cccccc"
    first, second = upgraded.states["web2"].releases
    upgraded.states["web2"] = replace(upgraded.states["web2"], releases=(replace(first, id=own), second))
    upgraded.definitions[own] = upgraded.definitions[FIRST]

    assert rollback.rollback("demo", root=project.root) is ExitCode.DONE

    assert f'"target": "{FIRST}"' in upgraded.text("web1", "step record")
    assert f'"target": "{own}"' in upgraded.text("web2", "step record")
    assert f"reason=rollback to web1={FIRST} web2={own}" in upgraded.text("web2", "lock")


def test_rollback_dry_run_runs_only_scripts_that_read(
    project: Project, upgraded: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rollback.rollback("demo", root=project.root, dry_run=True) is ExitCode.DONE

    assert set(upgraded.ran()) <= READ_ONLY
    assert "podman start memoryark-backend-blue" in capsys.readouterr().out


def test_rollback_json_prints_only_json(
    project: Project, upgraded: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rollback.rollback("demo", root=project.root, json=True) is ExitCode.DONE

    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [host["result"] for host in rows[-1]["hosts"]] == ["rolled back", "rolled back"]
    assert err == ""


def test_rollback_to_the_running_release_has_nothing_to_do(
    project: Project, upgraded: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rollback.rollback("demo", root=project.root, to=SECOND) is ExitCode.DONE

    assert upgraded.changed() == []
    assert "Nothing to do: every host already runs that release." in capsys.readouterr().out


def test_rollback_with_one_host_on_its_first_release_is_refused(project: Project, fleet: SimulatedFleet) -> None:
    fleet.upgrade("web1")

    with pytest.raises(PreflightError, match="web2: there is no earlier good release to roll back to") as refused:
        rollback.rollback("demo", root=project.root)

    assert fleet.changed() == []
    assert "web1" not in refused.value.message


def test_rollback_to_an_unknown_release_lists_the_good_ones(project: Project, upgraded: SimulatedFleet) -> None:
    with pytest.raises(PreflightError, match="web1: its history has no release 'v9'") as refused:
        rollback.rollback("demo", root=project.root, to="v9")

    assert f"Good ones, newest first: {SECOND} (2.0.1), {FIRST} (v1)" in refused.value.message
    assert upgraded.changed() == []


def test_rollback_to_a_release_without_its_definition_is_refused(project: Project, upgraded: SimulatedFleet) -> None:
    upgraded.definitions.clear()

    with pytest.raises(PreflightError, match=f"configuration of release {FIRST} is past its retention. Deploy its tag"):
        rollback.rollback("demo", root=project.root)

    assert upgraded.changed() == []


def test_rollback_to_a_release_whose_image_is_gone_is_refused(project: Project, upgraded: SimulatedFleet) -> None:
    rows = "backend env yes\nbackend image no\nfrontend env yes\nfrontend image yes\n"
    upgraded.answers["web2", "available"] = Answer(0, rows, "")

    with pytest.raises(PreflightError, match=f"web2: backend: the image of release {FIRST} is neither") as refused:
        rollback.rollback("demo", root=project.root)

    assert len(refused.value.message.splitlines()) == 2
    assert upgraded.changed() == []


def test_rollback_with_a_failed_verification_is_undone(
    project: Project, upgraded: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    upgraded.fail("web1", "step verify", "GET /api/health: 500")

    assert rollback.rollback("demo", root=project.root, hosts=("web1",)) is ExitCode.FAILED

    assert upgraded.changed("web1") == [*ROLLED_BACK[:6], *UNDONE]
    out = capsys.readouterr().out
    undone = [
        f"{name}: {what}" for what in ("cut back to green", "stop blue, keep it") for name in ("frontend", "backend")
    ]
    assert "; ".join(undone) in out
    assert "Rollback undone; still on the previous release: web1." in out


def test_rollback_with_data_restores_the_database_while_no_container_writes(
    project: Project, upgraded: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rollback.rollback("demo", root=project.root, restore_db=True) is ExitCode.DONE

    assert upgraded.changed("web1") == upgraded.changed("web2") == WITH_DATA
    out = capsys.readouterr().out
    assert f"the database goes back to backup {SECOND}" in out
    assert re.search(
        rf"rollback --env demo --to {SECOND} && rolling-upgrade restore \S+ --env demo --only database\n", out
    )


@pytest.fixture
def backend_upgraded(upgraded: SimulatedFleet) -> SimulatedFleet:
    """The same hosts, where release SECOND changed only the backend."""
    for name, state in upgraded.states.items():
        first, second = state.releases
        frontends = (
            replace(kept, running=True, status="running")
            for kept in state.containers
            if kept.service == "frontend" and kept.color is Color.BLUE
        )
        backends = (found for found in state.containers if found.service == "backend")
        services = (second.services[0], first.services[1])
        upgraded.states[name] = replace(
            state,
            active=(("backend", Color.GREEN),),
            containers=(*backends, *frontends),
            releases=(first, replace(second, services=services)),
        )
    return upgraded


def test_rollback_leaves_a_service_alone_that_both_releases_share(
    project: Project, backend_upgraded: SimulatedFleet
) -> None:
    assert rollback.rollback("demo", root=project.root) is ExitCode.DONE

    assert backend_upgraded.changed("web1") == [kind for kind in ROLLED_BACK if "frontend" not in kind]


def test_rollback_with_data_replaces_even_a_container_that_both_releases_share(
    project: Project, backend_upgraded: SimulatedFleet
) -> None:
    assert rollback.rollback("demo", root=project.root, restore_db=True) is ExitCode.DONE

    changed = backend_upgraded.changed("web1")
    assert changed == [*WITH_DATA[:2], "step pull", *WITH_DATA[2:]]
    assert "podman run" in backend_upgraded.text("web1", "step frontend.start")


def test_rollback_with_data_without_the_backup_of_one_host_is_refused(
    project: Project, upgraded: SimulatedFleet
) -> None:
    upgraded.backups["web2"] = []

    with pytest.raises(PreflightError, match=f"web2: no backup has the data of release {FIRST}"):
        rollback.rollback("demo", root=project.root, restore_db=True)

    assert upgraded.changed() == []


def test_rollback_with_data_and_a_failed_gate_brings_the_data_back_before_the_containers(
    project: Project, upgraded: SimulatedFleet
) -> None:
    upgraded.fail("web1", "step backend.start")

    assert rollback.rollback("demo", root=project.root, hosts=("web1",), restore_db=True) is ExitCode.FAILED

    failed = WITH_DATA.index("step backend.start")
    assert upgraded.changed("web1") == [*WITH_DATA[: failed + 1], *UNDONE]
    found = re.findall(
        r"podman (st\w+) .*?memoryark-(\w+-\w+) |named=(\S+)|rm -f \S+/(maintenance.html)",
        upgraded.text("web1", "step undo"),
    )
    assert [" ".join(filter(None, row)) for row in found] == [
        "stop backend-blue",
        "/srv/memoryark/data",
        "start backend-green",
        "start frontend-green",
        "maintenance.html",
    ]
