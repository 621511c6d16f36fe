"""`inv doctor` on hosts that setup has not prepared, and on an unreachable one."""

from __future__ import annotations

import json

import pytest

from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.doctor.workflow import doctor
from tests.support.local_fleet import Machines
from tests.support.project import Project
from tests.support.shell import Programs


def test_unprepared_hosts_are_refused_with_a_remedy_for_each_finding(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("podman", "nginx", "curl", "skopeo", "sudo", "systemctl"):
        programs.add(name)

    assert doctor("demo", root=project.root, json=True) is ExitCode.REFUSED

    found = json.loads(capsys.readouterr().out)
    assert found["refused"] is True
    assert {row["host"] for row in found["findings"]} == {"here", "web1", "web2"}
    assert all(row["remedy"] for row in found["findings"] if row["level"] == "refused")


def test_unreachable_host_is_a_finding_and_hides_no_other(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("podman", "nginx", "curl", "skopeo", "sudo", "systemctl"):
        programs.add(name)
    machines.unreachable.add("web2")

    assert doctor("demo", root=project.root) is ExitCode.REFUSED

    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("web2") + 1].split()[:2] == ["REFUSED", "web2:"]
    assert len(lines[lines.index("web1") : lines.index("web2")]) > 5
