"""How well hosts are, in words and as JSON: what is wrong is told, and nothing else unless it is asked for."""

from __future__ import annotations

import io
import json
from dataclasses import replace

from fabfile.errors import HostUnreachable
from fabfile.model import Check, HealthReport, Kind, Lock
from fabfile.report import tell
from fabfile.report.health import Found, health_lines, health_objects
from tests.report.builders import NOW, state

GOOD = Check(Kind.CONTAINER, "backend container", True, "blue v1 runs, 0 restarts", "backend")
HTTP = Check(Kind.HTTP, "backend http", True, "HTTP 200, http://127.0.0.1:18080/api/health", "backend", 12)
DISK = Check(Kind.DISK, "disk /", False, "3 % of disk free on /, wanted 10 %")
SILENT = replace(HTTP, ok=False, detail="no answer", milliseconds=5004, answered=False)
WELL = HealthReport(state(), (GOOD, HTTP))
ILL = HealthReport(state("web2"), (GOOD, SILENT, DISK))
LOST = HostUnreachable("web3: cannot reach 192.0.2.3\nport 22.", next_step="check the network")


def lines(found: Found, *, verbose: bool = False) -> list[str]:
    return health_lines(found, "production", verbose=verbose)


def test_lines_well_host_is_one_line() -> None:
    assert lines({"web1": WELL}) == ["web1  well, 2 checks", "", "production: 1 host, healthy"]


def test_lines_checks_that_failed_are_told_below_their_host_and_named_at_the_end() -> None:
    assert lines({"web1": WELL, "web2": ILL}) == [
        "web1  well, 2 checks",
        "web2  2 of 3 checks FAILED",
        "  FAILED  backend http  no answer                           5004 ms",
        "  FAILED  disk /        3 % of disk free on /, wanted 10 %",
        "",
        "production: 2 hosts, NOT WELL: web2: backend http, disk /",
    ]


def test_lines_verbose_shows_every_check_what_failed_first() -> None:
    rows = [row.split() for row in lines({"web1": WELL, "web2": ILL}, verbose=True)]

    assert [row[0] for row in rows[1:3]] == ["ok", "ok"]
    assert [row[0] for row in rows[4:7]] == ["FAILED", "FAILED", "ok"]
    assert rows[2][-2:] == ["12", "ms"]


def test_lines_host_that_was_not_reached_is_told_on_one_line() -> None:
    rows = lines({"web1": WELL, "web3": LOST})

    assert rows[1] == "web3  NOT REACHED: web3: cannot reach 192.0.2.3 port 22. Next: check the network"
    assert rows[-1] == "production: 2 hosts, NOT WELL: web3: not reached"


def test_lines_maintenance_and_lock_are_said_and_no_fault() -> None:
    lock = Lock("t", "ann", "laptop", 1, "deploy v2", NOW, NOW + 60)
    busy = replace(WELL, state=replace(WELL.state, facts=(("maintenance", "operator"),), lock=lock))

    rows = lines({"web1": busy})

    assert rows[0] == "web1  well, 2 checks, maintenance page up (operator), locked by ann: deploy v2"
    assert rows[-1].endswith("healthy")


def test_lines_hostile_text_stays_on_its_line_and_moves_no_cursor() -> None:
    dirty = replace(DISK, detail="a\nb\t\x1b[2Jsecret-word\x07")
    out = io.StringIO()

    tell(lines({"web1": HealthReport(state(), (dirty,))}), out, ("secret-word",))

    assert len(out.getvalue().splitlines()) == 4
    assert not {"\x1b", "\x07"} & set(out.getvalue())
    assert "secret-word" not in out.getvalue()


def test_objects_have_every_check_and_every_host() -> None:
    found = json.loads(json.dumps(health_objects({"web1": WELL, "web2": ILL, "web3": LOST})))

    assert [(one["host"], one["ok"]) for one in found] == [("web1", True), ("web2", False), ("web3", False)]
    assert [check["ok"] for check in found[1]["checks"]] == [True, False, False]
    assert found[1]["checks"][1] == {
        "kind": "http",
        "name": "backend http",
        "ok": False,
        "detail": "no answer",
        "service": "backend",
        "milliseconds": 5004,
        "answered": False,
    }
    assert found[2]["error"] == str(LOST)
