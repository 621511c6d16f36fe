"""`inv health` on two hosts: one look, repeated looks, and hosts that give no answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode
from rolling_upgrade.features.health.workflow import health
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.running import Programs

#: Every request is answered with 200.
CURL = 'for word; do case $word in http*) printf "http\\t%s\\t200\\t0.012\\t\\n" "$word" ;; esac; done'


def test_one_look_names_the_checks_that_fail_on_each_host(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.add("podman")
    programs.add("curl", CURL)

    assert health("demo", root=project.root, json=True) is ExitCode.FAILED

    hosts = json.loads(capsys.readouterr().out)["hosts"]
    assert [host["host"] for host in hosts] == ["web1", "web2"]
    failed = {check["name"] for check in hosts[0]["checks"] if not check["ok"]}
    assert {"backend container", "frontend container"} <= failed
    assert not {"backend http", "frontend http"} & failed


def test_looks_end_after_the_given_number_of_failures(
    project: Project, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.unreachable |= {"web1", "web2"}

    assert health("demo", root=project.root, interval="1s", max_failures="2") is ExitCode.FAILED

    assert capsys.readouterr().out.count("web2  UNREACHABLE") == 2


@pytest.mark.parametrize("options", [{"interval": "soon"}, {"max_failures": "0"}])
def test_options_are_checked_before_a_host_is_contacted(project: Project, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="command line"):
        health("demo", root=project.root, **options)
