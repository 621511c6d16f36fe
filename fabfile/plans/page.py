"""The maintenance page within a deploy: MAINTENANCE_MODE puts it up and takes down what it put up. Pure.

A page that a person put up stays until a person takes it down.
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
    return not up if page else up == maintenance.BY_SETTING


def put_up(state: HostState, app: Application, page: str | None) -> tuple[Step, ...]:
    """The step before the first cutover."""
    if not page or not differs(state, page):
        return ()
    undo = script(maintenance.off(app))
    body = maintenance.prove_on(app, page)
    return (_step("maintenance.on", "put the maintenance page up", body, undo, "take the maintenance page down"),)


def take_down(state: HostState, app: Application, page: str | None) -> tuple[Step, ...]:
    """The last step, once the release is verified: after it visitors reach the application, which must answer them."""
    return () if page or not differs(state, page) else (down(app),)


def down(app: Application) -> Step:
    """Take the page down; visitors reach the application from then on, which must answer them."""
    answers = probe.watch([probe.public(app)], seconds=0, passes=3, deadline_seconds=maintenance.PROOF_SECONDS)
    body = script(maintenance.off(app), answers, "watch")
    return _step("maintenance.off", "take the maintenance page down", body, None, "")


def _step(id: str, title: str, body: Script, undo: Script | None, undo_title: str) -> Step:
    return Step(id, title, body, PAGE_SECONDS, undo, undo_title)
