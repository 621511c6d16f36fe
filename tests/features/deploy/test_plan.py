"""The plan of a deploy: choices, steps and their order for given host states."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine.jobs import content_hash
from rolling_upgrade.engine.model import Color, HostState, Image, Job, Outcome, Service, Start
from rolling_upgrade.engine.plan import Change, Plan, step_groups
from tests.support.sample import application, backend, frontend, image
from tests.support.states import (
    as_wanted,
    choice,
    container,
    ids,
    outdated,
    plan,
    recorded,
    text,
    undo,
    upgradable,
)

APP = application()
UP = upgradable(APP)
BOTH = ["backend.start", "frontend.start", "backend.cutover", "frontend.cutover", "verify", "drain"]
FIRST = ["backend.start", "frontend.start", "site", "backend.cutover", "frontend.cutover", "verify", "drain"]


def with_containers(*containers: object, **changes: object) -> HostState:
    return replace(as_wanted(APP), containers=containers, **changes)  # type: ignore[arg-type]


def test_plan_on_empty_host_starts_everything_before_site_and_cutovers() -> None:
    result = plan(HostState("web1"))

    assert ids(result) == FIRST
    assert {service.change for service in result.services} == {Change.FIRST}
    assert {service.color for service in result.services} == {Color.BLUE}


def together(found: Plan) -> list[tuple[str, ...]]:
    """Return the ids of the steps that run at the same time."""
    return [tuple(step.id for step in group) for group in step_groups(found.steps) if len(group) > 1]


def test_plan_on_outdated_host_starts_all_services_before_the_cutovers() -> None:
    result = plan(UP)

    assert ids(result) == BOTH
    assert {(service.change, service.color, service.current_color) for service in result.services} == {
        (Change.REPLACE, Color.GREEN, Color.BLUE)
    }


def test_plan_on_green_host_starts_blue() -> None:
    containers = tuple(outdated(service, Color.GREEN) for service in APP.services)
    flags = (("backend", Color.GREEN), ("frontend", Color.GREEN))

    result = plan(replace(UP, containers=containers, active=flags))

    assert {service.color for service in result.services} == {Color.BLUE}
    assert text(result, "backend.cutover").count("rm -f /var/lib/shop/live/backend.green") == 1


def test_plan_on_current_host_is_empty() -> None:
    result = plan(as_wanted(APP))

    assert (result.empty, result.prepare, result.finalize) == (True, (), ())
    assert {service.change for service in result.services} == {Change.KEEP}


def test_plan_made_twice_is_equal() -> None:
    assert plan(UP) == plan(UP)


def test_plan_after_its_own_success_is_empty() -> None:
    after = with_containers(
        container(backend(), Color.GREEN, release="r2"),
        outdated(backend(), Color.BLUE, running=False, status="exited"),
        container(frontend(), Color.GREEN, release="r2"),
        active=(("backend", Color.GREEN), ("frontend", Color.GREEN)),
        releases=(recorded(APP, Color.GREEN),),
    )

    assert plan(after).empty


JOB = Job("cleanup", "backend", ("./clean",), "0 3 * * *", ("*-*-* 03:00:00",))
SCHEDULED = replace(APP, jobs=(JOB,))


def test_plan_schedules_jobs_after_the_verification_and_undoes_it() -> None:
    result = plan(UP, SCHEDULED)

    assert ids(result) == [*BOTH[:-1], "jobs", "drain"]
    assert result.steps[-1].title == "schedule the jobs cleanup"
    assert "current" in undo(result, "jobs")


def test_plan_with_only_other_jobs_starts_no_container() -> None:
    result = plan(as_wanted(APP), SCHEDULED)

    assert ids(result) == ["verify", "jobs", "drain"]
    assert {service.change for service in result.services} == {Change.KEEP}


def test_plan_with_the_same_jobs_is_empty_and_without_them_removes_their_timers() -> None:
    state = as_wanted(APP)
    scheduled = replace(state, facts=(*state.facts, ("jobs", content_hash(SCHEDULED))))

    assert plan(scheduled, SCHEDULED).empty
    assert plan(scheduled).steps[-1].title == "remove the timers of the jobs"


def test_plan_with_one_outdated_service_keeps_the_other() -> None:
    result = plan(with_containers(outdated(backend()), container(frontend())))

    assert ids(result) == ["backend.start", "backend.cutover", "verify", "drain"]
    assert choice(result, "frontend").change is Change.KEEP


def test_plan_with_changed_environment_names_keys_without_values() -> None:
    now = application(backend(env=(("SECRET_KEY", "hunter2"), ("NEW", "x"))), frontend())

    result = plan(as_wanted(APP), now)

    backend_plan = choice(result, "backend")
    assert (backend_plan.change, backend_plan.reasons) == (Change.REPLACE, ("the configuration differs",))
    assert backend_plan.env_changes == ("-LEVEL", "+NEW", "~SECRET_KEY")
    assert "hunter2" not in repr(result.services)


def test_forced_plan_replaces_current_services() -> None:
    result = plan(as_wanted(APP), force=True)

    assert ids(result) == BOTH
    assert {service.reasons for service in result.services} == {("forced",)}


def test_forced_plan_of_outdated_service_keeps_its_reason() -> None:
    assert choice(plan(UP, force=True), "backend").reasons == ("the image differs",)


def test_plan_with_stopped_active_container_starts_the_other_color() -> None:
    stopped = container(backend(), running=False, status="exited")

    result = plan(with_containers(stopped, container(frontend())))

    backend_plan = choice(result, "backend")
    assert (backend_plan.change, backend_plan.color, backend_plan.reasons) == (
        Change.FIRST,
        Color.GREEN,
        ("its container is not running (exited)",),
    )


def test_plan_with_leftover_running_color_drains_and_reports_it() -> None:
    state = with_containers(*as_wanted(APP).containers, outdated(backend(), Color.GREEN))

    result = plan(state)

    assert ids(result) == ["verify", "drain"]
    assert "shop-backend-green" in text(result, "drain")
    assert "shop-backend-green is running but not active: it will be drained and stopped" in result.notes


def test_plan_after_kill_before_cutover_starts_the_same_color() -> None:
    half_way = replace(UP, containers=(*UP.containers, container(backend(), Color.GREEN)))

    result = plan(half_way)

    assert ids(result) == BOTH
    assert choice(result, "backend").color is Color.GREEN
    assert "shop-backend-green" not in text(result, "drain")


def test_plan_after_kill_between_services_continues_with_the_second() -> None:
    half_way = replace(
        UP,
        containers=(container(backend(), Color.GREEN), *UP.containers),
        active=(("backend", Color.GREEN),),
    )

    result = plan(half_way)

    assert ids(result) == ["frontend.start", "frontend.cutover", "verify", "drain"]
    assert "shop-backend-blue" in text(result, "drain")


def test_plan_after_kill_while_all_candidates_start_starts_them_again_together() -> None:
    candidates = tuple(container(service, Color.GREEN) for service in APP.services)

    result = plan(replace(UP, containers=(*UP.containers, *candidates)))

    assert together(result) == [("backend.start", "frontend.start")]
    for service in ("backend", "frontend"):
        start = text(result, f"{service}.start")
        assert start.index(f"drain {service} green") < start.index(f"--replace --name shop-{service}-green")


def test_plan_after_kill_before_record_verifies_and_records() -> None:
    result = plan(replace(as_wanted(APP), releases=()))

    assert (ids(result), [step.id for step in result.prepare]) == (["verify", "drain"], ["backup"])
    assert "every service is up to date: the release will be verified and recorded" in result.notes


def test_plan_with_new_site_text_installs_and_verifies_it() -> None:
    result = plan(replace(as_wanted(APP), live_site_hash="another"))

    assert ids(result) == ["site", "verify", "drain"]
    assert result.notes[0] == "the Nginx site changes: it will be installed and Nginx reloaded"


def test_plan_with_site_that_was_never_live_says_so() -> None:
    assert "is not live yet" in plan(HostState("web1")).notes[0]


def test_plan_installs_new_site_before_replacing_services() -> None:
    assert ids(plan(replace(UP, live_site_hash="another"))) == [*BOTH[:2], "site", *BOTH[2:]]


def worker(**changes: object) -> Service:
    return frontend(name="worker", image=image("worker"), service_port=7002, alias="worker", routes=(), **changes)


def after_previous(service: Service) -> Service:
    return replace(service, start=Start.AFTER_PREVIOUS)


def test_plan_with_new_service_starts_it_first_and_alone() -> None:
    """The candidates of the other services may need its name."""
    result = plan(replace(UP, live_site_hash="another"), application(backend(), worker(), frontend()))

    assert ids(result) == ["worker.start", *BOTH[:2], "site", "worker.cutover", *BOTH[2:]]
    assert together(result) == [("backend.start", "frontend.start")]


def test_plan_of_one_service_has_no_group() -> None:
    assert together(plan(with_containers(outdated(backend()), container(frontend())))) == []


def test_plan_on_empty_host_starts_services_one_by_one() -> None:
    assert together(plan(HostState("web1"))) == []


@pytest.mark.parametrize("state", [UP, replace(UP, live_site_hash="another")])
def test_plan_after_previous_starts_after_the_cutover_of_those_before(state: HostState) -> None:
    result = plan(state, application(backend(), after_previous(frontend())))

    assert [step for step in ids(result) if step != "site"] == [
        "backend.start",
        "backend.cutover",
        "frontend.start",
        "frontend.cutover",
        "verify",
        "drain",
    ]
    assert together(result) == []


def test_plan_in_waves_installs_the_site_once_before_the_first_cutover() -> None:
    result = plan(HostState("web1"), application(backend(), after_previous(frontend())))

    assert ids(result)[:5] == ["backend.start", "site", "backend.cutover", "frontend.start", "frontend.cutover"]
    assert ids(result).count("site") == 1


def test_plan_services_behind_an_after_previous_one_start_with_it() -> None:
    app = application(backend(), after_previous(worker()), frontend())
    state = replace(UP, containers=tuple(outdated(service) for service in app.services))

    result = plan(state, app)

    assert ids(result)[:6] == [
        "backend.start",
        "backend.cutover",
        "worker.start",
        "frontend.start",
        "worker.cutover",
        "frontend.cutover",
    ]
    assert together(result) == [("worker.start", "frontend.start")]


def test_plan_after_previous_behind_unchanged_services_starts_at_once() -> None:
    app = application(backend(), after_previous(worker()), frontend())
    state = replace(UP, containers=(container(backend()), outdated(worker()), outdated(frontend())))

    assert together(plan(state, app)) == [("worker.start", "frontend.start")]


def test_plan_new_service_with_after_previous_starts_after_the_cutover_of_those_before() -> None:
    app = application(backend(), frontend(), after_previous(worker()))

    assert ids(plan(UP, app))[:6] == [*BOTH[:4], "worker.start", "worker.cutover"]


def test_plan_start_after_previous_replaces_no_container() -> None:
    app = application(after_previous(backend()), after_previous(frontend()))

    assert plan(as_wanted(APP), app).empty


@pytest.mark.parametrize("state", [HostState("web1"), UP, replace(UP, live_site_hash="another")])
def test_plan_starts_each_service_before_cutover_and_ends_with_verify_and_drain(state: HostState) -> None:
    steps = ids(plan(state))

    assert steps[-2:] == ["verify", "drain"]
    for name in ("backend", "frontend"):
        assert steps.index(f"{name}.start") < steps.index(f"{name}.cutover") < steps.index("verify")


@pytest.mark.parametrize("state", [HostState("web1"), UP])
def test_plan_cuts_over_services_in_order(state: HostState) -> None:
    steps = ids(plan(state))

    assert steps.index("backend.cutover") < steps.index("frontend.cutover")


@pytest.mark.parametrize("state", [HostState("web1"), UP, replace(UP, live_site_hash="another")])
def test_plan_has_an_undo_for_each_changing_step_only(state: HostState) -> None:
    result = plan(state)

    with_undo = {step.id for step in result.steps if step.undo is not None}
    assert with_undo == set(ids(result)) - {"verify", "drain"}
    assert all(step.undo_title for step in result.steps if step.undo is not None)


def test_candidate_gets_the_alias_in_its_cutover_and_must_answer_again_before_the_flip() -> None:
    result = plan(UP)
    start, cutover = text(result, "backend.start"), text(result, "backend.cutover")

    assert "network connect" not in start
    alias = cutover.index("podman network connect --alias backend --alias backend-green shop-network")
    recheck = cutover.index("http://127.0.0.1:28080/api/health")
    assert alias < recheck < cutover.index(": > /var/lib/shop/live/backend.green")


def test_candidate_of_a_service_that_nothing_serves_gets_the_alias_after_its_gate() -> None:
    result = plan(HostState("web1"))
    start, cutover = text(result, "backend.start"), text(result, "backend.cutover")

    assert start.index("/api/health") < start.index("podman network connect --alias backend --alias backend-blue")
    assert "network connect" not in cutover


def test_network_is_created_once_before_any_start() -> None:
    result = plan(UP)

    creating = [
        step.id for step in (*result.prepare, *result.steps) if "network create shop-network" in step.script.text
    ]
    assert creating == ["pull"]


def test_prepare_backs_up_and_pulls_only_changed_images() -> None:
    result = plan(with_containers(outdated(backend()), container(frontend())))

    assert [step.id for step in result.prepare] == ["backup", "pull"]
    assert "shop/backend@" in result.prepare[1].script.text
    assert "shop/frontend@" not in result.prepare[1].script.text


def test_undo_of_start_stops_and_keeps_the_candidate() -> None:
    script = undo(plan(UP), "backend.start")

    assert "podman stop --ignore --time 4 shop-backend-green" in script
    assert "podman rm" not in script


def test_undo_of_cutover_starts_the_old_color_before_the_flip() -> None:
    script = undo(plan(UP), "backend.cutover")

    assert script.index("podman start shop-backend-blue") < script.index("rm -f /var/lib/shop/live/backend.green")


def test_undo_of_cutover_does_not_start_a_stopped_color() -> None:
    stopped = container(backend(), running=False, status="exited")

    script = undo(plan(with_containers(stopped, container(frontend()))), "backend.cutover")

    assert "podman start" not in script
    assert "rm -f /var/lib/shop/live/backend.green" in script


def test_undo_of_first_cutover_flips_nothing() -> None:
    assert "live/backend.green" not in undo(plan(HostState("web1")), "backend.cutover")


def test_drain_stops_only_the_former_color() -> None:
    script = text(plan(UP), "drain")

    assert ("shop-backend-blue" in script, "shop-backend-green" in script) == (True, False)


def test_verify_probes_services_full_chain_and_public_site() -> None:
    script = text(plan(UP), "verify")

    assert "127.0.0.1:28080" in script
    assert "127.0.0.1:27001" in script
    assert "http://127.0.0.1:7001/api/health" in script
    assert "shop.test:80:127.0.0.1" in script


def test_verify_of_kept_service_probes_its_active_color() -> None:
    script = text(plan(with_containers(outdated(backend()), container(frontend()))), "verify")

    assert ("127.0.0.1:17001)" in script, "127.0.0.1:27001)" in script) == (True, False)


def test_failed_verify_flips_back_in_reverse_order() -> None:
    script = text(plan(UP), "verify")

    assert script.index("live/frontend.green") < script.index("live/backend.green")


def test_verify_timeout_includes_the_bake() -> None:
    verify = next(step for step in plan(UP, bake=300).steps if step.id == "verify")

    assert verify.timeout_seconds > 315


def test_start_timeout_includes_gate_and_stop() -> None:
    start = plan(UP).steps[0]

    assert start.timeout_seconds > backend().gate.deadline_seconds + backend().drain.stop_seconds


def test_record_has_digest_and_color_of_each_service() -> None:
    record = plan(UP).record

    assert record is not None
    assert (record.id, record.outcome, record.owner) == ("r2", Outcome.GOOD, "ann")
    assert {name: (run.digest, run.color) for name, run in record.services} == {
        "backend": (image("backend").digest, Color.GREEN),
        "frontend": (image("frontend").digest, Color.GREEN),
    }


def test_finalize_records_then_unlocks_then_prunes() -> None:
    script = plan(UP).finalize[-1].script.text

    assert script.index("releases.jsonl") < script.index("lock/held" if "lock/held" in script else "rm -f held")
    assert script.index("rm -f held") < script.index("podman images")


def test_cleanup_keeps_the_image_of_the_previous_release() -> None:
    app = application()
    before = replace(
        recorded(app), services=tuple((n, replace(r, digest="sha256:before")) for n, r in recorded(app).services)
    )

    script = plan(replace(UP, releases=(before,))).finalize[-1].script.text

    assert "sha256:before" in script
    assert image("backend").digest in script


def test_cleanup_after_undone_releases_keeps_the_serving_image() -> None:
    good = recorded(APP)
    bad = replace(good, id="r1b", outcome=Outcome.UNDONE, services=())

    script = plan(replace(UP, releases=(good, bad, bad, bad, bad))).finalize[-1].script.text

    assert dict(good.services)["backend"].digest in script


def test_plan_secrets_are_marked_for_masking() -> None:
    start = plan(UP).steps[0]

    assert start.script.secrets
    assert not any(secret in start.script.masked for secret in start.script.secrets)


def test_plan_without_a_resolved_digest_is_refused() -> None:
    unresolved = application(backend(image=Image("registry.test:5000/shop/backend", "v2")), frontend())

    with pytest.raises(ValueError, match="has no digest yet"):
        plan(HostState("web1"), unresolved)


def test_plan_with_new_site_text_shows_changed_lines() -> None:
    before = "# rolling-site: another\n    client_max_body_size 1;\n"

    result = plan(replace(as_wanted(APP), live_site_hash="another", site=before))

    assert "Nginx - client_max_body_size 1;" in result.notes
    assert not any("rolling-site" in note for note in result.notes)


STANDBY = "/var/lib/shop/live/backend.standby"


def test_standby_lasts_from_cutover_to_drain() -> None:
    result = plan(UP)
    cutover, drain = text(result, "backend.cutover"), text(result, "drain")

    assert 0 < cutover.index(f": > {STANDBY}") < cutover.index(": > /var/lib/shop/live/backend.green")
    assert drain.index(f"rm -f {STANDBY}") < drain.index("podman stop --ignore --time 4 shop-backend-blue")


def test_start_ends_standby_before_it_replaces_the_idle_color() -> None:
    start = text(plan(UP), "backend.start")

    assert start.index(f"rm -f {STANDBY}") < start.index(
        "podman run --detach --quiet --replace --name shop-backend-green"
    )
    assert f": > {STANDBY}" not in start


def test_undo_of_start_ends_standby_before_it_stops_the_candidate() -> None:
    back = undo(plan(UP), "backend.start")

    assert back.index(f"rm -f {STANDBY}") < back.index("podman stop")


@pytest.mark.parametrize(
    "state",
    [
        HostState("web1"),
        with_containers(replace(outdated(backend()), running=False, status="exited"), outdated(frontend())),
    ],
)
def test_standby_without_former_running_color_is_not_allowed(state: HostState) -> None:
    assert f": > {STANDBY}" not in "".join(step.script.text for step in plan(state).steps)
