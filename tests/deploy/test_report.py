"""The report of runs on real hosts: a good one and one that was undone, in lines, as JSON and as a page."""

from __future__ import annotations

import json

import pytest

from tests.deploy.conftest import Site

pytestmark = pytest.mark.xdist_group("looking")


def test_report_of_a_successful_and_an_undone_run(site: Site) -> None:
    assert site.deploy("v2")[0] == 0
    assert site.deploy("v3-broken")[0] == 1
    page = site.folder / "report.html"

    code, output = site.run("report", "--html", str(page))
    assert (code, "undone" in output) == (0, True)
    html = page.read_text()
    page.unlink()
    assert "failed its health gate" in html
    assert html.count("backend.start") >= 2

    told = json.loads(site.run("report", "--json")[1])
    assert (told["action"], told["outcome"], len(told["hosts"])) == ("deploy", "undone", 2)
    statuses = {stage["step"]: stage["status"] for stage in told["hosts"][0]["stages"]}
    assert (statuses["backend.start"], statuses["undo"]) == (1, 0)
    good = told["runs"][-2]["id"]

    code, output = site.run("report", "--release", good)
    assert code == 0
    assert f"deploy {good} on {site.lab.name}: good" in output
    assert "frontend.cutover" in output
    host = json.loads(site.run("report", "--release", good, "--json", "--hosts", "web1")[1])["hosts"][0]
    began = [stage["began"] for stage in host["stages"]]
    assert began == sorted(began)
    assert host["changes"][0]["before"]["image"].endswith(":v1")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--release", "20200101T000000Z-000000"), 3, "no host's history has a run"),
        (("--release", "../../lock", "--last"), 2, "--last"),
        (("--html", "/nowhere/x.html"), 2, "a file in a folder that is there"),
        (("--load", "hosts.yaml"), 2, "a file of requests"),
    ],
)
def test_report_of_an_invalid_run_gives_the_reason(site: Site, words: tuple[str, ...], code: int, said: str) -> None:
    found, output = site.run("report", *words)

    assert (found, said in output) == (code, True), output


def test_report_with_an_unreachable_host_shows_the_other(site: Site) -> None:
    away = site.lab.hosts[1]
    away.cut_network()
    try:
        code, output = site.run("report")
    finally:
        away.restore_network()

    assert (code, "web2  UNREACHABLE" in output, "web1  good" in output) == (1, True, True), output
