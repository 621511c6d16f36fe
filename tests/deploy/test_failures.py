"""Deploys of bad releases: the previous release keeps serving, the host is unchanged, the exit code is non-zero."""

from __future__ import annotations

import json

import pytest

from tests.deploy.conftest import Site, fingerprint, wait_until


@pytest.mark.parametrize(
    "tag",
    [
        "crash-later",
        "exits-at-once",
        "wrong-chain",
        *(pytest.param(tag, marks=pytest.mark.extended) for tag in ("never-healthy", "v3-broken", "flapping")),
    ],
)
def test_deploy_of_a_bad_release_is_undone(site: Site, tag: str) -> None:
    if tag == "crash-later":
        site.edit_rollout(bake_seconds=8)
    code, output = site.deploy(tag)
    assert (code, site.versions()) == (1, ["v1"]), output
    assert "Back on the old release: web1" in output
    for host in site.lab.hosts:
        assert sorted(site.containers(host).values()) == [False, False, True, True] or len(site.containers(host)) == 3
        last = json.loads(host.sh("tail -n 1 /var/lib/memoryark/releases.jsonl").stdout)
        assert last["outcome"] == "undone"
        assert last["services"]["backend"]["image"].endswith(f":{tag}")
        assert not host.sh("cat /var/lib/memoryark/lock/held", check=False).stdout
    last_log_line = "fatal: a required setting is missing"
    assert (last_log_line in output) == (tag == "exits-at-once")


@pytest.mark.extended
@pytest.mark.hosts(2)
def test_deploy_in_batches_stops_at_the_first_bad_batch(site: Site) -> None:
    bad = {"env": {"BACKEND_IMAGE": "registry:5000/memoryark/backend:never-healthy"}}
    site.edit_hosts(web2=bad)
    site.edit_env(
        BACKEND_IMAGE="registry:5000/memoryark/backend:v2", FRONTEND_IMAGE="registry:5000/memoryark/frontend:v2"
    )
    code, output = site.run("deploy", "--batch", "1")
    assert (code, site.versions()) == (6, ["v2", "v1"]), output
    assert "On the new release: web1" in output
    assert "Back on the old release: web2" in output


@pytest.mark.extended
@pytest.mark.hosts(2)
def test_deploy_in_batches_leaves_later_hosts_unchanged(site: Site) -> None:
    site.edit_hosts(web1={"env": {"BACKEND_IMAGE": "registry:5000/memoryark/backend:never-healthy"}})
    site.edit_env(
        BACKEND_IMAGE="registry:5000/memoryark/backend:v2", FRONTEND_IMAGE="registry:5000/memoryark/frontend:v2"
    )
    code, output = site.run("deploy", "--batch", "50%")
    assert (code, site.versions()) == (1, ["v1", "v1"]), output
    assert "Left as it was: web2" in output


def test_deploy_site_rejected_by_nginx_restores_the_previous_one(site: Site) -> None:
    host = site.lab.hosts[0]
    before = host.sh("cat /etc/nginx/conf.d/memoryark.conf").stdout
    host.sh("echo 'nonsense on;' > /etc/nginx/conf.d/zz-other.conf")
    site.edit_env(MAX_UPLOAD_SIZE="65MB")
    code, output = site.deploy("v2", "--hosts", "web1")
    host.sh("rm /etc/nginx/conf.d/zz-other.conf")
    assert (code, site.version(host)) == (1, "v1"), output
    assert "Nginx refuses the new site; nothing was changed" in output
    assert host.sh("cat /etc/nginx/conf.d/memoryark.conf").stdout == before


def test_deploy_detects_that_nginx_kept_the_old_configuration(site: Site) -> None:
    """`nginx -t` and the reload both succeed, but Nginx cannot bind a port that another site names."""
    host = site.lab.hosts[0]
    before = host.sh("cat /etc/nginx/conf.d/memoryark.conf").stdout
    host.sh("systemd-run --unit=taken python3 -m http.server 7999 --bind 127.0.0.1")
    wait_until(lambda: "127.0.0.1:7999 " in host.sh("ss -Hltn").stdout, "a listener on the port")
    host.sh("echo 'server { listen 127.0.0.1:7999; }' > /etc/nginx/conf.d/zz-other.conf")
    site.edit_env(MAX_UPLOAD_SIZE="65MB")
    code, output = site.deploy("v2", "--hosts", "web1")
    host.sh("rm /etc/nginx/conf.d/zz-other.conf; systemctl stop taken")
    assert (code, site.version(host)) == (1, "v1"), output
    assert "Nginx kept its old configuration" in output
    assert host.sh("cat /etc/nginx/conf.d/memoryark.conf").stdout == before


@pytest.mark.extended
def test_setup_detects_that_nginx_kept_the_old_configuration(site: Site) -> None:
    host = site.lab.hosts[0]
    before = host.sh("cat /etc/nginx/conf.d/memoryark.conf").stdout
    host.sh("systemd-run --unit=taken python3 -m http.server 8099 --bind 0.0.0.0")
    wait_until(lambda: ":8099 " in host.sh("ss -Hltn").stdout, "a listener on the port")
    env = site.env_file.read_text()
    site.edit_env(NGINX_PORT="8099")
    code, output = site.run("setup", "--hosts", "web1")
    host.sh("systemctl stop taken")
    site.env_file.write_text(env)
    assert (code, site.version(host), "Nginx kept its old configuration" in output) == (6, "v1", True), output
    assert host.sh("cat /etc/nginx/conf.d/memoryark.conf").stdout == before
    site.run_ok("setup", "--hosts", "web1")


def test_deploy_site_outside_the_rules_of_root_is_refused(site: Site) -> None:
    before = [fingerprint(host) for host in site.lab.hosts]
    site.edit_env(DOMAIN_NAME="other.lab.test")
    code, output = site.deploy("v2")
    assert (code, "Run inv setup for this host first" in output) == (3, True), output
    assert [fingerprint(host) for host in site.lab.hosts] == before
