"""Rollback on real hosts: its target, its configuration, its data, and no failed request."""

from __future__ import annotations

import json

import pytest

from lab.host import Host
from lab.load import Load, Server
from tests.deploy.conftest import (
    DOMAIN,
    Site,
    fingerprint,
    kill,
    local_address,
    start_until_step,
    wait_for_end_of_run,
    wait_until,
)
from tests.deploy.sqlite import ask

_DATABASE = "/home/deploy/data/memoryark.db"


def secret(host: Host) -> str:
    """Return the JWT secret of the running backend."""
    names = host.sh("podman ps --format '{{.Names}}' --filter label=rolling.service=backend", user="deploy").stdout
    env = host.sh(f"podman inspect --format '{{{{json .Config.Env}}}}' {names.split()[0]}", user="deploy").stdout
    rows: list[str] = json.loads(env)
    return next(row.partition("=")[2] for row in rows if row.startswith("JWT_SECRET_KEY="))


def upgrade(site: Site, tag: str = "v2", *words: str) -> None:
    code, output = site.deploy(tag, *words)
    assert (code, site.version(site.lab.hosts[0])) == (0, tag), output


def test_rollback_under_load_loses_no_request(site: Site) -> None:
    upgrade(site)
    servers = tuple(Server(host.name, host.address, 80) for host in site.lab.hosts)
    load = Load(servers, DOMAIN).start()
    wait_until(lambda: load.progress.requests > 100, "the load")
    code, output = site.run("rollback")
    result = load.stop()
    assert (code, site.versions()) == (0, ["v1"]), output
    assert [record.cause for record in result.failures] == []
    assert len(result.records) > 500
    assert "start the kept" in output


@pytest.mark.extended
def test_rollback_keeps_the_current_domain(site: Site) -> None:
    host, domain = site.lab.hosts[0], "new.lab.test"
    with site.setup_with(host, DOMAIN_NAME=domain):
        site.deploy_ok("v2", "--hosts", host.name)
        code, output = site.run("rollback", "--hosts", host.name)
        assert (code, site.version(host, domain)) == (0, "v1"), output


@pytest.mark.extended
def test_rollback_skips_bad_releases_and_those_it_left(site: Site) -> None:
    """v1, v2 left by a rollback, v3-broken undone, v3: the way back from v3 is v1, and its own way back is v3."""
    host, alone = site.lab.hosts[0], ("--hosts", "web1")
    upgrade(site, "v2", *alone)
    site.run_ok("rollback", *alone)
    assert site.deploy("v3-broken", *alone)[0] == 1
    upgrade(site, "v3", *alone)
    code, output = site.run("rollback", *alone)
    assert (code, site.version(host)) == (0, "v1"), output
    undo = output.rstrip().splitlines()[-1].split()
    assert undo[:4] == ["inv", "rollback", "--env", site.lab.name]
    assert (undo[4], undo[6:]) == ("--to", [*alone])
    code, output = site.run("rollback", *undo[4:])
    assert (code, site.version(host)) == (0, "v3"), output


def test_rollback_to_a_pruned_release_needs_the_registry_and_restores_image_and_secrets(site: Site) -> None:
    host = site.lab.hosts[0]
    before = secret(host)
    site.edit_env(JWT_SECRET_KEY="another-secret-of-the-new-release")
    code, output = site.deploy("v2", "--hosts", "web1")
    assert (code, secret(host)) == (0, "another-secret-of-the-new-release"), output
    host.sh("podman rm $(podman ps -aq --filter status=exited)", user="deploy")
    host.sh("podman rmi $(podman images -q --filter reference='*/memoryark/backend:v1') || :", user="deploy")
    host.sh("podman image prune --all --force", user="deploy")
    pruned = fingerprint(host)
    site.lab.registry.stop()
    try:
        code, output = site.run("rollback", "--hosts", "web1")
        unchanged = fingerprint(host) == pruned
    finally:
        site.lab.registry.start()
    assert (code, "neither on the host nor in its registry" in output, unchanged) == (3, True, True), output

    code, output = site.run("rollback", "--hosts", "web1")
    assert (code, site.version(host), secret(host)) == (0, "v1", before), output
    assert "pull images by digest" in output
    assert before not in output


