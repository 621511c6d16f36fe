"""Promotion: the images that the hosts of the source have proved, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import (
    Color,
    Container,
    Environment,
    HostState,
    Image,
    Outcome,
    Release,
    RolloutPolicy,
    ServiceRelease,
    Target,
    Transfer,
)
from rolling_upgrade.errors import ConfigError
from rolling_upgrade.features.promote.workflow import _differences, _given, good_images, promote
from tests.support.sample import application

GOOD, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


def host_state(*, digest: str = GOOD, running: bool = True, outcome: Outcome = Outcome.GOOD) -> HostState:
    image = Image("registry.test/shop/backend", "v2", digest)
    container = Container("shop-backend-green", "backend", Color.GREEN, running, "running", image=image)
    recorded = ServiceRelease("registry.test/shop/backend:v2", GOOD, Color.GREEN, revision="abc")
    release = Release("r1", "2026-11-24T08:00:00+00:00", "deploy", outcome, (("backend", recorded),))
    return HostState("web1", active=(("backend", Color.GREEN),), containers=(container,), releases=(release,))


def test_good_images_of_running_last_good_release_are_returned() -> None:
    images, fault = good_images(host_state(), ["backend"])

    assert fault == ""
    assert images == {"backend": Image("registry.test/shop/backend", "v2", GOOD)}
    assert images["backend"].revision == "abc"


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (host_state(outcome=Outcome.UNDONE), "no good release"),
        (host_state(digest=OTHER), "does not match its last good release r1"),
        (host_state(running=False), "does not match its last good release r1"),
    ],
)
def test_good_images_of_host_that_runs_another_release_returns_the_problem(state: HostState, problem: str) -> None:
    images, fault = good_images(state, ["backend"])

    assert (images, problem in fault) == ({}, True)


def test_good_images_without_record_of_a_service_returns_the_problem() -> None:
    assert "no digest of frontend" in good_images(host_state(), ["backend", "frontend"])[1]


def test_differences_between_hosts_are_listed() -> None:
    first, second = ({"backend": Image("r", "v2", digest)} for digest in (GOOD, OTHER))

    assert _differences({"web1": first, "web2": first}) == []
    assert len(_differences({"web1": first, "web2": second})) == 1


def environment(name: str, transfer: Transfer = Transfer.PULL) -> Environment:
    return Environment(name, (Target("web1", "192.0.2.1", "deploy", application()),), RolloutPolicy(transfer=transfer))


def proven() -> dict[str, Image]:
    return {service.name: Image("other.test/x", "v2", GOOD) for service in application().services}


def test_given_images_keep_digest_and_tag_under_the_target_repository() -> None:
    given = _given(environment("staging"), environment("production"), proven())

    for service in application().services:
        assert given[service.name] == Image(service.image.repository, "v2", GOOD)


def test_given_images_for_other_services_or_for_a_push_are_refused() -> None:
    with pytest.raises(ConfigError, match="services_file"):
        _given(environment("staging"), environment("production"), {"backend": proven()["backend"]})
    with pytest.raises(ConfigError, match="transfer: pull"):
        _given(environment("staging"), environment("production", transfer=Transfer.PUSH), proven())


@pytest.mark.parametrize(("source", "target"), [("", "production"), ("staging", ""), ("staging", "staging")])
def test_promote_without_two_environments_is_refused(source: str, target: str) -> None:
    with pytest.raises(ConfigError, match="--from, --to"):
        promote(source, target, root=Path())


def test_good_images_ignores_the_idle_color() -> None:
    host = host_state()
    idle = replace(host.containers[0], name="shop-backend-blue", color=Color.BLUE, image=Image("x", "v9", OTHER))

    assert good_images(replace(host, containers=(idle, *host.containers)), ["backend"])[1] == ""
