"""A host on which setup never ran, and helpers of its tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from lab import laboratory
from lab.host import Host
from tests.deploy.conftest import Site, shorten_waits

SECURE = {"PROTOCOL": "https", "SSL_CERT_PATH": "/etc/ssl/certs/ark.crt", "SSL_KEY_PATH": "/etc/ssl/private/ark.key"}


def bare_host(release: str, name: str) -> Iterator[Site]:
    """One bare host in a separate lab, on which the key of the lab may deploy."""
    laboratory.down(name)
    site = Site(laboratory.up(1, release, name))
    shorten_waits(site)
    directory = site.directory / "deploy" / "authorized_keys" / name
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(site.directory / "id_ed25519.pub", directory / "ann.pub")
    yield site
    laboratory.down(name)


@pytest.fixture
def host(bare: Site) -> Host:
    """The one host."""
    return bare.lab.hosts[0]


def edit_setup(site: Site, **setup: object) -> None:
    """Set the `setup` section of the environment in hosts.yaml."""
    site.edit_environment(setup=setup)


def run_setup(site: Site) -> None:
    """Bring the host to its configured state after earlier tests."""
    site.run_ok("setup")


def assert_only_the_site_helper_runs_as_root(host: Host) -> None:
    """Check that sudo lets the deploy user run two command lines and no other."""
    helper = "/usr/local/lib/memoryark/site"
    # sudo writes long lines only into a pipe.
    rules = host.sh("sudo -n -l | cat", user="deploy").stdout.rpartition("may run the following commands")[2]
    assert [line.split(")", 1)[1].strip() for line in rules.splitlines() if "(root)" in line] == [
        f"NOPASSWD: {helper} install, {helper} restore"
    ]
    refused = (
        *("id", "nginx -t", "nginx -s reload", "systemctl reload nginx", "sh -c id", f"sh {helper} install"),
        *(
            helper,
            f"{helper} install now",
            f"{helper} Install",
            f"{helper}/../site install",
            f"-u deploy {helper} install",
        ),
        *("visudo -c", "cat /etc/shadow", f"tee {helper}", "podman ps", "nft list ruleset"),
    )
    for line in refused:
        done = host.sh(f"sudo -n {line} </dev/null", user="deploy", check=False)
        assert (done.returncode, "password is required" in done.stderr or "not allowed" in done.stderr) == (1, True), (
            line
        )
    assert host.sh(f"test -w {helper} || test -w /etc/nginx/conf.d", user="deploy", check=False).returncode != 0
    assert host.sh("visudo -c").returncode == 0
