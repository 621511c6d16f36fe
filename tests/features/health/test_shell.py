"""The health script, run for real: servers that answer or hang, file systems, certificates."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Check, Kind, Tls
from tests.support.health_site import LENIENT, TIMEOUT, Site, check, failed
from tests.support.sample import worker
from tests.support.servers import certificate, hang, serve


def test_check_healthy_host_passes_every_check(site: Site) -> None:
    with site.serve_except():
        report = site.check()

    assert failed(report) == set()
    names = [check.name for check in report.checks if not check.name.startswith(("disk ", "inodes "))]
    assert names == [
        *("backend container", "frontend container", "backend http", "frontend http"),
        *("backend nginx", "frontend nginx", "full chain", "site", "memory", "database", "integrity", "clock"),
    ]
    assert any(check.name.startswith("disk /") for check in report.checks)
    assert "from 127.0.0.1:1" in check(report, "backend nginx").detail


def test_check_writes_only_the_result_of_the_integrity_check(site: Site) -> None:
    with site.serve_except():
        site.check()

    assert [path.name for path in site.home.rglob("*")].count("integrity") == 1
    assert sorted(path.name for path in site.home.rglob("*")) == ["integrity", "live", "lock"]
    assert [path.name for path in (site.root / "the data's").iterdir()] == ["shop.db"]


def test_check_with_the_green_flag_requests_the_green_port(site: Site) -> None:
    (site.home / "live/backend.green").touch()
    site.programs.add("podman", "")
    with site.serve_except("backend http"), serve(site.app.services[0].service_port + 20_000):
        report = site.check()

    assert failed(report) == {"backend container", "frontend container"}
    assert check(report, "backend container").detail == "no green container"


def test_check_hanging_server_delays_other_checks_no_longer_than_its_timeout(site: Site) -> None:
    with site.serve_except("backend http"), hang(site.ports()["backend http"]):
        started_at = time.monotonic()
        report = site.check()

    assert failed(report) == {"backend http"}
    assert time.monotonic() - started_at < TIMEOUT + 30
    assert (check(report, "backend http").answered, check(report, "backend nginx").answered) == (False, True)
    assert check(report, "backend http").detail.startswith("no answer")


def test_check_that_takes_long_does_not_fail_the_clock_check(site: Site) -> None:
    strict = replace(site.app, thresholds=replace(LENIENT, clock_seconds=0.1))
    with site.serve_except("backend http"), hang(site.ports()["backend http"]):
        report = site.check(strict)

    assert failed(report) == {"backend http"}


def test_check_without_servers_fails_every_request(site: Site) -> None:
    report = site.check()

    assert failed(report) == {*site.ports(), "full chain"}
    assert not any(check(report, name).answered for name in site.ports())


def test_check_server_error_and_maintenance_page(site: Site) -> None:
    port = site.ports()["site"]
    with site.serve_except("site"), serve(port, 503):
        without_page = site.check()
        (site.home / "live/maintenance.html").write_text('<html>\n<body data-x="" data-by="operator">')
        with_page = site.check()

    assert failed(without_page) == {"site"}
    assert failed(with_page) == set()
    assert with_page.state.fact("maintenance") == "operator"


def test_check_with_a_failing_podman_fails_only_the_containers(site: Site) -> None:
    site.programs.add("podman", "echo broken >&2; exit 125")
    with site.serve_except():
        report = site.check()

    assert failed(report) == {"backend container", "frontend container"}


def test_check_with_a_hanging_df_fails_only_the_disk_check(site: Site) -> None:
    site.programs.add("df", "exec sleep 30")
    with site.serve_except():
        report = site.check(seconds=1)

    assert failed(report) == {"disk"}


@pytest.mark.parametrize(("days", "fails"), [(5, True), (30, False)])
def test_check_certificate_that_nginx_serves_must_not_expire_soon(
    days: int, fails: bool, site: Site, tmp_path: Path
) -> None:
    secured = replace(site.app, tls=Tls("/nonexistent", "/nonexistent"))
    with site.serve_except("site"), serve(site.app.https_port, tls=certificate(tmp_path, days)):
        report = site.check(secured)

    assert (failed(report), check(report, "site").ok) == ({"certificate"} if fails else set(), True)
    assert check(report, "certificate").detail.startswith(f"{days} days left")


@pytest.mark.parametrize("how", ["closed", "hangs", "plain"])
def test_check_without_a_served_certificate_says_so(how: str, site: Site) -> None:
    secured, port = replace(site.app, tls=Tls("/nonexistent", "/nonexistent")), site.app.https_port
    with ExitStack() as stack:
        if how != "closed":
            stack.enter_context(hang(port) if how == "hangs" else serve(port))
        report = site.check(secured, seconds=0.5)

    assert check(report, "certificate").detail == "Nginx serves no certificate"


def ready_checks(site: Site, podman: str, *, seconds: float = 5) -> dict[str, Check]:
    """Check the site with three workers; `podman` are the cases of the stand-in for `podman`."""
    command = replace(worker().gate, ready=("check", "it's up"), ready_timeout_seconds=seconds)
    services = (worker(name="a", gate=command), worker(name="b"), worker(name="c", gate=command))
    site.programs.add(
        "podman",
        f'case "$*" in ps*) echo 1 ;; {podman} *Healthcheck*) ;; '
        '*ExecIDs*) echo 0 ;; container*) cat "$here/rows" ;; esac',
    )
    (site.home / "live/c.green").touch()
    report = site.check(replace(site.app, services=(*site.app.services, *services)))
    return {check.service: check for check in report.checks if check.kind is Kind.READY}


def test_check_runs_the_command_of_a_service_in_its_active_container(site: Site) -> None:
    podman = """"exec shop-a-blue check it's up") exit 0 ;; *exec*green*) echo first; echo not yet; exit 3 ;;"""

    found = ready_checks(site, podman)

    assert {name: (check.ok, check.detail) for name, check in found.items()} == {
        "a": (True, "its command succeeds"),
        "c": (False, "not yet"),
    }


def test_check_runs_the_healthcheck_of_a_worker_without_a_command(site: Site) -> None:
    podman = "*Healthcheck*) echo 'CMD 7' ;; 'healthcheck run shop-b-blue') echo unhealthy; exit 1 ;; *exec*) ;;"

    assert (ready_checks(site, podman)["b"].ok, ready_checks(site, podman)["b"].detail) == (False, "unhealthy")


def test_check_command_without_an_end_times_out_alone(site: Site) -> None:
    began = time.monotonic()
    podman = "*shop-a-blue*check*) sleep 30 ;; *exec*) ;;"

    found = ready_checks(site, podman, seconds=1)

    assert (found["a"].detail, found["c"].ok) == ("no answer within 1 s", True)
    assert time.monotonic() - began < 20


def test_check_starts_no_command_beside_eight_that_have_not_ended(site: Site) -> None:
    found = ready_checks(site, "*ExecIDs*shop-a-blue) echo 8 ;; *exec*) ;;")

    assert (found["a"].detail, found["c"].ok) == ("8 earlier commands have not ended", True)
