"""Reports of runs on real hosts: a successful and an undone one, as text, JSON and HTML."""

from __future__ import annotations

import json

import pytest

from tests.deploy.conftest import Site


def test_report_of_a_successful_and_an_undone_run(site: Site) -> None:
    site.deploy_ok("v2")
    assert site.deploy("v3-broken")[0] == 1
    page = site.directory / "report.html"

    code, output = site.run("report", "--html", str(page))
    assert (code, "undone" in output) == (0, True)
    html = page.read_text()
    page.unlink()
    assert "failed its health gate" in html
    assert html.count("backend.start") >= 2

    report = json.loads(site.run("report", "--json")[1])
    assert (report["action"], report["outcome"], len(report["hosts"])) == ("deploy", "undone", 1)
    statuses = {stage["step"]: stage["status"] for stage in report["hosts"][0]["stages"]}
    assert (statuses["backend.start"], statuses["undo"]) == (1, 0)
    good = report["runs"][-2]["id"]

    output = site.run_ok("report", "--release", good)
    assert f"deploy {good} on {site.lab.name}: good" in output
    assert "frontend.cutover" in output
    host = json.loads(site.run("report", "--release", good, "--json", "--hosts", "web1")[1])["hosts"][0]
    start_times = [stage["began"] for stage in host["stages"]]
    assert start_times == sorted(start_times)
    assert host["changes"][0]["before"]["image"].endswith(":v1")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--release", "20200101T000000Z-000000"), 3, "no host's history has a run"),
        (("--release", "../../lock", "--last"), 2, "--last"),
        (("--html", "/nowhere/x.html"), 2, "a file in an existing directory"),
        (("--load", "hosts.yaml"), 2, "a file of requests"),
    ],
)
def test_report_of_an_invalid_run_gives_the_reason(site: Site, words: tuple[str, ...], code: int, message: str) -> None:
    exit_code, output = site.run("report", *words)

    assert (exit_code, message in output) == (code, True), output


@pytest.mark.hosts(2)
def test_report_with_an_unreachable_host_shows_the_other(site: Site) -> None:
    unreachable = site.lab.hosts[1]
    unreachable.cut_network()
    try:
        code, output = site.run("report")
    finally:
        unreachable.restore_network()

    assert (code, "web2  UNREACHABLE" in output, "web1  good" in output) == (1, True, True), output
