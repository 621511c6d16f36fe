"""Alert deduplication: the messages of a sequence of observations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolling_upgrade.engine.model import Notice, Occasion, Severity
from rolling_upgrade.features.watchdog.alerts import (
    Alert,
    AlertDeduplicator,
    TrackedAlert,
    TrackedAlerts,
    dump_tracked,
    load_tracked,
)

DISK = Alert("web1", "disk", "4 % free on /", "inv prune --env production")
BACKEND = Alert("web1", "backend", "HTTP 502")
DEDUPLICATOR = AlertDeduplicator("memoryark", "production", repeat_seconds=3600, quiet_seconds=120)
FAILING, AGAIN, RESOLVED = Occasion.CHECK_FAILING, Occasion.CHECK_AGAIN, Occasion.CHECK_RESOLVED


def messages(*observations: tuple[float, Sequence[Alert]]) -> Iterator[tuple[float, Notice]]:
    """The messages of a sequence of observations, with their times."""
    tracked: TrackedAlerts = {}
    for now, alerts in observations:
        tracked, notices = DEDUPLICATOR.update(tracked, alerts, now)
        for notice in notices:
            yield now, notice


def occasions(*observations: tuple[float, Sequence[Alert]]) -> list[tuple[float, Occasion]]:
    return [(at, notice.occasion) for at, notice in messages(*observations)]


def test_update_first_failure_is_sent_with_all_facts() -> None:
    ((_, notice),) = messages((1000, [DISK]))

    assert notice == Notice(
        FAILING,
        "memoryark",
        "production",
        "memoryark production web1 disk 1000",
        1000,
        hosts=("web1",),
        check="disk",
        cause="4 % free on /",
        next_command="inv prune --env production",
    )


def test_update_continuing_alert_is_sent_again_after_each_repeat_interval() -> None:
    observations = [(float(at), [DISK]) for at in range(0, 7500, 30)]

    assert occasions(*observations) == [(0, FAILING), (3600, AGAIN), (7200, AGAIN)]


def test_update_absent_alert_is_resolved_once_in_its_thread() -> None:
    observations = [(0, [DISK]), (30, [DISK]), (60, []), (140, []), (160, []), (190, [])]
    found = list(messages(*observations))

    assert [(at, notice.occasion) for at, notice in found] == [(0, FAILING), (160, RESOLVED)]
    assert found[0][1].thread == found[1][1].thread
    assert found[1][1].seconds == 30
    assert found[1][1].severity is found[0][1].severity is Severity.CRITICAL


def test_update_short_gap_does_not_end_an_alert() -> None:
    assert occasions((0, [DISK]), (60, []), (90, [DISK]), (120, []), (150, [DISK])) == [(0, FAILING)]


def test_update_two_alerts_are_two_messages() -> None:
    found = list(messages((0, [DISK, BACKEND]), (130, [DISK])))

    assert [(at, notice.occasion, notice.check) for at, notice in found] == [
        (0, FAILING, "disk"),
        (0, FAILING, "backend"),
        (130, RESOLVED, "backend"),
    ]


def test_update_alert_that_comes_back_later_is_a_new_one() -> None:
    found = list(messages((0, [DISK]), (200, []), (5000, []), (6000, [DISK])))

    assert [(at, notice.occasion) for at, notice in found] == [(0, FAILING), (200, RESOLVED), (6000, FAILING)]
    assert found[2][1].thread != found[0][1].thread


def test_update_flapping_alert_is_sent_less_and_less_often() -> None:
    observations = [(float(at), [DISK] if at // 300 % 2 == 0 else []) for at in range(0, 4 * 3600, 30)]

    found = occasions(*observations)

    assert [(at, occasion) for at, occasion in found if occasion is not AGAIN] == [
        (0, FAILING),
        (390, RESOLVED),
        (600, FAILING),
        (1110, RESOLVED),
        (1200, FAILING),
    ]
    assert len(found) < 10


@pytest.mark.parametrize("jump", [-86_400.0, -30.0, 0.0])
def test_update_after_the_clock_was_set_back_sends_nothing_twice(jump: float) -> None:
    tracked, _ = DEDUPLICATOR.update({}, [DISK], 100_000)

    tracked, notices = DEDUPLICATOR.update(tracked, [DISK], 100_000 + jump)
    assert notices == ()

    _, again = DEDUPLICATOR.update(tracked, [DISK], 100_000 + jump + 3600)
    assert [notice.occasion for notice in again] == [AGAIN]
    assert again[0].seconds >= 0


def test_update_with_the_previous_alerts_sends_an_undelivered_message_again() -> None:
    _, first = DEDUPLICATOR.update({}, [DISK], 0)
    _, second = DEDUPLICATOR.update({}, [DISK], 30)

    assert [notice.occasion for notice in (*first, *second)] == [FAILING, FAILING]


def test_update_forgets_alerts_resolved_long_ago() -> None:
    tracked, _ = DEDUPLICATOR.update({}, [DISK], 0)
    tracked, _ = DEDUPLICATOR.update(tracked, [], 200)
    tracked, _ = DEDUPLICATOR.update(tracked, [], 4000)

    assert tracked == {}


@given(st.lists(st.tuples(st.integers(1, 4000), st.sets(st.sampled_from([DISK, BACKEND]))), max_size=60))
def test_update_every_failing_is_followed_by_one_resolved(
    steps: list[tuple[int, set[Alert]]],
) -> None:
    now, observations = 0.0, []
    for seconds, alerts in steps:
        now += seconds
        observations.append((now, sorted(alerts, key=lambda alert: alert.key)))
    observations.append((now + 4000, []))

    for check in ("disk", "backend"):
        sent = [notice.occasion for _, notice in messages(*observations) if notice.check == check]
        turns = [occasion for occasion in sent if occasion is not AGAIN]
        assert turns == [FAILING, RESOLVED] * (len(turns) // 2)


def test_load_reads_what_dump_wrote_without_causes() -> None:
    tracked, _ = DEDUPLICATOR.update({}, [DISK, BACKEND], 1000)

    assert load_tracked(dump_tracked(tracked)) == tracked
    assert "4 % free" not in dump_tracked(tracked)


def test_load_reads_the_file_of_an_earlier_version() -> None:
    text = """[{"alert": {"host": "web1", "check": "backend", "cause": "", "next_command": "inv health",
        "level": "warning", "given_up": false}, "thread": "t",
        "since": 1.5, "told_at": 2, "seen_at": 3.0, "times": 1, "open": true}]"""

    assert load_tracked(text) == {
        "web1 backend": TrackedAlert(Alert("web1", "backend", "", "inv health"), "t", 1.5, 2.0, 3.0, times=1)
    }


@pytest.mark.parametrize("text", ["", "null", "{}", "[1]", '[{"alert": {}}]', "[[]]", '{"a": 1}', "\0"])
def test_load_of_malformed_text_is_empty(text: str) -> None:
    assert load_tracked(text) == {}


def test_update_alert_of_a_recovery_given_up_is_sent_at_once_and_resolved_once() -> None:
    given_up = replace(BACKEND, given_up=True)
    observations = [(0, [BACKEND]), (30, [given_up]), (60, [given_up]), (300, []), (330, [])]

    assert occasions(*observations) == [(0, FAILING), (30, Occasion.RECOVERY_GIVEN_UP), (300, RESOLVED)]
    assert occasions((0, [given_up]), (30, [given_up])) == [(0, Occasion.RECOVERY_GIVEN_UP)]
