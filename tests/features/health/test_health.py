"""The look at a host's health, run for real: servers that answer and hang, file systems, certificates."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from rolling_upgrade.engine.model import Tls
from tests.support.serving import certificate, hang, serve
from tests.support.site import EASY, TIMEOUT, Site, check, failed


def test_check_well_host_has_every_check_and_none_fails(site: Site) -> None:
    with site.served():
        report = site.look()

    assert failed(report) == set()
    names = [one.name for one in report.checks if not one.name.startswith(("disk ", "inodes "))]
    assert names == [
        *("backend container", "frontend container", "backend http", "frontend http"),
        *("backend nginx", "frontend nginx", "full chain", "site", "memory", "database", "integrity", "clock"),
    ]
    assert any(one.name.startswith("disk /") for one in report.checks)
    assert "from 127.0.0.1:1" in check(report, "backend nginx").detail


def test_check_changes_nothing_but_the_date_of_the_integrity_check(site: Site) -> None:
    with site.served():
        site.look()

    assert [path.name for path in site.home.rglob("*")].count("integrity") == 1
    assert sorted(path.name for path in site.home.rglob("*")) == ["integrity", "live", "lock"]
    assert [path.name for path in (site.root / "the data's").iterdir()] == ["shop.db"]


def test_check_green_flag_has_the_green_port_asked(site: Site) -> None:
    (site.home / "live/backend.green").touch()
    site.programs.add("podman", "")
    with site.served("backend http"), serve(site.app.services[0].service_port + 20_000):
        report = site.look()

    assert failed(report) == {"backend container", "frontend container"}
    assert check(report, "backend container").detail == "no green container"


def test_check_server_that_hangs_holds_up_nobody_beyond_its_deadline(site: Site) -> None:
    with site.served("backend http"), hang(site.ports()["backend http"]):
        began = time.monotonic()
        report = site.look()

    assert failed(report) == {"backend http"}
    assert time.monotonic() - began < TIMEOUT + 30  # it would hang for ever
    assert (check(report, "backend http").answered, check(report, "backend nginx").answered) == (False, True)
    assert check(report, "backend http").detail.startswith("no answer")


def test_check_look_that_takes_long_is_no_fault_of_the_clock(site: Site) -> None:
    strict = replace(site.app, thresholds=replace(EASY, clock_seconds=0.1))
    with site.served("backend http"), hang(site.ports()["backend http"]):
        report = site.look(strict)

    assert failed(report) == {"backend http"}


def test_check_nobody_at_home_is_every_request_unanswered(site: Site) -> None:
    report = site.look()

    assert failed(report) == {*site.ports(), "full chain"}
    assert not any(check(report, name).answered for name in site.ports())


def test_check_server_error_and_maintenance_page(site: Site) -> None:
    port = site.ports()["site"]
    with site.served("site"), serve(port, 503):
        without = site.look()
        (site.home / "live/maintenance.html").write_text('<html>\n<body data-x="" data-by="operator">')
        page = site.look()

    assert failed(without) == {"site"}
    assert failed(page) == set()
    assert page.state.fact("maintenance") == "operator"


def test_check_podman_that_fails_costs_the_containers_alone(site: Site) -> None:
    site.programs.add("podman", "echo broken >&2; exit 125")
    with site.served():
        report = site.look()

    assert failed(report) == {"backend container", "frontend container"}


def test_check_disk_that_hangs_is_told_and_the_others_answer(site: Site) -> None:
    site.programs.add("df", "exec sleep 30")
    with site.served():
        report = site.look(seconds=1)

    assert failed(report) == {"disk"}


@pytest.mark.parametrize(("days", "fails"), [(5, True), (30, False)])
def test_check_certificate_is_the_one_that_visitors_get(days: int, fails: bool, site: Site, tmp_path: Path) -> None:
    secured = replace(site.app, tls=Tls("/nonexistent", "/nonexistent"))
    with site.served("site"), serve(site.app.https_port, tls=certificate(tmp_path, days)):
        report = site.look(secured)

    assert (failed(report), check(report, "site").ok) == ({"certificate"} if fails else set(), True)
    assert check(report, "certificate").detail.startswith(f"{days} days left")


@pytest.mark.parametrize("how", ["nobody", "hangs", "plain"])
def test_check_certificate_that_nobody_shows_is_told(how: str, site: Site) -> None:
    secured, port = replace(site.app, tls=Tls("/nonexistent", "/nonexistent")), site.app.https_port
    with ExitStack() as stack:
        if how != "nobody":
            stack.enter_context(hang(port) if how == "hangs" else serve(port))
        report = site.look(secured, seconds=0.5)

    assert check(report, "certificate").detail == "Nginx serves none"
