"""Which release a rollback goes to: histories in, a release or a finding out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine.model import (
    Color,
    Container,
    HostState,
    Image,
    Lock,
    Outcome,
    Release,
    RolloutPolicy,
    ServiceRelease,
)
from rolling_upgrade.engine.plan import Plan
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.preflight import Finding
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.rollback import selection
from tests.support.sample import application, backend, image
from tests.support.states import container, ids, outdated, text, upgradable, wanted


def digest(tag: str) -> str:
    return "sha256:" + tag.encode().hex().ljust(64, "0")


def release(id: str, tag: str, **changes: object) -> Release:
    """A history line: the deploy `id` of images with this tag."""
    services = (("backend", ServiceRelease(f"r.test:5000/shop/backend:{tag}", digest(tag), Color.BLUE, "spec")),)
    values: dict[str, object] = {"id": id, "time": "t", "action": "deploy", "outcome": Outcome.GOOD}
    return Release(**(values | {"services": services} | changes))  # type: ignore[arg-type]


def back(id: str, tag: str, target: str, left: str) -> Release:
    return release(id, tag, action="rollback", target=target, left=left)


def host(*releases: Release, runs: str, lock: Lock | None = None) -> HostState:
    """A host with this history whose backend is of this tag."""
    one = Container("c", "backend", Color.BLUE, True, "running", image=Image("r/b", runs, digest(runs)), spec="spec")
    return HostState("web1", containers=(one,), releases=releases, lock=lock)


def chosen(state: HostState, named: str = "") -> str:
    found = selection.choose(state, named)
    return found.id if isinstance(found, Release) else found.problem


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (host(release("A", "v1"), release("B", "v2"), runs="v2"), "A"),
        (host(release("A", "v1"), release("B", "v2", outcome=Outcome.UNDONE), release("C", "v3"), runs="v3"), "A"),
        (
            host(release("A", "v1"), release("B", "v2"), back("R", "v1", "A", "B"), release("C", "v3"), runs="v3"),
            "A",
        ),
        (host(release("A", "v1"), release("B", "v2"), release("B2", "v2"), runs="v2"), "A"),
        (host(release("A", "v1"), release("B", "v2"), release("A2", "v1"), runs="v1"), "B"),
        # The container is gone: what it was made of is still what is left.
        (replace(host(release("A", "v1"), release("B", "v2"), runs="v2"), containers=()), "A"),
        (
            replace(host(release("A", "v1"), release("B", "v2"), back("R", "v1", "A", "B"), runs="v1"), containers=()),
            "there is no earlier good release to go back to",
        ),
        # A deploy that died between two services: what runs is no release, the last good one is the way back.
        (host(release("A", "v1"), release("B", "v2"), runs="v3"), "B"),
        # Named by hand, passed its gate again: no longer bad.
        (
            host(
                release("A", "v1"),
                release("B", "v2"),
                back("R", "v1", "A", "B"),
                back("S", "v2", "B", "A"),
                release("C", "v3"),
                runs="v3",
            ),
            "B",
        ),
        (host(release("A", "v1"), release("S", "v1", action="restore"), release("B", "v2"), runs="v2"), "A"),
    ],
)
def test_choose_history_gives_the_last_good_release_that_does_not_run(state: HostState, expected: str) -> None:
    assert chosen(state) == expected


@pytest.mark.parametrize(
    "state",
    [
        host(runs="v1"),
        host(release("A", "v1"), runs="v1"),
        host(release("A", "v1", outcome=Outcome.UNDONE), release("B", "v2"), runs="v2"),
        host(release("A", "v1"), release("B", "v2"), back("R", "v1", "A", "B"), runs="v1"),
    ],
)
def test_choose_without_an_earlier_good_release_is_refused(state: HostState) -> None:
    assert chosen(state) == "there is no earlier good release to go back to"


def test_choose_after_a_rollback_that_died_resumes_to_its_target() -> None:
    """Half of it is done: no release runs, and the newest good one is the one that was being left."""
    dead = Lock("t", "ann", "laptop", 1, "rollback to A", 0, 0, target="A")

    assert chosen(host(release("A", "v1"), release("B", "v2"), runs="half", lock=dead)) == "A"


def test_choose_reads_no_target_out_of_the_reason_of_a_lock() -> None:
    dead = Lock("t", "ann", "laptop", 1, "rollback to A", 0, 0)

    assert chosen(host(release("A", "v1"), release("B", "v2"), runs="half", lock=dead)) == "B"


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ({"web1": "A", "web2": "A"}, "rollback to A"),
        ({"web1": "A", "web2": "B"}, "rollback to web1=A web2=B"),
    ],
)
def test_reason_names_one_target_or_each_hosts_own(targets: dict[str, str], reason: str) -> None:
    assert selection.reason(targets) == reason


@pytest.mark.parametrize(("named", "expected"), [("A", "A"), ("v1", "A2"), ("v2", "B"), ("C", "C"), ("v3", "C")])
def test_choose_named_release_or_tag_is_taken(named: str, expected: str) -> None:
    history = (
        release("A", "v1"),
        release("A2", "v1"),
        release("B", "v2"),
        release("C", "v3"),
        back("R", "v2", "B", "C"),
    )

    assert chosen(host(*history, runs="v2"), named) == expected


def test_choose_named_release_that_was_undone_is_refused_and_says_why() -> None:
    state = host(release("A", "v1"), release("B", "v2", outcome=Outcome.UNDONE), runs="v1")

    found = selection.choose(state, "v2")

    assert isinstance(found, Finding)
    assert "never passed its gate" in found.problem
    assert "A (v1)" in found.remedy


def test_choose_unknown_name_lists_the_good_ones() -> None:
    found = selection.choose(host(release("A", "v1"), runs="v1"), "v9")

    assert isinstance(found, Finding)
    assert "no release 'v9'" in found.problem
    assert "A (v1)" in found.remedy


def test_unavailable_image_and_environment_are_each_a_finding() -> None:
    found = selection.unavailable(
        "web1",
        release("A", "v1"),
        application(),
        "backend env no\nbackend image registry\nfrontend env yes\nfrontend image no\n",
    )

    assert [one.problem.split(" of ")[0] for one in found] == ["backend: the environment", "frontend: the image"]


def test_unavailable_silence_counts_as_gone() -> None:
    assert len(selection.unavailable("web1", release("A", "v1"), application(), "")) == 4


def going_back(state: HostState) -> Plan:
    app = application()
    return plan_deploy(state, replace(wanted(app), action="rollback", target="r0", left="r1"), RolloutPolicy())


def test_plan_rollback_observes_the_host_by_the_application_that_runs_there() -> None:
    earlier, today = application(database="/old/shop.db"), application(database="/srv/new/shop.db")
    spec = replace(wanted(earlier), action="rollback", target="r0", left="r1", observed=today)

    (step,) = plan_deploy(host(release("r0", "v1"), release("r1", "v2"), runs="v2"), spec, RolloutPolicy()).acquire

    assert ("/srv/new/shop.db" in step.script.text, "/old/shop.db" in step.script.text) == (True, False)


def test_plan_rollback_with_kept_containers_starts_them_and_prepares_nothing() -> None:
    kept = tuple(container(service, Color.GREEN, running=False, status="exited") for service in application().services)
    state = upgradable(application())

    found = going_back(replace(state, containers=(*state.containers, *kept)))

    assert found.prepare == ()
    assert ids(found)[:2] == ["backend.start", "backend.cutover"]
    assert "podman start shop-backend-green" in text(found, "backend.start")
    assert "podman run" not in text(found, "backend.start")


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": "other"},
        {"image": image("backend", "v2", "sha256:" + "9" * 64)},
        {"running": True},
        {"release": "undone"},
    ],
)
def test_plan_rollback_container_of_another_release_is_not_taken(changes: dict[str, object]) -> None:
    kept = container(backend(), Color.GREEN, **({"running": False, "status": "exited"} | changes))
    state = upgradable(application())

    found = going_back(replace(state, containers=(*state.containers, kept)))

    assert "podman run" in text(found, "backend.start")


def test_plan_rollback_without_kept_containers_pulls_and_leaves_data_alone() -> None:
    assert [step.id for step in going_back(upgradable(application())).prepare] == ["pull"]


def test_plan_rollback_records_where_it_went_and_what_it_left() -> None:
    record = going_back(upgradable(application())).record

    assert record is not None
    assert (record.action, record.target, record.left) == ("rollback", "r0", "r1")


def test_plan_deploy_never_takes_a_kept_container() -> None:
    kept = container(backend(), Color.GREEN, running=False, status="exited")
    state = replace(upgradable(application()), containers=(outdated(backend()), kept))

    found = plan_deploy(state, wanted(application()), RolloutPolicy())

    assert "podman run" in text(found, "backend.start")


def test_content_of_a_deploy_is_what_its_history_line_says() -> None:
    app = application()
    found = plan_deploy(upgradable(app), wanted(app), RolloutPolicy())

    assert found.record is not None
    assert found.record.content == frozenset(
        (one.name, one.image.digest, spec_hash("shop", one)) for one in app.services
    )


def test_current_of_a_rollback_that_died_after_its_cutover_is_what_it_left() -> None:
    dead = Lock("t", "ann", "laptop", 1, "rollback to A", 0, 0, target="A")
    history = (release("A", "v1"), release("B", "v2"))

    found = selection.current(host(*history, runs="v1", lock=dead))
    again = selection.current(host(*history, release("C", "v3"), back("R", "v2", "B", "C"), runs="v1", lock=dead))

    assert [one and one.id for one in (found, again)] == ["B", "B"]
