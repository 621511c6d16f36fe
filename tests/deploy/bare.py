"""A host that nobody has prepared, and what its tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from lab import laboratory
from lab.host import Host
from tests.deploy.conftest import Site, make_quick

SECURE = {"PROTOCOL": "https", "SSL_CERT_PATH": "/etc/ssl/certs/ark.crt", "SSL_KEY_PATH": "/etc/ssl/private/ark.key"}


def bare_host(release: str, name: str) -> Iterator[Site]:
    """One bare host in a lab of its own; whoever holds the key of the lab may deploy."""
    laboratory.down(name)
    site = Site(laboratory.up(1, release, name))
    make_quick(site)
    folder = site.folder / "deploy" / "authorized_keys" / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(site.folder / "id_ed25519.pub", folder / "ann.pub")
    yield site
    laboratory.down(name)


@pytest.fixture
def host(bare: Site) -> Host:
    """The one host."""
    return bare.lab.hosts[0]


def change(site: Site, **setup: object) -> None:
    """Say in hosts.yaml what setup makes of the host."""
    site.edit_environment(setup=setup)


def prepared(site: Site) -> None:
    """Whatever an earlier test left: the host is as the settings say."""
    code, output = site.run("setup")
    assert code == 0, output


def assert_only_the_site_helper_runs_as_root(host: Host) -> None:
    """Check that sudo lets the deploy user run two command lines and no other."""
    helper = "/usr/local/lib/memoryark/site"
    # Only into a pipe does sudo write long lines.
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
