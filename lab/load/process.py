"""Runs a load in another process, so that the load and the measured deploy do not slow each other down.

The process reads its task as one JSON line from standard input and stops at the end of that input, so that it also
stops when its parent dies. It writes one JSON line per second with its progress, and the result at the end.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from lab.load.records import LoadResult
from lab.load.traffic import LoadProfile, Traffic
from lab.load.wire import Server

#: The time limit for finishing open requests and reading back every write after a stop.
STOP_SECONDS = 300.0
TICK_SECONDS = 1.0
PROJECT = Path(__file__).resolve().parents[2]


class LoadDied(Exception):
    """The load's process ended without a result."""


@dataclass(frozen=True)
class Progress:
    """The number of requests so far, and the number of failed ones."""

    requests: int = 0
    failed: int = 0


class Load:
    """A load on servers: `start` it, run the work to measure, and `stop` it for the result."""

    def __init__(self, servers: Sequence[Server], domain: str, mix: LoadProfile | None = None) -> None:
        addressed = [asdict(server) for server in servers]
        self._task = json.dumps({"servers": addressed, "domain": domain, "mix": asdict(mix or LoadProfile())})
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._result: LoadResult | None = None
        self.progress = Progress()

    def start(self) -> Load:
        """Start the load's process in a new session, so that Ctrl-C on the terminal does not reach it."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from lab.load.process import main; main()"],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._listen, args=(_pipe(self._process.stdout),), daemon=True)
        self._reader.start()
        commands = _pipe(self._process.stdin)
        commands.write(self._task + "\n")
        commands.flush()
        return self

    def stop(self) -> LoadResult:
        """Stop the load, wait until it has read its writes back, and return its result. Raises LoadDied."""
        if self._process is None or self._reader is None:
            raise LoadDied("the load was not started")
        _pipe(self._process.stdin).close()
        self._reader.join(STOP_SECONDS)
        self.abandon()
        if self._result is None:
            raise LoadDied(f"the load's process gave no result (exit code {self._process.returncode})")
        return self._result

    def abandon(self) -> None:
        """Kill the load's process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            _pipe(self._process.stdin).close()
        if self._reader is not None:
            self._reader.join()

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def _listen(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                if not line.endswith("\n"):
                    return
                message = json.loads(line)
                if "result" in message:
                    self._result = LoadResult.from_json(message["result"])
                else:
                    self.progress = Progress(**message["progress"])


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise LoadDied("the load's process has no pipe")
    return pipe


async def run_until(traffic: Traffic, stopping: asyncio.Event, show: Callable[[Progress], None]) -> LoadResult:
    """Run the traffic until `stopping` is set and show its progress every second."""

    async def report() -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            show(Progress(traffic.requests, traffic.failed))

    reporter = asyncio.create_task(report())
    try:
        return await traffic.run(stopping)
    finally:
        reporter.cancel()


async def _serve(task: dict[str, Any]) -> LoadResult:
    servers = [Server(**server) for server in task["servers"]]
    traffic = Traffic(servers, task["domain"], LoadProfile.from_json(task["mix"]))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(stopping.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    return await run_until(traffic, stopping, lambda progress: _send({"progress": asdict(progress)}))


def _send(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    """Read the task, run the load until the end of input, and write the result."""
    task = json.loads(sys.stdin.readline())
    result = asyncio.run(_serve(task))
    _send({"result": result.as_json()})
