"""The undo command of a rollback when a host's history contains shell text."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import cast

import pytest

from rolling_upgrade.engine.model import Color, Environment, Outcome, Release, ServiceRelease, Target
from rolling_upgrade.engine.rollout import HostRun
from rolling_upgrade.features.rollback import workflow as rollback
from rolling_upgrade.features.rollback.workflow import RollbackTarget
from tests.support.sample import application


def release(number: int, tag: str) -> Release:
    run = ServiceRelease(f"r/backend:{tag}", f"sha256:{number}", Color.BLUE)
    return Release(f"r{number}", "t", "deploy", Outcome.GOOD, (("backend", run),))


@pytest.mark.parametrize("tag", ["v1; touch pwned", "$(touch pwned)", "`id`", "a b", "'", "v1\nid", "-x", "--force"])
def test_undo_command_quotes_a_tag_of_the_history(tag: str) -> None:
    app = application()
    environment = Environment("demo", tuple(Target(name, name, "deploy", app) for name in ("web1", "web2")))
    targets = {
        name: RollbackTarget(release(9, "v0"), release(number, tag), app)
        for number, name in enumerate(("web1", "web2"))
    }
    host_runs = [cast(HostRun, SimpleNamespace(name=name)) for name in targets]

    command = rollback._operation_spec(environment, targets, (), "r3").undo_command(host_runs)

    expected = [] if tag.startswith("-") else ["rolling-upgrade", "rollback", "--env", "demo", "--to", tag]
    assert shlex.split(command) == expected
