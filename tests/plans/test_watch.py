"""The watchdog's decisions as tables: a row of looks in, a row of acts out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabfile.model.watch import Act, Ailment, Look, Memory, Trouble, WatchRules
from fabfile.plans.watch import PRUNE_AGAIN_SECONDS, decide, recovered

RULES = WatchRules()
GOOD = Look(("backend", "frontend"), release="A")
ILL = replace(GOOD, troubles=(Trouble("backend", Ailment.ILL, "HTTP 503"),))
STOPPED = replace(GOOD, troubles=(Trouble("backend", Ailment.STOPPED, "exited"),))
SILENT = replace(GOOD, troubles=(Trouble("backend", Ailment.SILENT, "no answer"),))
CRASHED = replace(GOOD, troubles=(Trouble("backend", Ailment.CRASHING, "crashed", crashes=1),))
PATH = replace(GOOD, troubles=(Trouble("frontend", Ailment.PATH, "502"),))
RECOVERIES = {Act.RESTART, Act.REDEPLOY, Act.ROLL_BACK}
LETTERS = {
    Act.NOTHING: ".", Act.WAIT: "w", Act.RESTART: "R", Act.REDEPLOY: "D", Act.ROLL_BACK: "B", Act.PRUNE: "P",
    Act.GIVE_UP: "G",
}  # fmt: skip


def acts(looks: list[Look], rules: WatchRules = RULES, every: float = 5.0) -> str:
    """What is done about each look, every recovery made as it is decided."""
    memory, now, said = Memory(), 1000.0, ""
    for look in looks:
        memory, decision = decide(memory, look, rules, now)
        said += LETTERS[decision.act]
        if decision.act in RECOVERIES:
            memory = recovered(memory, decision.service, now)
        now += every
    return said


def fresh(look: Look) -> Look:
    return replace(look, fresh=True, earlier=True)


@pytest.mark.parametrize(
    "looks, expected",
    [
        ([GOOD] * 3, "..."),
        ([SILENT] * 2 + [GOOD], "ww."),
        ([SILENT] * 3 + [GOOD] * 2, "wwR.."),
        ([STOPPED] * 3, "wwR"),
        # Not mended by the restart: the same release anew.
        ([SILENT] * 6, "wwRwwD"),
        # A young release goes instead, but only where there is one to go back to.
        ([fresh(SILENT)] * 6, "wwRwwB"),
        ([replace(SILENT, fresh=True)] * 6, "wwRwwD"),
        ([replace(SILENT, earlier=True)] * 6, "wwRwwD"),
        # What answers that it is ill is restarted once, but a young release would only say so again.
        ([ILL] * 6, "wwRwwD"),
        ([fresh(ILL)] * 3, "wwB"),
        # The way to the service: no restart of what answers by itself.
        ([PATH] * 3, "wwD"),
        ([fresh(PATH)] * 3, "wwB"),
        # Podman's own restarts did not help; looks in between are good.
        ([CRASHED, GOOD, CRASHED, GOOD, CRASHED], "w.w.D"),
        ([CRASHED, GOOD, GOOD, GOOD, CRASHED, CRASHED], "w...ww"),
        ([fresh(CRASHED)] * 3, "wwB"),
        # Three recoveries, then no more, and said once.
        ([SILENT] * 14, "wwRwwDwwDwwGww"),
        # A probe that flaps below the count starts nothing.
        ([SILENT, SILENT, GOOD] * 6, "ww." * 6),
        # One that flaps above it is one trouble: the restart is not tried again and again.
        (([SILENT] * 3 + [GOOD]) * 3, "wwR.wwD.wwD."),
        # Calm for a whole run of looks ends the trouble.
        ([SILENT] * 3 + [GOOD] * 3 + [SILENT] * 3, "wwR...wwR"),
        # It begins again after it gave up only when all is well, or something else serves.
        ([SILENT] * 12 + [GOOD] * 3 + [SILENT] * 3, "wwRwwDwwDwwG...wwG"),
        # Two services at once: one act at a time.
        ([replace(GOOD, troubles=STOPPED.troubles + PATH.troubles)] * 5, "wwRDw"),
    ],
)
def test_decide_row_of_looks_gives_row_of_acts(looks: list[Look], expected: str) -> None:
    assert acts(looks) == expected


def test_decide_after_the_window_recovers_again() -> None:
    assert acts([SILENT] * 12, replace(RULES, window_seconds=45)) == "wwRwwDwwDwwD"


def test_decide_another_release_lets_it_begin_again() -> None:
    assert acts([SILENT] * 12 + [replace(SILENT, release="B")] * 3, replace(RULES, window_seconds=60)).endswith("GwwR")


@pytest.mark.parametrize("look", [SILENT, STOPPED, PATH, GOOD])
def test_decide_while_a_run_holds_the_lock_does_nothing_and_counts_nothing(look: Look) -> None:
    held = replace(look, held="root: deploy v2")
    assert acts([look] * 2 + [held] * 9 + [GOOD]) == ("ww" if look.troubles else "..") + "." * 9 + "."
    memory, _ = decide(Memory(), held, RULES, 0)
    assert memory == Memory()


def test_decide_short_of_room_prunes_and_starts_only_what_does_not_run() -> None:
    assert acts([replace(SILENT, starved="disk / 3 % free")] * 6) == "Pwwwww"
    assert acts([replace(GOOD, starved="memory")] * 3) == "Pww"
    assert acts([replace(STOPPED, starved="memory")] * 9) == "PwRwwRwwR"
    again = int(PRUNE_AGAIN_SECONDS / 600)
    assert acts([replace(GOOD, starved="disk /")] * (again + 1), every=600) == "P" + "w" * (again - 1) + "P"


def test_decide_what_no_recovery_can_mend_is_only_waited_for() -> None:
    assert acts([replace(SILENT, hopeless="Nginx does not run")] * 9) == "w" * 9


def test_decide_switched_off_touches_nothing() -> None:
    off = replace(RULES, enabled=False)
    assert acts([SILENT] * 9, off) == "w" * 9
    assert acts([replace(GOOD, starved="disk /")] * 3, off) == "www"


@given(
    st.lists(
        st.sampled_from([GOOD, SILENT, STOPPED, CRASHED, PATH, fresh(SILENT), replace(SILENT, starved="disk")]),
        max_size=90,
    )
)
def test_decide_whatever_it_sees_never_recovers_more_often_than_the_limit(looks: list[Look]) -> None:
    said = acts(looks)
    window = int(RULES.window_seconds / 5)
    for start in range(len(said)):
        assert sum(letter in "RDB" for letter in said[start : start + window]) <= RULES.limit
