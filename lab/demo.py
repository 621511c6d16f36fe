"""The demo: an upgrade under strict load without a failed request, and a broken version that is undone.

`python -m lab.demo` runs the project's tasks as an operator does, and measures with the load client. It exits with 1 if
any step did not go as expected.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab import verdict
from lab.load import Load, LoadDied, Server
from lab.verdict import BROKEN, NEW, OLD, Command, Phase, Round
from rolling_upgrade import config
from rolling_upgrade.errors import ConfigError, ExitCode

PROJECT = Path(__file__).resolve().parent.parent
OUTPUT = PROJECT / ".demo"
SUMMARY = OUTPUT / "summary.json"
WARM_UP_SECONDS = 2.0
AFTER_UPGRADE_SECONDS = 4.0
AFTER_UNDO_SECONDS = 4.0
#: How long an interrupted deploy may take to undo itself.
INTERRUPT_SECONDS = 120.0


class DemoFailed(Exception):
    """The demo cannot continue. The message says why and names the next command."""


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    name: str
    hosts: int
    runs: int
    steady_seconds: float
    down: bool


@dataclass(frozen=True)
class Stage:
    """The functions that the demo uses to log, to run tasks and to wait."""

    log: Callable[[str], None]
    run: Callable[[tuple[str, ...]], int]
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def task(self, *words: str, expected: int = 0) -> Command:
        """Run a task and show its output."""
        text = " ".join(("inv", *words))
        self.log(f"$ {text}")
        start = self.clock()
        exit_code = self.run(words)
        return Command(text, expected, exit_code, start, self.clock())

    def require(self, *words: str, next_step: str) -> None:
        """Run a task that has to succeed."""
        done = self.task(*words)
        if not done.as_expected:
            raise DemoFailed(
                f"`{done.text}` ended with exit code {done.exit_code}; its output above says why. {next_step}"
            )


def show(options: Options, stage: Stage) -> Iterator[Round]:
    """Run the demo and yield each round after its end. Raises DemoFailed when the demo cannot continue."""
    name = options.name
    stage.log(f"1. A lab of {options.hosts} Debian hosts with separate addresses, and a registry")
    stage.require("lab.up", "--hosts", str(options.hosts), "--name", name, next_step="Next: inv lab.status")
    stage.log("2. Prepare the hosts")
    stage.require("setup", "--env", name, "--force", next_step=f"Next: inv status --env {name}")
    servers, domain = hosts_of(name)
    for number in range(1, options.runs + 1):
        if options.runs > 1:
            stage.log(f"=== Run {number} of {options.runs}")
        stage.log(f"3. Deploy {OLD}")
        stage.require("deploy", "--env", name, "--tag", OLD, "--force", next_step=f"Next: inv status --env {name}")
        done = one_round(options, stage, servers, Load(servers, domain))
        stage.log(f"\n{verdict.table(done)}\n")
        yield done
    stage.log("8. Check the hosts")
    stage.require("status", "--env", name, next_step="Next: inv lab.status")


def one_round(options: Options, stage: Stage, servers: tuple[Server, ...], load: Load) -> Round:
    """Upgrade and undo under load. Raises DemoFailed when the load fails."""
    deploy = ("deploy", "--env", options.name, "--force", "--tag")
    stage.log(f"4. Load both kinds of connections, uploads, slow requests and a stream on {len(servers)} hosts")
    with load:
        warm_up(stage, load)
        phases = [quiet(stage, load, f"{OLD} serves, nothing changes", options.steady_seconds, OLD)]
        stage.log(f"5. Upgrade to {NEW} under load")
        upgrade = stage.task(*deploy, NEW)
        phases.append(Phase(f"upgrade to {NEW}", phases[-1].end, upgrade.end, (OLD, NEW)))
        undo = None
        if upgrade.as_expected:
            phases.append(quiet(stage, load, f"{NEW} serves", AFTER_UPGRADE_SECONDS, NEW, upgrade.end))
            stage.log(f"6. Try {BROKEN} under load: it must fail its health gate and be undone")
            undo = stage.task(*deploy, BROKEN, expected=ExitCode.FAILED)
            phases.append(Phase(f"{BROKEN} tried and undone", phases[-1].end, undo.end, (NEW,)))
            phases.append(quiet(stage, load, f"{NEW} still serves", AFTER_UNDO_SECONDS, NEW, undo.end))
        stage.log("7. Stop the load and read back every upload that was acknowledged")
        try:
            result = load.stop()
        except LoadDied as error:
            raise DemoFailed(f"{error}; nothing was measured. Next: python -m lab.load --help") from error
    return Round(servers, tuple(phases), phases[0], upgrade, undo, result)


def warm_up(stage: Stage, load: Load) -> None:
    """Wait until the load sends requests."""
    stage.sleep(WARM_UP_SECONDS)
    if not load.progress.requests:
        stage.sleep(WARM_UP_SECONDS)
    if not load.progress.requests:
        raise DemoFailed("the load has sent nothing. Next: python -m lab.load --url http://ADDRESS")


def quiet(stage: Stage, load: Load, title: str, seconds: float, version: str, start: float | None = None) -> Phase:
    """Run the load for a time while nothing changes."""
    started_at = stage.clock() if start is None else start
    stage.log(f"   {title}: {seconds:g} s of load")
    stage.sleep(seconds)
    stage.log(f"   so far {load.progress.requests} requests, {load.progress.failed} failed")
    return Phase(title, started_at, stage.clock(), (version,))


def hosts_of(name: str) -> tuple[tuple[Server, ...], str]:
    """Return the public addresses of the lab's hosts, and the application's domain."""
    try:
        environment = config.load(name, root=PROJECT)
    except ConfigError as error:
        raise DemoFailed(f"the lab's environment cannot be read: {error}") from error
    targets = environment.targets
    servers = tuple(Server(target.name, target.address, target.application.http_port) for target in targets)
    return servers, targets[0].application.domain


def write_summary(rounds: list[Round]) -> None:
    """Write `.demo/summary.json`, and the last round's requests for `inv report --load`, atomically."""
    OUTPUT.mkdir(exist_ok=True)
    partial = SUMMARY.with_suffix(".new")
    partial.write_text(json.dumps(verdict.summary(rounds), indent=2, ensure_ascii=False) + "\n")
    partial.rename(SUMMARY)
    wall = time.time() - time.monotonic()
    rows = (
        {"at": round(record.ended + wall, 3), "ms": round(record.latency * 1000, 1), "ok": record.cause is None}
        for record in rounds[-1].load.records
        if record.kind.prompt
    )
    partial.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    partial.rename(SUMMARY.with_name("requests.jsonl"))


