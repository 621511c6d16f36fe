"""The steps that turn the maintenance page on and off in a run: for MAINTENANCE_MODE, and while a run replaces data.

A page that an operator turned on stays on until an operator turns it off. The next run turns off a dead run's page.
"""

from __future__ import annotations

from rolling_upgrade.engine import health_gate, maintenance
from rolling_upgrade.engine.model import Application, HostState
from rolling_upgrade.engine.plan import Step
from rolling_upgrade.engine.shell import script

PAGE_SECONDS = 30


def differs(state: HostState, page: str | None) -> bool:
    """Whether the page changes. `page` is its desired text, '' for no page, None to leave it alone."""
    if page is None:
        return False
    up = state.fact("maintenance")
    return not up if page else up in {maintenance.BY_SETTING, maintenance.BY_RUN}


def turn_on(state: HostState, app: Application, page: str | None) -> tuple[Step, ...]:
    """Return the step that turns the page on before the first cutover."""
    return (_on_step(app, page),) if page and differs(state, page) else ()


def around(state: HostState, app: Application, page: str) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Return the steps that turn the page on and off around an outage; none if a page is already on and stays on."""
    if state.fact("maintenance") not in {"", maintenance.BY_RUN} or not maintenance.is_supported(app, state.site):
        return (), ()
    return (_on_step(app, page),), (off_step(app),)


def turn_off(state: HostState, app: Application, page: str | None) -> tuple[Step, ...]:
    """Return the last step, which turns the page off once the release is verified."""
    return () if page or not differs(state, page) else (off_step(app),)


def off_step(app: Application) -> Step:
    """Turn the page off and wait until the application answers visitors."""
    answers = health_gate.watch(
        [health_gate.public(app)], seconds=0, passes=3, deadline_seconds=maintenance.VERIFY_SECONDS
    )
    body = script(maintenance.disable(app), answers, "watch")
    return Step("maintenance.off", "turn the maintenance page off", body, PAGE_SECONDS)


def _on_step(app: Application, page: str) -> Step:
    undo = script(maintenance.disable(app))
    body = maintenance.enable_verified(app, page)
    return Step(
        "maintenance.on", "turn the maintenance page on", body, PAGE_SECONDS, undo, "turn the maintenance page off"
    )
