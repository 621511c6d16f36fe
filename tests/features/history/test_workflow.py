"""The history as people and programs read it."""

from __future__ import annotations

import io
import json
from dataclasses import replace

from fabfile.model import Color, Environment, Outcome, Release, ServiceRelease
from fabfile.report.history import Told, render_history

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


def shown(told: Told, *, limit: int = 0, verify: bool = False, json: bool = False, **lost: str) -> str:
    out = io.StringIO()
    render_history(Environment("production", ()), {"web1": told}, lost, limit=limit, verify=verify, json=json, out=out)
    return out.getvalue()


def test_history_entry_says_when_what_how_who_and_from_where() -> None:
    text = shown(Told((GOOD,)))

    assert "2026-11-23 04:41:38 UTC  deploy  good  12.3s  backend v2 (aaaaaaaaaaaa)" in text
    assert "r2 by ann with key SHA256:xyz from 192.0.2.7 (laptop), clone f00d" in text
    assert "source backend abc123" in text


def test_history_key_of_the_folder_is_named() -> None:
    told = Told((GOOD,), names={"SHA256:xyz": "ann-laptop (revoked)"})

    assert "with key SHA256:xyz of ann-laptop (revoked) from" in shown(told)
    assert json.loads(shown(told, json=True))["hosts"][0]["releases"][0]["key_of"] == "ann-laptop (revoked)"


def test_history_bad_outcome_says_why_on_one_line() -> None:
    assert "because backend: the gate failed" in shown(Told((BAD,)))


def test_history_rollback_says_where_it_went_and_marks_what_it_left() -> None:
    text = shown(Told((GOOD, BACK), left=frozenset({"r2"})))

    assert "to r1, leaving r2" in text
    assert text.count("good, left by a rollback") == 1


def test_history_limit_shows_the_newest_and_says_so() -> None:
    text = shown(Told((GOOD, BAD, BACK)), limit=1)

    assert "web1  3 entries, the newest 1 of them" in text
    assert "r4 by ann" in text
    assert "r2 by ann" not in text


def test_history_that_is_not_whole_says_so_without_being_asked() -> None:
    text = shown(Told((GOOD,), faults=((2, "the line before it was removed"),)))

    assert "NOT WHOLE: 1 place" in text
    assert "line 2: the line before it was removed" in text


def test_history_verified_and_whole_gives_the_hash_to_keep() -> None:
    assert "whole: every line as it was written; the last one's hash is abc" in shown(
        Told((GOOD,), head="abc"), verify=True
    )


def test_history_host_that_was_not_reached_is_said() -> None:
    assert "web2  NOT REACHED: timed out" in shown(Told(()), web2="timed out")


def test_history_as_json_has_every_field() -> None:
    found = json.loads(shown(Told((GOOD, BACK), head="h", left=frozenset({"r2"})), json=True, web2="timed out"))

    first, second = found["hosts"]
    assert (first["whole"], first["head"], second["unreachable"]) == (True, "h", "timed out")
    assert [one["left_by_rollback"] for one in first["releases"]] == [True, False]
    assert first["releases"][0]["services"]["backend"]["revision"] == "abc123"
    assert first["releases"][1]["target"] == "r1"
