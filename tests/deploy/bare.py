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
