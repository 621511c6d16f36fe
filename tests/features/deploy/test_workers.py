"""Workers and exclusive services in the plan of a deploy, and the handover with a stand-in for Podman."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Color, Handoff, HostState, Job, RolloutPolicy, Service
from rolling_upgrade.engine.plan import Change, Plan, Step, step_groups
from rolling_upgrade.engine.shell import Script
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.steps import DataSteps
from tests.support.sample import application, backend, frontend, worker
from tests.support.shell import Programs, moved, sh
from tests.support.states import as_wanted, choice, container, ids, outdated, plan, text, undo, upgradable, wanted


def scheduler(**changes: object) -> Service:
    """An exclusive worker."""
    return worker(**({"name": "scheduler", "handoff": Handoff.EXCLUSIVE} | changes))


APP = application(scheduler(), backend(), worker(), frontend())
SCHEDULER = application(scheduler(), full_chain=None)


def test_plan_hands_an_exclusive_service_over_after_all_gates_and_before_the_cutovers() -> None:
    assert ids(plan(upgradable(APP), APP)) == [
        *("backend.start", "worker.start", "frontend.start", "scheduler.start", "scheduler.cutover"),
        *("backend.cutover", "worker.cutover", "frontend.cutover", "verify", "drain"),
    ]


def test_plan_starts_an_overlapping_worker_with_the_other_services() -> None:
    groups = step_groups(plan(upgradable(APP), APP).steps)

    assert tuple(step.id for step in groups[0]) == ("backend.start", "worker.start", "frontend.start")


def test_plan_announces_the_pause_of_a_handover() -> None:
    app = application(backend(handoff=Handoff.EXCLUSIVE), frontend(), scheduler())

    assert plan(upgradable(app), app).notes[-2:] == (
        "backend is exclusive: blue stops before green starts; visitors get errors in between",
        "scheduler is exclusive: blue stops before green starts; its work pauses in between",
    )


def test_plan_titles_say_what_stops() -> None:
    step = next(step for step in plan(upgradable(APP), APP).steps if step.id == "scheduler.start")

    assert (step.title, step.undo_title) == (
        "scheduler: stop blue, start green and wait for its gate",
        "scheduler: stop green, start blue",
    )


def test_first_start_of_an_exclusive_service_stops_nothing_and_is_no_handover() -> None:
    found = plan(HostState("web1"), APP)

    assert ids(found)[:4] == ["scheduler.start", "backend.start", "worker.start", "frontend.start"]
    assert not any("exclusive" in note for note in found.notes)


def test_worker_has_no_part_in_nginx() -> None:
    found = plan(upgradable(APP), APP)

    assert "curl" not in text(found, "worker.cutover")
    assert "standby" not in text(found, "worker.cutover") + text(found, "worker.start")
    assert "--publish" not in text(found, "worker.start")
    assert "drain worker" not in text(found, "drain")
    assert "shop-worker-blue" in text(found, "drain")


def test_worker_cutover_changes_only_its_flag() -> None:
    assert text(plan(upgradable(APP), APP), "worker.cutover").endswith(": > /var/lib/shop/live/worker.green\n")


def test_verification_covers_restarts_of_workers() -> None:
    assert "shop-worker-green" in text(plan(upgradable(APP), APP), "verify")


def test_application_of_workers_alone_has_no_check_through_nginx() -> None:
    assert "curl" not in text(plan(upgradable(SCHEDULER), SCHEDULER), "verify")


def test_exclusive_service_with_a_port_gets_no_standby() -> None:
    app = application(backend(handoff=Handoff.EXCLUSIVE), frontend())

    assert "backend.standby" not in text(plan(upgradable(app), app), "backend.cutover")


def interrupted() -> HostState:
    """The state that a killed handover leaves: blue stopped, the candidate in green, the flag on blue."""
    former = outdated(scheduler(), running=False, status="exited")
    candidate = container(scheduler(), Color.GREEN, release="killed")
    return replace(as_wanted(SCHEDULER), containers=(former, candidate))


def test_candidate_of_a_killed_handover_is_replaced_and_the_former_container_kept() -> None:
    found = plan(interrupted(), SCHEDULER)

    chosen = choice(found, "scheduler")
    assert (chosen.change, chosen.color, chosen.current_color) == (Change.FIRST, Color.GREEN, Color.BLUE)
    assert "podman start shop-scheduler-blue" in undo(found, "scheduler.start")


def test_undo_starts_no_former_container_of_an_undone_release() -> None:
    state = interrupted()
    former = replace(state.containers[0], release="undone")

    found = plan(replace(state, containers=(former, state.containers[1])), SCHEDULER)

    assert "podman start" not in undo(found, "scheduler.start")


def test_undo_with_a_rollback_of_data_leaves_the_former_container_to_the_undo_of_the_data() -> None:
    data = DataSteps(before=(Step("stop", "stop the writers", Script(":\n"), 1),))
    found = plan_deploy(upgradable(SCHEDULER), replace(wanted(SCHEDULER), data=data), RolloutPolicy())

    assert "podman start" not in undo(found, "scheduler.start")


def test_undo_of_the_jobs_in_a_rollback_of_data_leaves_them_stopped() -> None:
    """A job that starts before the former data is back would make the undo of the data fail, or write to it."""
    app = application(backend(), frontend(), jobs=(Job("tidy", "backend", ("./tidy",), "@daily", ("*-*-* 00:00:00",)),))
    data = DataSteps(before=(Step("stop", "stop the writers", Script(":\n"), 1),))

    found = plan_deploy(upgradable(app), replace(wanted(app), data=data), RolloutPolicy())

    assert "systemctl --user stop" in undo(found, "jobs").rpartition("\n)\n")[2]


#: A stand-in for Podman that keeps the state of each container in a file, and writes a line `overlap` if two run.
_PODMAN = """\
for name do :; done
state="$here/state"
mkdir -p "$state"
become() {
  printf '%s\\n' "$1" > "$state/$2"
  if [ "$(cat "$state"/* | grep -c running)" -gt 1 ]; then echo overlap >> "$here/overlap"; fi
}
case "$1 $2" in
  "container exists") test -e "$state/$name" ;;
  "container inspect")
    case "$*" in
      *Healthcheck*) ;;
      *RestartCount*) if grep -q running "$state/$name"; then echo "true 0 0 $PPID"; else echo "false 0 1 0"; fi ;;
      *State.Running*) if grep -q running "$state/$name"; then echo true; else echo false; fi ;;
      *) cat "$state/$name" ;;
    esac ;;
  "run --detach")
    shift
    while [ "$1" != --name ]; do shift; done
    become running "$2" ;;
  "start "*) become running "$name" ;;
  "stop "*) if [ -e "$here/stubborn" ]; then exit 1; fi; if [ -e "$state/$name" ]; then become exited "$name"; fi ;;