def conclusion(options: Options, rounds: list[Round]) -> tuple[str, int]:
    """Return the final message and the exit code."""
    wrong = [
        f"  run {number}: {problem}" if options.runs > 1 else f"  {problem}"
        for number, done in enumerate(rounds, 1)
        for problem in verdict.problems(done)
    ]
    if wrong:
        return "\n".join([f"The demo did not go as expected ({SUMMARY}):", *wrong]), ExitCode.FAILED
    figures = verdict.summary(rounds)
    requests, writes = figures["requests"], figures["writes_acknowledged"]
    lines = [
        f"None of {requests} requests failed; all {writes} acknowledged uploads are there.",
        f"{NEW} serves on {' and '.join(figures['hosts'])}.",
        f"Figures: {SUMMARY.relative_to(PROJECT)}",
    ]
    return "\n".join(lines), ExitCode.DONE


def farewell(options: Options, rounds: list[Round]) -> str:
    """Return the commands that show and remove the lab."""
    lines = [f"The lab stays up. Check it:    inv status --env {options.name}"]
    if rounds:
        lines += [f"                               http://{server.address}/" for server in rounds[-1].servers]
    return "\n".join([*lines, f"Remove it:                     inv lab.down --name {options.name}"])


def run_task(words: tuple[str, ...]) -> int:
    """Run a task with this process's output. After Ctrl-C, wait until it has undone its work."""
    process = subprocess.Popen([sys.executable, "-m", "invoke", *words], cwd=PROJECT, stdin=subprocess.DEVNULL)
    try:
        return process.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            process.wait(INTERRUPT_SECONDS)
        raise


def read_options(arguments: list[str] | None = None) -> Options:
    """Parse the command line. Exits with 2 if it is invalid."""
    parser = argparse.ArgumentParser("python -m lab.demo", description="An upgrade under load that loses nothing.")
    parser.add_argument("--name", default="lab", help="the lab's name (default: lab)")
    parser.add_argument("--hosts", type=int, default=2, help="number of hosts (default: 2)")
    parser.add_argument("--runs", type=int, default=1, help="number of upgrades and undos (default: 1)")
    parser.add_argument("--seconds", type=float, default=8.0, help="steady load before the upgrade (default: 8)")
    after = parser.add_mutually_exclusive_group()
    after.add_argument("--keep", action="store_true", help="leave the lab up at the end (the default)")
    after.add_argument("--down", action="store_true", help="remove the lab at the end")
    options = parser.parse_args(arguments)
    if options.runs < 1 or options.hosts < 1 or options.seconds <= 0:
        parser.error("--runs, --hosts and --seconds must be above zero")
    return Options(options.name, options.hosts, options.runs, options.seconds, options.down)


def main() -> int:
    """Run the demo and log its result."""
    options = read_options()
    stage = Stage(log=lambda text: print(text, flush=True), run=run_task)
    rounds: list[Round] = []
    SUMMARY.unlink(missing_ok=True)
    try:
        for done in show(options, stage):
            rounds.append(done)
            write_summary(rounds)
        text, exit_code = conclusion(options, rounds)
    except DemoFailed as error:
        text, exit_code = f"The demo stopped: {error}", ExitCode.FAILED
    except KeyboardInterrupt:
        text, exit_code = "The demo was interrupted.", ExitCode.INTERRUPTED
    stage.log(f"\n{text}\n")
    if options.down:
        stage.task("lab.down", "--name", options.name)
    else:
        stage.log(farewell(options, rounds))
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
