"""What a prune selects: never what runs, never what the next rollback needs, never another application's."""

from __future__ import annotations

from dataclasses import replace

from rolling_upgrade.engine.model import Color, Container, HostState, Outcome, Release, RolloutPolicy, ServiceRelease
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.prune import Mode
from rolling_upgrade.features.prune import plan as retention
from tests.support.sample import application, backend, frontend, image
from tests.support.shell import Programs, sh
from tests.support.states import as_wanted, container, recorded

APP = application()
OLD = "sha256:" + "0" * 64
FORMER = frontend(name="former", image=image("worker"), service_port=7009, routes=())


def release(id: str, digest: str, outcome: Outcome = Outcome.GOOD) -> Release:
    services = tuple(
        (service.name, ServiceRelease(service.image.reference, digest, Color.GREEN, spec_hash("shop", service)))
        for service in APP.services
    )
    return Release(id, "2026-11-21T00:00:00+00:00", "deploy", outcome, services)


def stopped(service: str, digest: str, of: str, color: Color = Color.GREEN) -> Container:
    declared = APP.service(service) if service in {"backend", "frontend"} else FORMER
    found = replace(declared.image, digest=digest)
    return container(declared, color, running=False, status="exited", image=found, release=of)


def state(*containers: Container, releases: tuple[Release, ...] = (), **changes: object) -> HostState:
    base = as_wanted(APP)
    found = replace(base, containers=(*base.containers, *containers), releases=(*releases, recorded(APP)))
    return replace(found, **changes)  # type: ignore[arg-type]


def spent(found: HostState) -> list[str]:
    return [one.name for one in retention.spent(found, APP, RolloutPolicy(retain_releases=2))]


def test_spent_container_of_the_previous_good_release_stays() -> None:
    assert spent(state(stopped("backend", OLD, "r0"), releases=(release("r0", OLD),))) == []


def test_spent_failed_candidate_of_a_former_run_goes() -> None:
    bad = "sha256:" + "f" * 64

    assert spent(state(stopped("backend", bad, "rx"), releases=(release("rx", bad, Outcome.UNDONE),))) == [
        "shop-backend-green"
    ]


def test_spent_failed_candidate_of_the_last_run_stays_for_its_log() -> None:
    bad = "sha256:" + "f" * 64
    found = state(stopped("backend", bad, "rx"))

    assert spent(replace(found, releases=(*found.releases, release("rx", bad, Outcome.UNDONE)))) == []


def test_spent_container_of_a_removed_service_goes_once_no_kept_release_ran_it() -> None:
    run = ServiceRelease("r/former:v1", FORMER.image.digest, Color.BLUE, spec_hash("shop", FORMER))
    before = replace(release("r0", OLD), services=(*release("r0", OLD).services, ("former", run)))
    old = stopped("former", FORMER.image.digest, "r0", Color.BLUE)

    assert spent(state(old, releases=(before,))) == []
    assert spent(state(old, releases=())) == ["shop-former-blue"]


def test_spent_live_container_that_crashed_stays() -> None:
    found = state()
    dead = tuple(replace(one, running=False) for one in found.containers)

    assert spent(replace(found, containers=dead, releases=())) == []


def test_spent_running_container_stays_whatever_it_is() -> None:
    assert spent(state(replace(stopped("former", OLD, "rx"), running=True))) == []


def test_prune_flag_of_a_removed_service_goes_and_that_of_a_served_one_stays() -> None:
    found = state(active=(("former", Color.GREEN), ("backend", Color.GREEN)))

    text = retention.prune(found, APP, RolloutPolicy(), Mode.LIST)

    assert "live/former.green" in text
    assert "live/backend.green" not in text


def images(programs: Programs, mode: Mode, found: HostState, used: str = "") -> str:
    """What a prune says of a host with three images of the backend."""
    current, previous, old = backend().image.digest, OLD, "sha256:" + "9" * 64
    listed = f"sha256:i1 {current}\\nsha256:i2 {previous}\\nsha256:i3 {old}\\n"
    programs.add(
        "podman",
        f"case \"$1 $2\" in 'images '*) case \"$*\" in */backend) printf '{listed}' ;; esac ;; "
        f"'image inspect') echo 5000 ;; 'ps '*) echo '{used}' ;; esac",
    )
    return sh(retention.prune(found, APP, RolloutPolicy(), mode), path=programs.path).stdout


def test_prune_images_of_the_current_and_the_previous_release_stay(programs: Programs) -> None:
    said = images(programs, Mode.TELL, state(releases=(release("r0", OLD),)))

    removed = [call[2] for call in programs.calls("podman") if call[1] == "rmi"]
    assert removed == ["sha256:i3"]
    assert said == f"gone\timage\tregistry.test:5000/shop/backend@sha256:{'9' * 64}\t5000\n"


def test_prune_list_deletes_nothing_and_names_the_same(programs: Programs) -> None:
    said = images(programs, Mode.LIST, state(releases=(release("r0", OLD),)))

    assert said.startswith("would go\timage\t")
    assert not [call for call in programs.calls("podman") if call[1] in {"rmi", "rm"}]


def test_prune_image_that_any_container_uses_is_not_even_listed(programs: Programs) -> None:
    assert images(programs, Mode.LIST, state(releases=(release("r0", OLD),)), used="i3") == ""
