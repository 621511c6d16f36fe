"""The plan of a deploy with images from the workstation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine.image_push import Push
from rolling_upgrade.engine.model import Assets, HostState, ReleaseCommand, RolloutPolicy, Service
from rolling_upgrade.engine.plan import Plan, one_release
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.steps import DeploySpec, push_step
from tests.support.sample import LOCK, application, backend, frontend, image
from tests.support.states import RUN, as_wanted, outdated, plan, upgradable

ID = "sha256:" + "e" * 64


def pushes(**lacking: int) -> tuple[Push, ...]:
    return tuple(Push(name, image(name), ID, 7, number, number * 6_200_000) for name, number in lacking.items())


def spec(*images: Push, action: str = "deploy") -> DeploySpec:
    app = application()
    site = rendering.nginx_site(app)
    record = replace(RUN, action=action)
    return DeploySpec("production", app, site, rendering.site_hash(site), record, LOCK, pushes=images)


def test_push_step_title_counts_the_lacking_layers() -> None:
    assert push_step(application(), "r2", pushes(backend=2, frontend=0)).title == (
        "push backend v2 (2 of 7 layers, 12.4 MB), frontend v2 (0 of 7 layers, 0.0 kB)"
    )


def test_push_step_uses_the_journal_of_the_run() -> None:
    assert "/var/lib/shop/journal/r2/images" in push_step(application(), "r2", pushes(backend=1)).script.text


def test_plan_with_pushed_images_pulls_none() -> None:
    images = pushes(backend=2, frontend=0)

    plan = plan_deploy(HostState("web1"), spec(*images), RolloutPolicy())

    assert [step.id for step in plan.prepare][-1] == "push"
    assert plan.prepare[-1].pushes == images
    assert "pull" not in [step.id for step in plan.prepare]


@pytest.mark.parametrize("action", ["deploy", "rollback"])
def test_plan_without_pushed_images_pulls_them(action: str) -> None:
    plan = plan_deploy(HostState("web1"), spec(action=action), RolloutPolicy())

    assert [step.id for step in plan.prepare][-1] == "pull"
    assert plan.prepare[-1].pushes == ()


@pytest.mark.parametrize("action", ["deploy", "rollback"])
def test_assets_of_the_new_and_the_running_image_are_copied_before_any_host_continues(action: str) -> None:
    app = application(backend(), frontend(assets=Assets("/app/assets", "/assets")))
    state = upgradable(app)
    wanted = replace(spec(), application=app, record=replace(RUN, action=action))

    plan = plan_deploy(state, wanted, RolloutPolicy())

    assert plan.prepare[-1].title == "copy the assets of frontend out of the images"
    text = plan.prepare[-1].script.text
    running = state.container("frontend", state.active_color("frontend"))
    assert running is not None
    calls = [row for row in text.splitlines() if row.startswith("copy_assets shop-frontend-assets")]
    assert [(running.image.pinned in call, call.split()[-1]) for call in calls] == [
        (True, "optional"),
        (False, "required"),
    ]
    assert image("frontend").pinned in calls[1]


def test_plan_without_assets_copies_none() -> None:
    assert "assets" not in [step.id for step in plan_deploy(HostState("web1"), spec(), RolloutPolicy()).prepare]


MIGRATE = ReleaseCommand("backend", ("python", "manage.py", "migrate"), 300)


def releasing(*services: Service, state: HostState | None = None, action: str = "deploy") -> Plan:
    """Plan a run of an application with a release command."""
    app = application(*services, release_command=MIGRATE)
    wanted = replace(spec(), application=app, record=replace(RUN, action=action))
    return plan_deploy(state or upgradable(app), wanted, RolloutPolicy())


def test_release_command_runs_in_a_container_of_the_new_image() -> None:
    [step] = releasing().release

    assert step.title == "run the release command in a new container of backend: python manage.py migrate"
    assert (step.timeout_seconds, step.shows_output) == (300, True)
    assert "--name shop-backend-release --pull=never" in step.script.text
    assert step.script.text.rstrip().endswith(f"{image('backend').pinned} python manage.py migrate")
    assert step.undo is not None
    assert "podman rm --force --ignore --time 4 shop-backend-release" in step.undo.text


@pytest.mark.parametrize("action", ["rollback", "recovery"])
def test_release_command_is_only_part_of_a_deploy(action: str) -> None:
    assert releasing(action=action).release == ()


def test_release_command_needs_its_service_on_the_host() -> None:
    assert releasing(frontend()).release == ()


def test_release_command_is_left_out_when_no_service_changes() -> None:
    app = application()
    site_only = replace(as_wanted(app), live_site_hash="another")

    found = releasing(state=site_only)

    assert (found.empty, found.release) == (False, ())


def test_release_command_of_an_unchanged_service_has_its_image_pulled() -> None:
    app = application()
    state = as_wanted(app)
    old = tuple(outdated(frontend()) if each.service == "frontend" else each for each in state.containers)

    found = releasing(state=replace(state, containers=old))

    assert len(found.release) == 1
    assert image("backend").pinned in found.prepare[-1].script.text


def test_one_release_keeps_the_first() -> None:
    plans = one_release([plan(HostState("web0")), releasing(), releasing()])

    assert [len(each.release) for each in plans] == [0, 1, 0]