esac
"""


@pytest.fixture
def host(tmp_path: Path) -> Programs:
    """A host on which blue of the scheduler runs."""
    programs = Programs(tmp_path / "bin")
    programs.clock()
    programs.add("podman", _PODMAN)
    programs.add("flock")
    for directory in ("home/live", "home/config", f"home/journal/{wanted(SCHEDULER).record.id}", "state"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "state/shop-scheduler-blue").write_text("running\n")
    return programs


def execute(host: Programs, *scripts: str) -> list[int]:
    """Run the scripts in their order. Return their statuses."""
    home = host.directory.parent / "home"
    return [sh(moved(script, SCHEDULER, home), path=host.path).returncode for script in scripts]


def running(host: Programs) -> set[str]:
    """Return the running containers, after a check that never two ran."""
    assert not (host.directory.parent / "overlap").exists()
    files = (host.directory.parent / "state").iterdir()
    return {file.name for file in files if file.read_text() == "running\n"}


def handover() -> Plan:
    return plan(upgradable(SCHEDULER), SCHEDULER)


def test_handover_stops_the_old_container_before_the_new_one_starts(host: Programs) -> None:
    found = handover()

    assert execute(host, text(found, "scheduler.start"), text(found, "scheduler.cutover")) == [0, 0]
    assert running(host) == {"shop-scheduler-green"}
    assert (host.directory.parent / "home/live/scheduler.green").exists()


@pytest.mark.parametrize("steps", [(), ("scheduler.start",), ("scheduler.start", "scheduler.cutover")])
def test_undo_of_a_handover_starts_the_old_container_when_the_new_one_has_stopped(
    host: Programs, steps: tuple[str, ...]
) -> None:
    found = handover()
    execute(host, *(text(found, step) for step in steps))

    assert execute(host, undo(found, "scheduler.cutover"), undo(found, "scheduler.start")) == [0, 0]
    assert running(host) == {"shop-scheduler-blue"}
    assert not (host.directory.parent / "home/live/scheduler.green").exists()


def test_handover_fails_if_the_old_container_cannot_be_stopped(host: Programs) -> None:
    (host.directory.parent / "stubborn").touch()

    assert execute(host, text(handover(), "scheduler.start")) == [1]
    assert running(host) == {"shop-scheduler-blue"}


def test_undo_fails_rather_than_start_the_old_container_beside_the_new_one(host: Programs) -> None:
    found = handover()
    execute(host, text(found, "scheduler.start"))
    (host.directory.parent / "stubborn").touch()

    assert execute(host, undo(found, "scheduler.start")) == [1]
    assert running(host) == {"shop-scheduler-green"}


def test_run_after_a_killed_handover_replaces_its_candidate(host: Programs) -> None:
    execute(host, text(handover(), "scheduler.start"))
    found = plan(interrupted(), SCHEDULER)

    assert execute(host, text(found, "scheduler.start"), text(found, "scheduler.cutover")) == [0, 0]
    assert running(host) == {"shop-scheduler-green"}


def test_undo_after_a_killed_handover_returns_to_the_color_of_the_flag(host: Programs) -> None:
    execute(host, text(handover(), "scheduler.start"))
    found = plan(interrupted(), SCHEDULER)
    execute(host, text(found, "scheduler.start"))

    assert execute(host, undo(found, "scheduler.start")) == [0]
    assert running(host) == {"shop-scheduler-blue"}
