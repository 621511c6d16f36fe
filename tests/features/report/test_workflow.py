"""`inv report` on two hosts with real histories and journals: lines, JSON, a page, and refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rolling_upgrade.engine import history
from rolling_upgrade.engine.model import Release
from rolling_upgrade.errors import ConfigError, ExitCode, HostUnreachable, PreflightError
from rolling_upgrade.features.report.workflow import report
from tests.support.local_fleet import Machines
from tests.support.project import ENV, Project
from tests.support.run_reports import AT, BAD, FIRST, SECOND
from tests.support.shell import sh


@pytest.fixture
def hosts(machines: Machines) -> Machines:
    """Two hosts: FIRST on both, SECOND on both, then BAD on web1 alone, with a journal of its failed step."""
    for host in ("web1", "web2"):
        home = machines.prepare(host)
        for release in (FIRST, SECOND, *([BAD] if host == "web1" else [])):
            add(home, release)
        write_step(home, SECOND, "backend.start", status="0", log="started")
    write_step(machines.home("web1"), BAD, "backend.start", status="1", log=f"key {ENV['JWT_SECRET_KEY']}\nHTTP 503")
    return machines


def add(home: Path, release: Release) -> None:
    """Append a release to the history as a run does."""
    assert sh(history.append(str(home), release)).returncode == 0


def write_step(home: Path, release: Release, step: str, *, status: str, log: str) -> None:
    """Write the journal of one step that took two seconds."""
    journal = home / "journal" / release.id
    journal.mkdir()
    for name, text, at in (("session", "7", AT), ("status", status, AT + 2), ("log", log, AT + 2)):
        file = journal / f"{step}.{name}"
        file.write_text(f"{text}\n")
        os.utime(file, (at, at))


def test_report_without_a_release_shows_the_newest_run_and_its_failed_step(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("demo", root=project.root) is ExitCode.DONE

    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == f"deploy {BAD.id} on demo: undone (21.0s)"
    assert "because backend: the gate failed" in lines
    assert ["+0.0s", "backend.start", "2.0s", "status", "1"] in [line.split() for line in lines]
    assert lines[lines.index("  last output of backend.start") + 2] == "    | HTTP 503"
    assert "web2  not part of this run" in lines
    assert ENV["JWT_SECRET_KEY"] not in captured.out


def test_report_of_a_named_run_as_json_has_every_host_and_the_change(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("demo", root=project.root, release=SECOND.id, json=True) is ExitCode.DONE

    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["outcome"]) == (SECOND.id, "good")
    assert [(host["host"], host["whole"]) for host in found["hosts"]] == [("web1", True), ("web2", True)]
    (change,) = found["hosts"][0]["changes"]
    assert [change[key]["image"][-2:] for key in ("before", "after")] == ["v1", "v2"]
    assert [(found["step"], found["seconds"], found["log"]) for found in found["hosts"][1]["stages"]] == [
        ("backend.start", 2.0, ["started"])
    ]


def test_report_of_an_altered_history_says_so(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    file = hosts.home("web2") / "releases.jsonl"
    file.write_text(file.read_text().replace('"owner": "ann"', '"owner": "eve"', 1))

    assert report("demo", root=project.root, release=SECOND.id, hosts=("web2",)) is ExitCode.DONE

    assert "ALTERED: a line of this host's history was changed or removed" in capsys.readouterr().out


def test_report_as_a_page_writes_the_file_and_keeps_standard_output_empty(
    project: Project, hosts: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "run.html"

    assert report("demo", root=project.root, html=str(page)) is ExitCode.DONE

    assert capsys.readouterr() == ("", f"{page}: deploy {BAD.id}, undone\n")
    text = page.read_text()
    assert BAD.id in text
    assert "HTTP 503" in text
    assert ENV["JWT_SECRET_KEY"] not in text


def test_report_with_requests_counts_the_failed_ones(
    project: Project, hosts: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = tmp_path / "requests"
    load.write_text("".join(f'{{"at": {AT + n / 10}, "ms": 4, "ok": {str(n != 3).lower()}}}\n' for n in range(10)))

    assert report("demo", root=project.root, load=str(load), json=True) is ExitCode.DONE

    whole = json.loads(capsys.readouterr().out)["requests"]["whole"]
    assert (whole["requests"], whole["failed"], whole["p50_ms"]) == (10, 1, 4.0)


def test_report_with_an_unreachable_host_shows_the_others_and_fails(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts.unreachable.add("web2")

    assert report("demo", root=project.root, last=True) is ExitCode.FAILED

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"deploy {BAD.id}")
    assert "web2  UNREACHABLE: cannot reach 192.0.2.1. Next: check the network" in lines


def test_report_of_an_unknown_run_or_of_hosts_without_a_run_is_refused(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PreflightError, match="no host's history has a run 'r9'"):
        report("demo", root=project.root, release="r9")
    for host in ("web1", "web2"):
        (hosts.home(host) / "releases.jsonl").unlink()
    with pytest.raises(PreflightError, match="nothing was deployed yet"):
        report("demo", root=project.root)
    hosts.unreachable |= {"web1", "web2"}
    with pytest.raises(HostUnreachable, match=r"web1: .*\nweb2: "):
        report("demo", root=project.root)

    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"release": "r1", "last": True}, "--last"),
        ({"html": "/nonexistent/run.html"}, "--html"),
        ({"html": "/tmp"}, "not a directory"),
        ({"load": "/nonexistent/requests"}, "--load"),
        ({"load": __file__}, "line 1 is not an object with at, ms and ok"),
    ],
)
def test_report_with_an_invalid_option_contacts_no_host(
    project: Project, machines: Machines, options: dict[str, str], message: str
) -> None:
    machines.unreachable |= {"web1", "web2"}

    with pytest.raises(ConfigError, match=message):
        report("demo", root=project.root, **options)  # type: ignore[arg-type]


def test_report_of_an_expired_journal_names_the_reason(
    project: Project, hosts: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("demo", root=project.root, release=FIRST.id) is ExitCode.DONE

    assert capsys.readouterr().out.count("the journal of this run was deleted") == 2
