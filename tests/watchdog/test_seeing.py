"""What one look means for recovery, as tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from fabfile.model import Check, Color, Container, HealthReport, HostState, Image, Kind, Lock, Outcome, Release
from fabfile.model.watch import Ailment, Look, Trouble, WatchRules
from fabfile.watchdog import seeing
from tests.commands.sample import application
from tests.commands.test_record import RELEASE

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
    """A look at which these checks were not well."""
    bad = {*failed, *unanswered}
    return HealthReport(
        state,
        tuple(
            Check(kind, name, name not in bad, f"{name} says", answered=name not in unanswered)
            for name, kind in NAMES.items()
        ),
    )


def look(
    found: HealthReport,
    releases: tuple[Release, ...] = (BEFORE, MADE),
    before: seeing.Restarts | None = None,
    missed: str = "",
) -> Look:
    return seeing.look(APP, found, before or {}, releases, RULES, missed)


def troubles(found: Look) -> list[tuple[str, Ailment]]:
    return [(one.service, one.ailment) for one in found.troubles]


def test_look_at_a_well_host_has_nothing_but_its_release() -> None:
    assert look(report()) == Look(("backend", "frontend"), release="r2", earlier=True)


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (["backend container", "backend http", "backend nginx"], [("backend", Ailment.STOPPED)]),
        (["backend http", "backend nginx"], [("backend", Ailment.ILL)]),
        (["backend nginx"], [("backend", Ailment.PATH)]),
        (["frontend container", "backend nginx"], [("backend", Ailment.PATH), ("frontend", Ailment.STOPPED)]),
        # The way through all services is the frontend's, and only a trouble of its own where no service has one.
        (["full chain"], [("frontend", Ailment.PATH)]),
        (["full chain", "backend http"], [("backend", Ailment.ILL)]),
        # What no recovery of a service could mend is none of its troubles.
        (["site", "database", "certificate", "backup", "clock"], []),
        (["disk /", "memory"], []),
    ],
)
def test_look_failed_checks_are_troubles_of_their_services(
    failed: list[str], expected: list[tuple[str, Ailment]]
) -> None:
    assert troubles(look(report(*failed))) == expected


def test_look_trouble_says_which_check_found_it() -> None:
    assert look(report("backend http")).troubles == (
        Trouble("backend", Ailment.ILL, "backend http: backend http says"),
    )


def test_look_service_that_answers_nothing_is_silent() -> None:
    assert troubles(look(report("frontend nginx", unanswered=("backend http",))))[0] == ("backend", Ailment.SILENT)


def test_look_service_that_a_quick_request_missed_counts_twice() -> None:
    found = look(report("backend http", "frontend http"), missed="backend")

    assert [(one.service, one.misses) for one in found.troubles] == [("backend", 2), ("frontend", 1)]
    assert look(report(), missed="backend").troubles == ()


@pytest.mark.parametrize(
    ("before", "now", "crashes"),
    [
        (0, 0, 0),
        (0, 1, 1),
        (1, 4, 3),
        # Seen for the first time: nothing says when it crashed.
        (None, 4, 0),
        # Started by hand or made anew.
        (4, 0, 0),
    ],
)
def test_look_restarts_since_the_look_before_are_crashes(before: int | None, now: int, crashes: int) -> None:
    state = replace(STATE, containers=(container("backend", now), container("frontend")))
    known = (
        {}
        if before is None
        else seeing.restarts(HealthReport(replace(STATE, containers=(container("backend", before),)), ()))
    )

    found = look(report(state=state), before=known)

    assert [(one.service, one.ailment, one.misses, one.crashes) for one in found.troubles] == (
        [("backend", Ailment.CRASHING, 0, crashes)] if crashes else []
    )


@pytest.mark.parametrize(
    ("failed", "unanswered", "ailment"),
    [
        # Podman has just started it: its next look says more.
        ((), ("backend http",), Ailment.CRASHING),
        (("backend http",), (), Ailment.ILL),
        (("backend container",), ("backend http",), Ailment.STOPPED),
    ],
)
def test_look_crash_explains_a_service_that_gives_no_answer_yet(
    failed: tuple[str, ...], unanswered: tuple[str, ...], ailment: Ailment
) -> None:
    known = seeing.restarts(HealthReport(STATE, ()))
    state = replace(STATE, containers=(container("backend", 1), container("frontend")))

    found = look(report(*failed, state=state, unanswered=unanswered), before=known).troubles

    assert [(one.service, one.ailment, one.misses) for one in found] == [("backend", ailment, 1)]


def test_look_restarts_of_a_container_that_came_under_watch_all_count() -> None:
    known = seeing.restarts(HealthReport(replace(STATE, containers=(container("backend", 0, "r1"),)), ()))
    state = replace(STATE, containers=(container("backend", 5), container("frontend")))

    assert [one.crashes for one in look(report(state=state), before=known).troubles] == [5]


@pytest.mark.parametrize(
    ("age", "fresh"), [(0, True), (599, True), (600, False), (3600, False), (-1, False), (-3600, False)]
)
def test_look_clock_that_jumped_makes_no_release_of_the_future_fresh_and_changes_nothing_else(
    age: int, fresh: bool
) -> None:
    state = replace(STATE, now=NOW - 3600 + age)

    found = look(report("backend http", state=state))

    assert found.fresh is fresh
    assert replace(found, fresh=False) == replace(look(report("backend http")), fresh=False)


@pytest.mark.parametrize("time", ["", "soon", "0001-01-01T00:00:00", "9999-12-31T23:59:59+00:00"])
def test_look_release_of_no_sensible_time_is_not_fresh(time: str) -> None:
    assert not look(report(), (replace(MADE, time=time),)).fresh


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
def test_look_release_is_the_last_good_deploy_or_rollback(more: tuple[Release, ...], release: str) -> None:
    assert look(report(), (BEFORE, MADE, *more)).release == release


def test_look_without_a_release_or_an_earlier_one_says_so() -> None:
    assert (look(report(), ()).release, look(report(), ()).fresh, look(report(), ()).earlier) == ("", False, False)
    assert not look(report(state=replace(STATE, containers=())), ()).earlier


@pytest.mark.parametrize(("left", "held"), [(60, "ann: deploy v2"), (1, "ann: deploy v2"), (0, ""), (-60, "")])
def test_look_lock_counts_until_its_lease_ends(left: int, held: str) -> None:
    lock = Lock("t", "ann", "laptop", 1, "deploy v2", NOW - 90, NOW + left)

    assert look(report(state=replace(STATE, lock=lock))).held == held


NGINX = ("backend nginx", "frontend nginx")


@pytest.mark.parametrize(
    ("failed", "unanswered", "hopeless"),
    [
        ((), (*NGINX, "full chain", "site"), True),
        # It answers, and badly: no way to the service, but Nginx is there.
        ((*NGINX, "full chain"), (), False),
        ((), NGINX[:1], False),
        # A service that is down as well can be helped.
        (("backend http",), NGINX, False),
        (("backend container", "backend http"), NGINX, False),
        ((), (), False),
    ],
)
def test_look_nginx_that_does_not_answer_while_the_services_do_is_hopeless(
    failed: tuple[str, ...], unanswered: tuple[str, ...], hopeless: bool
) -> None:
    found = look(report(*failed, unanswered=unanswered))

    assert bool(found.hopeless) is hopeless
    assert not hopeless or "Nginx" in found.hopeless


def test_look_short_of_room_says_of_what() -> None:
    assert look(report("disk /", "memory", "backup")).starved == "disk / says; memory says"
