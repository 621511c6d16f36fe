"""The load in another process, and as a command."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.load import Cause, Kind, Load, LoadDied, Server
from lab.load.__main__ import server_at
from tests.load.application import Application, Exchange

PROJECT = Path(__file__).parents[2]


class Running:
    """An application that serves in a thread during the test."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._busy = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Running:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def wait_until_loaded(self) -> None:
        assert self._busy.wait(20)

    def _run(self) -> None:
        async def begin() -> asyncio.Server:
            return await asyncio.start_server(self.app.serve, "127.0.0.1", 0)

        async def notice() -> None:
            await self.app.stopping.wait()
            self._busy.set()

        server = self._loop.run_until_complete(begin())
        noticing = self._loop.create_task(notice())
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self.app.close()
        noticing.cancel()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks))


@pytest.fixture
def running() -> Iterator[Running]:
    with Running(Application("/api/uploads", enough=5)) as running:
        yield running


def test_load_healthy_server_reports_every_kind_and_no_failure(running: Running) -> None:
    load = Load([Server("web1", "127.0.0.1", running.port)], "app.test").start()
    running.wait_until_loaded()
    result = load.stop()

    assert result.failures == ()
    assert result.writes_lost == 0
    assert set(result.kinds()) == set(Kind)
    assert result.writes_acknowledged == result.kinds()[Kind.UPLOAD]


def test_load_stopped_without_start_is_an_error() -> None:
    with pytest.raises(LoadDied, match="not started"):
        Load([], "app.test").stop()


def test_load_killed_raises_instead_of_returning_a_result(running: Running) -> None:
    load = Load([Server("web1", "127.0.0.1", running.port)], "app.test").start()
    running.wait_until_loaded()
    load.abandon()

    with pytest.raises(LoadDied, match="no result"):
        load.stop()


def test_command_healthy_server_exits_with_0_and_prints_the_figures(running: Running) -> None:
    done = command(f"http://127.0.0.1:{running.port}")

    assert done.returncode == 0, done.stdout
    assert "failed    0" in done.stdout
    assert "backend v1" in done.stdout


def test_command_bad_answer_exits_with_1_and_prints_its_cause() -> None:
    async def fail(exchange: Exchange) -> None:
        exchange.answer(b"", "502 Bad Gateway")

    with Running(Application("/", fail)) as running:
        done = command(f"http://127.0.0.1:{running.port}")

    assert done.returncode == 1
    assert f"{Cause.WRONG_STATUS.value} (502 instead of 200" in done.stdout


@pytest.mark.parametrize("url", ["https://10.0.0.1", "10.0.0.1", "http://", "http://a:x", "http://a/path"])
def test_server_at_an_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        server_at(url)


def test_server_at_an_address_without_port_uses_port_80() -> None:
    assert server_at("http://10.0.0.1") == Server("10.0.0.1", "10.0.0.1", 80)


def command(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab.load", "--url", url, "--seconds", "1"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=30,
    )
