"""`inv prune` on two hosts: the list, the deletion, and refusals that delete nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode, HostUnreachable, Interrupted, LockHeld
from rolling_upgrade.features.prune.retention import KEPT_JOURNALS
from rolling_upgrade.features.prune.workflow import prune
from tests.support.builders import Terminal
from tests.support.local_fleet import HELD, Machines
from tests.support.project import Project
from tests.support.shell import Programs

UNUSED = "sha256:" + "9" * 64
#: Each host has one unused image of the backend; a container of web2 starts to use it before it is deleted.
PODMAN = f"""\
case "$1 $*" in
"images "*memoryark/backend*) echo "sha256:77 {UNUSED} [registry.example.org/memoryark/backend:v1]" ;;
"image "*) echo 5000000 ;;
"rmi "*) [ "$HOST" != web2 ] ;;
esac"""


@pytest.fixture
def hosts(machines: Machines, programs: Programs) -> Machines:
    """Two hosts, each with an expired configuration, an expired journal and an unused image."""
    for name in ("curl", "ss", "systemctl", "loginctl"):
        programs.add(name)
    programs.add("podman", PODMAN)
    for host in ("web1", "web2"):
        home = machines.prepare(host)
        for run in range(KEPT_JOURNALS + 1):
            (home / f"journal/20261124T0800{run:02}Z-aaaaaa").mkdir()
        expired_configuration(machines, host).mkdir()
        (expired_configuration(machines, host) / "env").write_text("SECRET=former\n")
    return machines


def expired_configuration(machines: Machines, host: str) -> Path:
    return machines.home(host) / "config/backend-0123456789abcdef"


def journals(machines: Machines, host: str) -> list[str]:
    return sorted(path.name for path in (machines.home(host) / "journal").iterdir())


def is_untouched(machines: Machines, programs: Programs) -> bool:
    return (
        not [call for call in programs.calls("podman") if call[1] == "rmi"]
        and all(expired_configuration(machines, host).exists() for host in ("web1", "web2"))
        and all(len(journals(machines, host)) == KEPT_JOURNALS + 1 for host in ("web1", "web2"))
    )


def test_dry_run_lists_the_expired_items_and_deletes_none(
    project: Project, hosts: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune("demo", root=project.root, dry_run=True) is ExitCode.DONE

    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("web1 ")]
    assert [row[1] for row in rows] == ["image", "configuration", "journal"]
    assert rows[0][-1] == f"registry.example.org/memoryark/backend@{UNUSED}"
    assert rows[2][-1].endswith("/journal/20261124T080000Z-aaaaaa")
    assert lines[-1].startswith("web2: 3 items expired, at most ")
    assert is_untouched(hosts, programs)


def test_prune_deletes_what_the_dry_run_lists_and_releases_the_locks(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune("demo", root=project.root, force=True) is ExitCode.DONE

    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines[-2:]] == ["web1: 3 items deleted", "web2: 2 items deleted"]
    assert [line.split()[1] for line in lines if " in use " in line] == ["image"]
    for host in ("web1", "web2"):
        assert not expired_configuration(hosts, host).exists()
        assert journals(hosts, host)[0] == "20261124T080001Z-aaaaaa"
        assert not (hosts.home(host) / "lock/held").exists()


def test_prune_json_prints_only_the_result(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune("demo", root=project.root, hosts=("web2",), force=True, json=True) is ExitCode.DONE

    (host,) = json.loads(capsys.readouterr().out)["hosts"]
    assert [(item["kind"], item["verdict"]) for item in host["things"]] == [
        ("image", "in use"),
        ("configuration", "gone"),
        ("journal", "gone"),
    ]
    assert expired_configuration(hosts, "web1").exists()


def test_prune_without_expired_items_asks_nothing_and_acquires_no_lock(
    project: Project, machines: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("curl", "ss", "systemctl", "loginctl", "podman"):
        programs.add(name)
    project.rollout("confirm: true")
    homes = [machines.prepare(host) for host in ("web1", "web2")]

    assert prune("demo", root=project.root) is ExitCode.DONE

    assert capsys.readouterr().out.splitlines() == ["web1: nothing to delete", "web2: nothing to delete"]
    assert not any((home / "lock/guard").exists() for home in homes)


def test_prune_requires_a_confirmation(
    project: Project, hosts: Machines, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.rollout("confirm: true")

    with pytest.raises(ConfigError, match="stdin is not a terminal"):
        prune("demo", root=project.root)
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    with pytest.raises(Interrupted, match="nothing was touched"):
        prune("demo", root=project.root)

    assert is_untouched(hosts, programs)


def test_prune_with_a_host_locked_by_another_run_deletes_nothing(
    project: Project, hosts: Machines, programs: Programs
) -> None:
    (hosts.home("web2") / "lock/held").write_text(HELD)

    with pytest.raises(LockHeld, match="web2: locked by ben@desk"):
        prune("demo", root=project.root, force=True)

    assert is_untouched(hosts, programs)


def test_prune_with_an_unreachable_host_deletes_nothing(project: Project, hosts: Machines, programs: Programs) -> None:
    hosts.unreachable.add("web2")

    with pytest.raises(HostUnreachable, match="web2"):
        prune("demo", root=project.root, force=True)

    assert is_untouched(hosts, programs)


def test_prune_whose_list_fails_on_one_host_deletes_nothing(
    project: Project, hosts: Machines, programs: Programs
) -> None:
    programs.add("sort", '[ "$HOST" = web1 ] || { echo "Input/output error" >&2; exit 5; }; exec /usr/bin/sort "$@"')

    with pytest.raises(HostUnreachable, match=r"^web2: pruning did not finish \(status 5\).*\n.*\nInput/output error$"):
        prune("demo", root=project.root, force=True)

    assert is_untouched(hosts, programs)
