"""What changed between two looks, and where every host stands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fabfile.errors import HostUnreachable, RollingError
from fabfile.model import Check, Color, Container, HealthReport, Image, Kind, Lock
from fabfile.report.dashboard import (
    HAPPENINGS,
    LATENCIES,
    Dashboard,
    Mood,
    Watched,
    changes,
    looked,
    standing,
)
from fabfile.report.text import clock_time
from tests.report.builders import NOW
from tests.report.reports import CHAIN, report

BUSY = "locked by ann: a; maintenance page up (b)"
REFUSED = HostUnreachable("web1: cannot reach\ndeploy@10.0.0.1:22 (timed out).", next_step="check")


def told(before: HealthReport | None, after: HealthReport) -> list[str]:
    return [what for _, what in changes(before, after)]


def board(*found: HealthReport | RollingError) -> Dashboard:
    """web1 after these looks, one every ten seconds, and web2, which was never looked at."""
    made = Dashboard("production", (Watched("web1", 10), Watched("web2", 10)))
    for number, one in enumerate(found):
        made, _ = looked(made, "web1", one, NOW + 10 * number)
    return made


def whats(made: Dashboard) -> list[str]:
    return [one.what for one in made.happenings]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, report(), []),
        (report(), report(), []),
        (None, report(chain="502"), ["full chain FAILED: HTTP 502"]),
        (report(), report(chain="502"), ["full chain FAILED: HTTP 502"]),
        (report(chain="502"), report(chain="504"), []),
        (report(chain="502"), report(), ["full chain is well again"]),
        (report(), report(color=Color.GREEN), ["backend: blue v1 → green v1"]),
        (report(), report(color=Color.GREEN, tag="v2"), ["backend: blue v1 → green v2"]),
        (report(), report(tag="v2", release="r2"), ["backend: blue v1 → blue v2"]),
        (report(), report(release="r2"), ["backend: release r1 → r2, blue v1"]),
        (report(), report(restarts=1), ["backend crashed and was restarted: 1 restart"]),
        (report(restarts=2), report(), []),
        (report(), report(started_at="later"), ["backend was started again"]),
        (report(), report(running=False, started_at="later"), ["backend container FAILED: it is down"]),
        (report(), report(lock="deploy v2"), ["locked by ann: deploy v2"]),
        (report(lock="deploy v2"), report(), ["lock of ann released: deploy v2"]),
        (report(lock="a"), report(lock="b"), ["lock of ann released: a", "locked by ann: b"]),
        (report(lock="a", lease_seconds=-1), report(), []),
        (report(), report(page="ann"), ["maintenance page up (ann)"]),
        (report(page="ann"), report(), ["maintenance page down"]),
        (report(), report(lock="x\ny\x1b[2J"), ["locked by ann: x y\x1b[2J"]),
    ],
)
def test_changes_from_one_look_to_the_next(
    before: HealthReport | None, after: HealthReport, expected: list[str]
) -> None:
    assert told(before, after) == expected


def test_changes_of_a_container_that_is_gone_and_comes_back() -> None:
    gone = report(container=False)

    assert told(report(), gone) == [
        "backend: blue v1 → blue without a container",
        "backend container FAILED: it is down",
    ]
    assert told(gone, report()) == ["backend: blue without a container → blue v1", "backend container is well again"]


def test_changes_check_that_failed_and_is_asked_no_more_is_closed() -> None:
    full = replace(report(), checks=(*report().checks, Check(Kind.DISK, "disk /data", False, "2 %")))

    assert told(full, report()) == ["disk /data is no longer checked"]


def test_changes_image_without_a_tag_is_named_by_its_digest() -> None:
    state = report().state
    untagged = replace(state.containers[0], image=Image("registry.lab/backend", "", "sha256:" + "ab12" * 16))

    after = replace(report(), state=replace(state, containers=(untagged,)))

    assert told(report(), after) == ["backend: blue v1 → blue ab12ab12ab12"]


def test_looked_lost_host_says_so_once_and_since_when_and_comes_back() -> None:
    lost = board(report(), REFUSED, HostUnreachable("web1: refused the login."))
    back, fresh = looked(lost, "web1", report(), NOW + 95)

    one = lost.host("web1")
    assert (one.lost_at, one.why, one.report) == (NOW + 10, "refused the login.", report())
    assert whats(lost) == ["not reached: cannot reach deploy@10.0.0.1:22 (timed out)."]
    assert [(happened.what, happened.mood) for happened in fresh] == [("reached again after 1m 25s", Mood.GOOD)]
    assert standing(back.host("web1"), NOW + 95) == (Mood.GOOD, "well")


def test_looked_what_changed_while_a_host_was_lost_is_told_when_it_is_back() -> None:
    made = board(report(), REFUSED, report(color=Color.GREEN, tag="v2"))

    assert whats(made)[1:] == ["reached again after 10.0s", "backend: blue v1 → green v2"]


def test_looked_latencies_have_a_gap_where_no_good_answer_came() -> None:
    made = board(report(), REFUSED, report(chain="502"), report(milliseconds=20))

    assert made.host("web1").latencies == (7, None, None, 20)
    assert made.host("web2").latencies == ()


def test_looked_latency_without_a_chain_is_a_visitor_s() -> None:
    chainless = replace(report(), checks=tuple(check for check in report().checks if check.name != CHAIN))

    assert board(chainless).host("web1").latencies == (3,)


def test_looked_keeps_the_newest_alone() -> None:
    made = board(*[report(), report(chain="502")] * HAPPENINGS)

    assert len(made.happenings) == HAPPENINGS
    assert made.happenings[-1].at == NOW + 10 * (2 * HAPPENINGS - 1)
    assert len(made.host("web1").latencies) == LATENCIES


@pytest.mark.parametrize(
    ("found", "after_seconds", "expected"),
    [
        ([], 0, (Mood.WAITING, "connecting")),
        ([report()], 5, (Mood.GOOD, "well")),
        ([report()], 36, (Mood.LOST, "NO ANSWER for 36.0s")),
        ([REFUSED], 5, (Mood.LOST, f"NOT REACHED since {clock_time(NOW)}")),
        ([report(chain="502")], 5, (Mood.BAD, "FAILED: full chain")),
        ([report(lock="deploy v2")], 5, (Mood.BUSY, "locked by ann: deploy v2")),
        ([report(lock="deploy v2", lease_seconds=-1)], 5, (Mood.GOOD, "well")),
        ([report(page="ann")], 5, (Mood.BUSY, "maintenance page up (ann)")),
        ([report(chain="502", lock="a", page="b")], 5, (Mood.BAD, f"FAILED: full chain; {BUSY}")),
    ],
)
def test_standing_of_a_host(
    found: list[HealthReport | RollingError], after_seconds: float, expected: tuple[Mood, str]
) -> None:
    assert standing(board(*found).host("web1"), NOW + after_seconds) == expected


def test_report_of_these_tests_has_the_shape_of_a_real_one() -> None:
    state = report(lock="x").state

    assert isinstance(state.lock, Lock)
    assert isinstance(state.containers[0], Container)