@pytest.mark.extended
def test_rollback_to_an_invalid_release_is_refused_without_changes(site: Site) -> None:
    assert site.deploy("never-healthy", "--hosts", "web1")[0] == 1
    before = fingerprint(site.lab.hosts[0])
    for to, code, message in (
        ("v9", 3, "no release 'v9'"),
        ("never-healthy", 3, "never passed its gate"),
        ("v1", 0, "Nothing to do"),
    ):
        exit_code, output = site.run("rollback", "--hosts", "web1", "--to", to)
        assert (exit_code, message in output) == (code, True), output
    assert fingerprint(site.lab.hosts[0]) == before


def test_rollback_whose_workstation_is_killed_is_completed_by_the_host(site: Site) -> None:
    """A dry run before it shows every command and changes nothing."""
    host = site.lab.hosts[0]
    upgrade(site, "v2", "--hosts", "web1")
    before = fingerprint(host)
    code, output = site.run("rollback", "--hosts", "web1", "--dry-run")
    assert (code, "podman start memoryark-backend-" in output) == (0, True), output
    assert (fingerprint(host), site.version(host)) == (before, "v2")

    kill(start_until_step(site, "backend.cutover", "rollback"))
    wait_for_end_of_run(host)
    assert site.version(host) == "v1"
    assert "rollback  good" in site.run_ok("history", "--limit", "1", "--hosts", "web1")
    assert sum(site.containers(host).values()) == 2


def test_history_lists_runs_and_detects_a_changed_line(site: Site) -> None:
    host = site.lab.hosts[0]
    upgrade(site, "v2", "--hosts", "web1")
    code, output = site.run("history", "--verify")
    assert (code, "verified: no line" in output) == (0, True), output
    code, output = site.run("history", "--json", "--limit", "1")
    entry = json.loads(output)["hosts"][0]["releases"][0]
    assert (entry["key"][:7], entry["client"], entry["outcome"]) == ("SHA256:", local_address(host), "good")
    file = "/var/lib/memoryark/releases.jsonl"
    host.sh(f"cp -p {file} {file}.intact &&  sed -i '2s/good/GOOD/' {file}")
    code, output = site.run("history", "--verify")
    host.sh(f"mv {file}.intact {file}")
    assert (code, "web1" in output and "ALTERED" in output) == (1, True), output


def rows(host: Host, path: str = _DATABASE) -> set[str]:
    """Return the ids of the uploads in a database."""
    return {row[0] for row in ask(host, path, "select id from uploads")}


def write(host: Host, id: str) -> None:
    """Insert a row into the database, as the application does."""
    ask(host, _DATABASE, "insert into uploads values ('ID', '', 0, '', 0)".replace("ID", id))


def test_rollback_with_the_database_restores_it_and_backs_up_later_writes(site: Site) -> None:
    host = site.lab.hosts[0]
    write(host, "of-v1")
    code, output = site.deploy("v2", "--hosts", "web1")
    write(host, "of-v2")
    code, output = site.run("rollback", "--restore-db", "--hosts", "web1")
    assert (code, site.version(host)) == (0, "v1"), output
    assert ("of-v1" in rows(host), "of-v2" in rows(host)) == (True, False)
    words = output.rstrip().splitlines()[-1].partition("&& inv ")[2].split()
    assert (words[0], "--only" in words, "database" in words) == ("restore", True, True), output
    assert {"of-v1", "of-v2"} <= rows(host, f"/home/deploy/backups/database/memoryark-{words[1]}/database.db")


@pytest.mark.extended
def test_rollback_with_the_database_that_fails_is_undone(site: Site) -> None:
    """The candidate of the earlier release cannot start and fails its gate."""
    host = site.lab.hosts[0]
    site.deploy("v2", "--hosts", "web1")
    write(host, "kept-by-the-undo")
    host.sh("podman rm $(podman ps -aq --filter status=exited)", user="deploy")
    env = "grep -l APP_VERSION=v1 /var/lib/memoryark/config/backend-*/env | head -n 1"
    host.sh(f"echo FAULT=exits-at-once >> $({env})", user="deploy")
    code, output = site.run("rollback", "--restore-db", "--hosts", "web1")
    assert (code, site.version(host)) == (1, "v2"), output
    assert "kept-by-the-undo" in rows(host)
    assert sum(site.containers(host).values()) == 2
