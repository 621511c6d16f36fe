"""Which alerts are told, held back and over: looks in, messages out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabfile.model import Notice, Occasion, Severity
from fabfile.notify.holding import Alert, Holding, Memory, dump, load

DISK = Alert("web1", "disk", "4 % free on /", "inv prune --env production", Severity.WARNING)
BACKEND = Alert("web1", "backend", "HTTP 502")
HOLDING = Holding("memoryark", "production", repeat_seconds=3600, quiet_seconds=120)
FAILING, AGAIN, RESOLVED = Occasion.CHECK_FAILING, Occasion.CHECK_AGAIN, Occasion.CHECK_RESOLVED


def watched(*looks: tuple[float, Sequence[Alert]], memory: Memory | None = None) -> Iterator[tuple[float, Notice]]:
    """What is told over many looks, and when."""
    held: Memory = memory or {}
    for now, alerts in looks:
        held, notices = HOLDING.hold(held, alerts, now)
        for notice in notices:
            yield now, notice


def told(*looks: tuple[float, Sequence[Alert]]) -> list[tuple[float, Occasion]]:
    return [(at, notice.occasion) for at, notice in watched(*looks)]


def test_hold_first_failure_is_told_with_all_that_is_known() -> None:
    ((_, notice),) = watched((1000, [DISK]))

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
        level=Severity.WARNING,
    )


def test_hold_alert_that_goes_on_is_told_again_after_the_repeat_alone() -> None:
    looks = [(float(at), [DISK]) for at in range(0, 7500, 30)]

    assert told(*looks) == [(0, FAILING), (3600, AGAIN), (7200, AGAIN)]


def test_hold_alert_that_stays_away_is_resolved_once_in_its_own_thread() -> None:
    looks = [(0, [DISK]), (30, [DISK]), (60, []), (140, []), (160, []), (190, [])]
    found = list(watched(*looks))

    assert [(at, notice.occasion) for at, notice in found] == [(0, FAILING), (160, RESOLVED)]
    assert found[0][1].thread == found[1][1].thread
    assert found[1][1].seconds == 30
    assert found[1][1].severity is found[0][1].severity is Severity.WARNING


def test_hold_short_gap_is_the_same_alert() -> None:
    assert told((0, [DISK]), (60, []), (90, [DISK]), (120, []), (150, [DISK])) == [(0, FAILING)]


def test_hold_two_alerts_are_two_messages() -> None:
    found = list(watched((0, [DISK, BACKEND]), (130, [DISK])))

    assert [(at, notice.occasion, notice.check) for at, notice in found] == [
        (0, FAILING, "disk"),
        (0, FAILING, "backend"),
        (130, RESOLVED, "backend"),
    ]


def test_hold_alert_that_comes_back_later_is_a_new_one() -> None:
    found = list(watched((0, [DISK]), (200, []), (5000, []), (6000, [DISK])))

    assert [(at, notice.occasion) for at, notice in found] == [(0, FAILING), (200, RESOLVED), (6000, FAILING)]
    assert found[2][1].thread != found[0][1].thread


def test_hold_flapping_alert_is_told_less_and_less() -> None:
    looks = [(float(at), [DISK] if at // 300 % 2 == 0 else []) for at in range(0, 4 * 3600, 30)]

    found = told(*looks)

    assert [one for one in found if one[1] is not AGAIN] == [
        (0, FAILING),
        (390, RESOLVED),
        (600, FAILING),
        (1110, RESOLVED),
        (1200, FAILING),
    ]
    assert len(found) < 10


@pytest.mark.parametrize("jump", [-86_400.0, -30.0, 0.0])
def test_hold_clock_set_back_tells_nothing_twice_and_goes_on(jump: float) -> None:
    memory, _ = HOLDING.hold({}, [DISK], 100_000)

    memory, notices = HOLDING.hold(memory, [DISK], 100_000 + jump)
    assert notices == ()

    _, again = HOLDING.hold(memory, [DISK], 100_000 + jump + 3600)
    assert [notice.occasion for notice in again] == [AGAIN]
    assert again[0].seconds >= 0


def test_hold_message_that_reached_nobody_is_told_by_the_next_call() -> None:
    _, first = HOLDING.hold({}, [DISK], 0)
    _, second = HOLDING.hold({}, [DISK], 30)

    assert [notice.occasion for notice in (*first, *second)] == [FAILING, FAILING]


def test_hold_forgets_what_is_long_over() -> None:
    memory, _ = HOLDING.hold({}, [DISK], 0)
    memory, _ = HOLDING.hold(memory, [], 200)
    memory, _ = HOLDING.hold(memory, [], 4000)

    assert memory == {}


@given(st.lists(st.tuples(st.integers(1, 4000), st.sets(st.sampled_from([DISK, BACKEND]))), max_size=60))
def test_hold_every_resolved_follows_a_failing_and_every_failing_gets_one(
    steps: list[tuple[int, set[Alert]]],
) -> None:
    now, looks = 0.0, []
    for seconds, alerts in steps:
        now += seconds
        looks.append((now, sorted(alerts, key=lambda alert: alert.key)))
    looks.append((now + 4000, []))

    for check in ("disk", "backend"):
        turns = [one.occasion for _, one in watched(*looks) if one.check == check and one.occasion is not AGAIN]
        assert turns == [FAILING, RESOLVED] * (len(turns) // 2)


def test_memory_survives_a_restart_without_causes() -> None:
    memory, _ = HOLDING.hold({}, [DISK, BACKEND], 1000)

    assert load(dump(memory)) == memory
    assert "4 % free" not in dump(memory)


@pytest.mark.parametrize("text", ["", "null", "{}", "[1]", '[{"alert": {}}]', "[[]]", '{"a": 1}', "\0"])
def test_memory_that_is_damaged_is_none(text: str) -> None:
    assert load(text) == {}


def test_hold_alert_that_becomes_a_persons_is_told_at_once_and_resolved_once() -> None:
    given_up = replace(BACKEND, given_up=True)
    looks = [(0, [BACKEND]), (30, [given_up]), (60, [given_up]), (300, []), (330, [])]

    assert told(*looks) == [(0, FAILING), (30, Occasion.RECOVERY_GIVEN_UP), (300, RESOLVED)]
    assert told((0, [given_up]), (30, [given_up])) == [(0, Occasion.RECOVERY_GIVEN_UP)]
