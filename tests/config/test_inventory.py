"""The monitoring host in hosts.yaml: thresholds, the address for the firewall, and invalid values."""

from __future__ import annotations

import pytest

from rolling_upgrade.engine.model import Monitoring
from tests.support.project import Project


def watched(project: Project, monitoring: str, more: str = "") -> None:
    project.edit("hosts.yaml", "    hosts:\n", f"    monitoring: {{{monitoring}}}\n{more}    hosts:\n")


def test_monitoring_host_is_none_by_default(project: Project) -> None:
    assert project.load().monitoring == Monitoring()


def test_monitoring_thresholds_are_read(project: Project) -> None:
    watched(project, "address: 192.0.2.9, user: admin, latency_seconds: 500ms, lock_seconds: 2h, error_percent: 0.5")

    found = project.load().monitoring

    assert (found.address, found.user, found.port) == ("192.0.2.9", "admin", 22)
    assert (found.latency_seconds, found.lock_seconds, found.error_percent) == (0.5, 7200.0, 0.5)


def test_monitoring_host_with_jump_none_has_no_jump_host(project: Project) -> None:
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
def test_monitoring_host_with_an_ip_address_may_pass_the_firewall(
    project: Project, monitoring: str, setup: str, opened: str
) -> None:
    watched(project, monitoring, setup)

    assert project.load().preparation.monitoring_host == opened


def test_metrics_address_defaults_to_the_address(project: Project) -> None:
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
def test_monitoring_error_is_reported_at_its_location(project: Project, monitoring: str, path: str) -> None:
    watched(project, monitoring)

    assert project.places() == [("hosts.yaml", f"environments.demo.{path}")]


def test_host_with_the_reserved_name_of_the_monitoring_host_is_refused(project: Project) -> None:
    project.edit("hosts.yaml", "web2:", "monitoring:")
    assert len(project.load().targets) == 2
    watched(project, "address: 192.0.2.9")

    assert project.places() == [("hosts.yaml", "environments.demo.hosts.monitoring")]
