"""`inv maintenance` on two hosts: the page, the visitor's request that verifies it, and refusals that touch nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rolling_upgrade.errors import ConfigError, ExitCode, HostUnreachable, Interrupted, LockHeld, PreflightError
from rolling_upgrade.features.maintenance.workflow import MAX_MESSAGE_LENGTH, maintenance
from tests.support.builders import Terminal
from tests.support.local_fleet import HELD, Machines
from tests.support.project import Project
from tests.support.shell import Programs

#: Answers as Nginx does with the page on or off; the host in the file `broken` always sends the application's answer.
CURL = """\
page="$HOME/../var/lib/memoryark/live/maintenance.html"
case "$*" in
*x-maintenance*) if [ -f "$page" ] && ! grep -q "$HOST" "$here/broken"; then printf '503 on'; else printf '200 '; fi ;;
*) printf '200\\t0.01\\t' ;;
esac"""


@pytest.fixture
def hosts(machines: Machines, programs: Programs) -> Machines:
    """Two deployed hosts whose visitors get what the page's file says, and a fake clock for the verification."""
    for name in ("podman", "ss", "systemctl", "loginctl"):
        programs.add(name)
    programs.add("curl", CURL)
    programs.clock()
    broken(programs)
    for host in ("web1", "web2"):
        machines.prepare(host)
    return machines


def broken(programs: Programs, host: str = "none") -> None:
    """Name the host on which Nginx does not serve the page."""
    (programs.directory.parent / "broken").write_text(f"{host}\n")


def page(machines: Machines, host: str) -> Path:
    return machines.home(host) / "live/maintenance.html"


def switch(project: Project, on_or_off: str, *, message: str = "", force: bool = True) -> ExitCode:
    return maintenance(on_or_off, "demo", root=project.root, message=message, force=force)


def test_on_and_off_change_the_page_of_every_host_and_release_the_locks(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert switch(project, "on", message="Back at 5 & a bit") is ExitCode.DONE

    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["web1", "web2"]
    for host in ("web1", "web2"):
        assert "Back at 5 &amp; a bit" in page(hosts, host).read_text()
        assert not (page(hosts, host).parents[1] / "lock/held").exists()

    assert switch(project, "off") is ExitCode.DONE

    assert capsys.readouterr().out.splitlines() == [
        "web1: maintenance is off: visitors get HTTP 200",
        "web2: maintenance is off: visitors get HTTP 200",
    ]
    assert not page(hosts, "web1").exists()
    assert not page(hosts, "web2").exists()


def test_on_that_nginx_does_not_serve_restores_the_host_and_keeps_the_others(
    project: Project, hosts: Machines, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(programs, "web2")

    assert switch(project, "on") is ExitCode.PARTLY_DONE

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("web1: maintenance is on")
    assert lines[1].startswith("web2: the page could not be turned on: / as a visitor sees it: HTTP 200")
    assert lines[-1].startswith("Next: rolling-upgrade status --env demo")
    assert page(hosts, "web1").exists()
    assert not page(hosts, "web2").exists()


def test_on_that_nginx_does_not_serve_keeps_the_former_page(
    project: Project, hosts: Machines, programs: Programs
) -> None:
    page(hosts, "web1").write_text("former")
    broken(programs, "web1")

    assert switch(project, "on") is ExitCode.PARTLY_DONE

    assert page(hosts, "web1").read_text() == "former"


def test_on_with_a_site_that_does_not_know_the_page_touches_no_host(project: Project, hosts: Machines) -> None:
    (hosts.root("web2") / "etc/nginx/conf.d/memoryark.conf").write_text("server {}\n")

    with pytest.raises(PreflightError, match=r"^web2: the Nginx site there has no maintenance page"):
        switch(project, "on")

    assert not page(hosts, "web1").exists()


@pytest.mark.parametrize("on_or_off", ["on", "off"])
def test_switch_with_a_host_locked_by_another_run_touches_no_host(
    project: Project, hosts: Machines, on_or_off: str
) -> None:
    page(hosts, "web1").write_text("former")
    (hosts.home("web2") / "lock/held").write_text(HELD)

    with pytest.raises(LockHeld, match="web2: locked by ben@desk"):
        switch(project, on_or_off)

    assert page(hosts, "web1").read_text() == "former"


def test_switch_with_an_unreachable_host_touches_no_host(project: Project, hosts: Machines) -> None:
    hosts.unreachable.add("web2")

    with pytest.raises(HostUnreachable, match="web2"):
        switch(project, "on")

    assert not page(hosts, "web1").exists()


def test_switch_requires_a_confirmation(project: Project, hosts: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    project.rollout("confirm: true")

    with pytest.raises(ConfigError, match="stdin is not a terminal") as caught:
        switch(project, "on", force=False)
    assert caught.value.next_step == "rolling-upgrade maintenance on --env demo --force skips the question"

    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    with pytest.raises(Interrupted, match="not confirmed"):
        switch(project, "on", force=False)
    assert not page(hosts, "web1").exists()

    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    assert switch(project, "on", force=False) is ExitCode.DONE
    assert page(hosts, "web1").exists()


@pytest.mark.parametrize(
    ("on_or_off", "message"), [("up", ""), ("off", "Back at 5"), ("on", "x" * (MAX_MESSAGE_LENGTH + 1))]
)
def test_switch_with_an_invalid_option_contacts_no_host(
    project: Project, machines: Machines, on_or_off: str, message: str
) -> None:
    machines.unreachable |= {"web1", "web2"}

    with pytest.raises(ConfigError, match="command line"):
        switch(project, on_or_off, message=message)
