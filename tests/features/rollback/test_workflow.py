"""The command that a rollback names for the way back, where a host's history holds a text for a shell."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import cast

import pytest

from rolling_upgrade.engine.model import Color, Environment, Outcome, Release, ServiceRelease, Target
from rolling_upgrade.engine.rollout import HostRun
from rolling_upgrade.features.rollback import workflow as rollback
from rolling_upgrade.features.rollback.workflow import Return
from tests.support.sample import application


def left(number: int, tag: str) -> Release:
    run = ServiceRelease(f"r/backend:{tag}", f"sha256:{number}", Color.BLUE)
    return Release(f"r{number}", "t", "deploy", Outcome.GOOD, (("backend", run),))


@pytest.mark.parametrize("tag", ["v1; touch pwned", "$(touch pwned)", "`id`", "a b", "'", "v1\nid", "-x", "--force"])
def test_tag_of_a_history_is_one_word_of_the_command_and_no_option(tag: str) -> None:
    app = application()
    environment = Environment("demo", tuple(Target(name, name, "deploy", app) for name in ("web1", "web2")))
    returns = {name: Return(left(9, "v0"), left(number, tag), app) for number, name in enumerate(("web1", "web2"))}
    members = [cast(HostRun, SimpleNamespace(name=name)) for name in returns]

    command = rollback._operation_spec(environment, returns, (), "r3").back(members)

    expected = [] if tag.startswith("-") else ["inv", "rollback", "--env", "demo", "--to", tag]
    assert shlex.split(command) == expected
