"""Promotions between two environments: the images that the source has proved, their deploy, and refusals."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.host import Answer
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
from rolling_upgrade.errors import ConfigError, ExitCode, HostUnreachable, PreflightError
from rolling_upgrade.features.promote.workflow import _differences, _given, good_images, promote
from tests.support.project import ENV, Project
from tests.support.sample import application
from tests.support.simulated_fleet import DIGESTS, EARLIER, READ_ONLY, SimulatedFleet, earlier
from tests.support.states import as_wanted

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


PROVEN = """\
environments:
  proof:
    hosts:
      proof1: {address: 192.0.2.21, roles: [web]}
      proof2: {address: 192.0.2.22, roles: [web]}
"""


@pytest.fixture
def proven_fleet(project: Project, fleet: SimulatedFleet) -> SimulatedFleet:
    """The environment proof, whose two hosts run the desired release of demo from other repositories."""
    project.edit("hosts.yaml", "environments:\n", PROVEN)
    images = {key: ENV[key].replace("registry.", "proof.") for key in ("BACKEND_IMAGE", "FRONTEND_IMAGE")}
    project.write("deploy/proof.env", "\n".join(f"{key}={value}" for key, value in (ENV | images).items()))
    services = tuple(
        replace(
            service, image=replace(service.image, repository=service.image.repository.replace("registry.", "proof."))
        )
        for service in fleet.app.services
    )
    for host in ("proof1", "proof2"):
        fleet.states[host] = fleet.fit(replace(as_wanted(replace(fleet.app, services=services)), host=host))
    return fleet


def ran_on_target(fleet: SimulatedFleet) -> list[str]:
    return [*fleet.ran("web1"), *fleet.ran("web2")]


def test_promote_deploys_the_digests_of_the_source_from_the_repositories_of_the_target(
    project: Project, proven_fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote("proof", "demo", root=project.root) is ExitCode.DONE

    start = proven_fleet.text("web1", "step backend.start")
    assert f"registry.example.org/memoryark/backend@{DIGESTS['backend']}" in start
    for host in ("web1", "web2"):
        assert proven_fleet.changed(host)[-1] == "step record"
        assert proven_fleet.changed(host).count("step backend.cutover") == 1
    assert proven_fleet.changed("proof1") == proven_fleet.changed("proof2") == []
    out = capsys.readouterr().out
    assert (
        f"backend: registry.example.org/memoryark/backend:2.0.1 is {DIGESTS['backend']} on every host of proof\n" in out
    )
    assert "backend: proof runs the image that its tag 2.0.1 points to in its registry" in out
    assert "web1, web2 upgraded." in out


def test_promote_dry_run_runs_only_scripts_that_read(
    project: Project, proven_fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote("proof", "demo", root=project.root, dry_run=True) is ExitCode.DONE

    assert set(proven_fleet.ran()) <= READ_ONLY
    assert f"registry.example.org/memoryark/backend@{DIGESTS['backend']}" in capsys.readouterr().out


def test_promote_json_prints_only_json(
    project: Project, proven_fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote("proof", "demo", root=project.root, json=True) is ExitCode.DONE

    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert {host["host"]: host["result"] for host in rows[-1]["hosts"]} == {"web1": "upgraded", "web2": "upgraded"}
    assert len(err.splitlines()) == 2
    assert "on every host of proof" in err


def test_promote_of_hosts_with_different_digests_does_not_contact_the_target(
    project: Project, proven_fleet: SimulatedFleet
) -> None:
    other = as_wanted(earlier(proven_fleet.app))
    proven_fleet.states["proof2"] = proven_fleet.fit(replace(other, host="proof2"))

    shown = f"backend: {DIGESTS['backend'][:19]} on proof1, {EARLIER['backend'][:19]} on proof2"
    with pytest.raises(PreflightError, match=f"proof has not proved one release(?s:.)*{re.escape(shown)}"):
        promote("proof", "demo", root=project.root, force=True)

    assert ran_on_target(proven_fleet) == []


def test_promote_of_an_unhealthy_host_does_not_contact_the_target(
    project: Project, proven_fleet: SimulatedFleet
) -> None:
    proven_fleet.http_codes["proof2"] = 502

    with pytest.raises(PreflightError, match="proof2: is unhealthy: rolling-upgrade health --env proof") as refused:
        promote("proof", "demo", root=project.root, force=True)

    assert "proof1" not in refused.value.message
    assert ran_on_target(proven_fleet) == []


def test_promote_of_a_host_without_a_good_release_does_not_contact_the_target(
    project: Project, proven_fleet: SimulatedFleet
) -> None:
    proven_fleet.states["proof1"] = replace(proven_fleet.states["proof1"], releases=())

    with pytest.raises(PreflightError, match="proof1: has no good release"):
        promote("proof", "demo", root=project.root, force=True)

    assert ran_on_target(proven_fleet) == []


def test_promote_with_an_unreachable_source_host_does_not_contact_the_target(
    project: Project, proven_fleet: SimulatedFleet
) -> None:
    proven_fleet.answers["proof2", "observe"] = HostUnreachable("proof2: cannot reach 192.0.2.22.")

    with pytest.raises(HostUnreachable, match="proof2"):
        promote("proof", "demo", root=project.root, force=True)

    assert ran_on_target(proven_fleet) == []


def test_promote_of_an_image_that_the_registry_of_the_target_lacks_changes_nothing(
    project: Project, proven_fleet: SimulatedFleet
) -> None:
    for host in ("web1", "web2"):
        proven_fleet.answers[host, "resolve"] = Answer(1, "! manifest unknown\n", "")

    with pytest.raises(PreflightError, match="could not be resolved to a digest; nothing was touched") as refused:
        promote("proof", "demo", root=project.root, force=True)

    assert "skopeo copy --all docker://FROM@DIGEST docker://TO:TAG" in refused.value.next_step
    assert proven_fleet.changed() == []


def test_promote_with_an_invalid_target_contacts_no_host(project: Project, proven_fleet: SimulatedFleet) -> None:
    project.env({"DOMAIN_NAME": None})

    with pytest.raises(ConfigError, match="DOMAIN_NAME"):
        promote("proof", "demo", root=project.root, force=True)

    assert proven_fleet.ran() == []


def test_promote_whose_cutover_fails_is_undone_and_leaves_the_next_batch_alone(
    project: Project, proven_fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    project.edit("hosts.yaml", "  demo:\n", "  demo:\n    rollout: {batch: 1}\n")
    proven_fleet.fail("web1", "step backend.cutover", "HTTP 502")

    assert promote("proof", "demo", root=project.root) is ExitCode.FAILED

    assert proven_fleet.changed("web1")[-2:] == ["step undo", "step abandon"]
    assert "step backend.start" not in proven_fleet.changed("web2")
    assert "Back on the old release: web1. Left as it was: web2." in capsys.readouterr().out


def test_promote_of_an_image_unlike_its_tag_in_the_registry_of_the_source_is_reported(
    project: Project, proven_fleet: SimulatedFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for service in proven_fleet.app.services:
        digest, repository = DIGESTS[service.name], service.image.repository
        proof = repository.replace("registry.", "proof.")
        rows += [f"{repository}@{digest} {digest}", f"{proof}@{digest} {digest}", f"{proof}:2.0.1 {OTHER}"]
    for host in ("web1", "web2"):
        proven_fleet.answers[host, "resolve"] = Answer(0, "\n".join(rows), "")

    assert promote("proof", "demo", root=project.root, dry_run=True) is ExitCode.DONE

    assert (
        f"backend: proof runs {DIGESTS['backend']}, but its tag 2.0.1 now points to {OTHER}" in capsys.readouterr().out
    )
    assert set(proven_fleet.ran()) <= READ_ONLY
