"""The choice of a rollback's target from a history, and the plan of a rollback."""

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
from tests.support.states import RUN, container, ids, outdated, text, upgradable, wanted

#: The history line of a rollback that is planned.
ROLLBACK = replace(RUN, action="rollback", target="r0", left="r1")


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
    """A host with this history whose backend runs this tag."""
    container = Container(
        "c", "backend", Color.BLUE, True, "running", image=Image("r/b", runs, digest(runs)), spec="spec"
    )
    return HostState("web1", containers=(container,), releases=releases, lock=lock)


def choose(state: HostState, named: str = "") -> str:
    """Return the id of the chosen release, or the problem."""
    choice = selection.choose(state, named)
    return choice.id if isinstance(choice, Release) else choice.problem


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
        # The container is missing: the rollback still leaves its release.
        (replace(host(release("A", "v1"), release("B", "v2"), runs="v2"), containers=()), "A"),
        (
            replace(host(release("A", "v1"), release("B", "v2"), back("R", "v1", "A", "B"), runs="v1"), containers=()),
            "there is no earlier good release to roll back to",
        ),
        # A deploy died between two services: the host runs no release and goes back to the last good one.
        (host(release("A", "v1"), release("B", "v2"), runs="v3"), "B"),
        # An operator named it and it passed its gate again: no longer bad.
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
def test_choose_returns_the_last_good_release_that_is_not_running(state: HostState, expected: str) -> None:
    assert choose(state) == expected


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
    assert choose(state) == "there is no earlier good release to roll back to"


def test_choose_after_a_rollback_that_died_returns_its_target() -> None:
    """The rollback is half done: no release runs, and the newest good one is the release that it was leaving."""
    dead = Lock("t", "ann", "laptop", 1, "rollback to A", 0, 0, target="A")

    assert choose(host(release("A", "v1"), release("B", "v2"), runs="half", lock=dead)) == "A"


def test_choose_ignores_the_reason_of_a_lock() -> None:
    dead = Lock("t", "ann", "laptop", 1, "rollback to A", 0, 0)

    assert choose(host(release("A", "v1"), release("B", "v2"), runs="half", lock=dead)) == "B"


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ({"web1": "A", "web2": "A"}, "rollback to A"),
        ({"web1": "A", "web2": "B"}, "rollback to web1=A web2=B"),
    ],
)
def test_lock_reason_names_a_common_target_once(targets: dict[str, str], reason: str) -> None:
    assert selection.lock_reason(targets) == reason


@pytest.mark.parametrize(("named", "expected"), [("A", "A"), ("v1", "A2"), ("v2", "B"), ("C", "C"), ("v3", "C")])
def test_choose_by_name_returns_the_release_with_that_id_or_tag(named: str, expected: str) -> None:
    history = (
        release("A", "v1"),
        release("A2", "v1"),
        release("B", "v2"),
        release("C", "v3"),
        back("R", "v2", "B", "C"),
    )

    assert choose(host(*history, runs="v2"), named) == expected


def test_choose_by_name_of_an_undone_release_is_refused_with_reason() -> None:
    state = host(release("A", "v1"), release("B", "v2", outcome=Outcome.UNDONE), runs="v1")

    finding = selection.choose(state, "v2")

    assert isinstance(finding, Finding)
    assert "never passed its gate" in finding.problem
    assert "A (v1)" in finding.remedy


def test_choose_by_unknown_name_lists_the_good_releases() -> None:
    finding = selection.choose(host(release("A", "v1"), runs="v1"), "v9")

    assert isinstance(finding, Finding)
    assert "no release 'v9'" in finding.problem
    assert "A (v1)" in finding.remedy


def test_unavailable_image_and_environment_are_separate_findings() -> None:
    findings = selection.unavailable(
        "web1",
        release("A", "v1"),
        application(),
        "backend env no\nbackend image registry\nfrontend env yes\nfrontend image no\n",
    )

    assert [finding.problem.split(" of ")[0] for finding in findings] == [
        "backend: the environment",
        "frontend: the image",
    ]


def test_unavailable_with_empty_answer_reports_every_part() -> None:
    assert len(selection.unavailable("web1", release("A", "v1"), application(), "")) == 4


def plan_rollback(state: HostState) -> Plan:
    app = application()
    return plan_deploy(state, replace(wanted(app), record=ROLLBACK), RolloutPolicy())


def test_rollback_observes_the_host_with_the_current_application() -> None:
    earlier, current = application(database="/old/shop.db"), application(database="/srv/new/shop.db")
    spec = replace(wanted(earlier), record=ROLLBACK, observed=current)

    (step,) = plan_deploy(host(release("r0", "v1"), release("r1", "v2"), runs="v2"), spec, RolloutPolicy()).acquire

    assert ("/srv/new/shop.db" in step.script.text, "/old/shop.db" in step.script.text) == (True, False)


def test_rollback_with_kept_containers_starts_them_without_a_pull() -> None:
    kept = tuple(container(service, Color.GREEN, running=False, status="exited") for service in application().services)
    state = upgradable(application())

    plan = plan_rollback(replace(state, containers=(*state.containers, *kept)))

    assert plan.prepare == ()
    assert ids(plan)[:3] == ["backend.start", "frontend.start", "backend.cutover"]
    assert "podman start shop-backend-green" in text(plan, "backend.start")
    assert "podman run" not in text(plan, "backend.start")


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": "other"},
        {"image": image("backend", "v2", "sha256:" + "9" * 64)},
        {"running": True},
        {"release": "undone"},
    ],
)
def test_rollback_does_not_start_a_container_of_another_release(changes: dict[str, object]) -> None:
    kept = container(backend(), Color.GREEN, **({"running": False, "status": "exited"} | changes))  # type: ignore[arg-type]
    state = upgradable(application())

    plan = plan_rollback(replace(state, containers=(*state.containers, kept)))

    assert "podman run" in text(plan, "backend.start")


def test_rollback_without_kept_containers_pulls_and_takes_no_backup() -> None:
    assert [step.id for step in plan_rollback(upgradable(application())).prepare] == ["pull"]


def test_rollback_records_its_target_and_the_release_it_left() -> None:
    record = plan_rollback(upgradable(application())).record

    assert record is not None
    assert (record.action, record.target, record.left) == ("rollback", "r0", "r1")


def test_deploy_never_starts_a_kept_container() -> None:
    kept = container(backend(), Color.GREEN, running=False, status="exited")
    state = replace(upgradable(application()), containers=(outdated(backend()), kept))

    plan = plan_deploy(state, wanted(application()), RolloutPolicy())

    assert "podman run" in text(plan, "backend.start")


def test_deploy_records_images_and_configurations() -> None:
    app = application()
    plan = plan_deploy(upgradable(app), wanted(app), RolloutPolicy())

    assert plan.record is not None
    assert plan.record.content == frozenset(
        (service.name, service.image.digest, spec_hash("shop", service)) for service in app.services
    )


def test_current_after_a_rollback_that_died_is_the_release_it_left() -> None:
    dead = Lock("t", "ann", "laptop", 1, "rollback to A", 0, 0, target="A")
    history = (release("A", "v1"), release("B", "v2"))

    first = selection.current(host(*history, runs="v1", lock=dead))
    repeated = selection.current(host(*history, release("C", "v3"), back("R", "v2", "B", "C"), runs="v1", lock=dead))

    assert [release and release.id for release in (first, repeated)] == ["B", "B"]
