"""The outbox: messages stay stored until a channel accepts them. The packed program runs without installed packages."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Channels, Hook, Notice, Occasion, RolloutPolicy, Severity, WatchRules
from rolling_upgrade.features.watchdog import outbox, state_store
from tests.support.receiver import closed_port, receiving, slack


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (tmp_path / "watchdog").mkdir()
    return tmp_path


def alert(text: str = "disk", at: float | None = None) -> Notice:
    when = time.time() if at is None else at
    return Notice(Occasion.CHECK_FAILING, "memoryark", "production", text, when, hosts=("web1",), check=text)


def sent(home: Path, channels: Channels, *notices: Notice) -> subprocess.CompletedProcess[str]:
    """Store the notices, and run the sending process without any installed package."""
    settings = state_store.Settings("memoryark", "web1", "production", WatchRules(), RolloutPolicy(), channels=channels)
    (home / "watchdog/settings.json").write_text(state_store.dump_settings(settings), "utf-8")
    (home / "watchdog/watchdog.pyz").write_bytes(rendering.engine())
    for notice in notices:
        outbox.put(home, notice, channels)
    command = [sys.executable, "-I", "-S", str(home / "watchdog/watchdog.pyz"), "send", str(home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_send_sends_the_stored_messages_in_order_and_deletes_them(home: Path) -> None:
    with receiving(judge=slack) as chat, receiving() as hook:
        channels = Channels(slack=Hook(chat.url()), webhook=Hook(hook.url("/hook")), language="zh-TW")
        done = sent(home, channels, alert("disk"), alert("backend"))

    assert (done.returncode, done.stderr) == (0, "")
    assert [request.json["check"] for request in hook.requests] == ["disk", "backend"]
    assert "異常：web1 的 disk" in chat.requests[0].json["blocks"][0]["text"]["text"]
    assert outbox.waiting(home) == []
    assert "message 'disk check failing': slack sent" in done.stdout
    assert chat.url() not in done.stdout


def test_send_keeps_a_message_that_no_channel_accepted_for_the_next_time(home: Path) -> None:
    dead = sent(home, Channels(webhook=Hook(f"http://127.0.0.1:{closed_port()}/q7Zk1m9pX2vB8nW4sL6t")), alert())
    assert (dead.returncode, len(outbox.waiting(home))) == (1, 1)
    assert "webhook NOT SENT: connection refused" in dead.stdout
    assert "q7Zk1m9pX2vB8nW4sL6t" not in dead.stdout + dead.stderr

    with receiving() as hook:
        done = sent(home, Channels(webhook=Hook(hook.url())))

    assert (done.returncode, len(hook.requests), outbox.waiting(home)) == (0, 1, [])


def test_send_drops_a_message_that_no_channel_accepted_for_a_day(home: Path) -> None:
    channels = Channels(webhook=Hook(f"http://127.0.0.1:{closed_port()}/"))

    done = sent(home, channels, alert(at=time.time() - outbox.EXPIRY_SECONDS - 1))

    assert (done.returncode, outbox.waiting(home)) == (0, [])
    assert "is dropped: no channel accepted it in time" in done.stdout


def test_send_drops_a_malformed_message_and_sends_the_next(home: Path) -> None:
    (home / "watchdog/outbox").mkdir()
    (home / "watchdog/outbox/0.json").write_text('{"occasion": "dance"}', "utf-8")
    with receiving() as hook:
        done = sent(home, Channels(webhook=Hook(hook.url())), alert())

    assert (done.returncode, len(hook.requests)) == (0, 1)
    assert "is dropped: the file is damaged" in done.stdout


def test_put_stores_nothing_that_no_channel_accepts(home: Path) -> None:
    outbox.put(home, alert(), Channels(webhook=Hook("http://127.0.0.1:9/", lowest=None)))
    outbox.put(home, Notice(Occasion.TEST, "a", "e", "t", 0.0), Channels(webhook=Hook("http://h/", Severity.WARNING)))

    assert outbox.waiting(home) == []


def test_put_on_a_full_disk_stores_the_message_in_memory(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "watchdog/outbox").write_text("in the way", "utf-8")
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))

    with receiving() as hook:
        done = sent(home, Channels(webhook=Hook(hook.url())), alert())

    assert (done.returncode, len(hook.requests), outbox.waiting(home)) == (0, 1, [])


def test_put_beyond_the_capacity_drops_the_oldest(home: Path) -> None:
    channels = Channels(webhook=Hook("http://127.0.0.1:9/"))
    for number in range(outbox.CAPACITY + 3):
        outbox.put(home, alert(f"check {number}"), channels)

    found = outbox.waiting(home)
    assert len(found) == outbox.CAPACITY
    assert "check 3" in found[0].read_text("utf-8")
