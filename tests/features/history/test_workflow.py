"""`inv history`: the history as lines and as JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace

from rolling_upgrade.console.output import print_lines, print_result
from rolling_upgrade.engine.history import Fault
from rolling_upgrade.engine.model import Color, Outcome, Release, ServiceRelease
from rolling_upgrade.features.history.workflow import HostHistory, history_json, history_lines

SERVICES = (("backend", ServiceRelease("r.test/shop/backend:v2", "sha256:" + "a" * 64, Color.GREEN, "s", "abc123")),)
GOOD = Release(
    "r2",
    "2026-11-23T04:41:38+00:00",
    "deploy",
    Outcome.GOOD,
    SERVICES,
    "ann",
    seconds=12.34,
    workstation="laptop",
    revision="f00d",
    key="SHA256:xyz",
    client="192.0.2.7",
)
BAD = replace(GOOD, id="r3", outcome=Outcome.UNDONE, reason="backend: the gate\nfailed")
BACK = replace(GOOD, id="r4", action="rollback", target="r1", left="r2")


def shown(history: HostHistory, *, limit: int = 0, verify: bool = False, json: bool = False, **unreachable: str) -> str:
    out = io.StringIO()
    if json:
        print_result(history_json("production", {"web1": history}, unreachable, limit=limit), stream=out)
    else:
        print_lines(history_lines({"web1": history}, unreachable, limit=limit, verify=verify), stream=out)
    return out.getvalue()


def test_history_entry_has_time_action_outcome_owner_and_origin() -> None:
    text = shown(HostHistory((GOOD,)))

    assert "2026-11-23 04:41:38 UTC  deploy  good  12.3s  backend v2 (aaaaaaaaaaaa)" in text
    assert "r2 by ann with key SHA256:xyz from 192.0.2.7 (laptop), clone f00d" in text
    assert "source backend abc123" in text


def test_history_key_has_its_name_in_the_access_directory() -> None:
    history = HostHistory((GOOD,), key_names={"SHA256:xyz": "ann-laptop (revoked)"})

    assert "with key SHA256:xyz of ann-laptop (revoked) from" in shown(history)
    assert json.loads(shown(history, json=True))["hosts"][0]["releases"][0]["key_of"] == "ann-laptop (revoked)"


def test_history_bad_outcome_has_its_reason_on_one_line() -> None:
    assert "because backend: the gate failed" in shown(HostHistory((BAD,)))


def test_history_rollback_has_its_target_and_marks_the_release_that_it_left() -> None:
    text = shown(HostHistory((GOOD, BACK), left=frozenset({"r2"})))

    assert "to r1, leaving r2" in text
    assert text.count("good, left by a rollback") == 1


def test_history_limit_shows_only_the_newest() -> None:
    text = shown(HostHistory((GOOD, BAD, BACK)), limit=1)

    assert "web1  3 entries, the newest 1 of them" in text
    assert "r4 by ann" in text
    assert "r2 by ann" not in text


def test_history_altered_is_shown_without_verify() -> None:
    text = shown(HostHistory((GOOD,), faults=(Fault(2, "the line before it was removed"),)))

    assert "ALTERED: 1 place" in text
    assert "line 2: the line before it was removed" in text


def test_history_verified_shows_the_last_hash() -> None:
    assert "verified: no line was changed or removed; the hash of the last line is abc" in shown(
        HostHistory((GOOD,), head="abc"), verify=True
    )


def test_history_unreachable_host_has_its_error() -> None:
    assert "web2  UNREACHABLE: timed out" in shown(HostHistory(()), web2="timed out")


def test_history_as_json_has_every_field() -> None:
    found = json.loads(shown(HostHistory((GOOD, BACK), head="h", left=frozenset({"r2"})), json=True, web2="timed out"))

    first, second = found["hosts"]
    assert (first["whole"], first["head"], second["unreachable"]) == (True, "h", "timed out")
    assert [release["left_by_rollback"] for release in first["releases"]] == [True, False]
    assert first["releases"][0]["services"]["backend"]["revision"] == "abc123"
    assert first["releases"][1]["target"] == "r1"
