"""The events between two checks, and the status of every host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.console.screen import RowState
from rolling_upgrade.console.text import clock_time
from rolling_upgrade.engine.model import Check, Color, Container, HealthReport, Image, Kind, Lock
from rolling_upgrade.errors import HostUnreachable, RollingError
from rolling_upgrade.features.monitor.dashboard import (
    KEPT_EVENTS,
    KEPT_LATENCIES,
    Dashboard,
    MonitoredHost,
    changes,
    host_status,
    update,
)
from tests.support.builders import NOW
from tests.support.reports import CHAIN, report

BUSY = "locked by ann: a; maintenance page on (b)"
REFUSED = HostUnreachable("web1: cannot reach\ndeploy@10.0.0.1:22 (timed out).", next_step="check")


def titles_of_changes(before: HealthReport | None, after: HealthReport) -> list[str]:
    return [title for _, title in changes(before, after)]


def board(*found: HealthReport | RollingError) -> Dashboard:
    """Return web1 after these results, one every ten seconds, and web2, which was never checked."""
    made = Dashboard("production", (MonitoredHost("web1", 10), MonitoredHost("web2", 10)))
    for number, result in enumerate(found):
        made, _ = update(made, "web1", result, NOW + 10 * number)
    return made


def titles(made: Dashboard) -> list[str]:
    return [event.title for event in made.events]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, report(), []),
        (report(), report(), []),
        (None, report(chain="502"), ["full chain FAILED: HTTP 502"]),
        (report(), report(chain="502"), ["full chain FAILED: HTTP 502"]),
        (report(chain="502"), report(chain="504"), []),
        (report(chain="502"), report(), ["full chain recovered"]),
        (report(), report(color=Color.GREEN), ["backend: blue v1 → green v1"]),
        (report(), report(color=Color.GREEN, tag="v2"), ["backend: blue v1 → green v2"]),
        (report(), report(tag="v2", release="r2"), ["backend: blue v1 → blue v2"]),
        (report(), report(release="r2"), ["backend: release r1 → r2, blue v1"]),
        (report(), report(restarts=1), ["backend crashed and was restarted: 1 restart"]),
        (report(restarts=2), report(), []),
        (report(), report(started_at="later"), ["backend was restarted"]),
        (report(), report(running=False, started_at="later"), ["backend container FAILED: it is down"]),
        (report(), report(lock="deploy v2"), ["locked by ann: deploy v2"]),
        (report(lock="deploy v2"), report(), ["ann released the lock: deploy v2"]),
        (report(lock="a"), report(lock="b"), ["ann released the lock: a", "locked by ann: b"]),
        (report(lock="a", lease_seconds=-1), report(), []),
        (report(), report(page="ann"), ["maintenance page on (ann)"]),
        (report(page="ann"), report(), ["maintenance page off"]),
        (report(), report(lock="x\ny\x1b[2J"), ["locked by ann: x y\x1b[2J"]),
    ],
)
def test_changes_from_one_report_to_the_next(
    before: HealthReport | None, after: HealthReport, expected: list[str]
) -> None:
    assert titles_of_changes(before, after) == expected


def test_changes_of_a_container_that_disappears_and_returns() -> None:
    missing = report(container=False)

    assert titles_of_changes(report(), missing) == [
        "backend: blue v1 → blue without a container",
        "backend container FAILED: it is down",
    ]
    assert titles_of_changes(missing, report()) == [
        "backend: blue without a container → blue v1",
        "backend container recovered",
    ]


def test_changes_failed_check_that_no_longer_exists_is_closed() -> None:
    full = replace(report(), checks=(*report().checks, Check(Kind.DISK, "disk /data", False, "2 %")))

    assert titles_of_changes(full, report()) == ["disk /data is no longer checked"]


def test_changes_untagged_image_is_named_by_its_digest() -> None:
    state = report().state
    untagged = replace(state.containers[0], image=Image("registry.lab/backend", "", "sha256:" + "ab12" * 16))

    after = replace(report(), state=replace(state, containers=(untagged,)))

    assert titles_of_changes(report(), after) == ["backend: blue v1 → blue ab12ab12ab12"]


def test_update_unreachable_host_has_one_event_and_returns() -> None:
    lost = board(report(), REFUSED, HostUnreachable("web1: refused the login."))
    back, new = update(lost, "web1", report(), NOW + 95)

    web1 = lost.host("web1")
    assert (web1.unreachable_since, web1.error, web1.report) == (NOW + 10, "refused the login.", report())
    assert titles(lost) == ["unreachable: cannot reach deploy@10.0.0.1:22 (timed out)."]
    assert [(event.title, event.state) for event in new] == [("reachable again after 1m 25s", RowState.HEALTHY)]
    assert host_status(back.host("web1"), NOW + 95) == (RowState.HEALTHY, "healthy")


def test_update_changes_while_a_host_was_unreachable_are_events_on_its_return() -> None:
    made = board(report(), REFUSED, report(color=Color.GREEN, tag="v2"))

    assert titles(made)[1:] == ["reachable again after 10.0s", "backend: blue v1 → green v2"]


def test_update_latencies_have_a_gap_without_a_good_answer() -> None:
    made = board(report(), REFUSED, report(chain="502"), report(milliseconds=20))

    assert made.host("web1").latencies == (7, None, None, 20)
    assert made.host("web2").latencies == ()


def test_update_latency_without_a_full_chain_comes_from_the_site() -> None:
    chainless = replace(report(), checks=tuple(check for check in report().checks if check.name != CHAIN))

    assert board(chainless).host("web1").latencies == (3,)


def test_update_host_of_workers_alone_has_no_latencies() -> None:
    workers = replace(report(), checks=tuple(check for check in report().checks if check.kind is not Kind.HTTP))

    assert board(workers, REFUSED).host("web1").latencies == (None,)


def test_update_keeps_only_the_newest() -> None:
    made = board(*[report(), report(chain="502")] * KEPT_EVENTS)

    assert len(made.events) == KEPT_EVENTS
    assert made.events[-1].at == NOW + 10 * (2 * KEPT_EVENTS - 1)
    assert len(made.host("web1").latencies) == KEPT_LATENCIES


@pytest.mark.parametrize(
    ("found", "after_seconds", "expected"),
    [
        ([], 0, (RowState.WAITING, "connecting")),
        ([report()], 5, (RowState.HEALTHY, "healthy")),
        ([report()], 36, (RowState.UNREACHABLE, "NO ANSWER for 36.0s")),
        ([REFUSED], 5, (RowState.UNREACHABLE, f"UNREACHABLE since {clock_time(NOW)}")),
        ([report(chain="502")], 5, (RowState.FAILED, "FAILED: full chain")),
        ([report(lock="deploy v2")], 5, (RowState.ATTENTION, "locked by ann: deploy v2")),
        ([report(lock="deploy v2", lease_seconds=-1)], 5, (RowState.HEALTHY, "healthy")),
        ([report(page="ann")], 5, (RowState.ATTENTION, "maintenance page on (ann)")),
        ([report(chain="502", lock="a", page="b")], 5, (RowState.FAILED, f"FAILED: full chain; {BUSY}")),
    ],
)
def test_host_status_of_each_state(
    found: list[HealthReport | RollingError], after_seconds: float, expected: tuple[RowState, str]
) -> None:
    assert host_status(board(*found).host("web1"), NOW + after_seconds) == expected


def test_report_builder_has_the_shape_of_a_real_report() -> None:
    state = report(lock="x").state

    assert isinstance(state.lock, Lock)
    assert isinstance(state.containers[0], Container)
