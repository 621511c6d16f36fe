"""The loop's waiting: quick requests while all is well, none where trouble is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabfile.model import Rollout
from fabfile.model.watch import WatchRules
from fabfile.watchdog import watching
from fabfile.watchdog.keeping import Settings
from tests.commands.sample import application, backend
from tests.notify.receiver import closed_port

SETTINGS = Settings("shop", "web1", "production", WatchRules(), Rollout())


class Clock:
    """Time that passes by sleeping alone."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("well", "waited"), [(True, watching.PULSE_SECONDS), (False, 30.0)])
def test_wait_is_cut_short_by_a_request_that_fails_only_where_all_was_well(
    well: bool, waited: float, tmp_path: Path
) -> None:
    clock = Clock()
    watchdog = watching.Watchdog(tmp_path, SETTINGS, clock, clock.sleep)
    watchdog._app, watchdog._well = application(backend(stable_port=closed_port()), full_chain=None), well

    watchdog.wait(30.0)

    assert clock.now == waited
