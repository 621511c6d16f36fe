"""The selection of a prune: never running items, never what the next rollback needs, never other applications."""

from __future__ import annotations

from dataclasses import replace

from rolling_upgrade.engine.model import Color, Container, HostState, Outcome, Release, RolloutPolicy, ServiceRelease
from rolling_upgrade.engine.podman import spec_hash
from rolling_upgrade.engine.prune_entry import Mode
from rolling_upgrade.features.prune import retention
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


def stopped(service: str, digest: str, run_id: str, color: Color = Color.GREEN) -> Container:
    declared = APP.service(service) if service in {"backend", "frontend"} else FORMER
    image = replace(declared.image, digest=digest)
    return container(declared, color, running=False, status="exited", image=image, release=run_id)


def state(*containers: Container, releases: tuple[Release, ...] = (), **changes: object) -> HostState:
    base = as_wanted(APP)
    extended = replace(base, containers=(*base.containers, *containers), releases=(*releases, recorded(APP)))
    return replace(extended, **changes)  # type: ignore[arg-type]


def expired(host: HostState) -> list[str]:
    policy = RolloutPolicy(retain_releases=2)
    return [container.name for container in retention.expired_containers(host, APP, policy)]


def test_expired_containers_exclude_the_previous_good_release() -> None:
    assert expired(state(stopped("backend", OLD, "r0"), releases=(release("r0", OLD),))) == []


def test_expired_containers_include_a_failed_candidate_of_an_earlier_run() -> None:
    bad = "sha256:" + "f" * 64

    assert expired(state(stopped("backend", bad, "rx"), releases=(release("rx", bad, Outcome.UNDONE),))) == [
        "shop-backend-green"
    ]


def test_expired_containers_exclude_a_failed_candidate_of_the_last_run() -> None:
    bad = "sha256:" + "f" * 64
    host = state(stopped("backend", bad, "rx"))

    assert expired(replace(host, releases=(*host.releases, release("rx", bad, Outcome.UNDONE)))) == []


def test_expired_containers_of_removed_service_depend_on_kept_releases() -> None:
    run = ServiceRelease("r/former:v1", FORMER.image.digest, Color.BLUE, spec_hash("shop", FORMER))
    before = replace(release("r0", OLD), services=(*release("r0", OLD).services, ("former", run)))
    old = stopped("former", FORMER.image.digest, "r0", Color.BLUE)

    assert expired(state(old, releases=(before,))) == []
    assert expired(state(old, releases=())) == ["shop-former-blue"]


def test_expired_containers_exclude_a_crashed_live_container() -> None:
    host = state()
    dead = tuple(replace(live, running=False) for live in host.containers)

    assert expired(replace(host, containers=dead, releases=())) == []


def test_expired_containers_exclude_every_running_container() -> None:
    assert expired(state(replace(stopped("former", OLD, "rx"), running=True))) == []


def test_prune_deletes_only_flags_of_removed_services() -> None:
    host = state(active=(("former", Color.GREEN), ("backend", Color.GREEN)))

    text = retention.prune(host, APP, RolloutPolicy(), Mode.LIST)

    assert "live/former.green" in text
    assert "live/backend.green" not in text


REPOSITORY = "registry.test:5000/shop/backend"


def images(programs: Programs, mode: Mode, host: HostState, used: str = "") -> str:
    """Return the output of a prune on a host with three images of the backend."""
    current, previous, old = backend().image.digest, OLD, "sha256:" + "9" * 64
    digests = current, previous, old
    rows = (f"sha256:{id} {digest} [{REPOSITORY}@{digest}]" for id, digest in enumerate(digests, 1))
    listed = "\\n".join(rows) + "\\n"
    programs.add(
        "podman",
        f"case \"$1 $2\" in 'images '*) case \"$*\" in *{REPOSITORY}*) printf '{listed}' ;; esac ;; "
        f"'image inspect') echo 5000 ;; 'ps '*) echo '{used}' ;; esac",
    )
    return sh(retention.prune(host, APP, RolloutPolicy(), mode), path=programs.path).stdout


def test_prune_keeps_images_of_the_current_and_the_previous_release(programs: Programs) -> None:
    output = images(programs, Mode.REPORT, state(releases=(release("r0", OLD),)))

    removed = [call[2] for call in programs.calls("podman") if call[1] == "rmi"]
    assert removed == [f"{REPOSITORY}@sha256:{'9' * 64}"]
    assert output == f"gone\timage\t{REPOSITORY}@sha256:{'9' * 64}\t5000\n"


def test_prune_in_list_mode_deletes_nothing_and_lists_the_same_items(programs: Programs) -> None:
    output = images(programs, Mode.LIST, state(releases=(release("r0", OLD),)))

    assert output.startswith("would go\timage\t")
    assert not [call for call in programs.calls("podman") if call[1] in {"rmi", "rm"}]


def test_prune_does_not_list_an_image_in_use(programs: Programs) -> None:
    assert images(programs, Mode.LIST, state(releases=(release("r0", OLD),)), used="3") == ""


def test_free_bytes_of_a_large_disk_are_exact(programs: Programs) -> None:
    programs.add("df", "echo Filesystem; echo '/dev/sda1 9 9 75000123457 1% /'")

    assert sh(retention.free_bytes(), path=programs.path).stdout == "free\t76800126419968\n"
