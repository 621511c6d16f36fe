"""Classification of health reports."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from rolling_upgrade.engine.model import (
    Check,
    Color,
    Container,
    HealthReport,
    HostState,
    Image,
    Kind,
    Lock,
    Outcome,
    Release,
    WatchRules,
)
from rolling_upgrade.features.watchdog import policy
from rolling_upgrade.features.watchdog.policy import Failure, FailureKind, HealthObservation
from tests.engine.test_history import RELEASE
from tests.support.sample import application, worker

APP = application()
RULES = WatchRules(fresh_seconds=600)
MADE = replace(RELEASE, id="r2")
BEFORE = replace(RELEASE, id="r1", services=(("backend", replace(RELEASE.services[0][1], digest="sha256:old")),))
NOW = int(datetime.fromisoformat(MADE.time).timestamp()) + 3600
NAMES = {
    "backend container": Kind.CONTAINER,
    "frontend container": Kind.CONTAINER,
    "backend http": Kind.HTTP,
    "frontend http": Kind.HTTP,
    "backend nginx": Kind.HTTP,
    "frontend nginx": Kind.HTTP,
    "full chain": Kind.HTTP,
    "site": Kind.HTTP,
    "disk /": Kind.DISK,
    "memory": Kind.MEMORY,
    "database": Kind.DATABASE,
    "certificate": Kind.CERTIFICATE,
    "backup": Kind.BACKUP,
    "clock": Kind.CLOCK,
}


def container(service: str, restarts: int = 0, release: str = "r2") -> Container:
    image = Image(f"registry.test/shop/{service}", "v2", "sha256:aa")
    name = f"shop-{service}-blue"
    return Container(name, service, Color.BLUE, True, "running", restarts=restarts, image=image, release=release)


STATE = HostState("web1", NOW, containers=(container("backend"), container("frontend")))


def report(*failed: str, state: HostState = STATE, unanswered: tuple[str, ...] = ()) -> HealthReport:
    """A report in which these checks fail."""
    bad = {*failed, *unanswered}
    return HealthReport(
        state,
        tuple(
            Check(kind, name, name not in bad, f"{name} says", answered=name not in unanswered)
            for name, kind in NAMES.items()
        ),
    )


def classify(
    found: HealthReport,
    releases: tuple[Release, ...] = (BEFORE, MADE),
    before: policy.RestartCounts | None = None,
    missed: str = "",
) -> HealthObservation:
    return policy.classify(APP, found, before or {}, releases, RULES, missed)


def failures(found: HealthObservation) -> list[tuple[str, FailureKind]]:
    return [(failure.service, failure.kind) for failure in found.failures]


def test_classify_healthy_host_has_only_its_release() -> None:
    assert classify(report()) == HealthObservation(("backend", "frontend"), release="r2", can_roll_back=True)


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (["backend container", "backend http", "backend nginx"], [("backend", FailureKind.STOPPED)]),
        (["backend http", "backend nginx"], [("backend", FailureKind.UNHEALTHY)]),
        (["backend nginx"], [("backend", FailureKind.UNREACHABLE)]),
        (
            ["frontend container", "backend nginx"],
            [("backend", FailureKind.UNREACHABLE), ("frontend", FailureKind.STOPPED)],
        ),
        # The full chain belongs to the frontend, and fails on its own only while no service fails.
        (["full chain"], [("frontend", FailureKind.UNREACHABLE)]),
        (["full chain", "backend http"], [("backend", FailureKind.UNHEALTHY)]),
        # Checks that no recovery of a service can fix are no failures of services.
        (["site", "database", "certificate", "backup", "clock"], []),
        (["disk /", "memory"], []),
    ],
)
def test_classify_failed_checks_are_failures_of_their_services(
    failed: list[str], expected: list[tuple[str, FailureKind]]
) -> None:
    assert failures(classify(report(*failed))) == expected


def test_classify_accessory_that_is_down_is_no_failure_of_a_service() -> None:
    check = Check(Kind.ACCESSORY, "accessory db", False, "exited, exit code 3")

    found = classify(replace(report(), checks=(*report().checks, check)))

    assert (found.failures, found.accessory_down) == ((), "accessory db: exited, exit code 3")


def test_classify_failure_names_its_check() -> None:
    assert classify(report("backend http")).failures == (
        Failure("backend", FailureKind.UNHEALTHY, "backend http: backend http says"),
    )


def test_classify_service_that_does_not_answer_is_unresponsive() -> None:
    assert failures(classify(report("frontend nginx", unanswered=("backend http",))))[0] == (
        "backend",
        FailureKind.UNRESPONSIVE,
    )


def test_classify_service_that_failed_a_quick_request_counts_twice() -> None:
    found = classify(report("backend http", "frontend http"), missed="backend")

    assert [(failure.service, failure.failed_checks) for failure in found.failures] == [("backend", 2), ("frontend", 1)]
    assert classify(report(), missed="backend").failures == ()


@pytest.mark.parametrize(
    ("before", "now", "crashes"),
    [
        (0, 0, 0),
        (0, 1, 1),
        (1, 4, 3),
        # At the first observation the time of the crashes is unknown.
        (None, 4, 0),
        # Started by hand, or created again.
        (4, 0, 0),
    ],
)
def test_classify_restarts_since_the_previous_observation_are_crashes(
    before: int | None, now: int, crashes: int
) -> None:
    state = replace(STATE, containers=(container("backend", now), container("frontend")))
    known = (
        {}
        if before is None
        else policy.restart_counts(HealthReport(replace(STATE, containers=(container("backend", before),)), ()))
    )

    found = classify(report(state=state), before=known)

    assert [(failure.service, failure.kind, failure.failed_checks, failure.crashes) for failure in found.failures] == (
        [("backend", FailureKind.CRASHED, 0, crashes)] if crashes else []
    )


@pytest.mark.parametrize(
    ("failed", "unanswered", "kind"),
    [
        # Podman has just restarted it; the next observation shows the result.
        ((), ("backend http",), FailureKind.CRASHED),
        (("backend http",), (), FailureKind.UNHEALTHY),
        (("backend container",), ("backend http",), FailureKind.STOPPED),
    ],
)
def test_classify_crash_explains_a_service_that_does_not_answer_yet(
    failed: tuple[str, ...], unanswered: tuple[str, ...], kind: FailureKind
) -> None:
    known = policy.restart_counts(HealthReport(STATE, ()))
    state = replace(STATE, containers=(container("backend", 1), container("frontend")))

    found = classify(report(*failed, state=state, unanswered=unanswered), before=known).failures

    assert [(failure.service, failure.kind, failure.failed_checks) for failure in found] == [("backend", kind, 1)]


def test_classify_all_restarts_of_a_container_created_under_watch_count() -> None:
    known = policy.restart_counts(HealthReport(replace(STATE, containers=(container("backend", 0, "r1"),)), ()))
    state = replace(STATE, containers=(container("backend", 5), container("frontend")))

    assert [failure.crashes for failure in classify(report(state=state), before=known).failures] == [5]


@pytest.mark.parametrize(
    ("age", "fresh"), [(0, True), (599, True), (600, False), (3600, False), (-1, False), (-3600, False)]
)
def test_classify_release_from_the_future_is_not_fresh_after_a_clock_jump(age: int, fresh: bool) -> None:
    state = replace(STATE, now=NOW - 3600 + age)

    found = classify(report("backend http", state=state))

    assert found.fresh is fresh
    assert replace(found, fresh=False) == replace(classify(report("backend http")), fresh=False)


@pytest.mark.parametrize("time", ["", "soon", "0001-01-01T00:00:00", "9999-12-31T23:59:59+00:00"])
def test_classify_release_without_a_valid_time_is_not_fresh(time: str) -> None:
    assert not classify(report(), (replace(MADE, time=time),)).fresh


@pytest.mark.parametrize(
    ("more", "release"),
    [
        ((), "r2"),
        ((replace(RELEASE, id="r3", outcome=Outcome.UNDONE),), "r2"),
        ((replace(RELEASE, id="x", action="recovery"),), "r2"),
        ((replace(RELEASE, id="x", action="restore"),), "r2"),
        ((replace(RELEASE, id="b", action="rollback", target="r1", left="r2"),), "b"),
    ],
)
def test_classify_release_is_the_last_good_deploy_or_rollback(more: tuple[Release, ...], release: str) -> None:
    assert classify(report(), (BEFORE, MADE, *more)).release == release


def test_classify_without_releases_cannot_roll_back() -> None:
    assert (classify(report(), ()).release, classify(report(), ()).fresh, classify(report(), ()).can_roll_back) == (
        "",
        False,
        False,
    )
    assert not classify(report(state=replace(STATE, containers=())), ()).can_roll_back


@pytest.mark.parametrize(("left", "held"), [(60, "ann: deploy v2"), (1, "ann: deploy v2"), (0, ""), (-60, "")])
def test_classify_lock_is_held_until_its_lease_ends(left: int, held: str) -> None:
    lock = Lock("t", "ann", "laptop", 1, "deploy v2", NOW - 90, NOW + left)

    assert classify(report(state=replace(STATE, lock=lock))).lock_holder == held


NGINX = ("backend nginx", "frontend nginx")


@pytest.mark.parametrize(
    ("failed", "unanswered", "unrecoverable"),
    [
        ((), (*NGINX, "full chain", "site"), True),
        # Nginx answers with errors: it runs.
        ((*NGINX, "full chain"), (), False),
        ((), NGINX[:1], False),
        # A service that fails too can be recovered.
        (("backend http",), NGINX, False),
        (("backend container", "backend http"), NGINX, False),
        ((), (), False),
    ],
)
def test_classify_nginx_that_does_not_answer_while_the_services_do_is_unrecoverable(
    failed: tuple[str, ...], unanswered: tuple[str, ...], unrecoverable: bool
) -> None:
    found = classify(report(*failed, unanswered=unanswered))

    assert bool(found.unrecoverable) is unrecoverable
    assert not unrecoverable or "Nginx" in found.unrecoverable


def test_classify_resource_pressure_names_the_resources() -> None:
    assert classify(report("disk /", "memory", "backup")).resource_pressure == "disk / says; memory says"


def test_classify_worker_that_is_not_ready_is_unresponsive() -> None:
    """A restart comes first: the check of a worker cannot tell a hanging process from a failing one."""
    ready = Check(Kind.READY, "worker ready", False, "no answer within 10 s", "worker", answered=False)
    state = replace(STATE, containers=(*STATE.containers, container("worker")))
    app = replace(APP, services=(*APP.services, worker()))

    found = policy.classify(app, HealthReport(state, (ready,)), {}, (BEFORE, MADE), RULES)

    assert found.failures == (Failure("worker", FailureKind.UNRESPONSIVE, "worker ready: no answer within 10 s"),)


def test_classify_worker_after_a_crash_is_no_second_failure() -> None:
    ready = Check(Kind.READY, "worker ready", False, "no such file", "worker", answered=False)
    state = replace(STATE, containers=(container("worker", restarts=1),))
    app = replace(APP, services=(worker(),), full_chain=None)

    [failure] = policy.classify(app, HealthReport(state, (ready,)), {"shop-worker-blue r2": 0}, (MADE,), RULES).failures

    assert (failure.kind, failure.crashes) == (FailureKind.CRASHED, 1)
