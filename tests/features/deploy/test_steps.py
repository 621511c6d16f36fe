"""The plan of a deploy with images from the workstation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine.image_push import Push
from rolling_upgrade.engine.model import HostState, RolloutPolicy
from rolling_upgrade.features.deploy.plan import plan_deploy
from rolling_upgrade.features.deploy.steps import DeploySpec, push_step
from tests.support.sample import LOCK, application, image
from tests.support.states import RUN

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
