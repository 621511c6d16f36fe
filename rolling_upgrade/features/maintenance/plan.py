"""The maintenance page within a run: for MAINTENANCE_MODE, and for the time in which a run replaces data. Pure.

A page that a person put up stays until a person takes it down; one of a run that died goes with the next run.
"""

from __future__ import annotations

from fabfile.commands import maintenance, probe
from fabfile.commands.shell import Script, script
from fabfile.model import Application, HostState
from fabfile.plans.step import Step

PAGE_SECONDS = 30


def differs(state: HostState, page: str | None) -> bool:
    """Whether the page goes up or down: `page` is the text that the setting wants, '' for none, None for either."""
    if page is None:
        return False
    up = state.fact("maintenance")
    return not up if page else up in {maintenance.BY_SETTING, maintenance.BY_RUN}


def put_up(state: HostState, app: Application, page: str | None) -> tuple[Step, ...]:
    """The step before the first cutover."""
    return (_up(app, page),) if page and differs(state, page) else ()


def around(state: HostState, app: Application, page: str) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The steps before and after a time in which the application cannot answer; none where a page is up that stays."""
    if state.fact("maintenance") not in {"", maintenance.BY_RUN} or not maintenance.is_known(app, state.site):
        return (), ()
    return (_up(app, page),), (down(app),)


def take_down(state: HostState, app: Application, page: str | None) -> tuple[Step, ...]:
    """The last step, once the release is verified: after it visitors reach the application, which must answer them."""
    return () if page or not differs(state, page) else (down(app),)


def down(app: Application) -> Step:
    """Take the page down; visitors reach the application from then on, which must answer them."""
    answers = probe.watch([probe.public(app)], seconds=0, passes=3, deadline_seconds=maintenance.PROOF_SECONDS)
    body = script(maintenance.off(app), answers, "watch")
    return _step("maintenance.off", "take the maintenance page down", body, None, "")


def _up(app: Application, page: str) -> Step:
    undo = script(maintenance.off(app))
    body = maintenance.prove_on(app, page)
    return _step("maintenance.on", "put the maintenance page up", body, undo, "take the maintenance page down")


def _step(id: str, title: str, body: Script, undo: Script | None, undo_title: str) -> Step:
    return Step(id, title, body, PAGE_SECONDS, undo, undo_title)
