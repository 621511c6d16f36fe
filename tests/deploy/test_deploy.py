"""Successful deploys on real hosts."""

from __future__ import annotations

import json

import pytest

from rolling_upgrade.console.task import root
from rolling_upgrade.errors import ExitCode
from rolling_upgrade.features.deploy.workflow import deploy
from rolling_upgrade.ssh.fabric_host import FabricHost
from tests.deploy.conftest import Site, fingerprint, recorded_podman
from tests.deploy.sqlite import ask

#: The limit for a deploy that replaces two services: one Podman process costs 0.05 s to 0.1 s on an idle host.
MOST_PODMAN_PROCESSES = 25


@pytest.mark.hosts(2)
def test_deploy_of_a_new_tag_serves_it_everywhere_and_keeps_the_old_color_and_a_backup(site: Site) -> None:
    """The host starts few Podman processes, the clean-up of the two stopped containers included."""
    with recorded_podman(site.lab.hosts[0]) as calls:
        code, output = site.deploy("v2")
    assert (code, site.versions()) == (0, ["v2", "v2"]), output
    assert output.rstrip().endswith(f"inv rollback --env {site.lab.name}")
    for host in site.lab.hosts:
        assert sorted(site.containers(host).values()) == [False, False, True, True]
        newest = host.sh("ls -t /home/deploy/backups/database/memoryark-*/database.db | head -n 1").stdout.strip()
        assert ask(host, newest, "pragma integrity_check") == [["ok"]]
        assert ["uploads"] in ask(host, newest, "select name from sqlite_master")
    listed = "\n".join(calls)
    assert calls, "nothing was counted"
    assert len(calls) <= MOST_PODMAN_PROCESSES, f"{len(calls)} Podman processes:\n{listed}"


def test_deploy_of_the_running_release_has_nothing_to_do(site: Site) -> None:
    before = [fingerprint(host) for host in site.lab.hosts]
    output = site.deploy_ok("v1")
    assert "Nothing to do" in output
    assert [fingerprint(host) for host in site.lab.hosts] == before


@pytest.mark.extended
def test_deploy_forced_replaces_the_running_containers(site: Site) -> None:
    host = site.lab.hosts[0]
    before = site.containers(host)
    site.deploy_ok("v1", "--force", "--hosts", host.name)
    assert site.containers(host) != before


def test_deploy_dry_run_shows_every_command_and_changes_nothing(site: Site) -> None:
    before = [fingerprint(host) for host in site.lab.hosts]
    output = site.deploy_ok("v2", "--dry-run")
    assert "podman run --detach" in output
    secret = next(
        line.partition("=")[2] for line in site.env_file.read_text().splitlines() if line.startswith("JWT_SECRET_KEY=")
    )
    assert secret not in output
    assert [fingerprint(host) for host in site.lab.hosts] == before


@pytest.mark.hosts(2)
def test_deploy_json_to_one_host_prints_one_object_per_line_and_leaves_the_other_unchanged(
    site: Site, fabric_hosts: list[FabricHost], capsys: pytest.CaptureFixture[str]
) -> None:
    """It uses one connection and at most four executions, and delivers a changed environment.

    They observe, resolve the digests, start the run, and start it again with the engine.
    """
    site.edit_env(CACHE_TTL="123s")
    other = fingerprint(site.lab.hosts[1])

    code = deploy(site.lab.name, root=root(), tag="v2", hosts=("web1",), force=True, json=True)

    assert (code, site.versions()) == (ExitCode.DONE, ["v2", "v1"])
    assert [(host.connections, host.executions <= 4) for host in fabric_hosts] == [(1, True)]
    summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()][-1]
    assert (summary["exit_code"], [host["host"] for host in summary["hosts"]]) == (0, ["web1"])
    assert fingerprint(site.lab.hosts[1]) == other
    host = site.lab.hosts[0]
    environment = f"podman inspect --format '{{{{json .Config.Env}}}}' {site.running_container(host)}"
    assert "CACHE_TTL=123s" in host.sh(environment, user="deploy").stdout


@pytest.mark.extended
def test_deploy_waits_for_a_slow_start(site: Site) -> None:
    site.edit_env(HEALTH_CHECK_START_PERIOD="20s")
    code, output = site.deploy("slow-start", "--hosts", "web1")
    assert (code, site.version(site.lab.hosts[0])) == (0, "slow-start"), output


def test_status_of_healthy_hosts_exits_zero_and_names_the_release(site: Site) -> None:
    output = site.run_ok("status", "--json")
    assert '"v1"' in output


def test_setup_second_run_reports_no_change(site: Site) -> None:
    before = [fingerprint(host) for host in site.lab.hosts]
    output = site.run_ok("setup")
    assert "Nothing to do" in output
    assert [fingerprint(host) for host in site.lab.hosts] == before
