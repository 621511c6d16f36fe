"""The JSON objects of a run."""

from __future__ import annotations

import io
import json
from typing import Any

from rolling_upgrade.console.reporter import make_reporter
from rolling_upgrade.engine.model import Event, HostResult, HostSummary, Phase, Summary
from tests.support.builders import NOW, plan


def reported(*secrets: str, **calls: Any) -> list[dict[str, Any]]:
    stream = io.StringIO()
    with make_reporter(json=True, stream=stream, environ={}, secrets=secrets) as reporter:
        if "plans" in calls:
            reporter.plan(calls["plans"], scripts=calls.get("scripts", False), batches=calls.get("batches", ()))
        for event in calls.get("events", ()):
            reporter.event(event)
        if "summary" in calls:
            reporter.summary(calls["summary"])
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_reporter_writes_one_object_per_line_and_the_summary_last() -> None:
    objects = reported(
        plans=[plan("web1"), plan("web2")],
        events=[Event(NOW, Phase.DONE, "x", "web1", "pull", 1.23456)],
        summary=Summary("deploy", "production", "r2", 0, 1, ()),
    )

    assert [item["type"] for item in objects] == ["plan", "plan", "event", "summary"]


def test_json_event_has_all_fields() -> None:
    (event,) = reported(events=[Event(NOW, Phase.DONE, "Pull", "web1", "pull", 1.23456, "two\nlines")])

    assert event == {
        "type": "event",
        "at": NOW,
        "phase": "done",
        "host": "web1",
        "step": "pull",
        "title": "Pull",
        "seconds": 1.235,
        "detail": "two\nlines",
    }


def test_json_plan_names_services_steps_and_batch() -> None:
    (first, second) = reported(plans=[plan("web1"), plan("web2")], batches=[["web1"], ["web2"]])

    assert (first["batch"], second["batch"]) == (1, 2)
    assert first["services"][0]["wanted"]["tag"] == "v2.0.0"
    assert first["services"][0]["current_color"] == "blue"
    assert first["steps"] == [{"id": "backend.start", "title": "Start backend green", "group": ""}]


def test_json_plan_with_scripts_masks_them() -> None:
    (shown,) = reported(plans=[plan(secret="hunter22")], scripts=True)

    assert "podman run --env ••••••" in shown["steps"][0]["script"]
    assert "podman stop x" in shown["steps"][0]["undo"]
    assert "hunter22" not in json.dumps(shown)


def test_json_secret_with_quotes_is_masked_before_it_is_encoded() -> None:
    (event,) = reported('pass"word\\', events=[Event(NOW, Phase.NOTE, 'it is pass"word\\ today')])

    assert event["title"] == "it is •••••• today"


def test_json_detail_has_no_escape_sequences() -> None:
    (event,) = reported(events=[Event(NOW, Phase.FAILED, "x", detail="\x1b[1mbold\x1b[0m")])

    assert event["detail"] == "bold"


def test_json_summary_names_every_host() -> None:
    host = HostSummary("web1", HostResult.UPGRADED, 31.25, (("backend", "v2.0.0"),))
    (summary,) = reported(
        summary=Summary("deploy", "production", "r2", 0, 33.1, (host,), "ok", "inv deploy", ("careful",))
    )

    assert summary == {
        "type": "summary",
        "action": "deploy",
        "environment": "production",
        "release": "r2",
        "exit_code": 0,
        "seconds": 33.1,
        "hosts": [
            {
                "host": "web1",
                "result": "upgraded",
                "seconds": 31.25,
                "images": {"backend": "v2.0.0"},
                "cause": "",
            }
        ],
        "message": "ok",
        "warnings": ["careful"],
        "undo_command": "inv deploy",
    }
