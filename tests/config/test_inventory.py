"""The monitoring host in hosts.yaml: its limits, its address for the firewall, and what is refused."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.model import Monitoring
from tests.support.project import Project


def watched(project: Project, monitoring: str, more: str = "") -> None:
    project.edit("hosts.yaml", "    hosts:\n", f"    monitoring: {{{monitoring}}}\n{more}    hosts:\n")


def test_monitoring_host_is_none_unless_it_is_named(project: Project) -> None:
    assert project.load().monitoring == Monitoring()


def test_monitoring_host_has_its_limits(project: Project) -> None:
    watched(project, "address: 192.0.2.9, user: admin, latency_seconds: 500ms, lock_seconds: 2h, error_percent: 0.5")

    found = project.load().monitoring

    assert (found.address, found.user, found.port) == ("192.0.2.9", "admin", 22)
    assert (found.latency_seconds, found.lock_seconds, found.error_percent) == (0.5, 7200.0, 0.5)


def test_monitoring_host_is_reached_directly_where_its_jump_is_none(project: Project) -> None:
    watched(project, "address: 192.0.2.9, jump: none")

    assert project.load().monitoring.jump == ""


@pytest.mark.parametrize(
    ("monitoring", "setup", "opened"),
    [
        ("address: 192.0.2.9", "", "192.0.2.9"),
        ("address: watch.example.org", "", ""),
        ("address: 192.0.2.9", "    setup: {monitoring_host: 192.0.2.8}\n", "192.0.2.8"),
    ],
)
def test_monitoring_host_is_whom_the_firewall_lets_in_where_it_is_an_address(
    project: Project, monitoring: str, setup: str, opened: str
) -> None:
    watched(project, monitoring, setup)

    assert project.load().preparation.monitoring_host == opened


def test_host_is_scraped_at_its_address_unless_it_has_another(project: Project) -> None:
    project.edit("hosts.yaml", "address: 192.0.2.12,", "address: 192.0.2.12, metrics_address: 10.0.0.2,")

    assert [target.metrics_address for target in project.load().targets] == ["192.0.2.11", "10.0.0.2"]


@pytest.mark.parametrize(
    ("monitoring", "path"),
    [
        ("address: a b", "monitoring.address"),
        ("runbook: docs", "monitoring.runbook"),
        ("lock_seconds: 5", "monitoring.lock_seconds"),
        ("latency: 5", "monitoring.latency"),
        ("latency_seconds: 11s", "monitoring.latency_seconds"),
    ],
)
def test_monitoring_error_is_told_with_its_place(project: Project, monitoring: str, path: str) -> None:
    watched(project, monitoring)

    assert project.places() == [("hosts.yaml", f"environments.demo.{path}")]


def test_host_named_as_the_monitoring_host_is_refused_beside_one(project: Project) -> None:
    project.edit("hosts.yaml", "web2:", "monitoring:")
    assert len(project.load().targets) == 2
    watched(project, "address: 192.0.2.9")

    assert project.places() == [("hosts.yaml", "environments.demo.hosts.monitoring")]
