"""The plan of a deploy: states of a host in; choices, steps and their order out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine.model import Color, HostState, Image, Outcome
from rolling_upgrade.engine.plan import Change
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
BOTH = ["backend.start", "backend.cutover", "frontend.start", "frontend.cutover", "verify", "drain"]
FIRST = ["backend.start", "frontend.start", "site", "backend.cutover", "frontend.cutover", "verify", "drain"]


def with_containers(*containers: object, **changes: object) -> HostState:
    return replace(as_wanted(APP), containers=containers, **changes)  # type: ignore[arg-type]


def test_plan_bare_host_starts_everything_before_the_site_and_the_cutovers() -> None:
    found = plan(HostState("web1"))

    assert ids(found) == FIRST
    assert {one.change for one in found.services} == {Change.FIRST}
    assert {one.color for one in found.services} == {Color.BLUE}


def test_plan_outdated_host_rolls_service_after_service_in_their_order() -> None:
    found = plan(UP)

    assert ids(found) == BOTH
    assert {(one.change, one.color, one.current_color) for one in found.services} == {
        (Change.REPLACE, Color.GREEN, Color.BLUE)
    }


def test_plan_green_host_goes_to_blue() -> None:
    containers = tuple(outdated(service, Color.GREEN) for service in APP.services)
    flags = (("backend", Color.GREEN), ("frontend", Color.GREEN))

    found = plan(replace(UP, containers=containers, active=flags))

    assert {one.color for one in found.services} == {Color.BLUE}
    assert text(found, "backend.cutover").count("rm -f /var/lib/shop/live/backend.green") == 1


def test_plan_host_as_wanted_is_empty() -> None:
    found = plan(as_wanted(APP))

    assert (found.empty, found.prepare, found.finalize) == (True, (), ())
    assert {one.change for one in found.services} == {Change.KEEP}


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


def test_plan_one_outdated_service_leaves_the_other_alone() -> None:
    found = plan(with_containers(outdated(backend()), container(frontend())))

    assert ids(found) == ["backend.start", "backend.cutover", "verify", "drain"]
    assert choice(found, "frontend").change is Change.KEEP


def test_plan_changed_environment_alone_names_the_keys_and_no_value() -> None:
    now = application(backend(env=(("SECRET_KEY", "hunter2"), ("NEW", "x"))), frontend())

    found = plan(as_wanted(APP), now)

    one = choice(found, "backend")
    assert (one.change, one.reasons) == (Change.REPLACE, ("another configuration",))
    assert one.env_changes == ("-LEVEL", "+NEW", "~SECRET_KEY")
    assert "hunter2" not in repr(found.services)


def test_plan_forced_replaces_what_is_as_wanted() -> None:
    found = plan(as_wanted(APP), force=True)

    assert ids(found) == BOTH
    assert {one.reasons for one in found.services} == {("forced",)}


def test_plan_force_is_no_reason_where_there_is_one() -> None:
    assert choice(plan(UP, force=True), "backend").reasons == ("another image",)


def test_plan_stopped_active_container_is_started_anew_in_the_other_color() -> None:
    stopped = container(backend(), running=False, status="exited")

    found = plan(with_containers(stopped, container(frontend())))

    one = choice(found, "backend")
    assert (one.change, one.color, one.reasons) == (Change.FIRST, Color.GREEN, ("it does not run (exited)",))


def test_plan_running_left_over_color_is_drained_and_named() -> None:
    state = with_containers(*as_wanted(APP).containers, outdated(backend(), Color.GREEN))

    found = plan(state)

    assert ids(found) == ["verify", "drain"]
    assert "shop-backend-green" in text(found, "drain")
    assert "shop-backend-green runs without serving: it is drained and stopped" in found.notes


def test_plan_run_killed_before_its_cutover_starts_over_in_the_same_color() -> None:
    half_way = replace(UP, containers=(*UP.containers, container(backend(), Color.GREEN)))

    found = plan(half_way)

    assert ids(found) == BOTH
    assert choice(found, "backend").color is Color.GREEN
    assert "shop-backend-green" not in text(found, "drain")


def test_plan_run_killed_between_two_services_goes_on_with_the_second() -> None:
    half_way = replace(
        UP,
        containers=(container(backend(), Color.GREEN), *UP.containers),
        active=(("backend", Color.GREEN),),
    )

    found = plan(half_way)

    assert ids(found) == ["frontend.start", "frontend.cutover", "verify", "drain"]
    assert "shop-backend-blue" in text(found, "drain")


def test_plan_run_killed_before_its_record_verifies_and_records() -> None:
    found = plan(replace(as_wanted(APP), releases=()))

    assert (ids(found), [step.id for step in found.prepare]) == (["verify", "drain"], ["backup"])
    assert "every service is as wanted: the release is verified and recorded" in found.notes


def test_plan_new_site_text_alone_is_installed_and_verified() -> None:
    found = plan(replace(as_wanted(APP), live_site_hash="another"))

    assert ids(found) == ["site", "verify", "drain"]
    assert found.notes[0] == "the Nginx site text changes: it is installed and Nginx reloaded"


def test_plan_site_that_was_never_live_is_said_so() -> None:
    assert "is not live yet" in plan(HostState("web1")).notes[0]


def test_plan_new_site_comes_before_a_replacing_cutover() -> None:
    assert ids(plan(replace(UP, live_site_hash="another"))) == ["site", *BOTH]


def test_plan_third_service_is_one_more_start_and_cutover() -> None:
    worker = frontend(name="worker", image=image("worker"), service_port=7002, alias="", routes=())
    three = application(backend(), worker, frontend())

    found = plan(replace(UP, live_site_hash="another"), three)

    assert ids(found) == [
        "worker.start",
        "site",
        "worker.cutover",
        *BOTH,
    ]


@pytest.mark.parametrize("state", [HostState("web1"), UP, replace(UP, live_site_hash="another")])
def test_plan_every_service_starts_before_its_cutover_and_the_end_is_verify_then_drain(state: HostState) -> None:
    found = ids(plan(state))

    assert found[-2:] == ["verify", "drain"]
    for name in ("backend", "frontend"):
        assert found.index(f"{name}.start") < found.index(f"{name}.cutover") < found.index("verify")


@pytest.mark.parametrize("state", [HostState("web1"), UP])
def test_plan_backend_is_cut_over_before_the_frontend(state: HostState) -> None:
    found = ids(plan(state))

    assert found.index("backend.cutover") < found.index("frontend.cutover")


@pytest.mark.parametrize("state", [HostState("web1"), UP, replace(UP, live_site_hash="another")])
def test_plan_undo_stands_where_something_changed_and_nowhere_else(state: HostState) -> None:
    found = plan(state)

    with_undo = {step.id for step in found.steps if step.undo is not None}
    assert with_undo == set(ids(found)) - {"verify", "drain"}
    assert all(step.undo_title for step in found.steps if step.undo is not None)


def test_plan_prepare_backs_up_and_pulls_what_changes_alone() -> None:
    found = plan(with_containers(outdated(backend()), container(frontend())))

    assert [step.id for step in found.prepare] == ["backup", "pull"]
    assert "shop/backend@" in found.prepare[1].script.text
    assert "shop/frontend@" not in found.prepare[1].script.text


def test_plan_undo_of_a_start_stops_the_candidate_and_keeps_it() -> None:
    words = undo(plan(UP), "backend.start")

    assert "podman stop --ignore --time 4 shop-backend-green" in words
    assert "podman rm" not in words


def test_plan_undo_of_a_cutover_starts_the_old_color_before_it_flips_back() -> None:
    words = undo(plan(UP), "backend.cutover")

    assert words.index("podman start shop-backend-blue") < words.index("rm -f /var/lib/shop/live/backend.green")


def test_plan_undo_of_a_cutover_never_starts_what_did_not_run() -> None:
    stopped = container(backend(), running=False, status="exited")

    words = undo(plan(with_containers(stopped, container(frontend()))), "backend.cutover")

    assert "podman start" not in words
    assert "rm -f /var/lib/shop/live/backend.green" in words


def test_plan_undo_of_a_first_cutover_flips_nothing() -> None:
    assert "live/backend.green" not in undo(plan(HostState("web1")), "backend.cutover")


def test_plan_drain_never_stops_a_color_that_serves_afterwards() -> None:
    words = text(plan(UP), "drain")

    assert ("shop-backend-blue" in words, "shop-backend-green" in words) == (True, False)


def test_plan_verify_asks_every_service_the_chain_and_the_public_site() -> None:
    words = text(plan(UP), "verify")

    assert "127.0.0.1:28080" in words
    assert "127.0.0.1:27001" in words
    assert "http://127.0.0.1:7001/api/health" in words
    assert "shop.test:80:127.0.0.1" in words


def test_plan_verify_of_a_kept_service_asks_for_the_color_that_serves() -> None:
    words = text(plan(with_containers(outdated(backend()), container(frontend()))), "verify")

    assert ("127.0.0.1:17001)" in words, "127.0.0.1:27001)" in words) == (True, False)


def test_plan_verify_failure_flips_back_in_reverse_order() -> None:
    words = text(plan(UP), "verify")

    assert words.index("live/frontend.green") < words.index("live/backend.green")


def test_plan_verify_has_time_for_its_bake() -> None:
    verify = next(step for step in plan(UP, bake=300).steps if step.id == "verify")

    assert verify.timeout_seconds > 315


def test_plan_start_has_time_for_its_gate_and_a_stop() -> None:
    start = plan(UP).steps[0]

    assert start.timeout_seconds > backend().gate.deadline_seconds + backend().drain.stop_seconds


def test_plan_record_says_what_will_run() -> None:
    record = plan(UP).record

    assert record is not None
    assert (record.id, record.outcome, record.owner) == ("r2", Outcome.GOOD, "ann")
    assert {name: (run.digest, run.color) for name, run in record.services} == {
        "backend": (image("backend").digest, Color.GREEN),
        "frontend": (image("frontend").digest, Color.GREEN),
    }


def test_plan_finish_records_then_unlocks_then_tidies() -> None:
    words = plan(UP).finalize[-1].script.text

    assert words.index("releases.jsonl") < words.index("lock/held" if "lock/held" in words else "rm -f held")
    assert words.index("rm -f held") < words.index("podman images")


def test_plan_tidy_keeps_the_image_that_ran_before() -> None:
    app = application()
    before = replace(
        recorded(app), services=tuple((n, replace(r, digest="sha256:before")) for n, r in recorded(app).services)
    )

    words = plan(replace(UP, releases=(before,))).finalize[-1].script.text

    assert "sha256:before" in words
    assert image("backend").digest in words


def test_plan_tidy_keeps_the_image_that_serves_though_a_bad_release_came_after() -> None:
    good = recorded(APP)
    bad = replace(good, id="r1b", outcome=Outcome.UNDONE, services=())

    words = plan(replace(UP, releases=(good, bad, bad, bad, bad))).finalize[-1].script.text

    assert dict(good.services)["backend"].digest in words


def test_plan_secrets_are_marked_for_masking() -> None:
    start = plan(UP).steps[0]

    assert start.script.secrets
    assert not any(secret in start.script.masked for secret in start.script.secrets)


def test_plan_without_a_resolved_digest_is_refused() -> None:
    unresolved = application(backend(image=Image("registry.test:5000/shop/backend", "v2")), frontend())

    with pytest.raises(ValueError, match="has no digest yet"):
        plan(HostState("web1"), unresolved)


def test_plan_new_site_text_shows_the_lines_that_change() -> None:
    before = "# rolling-site: another\n    client_max_body_size 1;\n"

    found = plan(replace(as_wanted(APP), live_site_hash="another", site=before))

    assert "Nginx - client_max_body_size 1;" in found.notes
    assert not any("rolling-site" in note for note in found.notes)


STANDBY = "/var/lib/shop/live/backend.standby"


def test_plan_colors_stand_in_for_each_other_from_the_cutover_to_the_drain() -> None:
    found = plan(UP)
    cutover, drain = text(found, "backend.cutover"), text(found, "drain")

    assert 0 < cutover.index(f": > {STANDBY}") < cutover.index(": > /var/lib/shop/live/backend.green")
    assert drain.index(f"rm -f {STANDBY}") < drain.index("podman stop --ignore --time 4 shop-backend-blue")


def test_plan_idle_port_is_never_reached_before_its_color_has_passed_its_gate() -> None:
    start = text(plan(UP), "backend.start")

    assert start.index(f"rm -f {STANDBY}") < start.index("podman rm --force --ignore shop-backend-green")
    assert f": > {STANDBY}" not in start


def test_plan_undo_ends_the_standby_before_it_stops_the_candidate() -> None:
    back = undo(plan(UP), "backend.start")

    assert back.index(f"rm -f {STANDBY}") < back.index("podman stop")


@pytest.mark.parametrize(
    "state",
    [
        HostState("web1"),
        with_containers(replace(outdated(backend()), running=False, status="exited"), outdated(frontend())),
    ],
)
def test_plan_nothing_stands_in_where_nothing_served_before(state: HostState) -> None:
    assert f": > {STANDBY}" not in "".join(step.script.text for step in plan(state).steps)
