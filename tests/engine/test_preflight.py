"""Preflight findings for given observations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolling_upgrade.engine import preflight
from rolling_upgrade.engine.model import Application, Color, HostState
from rolling_upgrade.engine.site import client as site
from rolling_upgrade.engine.site.schema import dump
from tests.support.sample import application, backend, frontend
from tests.support.states import SITE_HASH, as_wanted, container, fit_facts

APP = application()
FACTS = fit_facts(APP)


def granted(**changes: object) -> str:
    """Return rules that differ from those that the application needs."""
    return dump(replace(site.rules(APP), **changes))  # type: ignore[arg-type]


def state(**facts: str) -> HostState:
    return replace(as_wanted(APP), facts=tuple((FACTS | facts).items()))


def problems(found: HostState, app: Application = APP) -> list[str]:
    return [finding.problem for finding in preflight.findings(found, app)]


def test_findings_of_a_ready_host_are_empty() -> None:
    assert problems(state()) == []


@pytest.mark.parametrize(
    ("site_hash", "program_sum", "found"),
    [
        ("another", "h", []),
        (SITE_HASH, "another", []),
        ("another", "another", ["the installed Nginx site helper is from a different version"]),
    ],
)
def test_findings_helper_of_another_version_is_refused_where_the_site_changes(
    site_hash: str, program_sum: str, found: list[str]
) -> None:
    findings = preflight.findings(state(), APP, site_hash=site_hash, program_sum=lambda: program_sum)

    assert [one.problem for one in findings] == found


def test_findings_ports_that_the_application_left_may_stay_granted() -> None:
    more = granted(ports=(*site.rules(APP).ports, 9000))

    assert problems(state(site_rules=more)) == []


def test_findings_missing_request_log_is_reported_if_one_is_wanted() -> None:
    counted = replace(APP, request_metrics=True)
    problem = "the host is not prepared for the request log"

    assert [one.problem for one in preflight.findings(state(), counted)] == [problem]
    assert preflight.findings(state(request_log="yes"), counted) == ()


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"has_podman": "no", "has_curl": "no"}, "podman, curl missing"),
        ({"has_python3": "no"}, "python3 (3.10 or newer) missing"),
        ({"has_sqlite3": "no"}, "the sqlite3 module of python3 missing"),
        ({"home": "no"}, "the application's directory is missing or not writable"),
        ({"helper": "no"}, "the Nginx site helper or its sudo rule is missing"),
        ({"site_rules": ""}, "the host does not grant shop any rules that this version can read"),
        ({"site_rules": granted(domain="other.test")}, "the host does not grant shop the domain shop.test"),
        (
            {"site_rules": granted(trusted=("192.0.2.0/24",))},
            "the host does not grant shop a site without trusted proxies",
        ),
        ({"site_rules": granted(http_port=81)}, "the host does not grant shop the public ports 80"),
        ({"site_rules": granted(app="notes")}, "the host does not grant shop the name shop"),
        (
            {"site_rules": granted(ports=(7001, 17001, 27001))},
            "the host does not grant shop the loopback ports 8080, 18080, 28080",
        ),
        ({"linger": "no"}, "linger is off: rootless containers would die after logout"),
        ({"nginx_active": "failed"}, "Nginx is failed"),
        (
            {"closed": "/var/lib/shop"},
            "Nginx's workers cannot access /var/lib/shop, so they would treat every service as blue",
        ),
        ({"free_kib": "1024"}, "1 MiB free, 2048 MiB needed for images"),
        ({"free_kib": "1024", "total_kib": "1024000"}, "1 MiB free, 100 MiB needed for images"),
        ({"backup_free_kib": "51200"}, "50 MiB free for backups, 51 MiB needed"),
        ({"database_kib": "60000000"}, "48828 MiB free for backups, 64503 MiB needed"),
        ({"free_inodes": "12"}, "only 12 inodes free"),
    ],
)
def test_findings_report_each_problem(facts: dict[str, str], problem: str) -> None:
    assert problems(state(**facts)) == [problem]


@pytest.mark.parametrize("inodes", ["-", ""])
def test_findings_accept_a_file_system_without_inode_counts(inodes: str) -> None:
    assert problems(state(free_inodes=inodes)) == []


def test_findings_application_without_a_database_needs_no_sqlite() -> None:
    assert problems(state(has_sqlite3="no"), application(database="")) == []


def test_findings_every_application_needs_python() -> None:
    assert problems(state(has_python3="no"), application(database="")) == ["python3 (3.10 or newer) missing"]


def test_findings_all_problems_are_reported_with_remedies() -> None:
    found = preflight.findings(HostState("web1"), APP)

    assert len(found) >= 5
    assert all(str(finding).startswith("web1: ") and finding.remedy for finding in found)


def test_findings_name_a_foreign_container_with_a_required_name() -> None:
    found = replace(state(), foreign=("shop-backend-green", "shop-other-thing"))

    assert problems(found) == ["a container named shop-backend-green exists that rolling-upgrade did not create"]


@pytest.mark.parametrize(
    ("port", "problem"),
    [
        (18080, None),
        (28080, "backend: the candidate port 28080 (green) is in use by another process"),
        (27001, "frontend: the candidate port 27001 (green) is in use by another process"),
        (8080, None),
        (22, None),
    ],
)
def test_findings_candidate_ports_must_be_free_or_used_by_the_application(port: int, problem: str | None) -> None:
    assert problems(replace(state(), listening=(port,))) == ([problem] if problem else [])


def test_findings_port_of_a_stopped_color_taken_by_another_is_reported() -> None:
    stopped = container(backend(), Color.GREEN, running=False, status="exited")
    found = replace(state(), containers=(container(backend()), stopped, container(frontend())), listening=(28080,))

    assert problems(found) == ["backend: the candidate port 28080 (green) is in use by another process"]


@pytest.mark.parametrize("status", ["stopping", "stopped"])
def test_findings_accept_the_port_of_a_stopping_container(status: str) -> None:
    stopping = container(backend(), Color.GREEN, running=False, status=status)
    found = replace(state(), containers=(container(backend()), stopping, container(frontend())), listening=(28080,))

    assert problems(found) == []


def test_findings_service_port_taken_without_a_live_site_is_reported() -> None:
    found = replace(state(), live_site_hash="", listening=(8080,))

    assert problems(found) == ["backend: port 8080 is in use, but not by this application's Nginx site"]


def test_findings_service_port_of_the_live_site_is_accepted() -> None:
    assert problems(replace(state(), live_site_hash=SITE_HASH, listening=(8080, 7001))) == []


def test_findings_refuse_a_service_port_change_of_a_running_service() -> None:
    moved = replace(state().containers[0], service_port=9999, running=True, color=Color.BLUE)
    found = problems(replace(state(), containers=(moved,), active=()))

    assert any("its service port would change from 9999 to" in problem for problem in found)
