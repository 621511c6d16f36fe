"""The messages of a run, with real receivers and scripted hosts."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from rolling_upgrade.console.reporter import make_reporter
from rolling_upgrade.engine import lock_file
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import Channels, Environment, Hook, Severity, Target
from rolling_upgrade.engine.rollout import HostRun
from rolling_upgrade.errors import ExitCode, HostUnreachable, LockHeld
from rolling_upgrade.features.hooks.run_hooks import RunHooks
from rolling_upgrade.features.notify.run_notifier import RunNotifier
from rolling_upgrade.features.operation import Operation, OperationSpec
from rolling_upgrade.ssh.fabric_host import FabricHost
from rolling_upgrade.ssh.fleet import Fleet
from tests.support.receiver import Receiver, closed_port, receiving, silent
from tests.support.sample import application
from tests.support.scripted_host import Scene, empty_plan, replacing_plan

SPEC = OperationSpec(
    action="deploy",
    question="?",
    hint="",
    done="On the new release",
    undone="Back on the old release",
    nothing="Nothing to do.",
    undo_command=lambda changed: "rolling-upgrade rollback --env production" if changed else "",
)
FAILS = [Answer(1, "it broke\nlast log line with s3cret-token")]
SECRETS = ("s3cret-token",)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("ROLLING_OPERATOR", "ann")
    return Scene()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def environment(channels: Channels, *hosts: str) -> Environment:
    app = application(channels=channels)
    return Environment("production", tuple(Target(host, host, "deploy", app) for host in hosts), secrets=SECRETS)


def rolled(
    scene: Scene, channels: Channels, *members: HostRun, spec: OperationSpec = SPEC, dry_run: bool = False
) -> tuple[ExitCode, dict[str, Any]]:
    """Run the operation; return its exit code and its summary."""
    stream = io.StringIO()
    target = environment(channels, *(member.name for member in members))
    fleet = Fleet(target, tuple(cast(FabricHost, member.host) for member in members))
    plans = {member.name: member.plan for member in members}
    with make_reporter(json=True, stream=stream, secrets=SECRETS) as reporter:
        hooks = RunHooks(target, scene.context, spec.action, dry_run=dry_run)
        run = Operation(fleet, reporter, scene.context, hooks, scene.now, force=True, dry_run=dry_run)
        code = run.run(
            spec,
            {member.name: member.application for member in members},
            {member.name: member.state for member in members},
            # A second plan of a host would raise KeyError.
            lambda state: plans.pop(state.host),
            lambda _: (),
        )
    objects = [json.loads(line) for line in stream.getvalue().splitlines()]
    return code, objects[-1]


def member(scene: Scene, host: str, **replies: Any) -> HostRun:
    return scene.host_run(host, plan=replacing_plan(host), **replies)


def events(receiver: Receiver) -> list[str]:
    return sorted(request.json["event"] for request in receiver.requests)


def last(receiver: Receiver) -> dict[str, Any]:
    (found,) = [request.json for request in receiver.requests if not request.json["event"].endswith("started")]
    return dict(found)


def test_run_successful_deploy_sends_started_and_done(scene: Scene, receiver: Receiver) -> None:
    channels = Channels(webhook=Hook(receiver.url()))

    code, summary = rolled(scene, channels, member(scene, "web1"), member(scene, "web2"))

    assert (code, summary["warnings"]) == (ExitCode.DONE, [])
    assert events(receiver) == ["deploy done", "deploy started"]
    found = last(receiver)
    assert found["thread"] == "r2"
    assert (found["who"], found["hosts"], found["target"]) == ("ann", ["web1", "web2"], "v2")
    assert found["changes"] == [{"what": "backend", "before": "v1", "after": "v2", "hosts": []}]
    assert found["next_command"] == "rolling-upgrade rollback --env production"
    assert found["results"] == {}


def test_run_failed_deploy_sends_the_cause_without_secrets(scene: Scene, receiver: Receiver) -> None:
    code, _ = rolled(scene, Channels(webhook=Hook(receiver.url())), member(scene, "web1", step_b=FAILS))

    assert code is ExitCode.FAILED
    assert events(receiver) == ["deploy started", "deploy undone"]
    found = last(receiver)
    assert found["results"] == {"web1": "undone"}
    assert "web1: do b: failed" in found["cause"]
    assert "last log line with ••••••" in found["cause"]
    assert found["next_command"] == "rolling-upgrade status --env production"


def test_host_gets_the_secrets_of_its_own_application(scene: Scene) -> None:
    channels = Channels(webhook=Hook("https://example.org/hook"))
    targets = [
        Target(name, name, "deploy", replace(app, services=(replace(app.services[0], env=env),)))
        for app in (application(channels=channels),)
        for name, env in (("web1", (("URL", "db://u:one-secret@db/x"),)), ("web2", (("TOKEN", "two-secret"),)))
    ]
    secrets = ("one-secret", "two-secret")
    notifier = RunNotifier(Environment("production", tuple(targets), secrets=secrets), scene.context, "deploy")

    found = {name: notifier.of_host(replacing_plan(name))[2] for name in ("web1", "web2")}

    assert found == {"web1": ("one-secret",), "web2": ("two-secret",)}


def test_run_failed_undo_is_critical(scene: Scene, receiver: Receiver) -> None:
    channels = Channels(webhook=Hook(receiver.url(), Severity.CRITICAL))

    code, _ = rolled(scene, channels, member(scene, "web1", step_b=FAILS, step_undo=FAILS))

    assert code is ExitCode.UNDO_FAILED
    assert events(receiver) == ["deploy failed"]


def test_run_incomplete_deploy_sends_the_result_of_each_host(scene: Scene, receiver: Receiver) -> None:
    code, _ = rolled(
        scene, Channels(webhook=Hook(receiver.url())), member(scene, "web1"), member(scene, "web2", step_b=FAILS)
    )

    assert code is ExitCode.PARTLY_DONE
    assert last(receiver)["event"] == "deploy partly"
    assert last(receiver)["results"] == {"web1": "upgraded", "web2": "undone"}


def test_run_that_finds_the_lock_held_sends_nothing(scene: Scene, receiver: Receiver) -> None:
    held = Answer(lock_file.HELD_STATUS, "token=t\nowner=bob\nworkstation=ci\npid=7\nreason=deploy v1\n")

    with pytest.raises(LockHeld):
        rolled(scene, Channels(webhook=Hook(receiver.url())), member(scene, "web1", lock=[held]))

    assert receiver.requests == []


def test_run_that_cannot_reach_a_host_sends_nothing(scene: Scene, receiver: Receiver) -> None:
    with pytest.raises(HostUnreachable):
        rolled(
            scene,
            Channels(webhook=Hook(receiver.url())),
            member(scene, "web1", lock=[HostUnreachable("web1: cannot reach it")]),
        )

    assert receiver.requests == []


def test_run_without_changes_or_with_dry_run_sends_nothing(scene: Scene, receiver: Receiver) -> None:
    channels = Channels(webhook=Hook(receiver.url()))

    rolled(scene, channels, scene.host_run("web1", plan=empty_plan("web1")))
    rolled(scene, channels, member(scene, "web1"), dry_run=True)

    assert receiver.requests == []


def test_run_does_not_name_unchanged_hosts(scene: Scene, receiver: Receiver) -> None:
    members = [scene.host_run("web1", plan=empty_plan("web1")), member(scene, "web2")]

    rolled(scene, Channels(webhook=Hook(receiver.url())), *members)

    assert last(receiver)["hosts"] == ["web2"]


def test_run_failing_channel_is_one_warning(scene: Scene) -> None:
    port = closed_port()

    code, summary = rolled(
        scene, Channels(slack=Hook(f"http://127.0.0.1:{port}/T0/s3cret-path")), member(scene, "web1")
    )

    assert code is ExitCode.DONE
    assert summary["warnings"] == ["slack: message not delivered: connection refused"]
    assert "s3cret" not in json.dumps(summary)


def test_run_hanging_channel_adds_less_than_ten_seconds(scene: Scene) -> None:
    with silent() as port:
        started_at = time.monotonic()
        code, summary = rolled(scene, Channels(slack=Hook(f"http://127.0.0.1:{port}/x")), member(scene, "web1"))
        elapsed = time.monotonic() - started_at

    assert code is ExitCode.DONE
    assert elapsed < 10
    assert len(summary["warnings"]) == 1


@pytest.mark.parametrize("action", ["rollback", "restore"])
def test_run_of_another_action_sends_its_own_occasions(action: str, scene: Scene, receiver: Receiver) -> None:
    rolled(scene, Channels(webhook=Hook(receiver.url())), member(scene, "web1"), spec=replace(SPEC, action=action))

    assert events(receiver) == [f"{action} done", f"{action} started"]
