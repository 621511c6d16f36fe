"""A lab for each test process, started by the first test that needs it and removed at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import lab

#: Debian release of the hosts: the same tests run on the oldest target with ROLLING_LAB_RELEASE=bookworm.
RELEASE = os.environ.get("ROLLING_LAB_RELEASE", "trixie")


@pytest.fixture(scope="session")
def lab_name() -> str:
    """The name of this process's lab and of its environment."""
    return f"t-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"


@pytest.fixture(scope="session")
def laboratory(lab_name: str) -> Iterator[lab.Lab]:
    """Two hosts and a registry, in the state after the previous test."""
    yield lab.up(2, RELEASE, lab_name)
    lab.down(lab_name)


@pytest.fixture
def fresh_lab(laboratory: lab.Lab) -> lab.Lab:
    """Two hosts after `lab.up`, and a registry that answers."""
    with ThreadPoolExecutor() as pool:
        registry = pool.submit(laboratory.registry.start)
        resets = list(pool.map(laboratory.reset_host, [host.name for host in laboratory.hosts]))
        registry.result()
    assert len(resets) == len(laboratory.hosts)
    return laboratory


@pytest.fixture
def fresh_host(laboratory: lab.Lab) -> lab.Host:
    """One host after `lab.up`."""
    return laboratory.reset_host(laboratory.hosts[0].name)


@pytest.fixture(scope="session")
def extra_lab(lab_name: str) -> Iterator[Callable[..., lab.Lab]]:
    """Start a second, small lab, which is removed at the end."""
    name = f"{lab_name}-x"
    yield lambda hosts=1, release=RELEASE: lab.up(hosts, release, name)
    lab.down(name)
