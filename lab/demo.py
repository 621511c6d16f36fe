"""The demo: an application under strict load on two hosts, an upgrade nobody notices, and one that is undone.

`python -m lab.demo` runs the project's own tasks as a person would type them, and watches through the load
client. It decides nothing about a deploy. Exit code 0 when all went as told, 1 otherwise.
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
    """The demo cannot go on: what happened and where to look."""


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    name: str
    hosts: int
    runs: int
    steady_seconds: float
    down: bool


@dataclass(frozen=True)
class Stage:
    """The demo's means: it says what it does, runs tasks, and waits."""

    log: Callable[[str], None]
    run: Callable[[tuple[str, ...]], int]
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def task(self, *words: str, expected: int = 0) -> Command:
        """Run one of the project's tasks, its output shown as it comes."""
        text = " ".join(("inv", *words))
        self.log(f"$ {text}")
        start = self.clock()
        exit_code = self.run(words)
        return Command(text, expected, exit_code, start, self.clock())

    def must(self, *words: str, look: str) -> None:
        """Run a task without which the demo cannot go on."""
        done = self.task(*words)
        if not done.as_expected:
            raise DemoFailed(f"`{done.text}` ended with exit code {done.exit_code}; its output above says why. {look}")


def show(options: Options, stage: Stage) -> Iterator[Round]:
    """The whole story; each round is given as soon as it is done. Raises DemoFailed when it cannot go on."""
    name = options.name
    stage.log(f"1. A lab of {options.hosts} Debian hosts with an address of their own, and a registry")
    stage.must("lab.up", "--hosts", str(options.hosts), "--name", name, look="Next: inv lab.status")
    stage.log("2. Prepare the hosts")
    stage.must("setup", "--env", name, "--force", look=f"Next: inv status --env {name}")
    servers, domain = hosts_of(name)
    for number in range(1, options.runs + 1):
        if options.runs > 1:
            stage.log(f"=== Run {number} of {options.runs}")
        stage.log(f"3. Deploy {OLD}")
        stage.must("deploy", "--env", name, "--tag", OLD, "--force", look=f"Next: inv status --env {name}")
        done = one_round(options, stage, servers, Load(servers, domain))
        stage.log(f"\n{verdict.table(done)}\n")
        yield done
    stage.log("8. Look at the hosts")
    stage.must("status", "--env", name, look="Next: inv lab.status")


def one_round(options: Options, stage: Stage, servers: tuple[Server, ...], load: Load) -> Round:
    """Upgrade and undo while the load runs. Raises DemoFailed when the load itself does not."""
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
    """Wait until the load runs at its pace."""
    stage.sleep(WARM_UP_SECONDS)
    if not load.progress.requests:
        stage.sleep(WARM_UP_SECONDS)
    if not load.progress.requests:
        raise DemoFailed("the load has sent nothing. Next: python -m lab.load --url http://ADDRESS")


def quiet(stage: Stage, load: Load, title: str, seconds: float, version: str, start: float | None = None) -> Phase:
    """Let the load run on while nothing changes."""
    begun = stage.clock() if start is None else start
    stage.log(f"   {title}: {seconds:g} s of load")
    stage.sleep(seconds)
    stage.log(f"   so far {load.progress.requests} requests, {load.progress.failed} failed")
    return Phase(title, begun, stage.clock(), (version,))


def hosts_of(name: str) -> tuple[tuple[Server, ...], str]:
    """The public addresses of the lab's hosts and the name under which the application is served."""
    try:
        environment = config.load(name, root=PROJECT)
    except ConfigError as error:
        raise DemoFailed(f"the lab's environment cannot be read: {error}") from error
    targets = environment.targets
    servers = tuple(Server(target.name, target.address, target.application.http_port) for target in targets)
    return servers, targets[0].application.domain


def write_summary(rounds: list[Round]) -> None:
    """Write `.demo/summary.json`, and the last round's requests for `inv report --load`, each whole or not at all."""
    OUTPUT.mkdir(exist_ok=True)
    partial = SUMMARY.with_suffix(".new")
    partial.write_text(json.dumps(verdict.summary(rounds), indent=2, ensure_ascii=False) + "\n")
    partial.rename(SUMMARY)
    wall = time.time() - time.monotonic()
    rows = (
        {"at": round(one.ended + wall, 3), "ms": round(one.latency * 1000, 1), "ok": one.cause is None}
        for one in rounds[-1].load.records
        if one.kind.prompt
    )
    partial.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    partial.rename(SUMMARY.with_name("requests.jsonl"))


def conclusion(options: Options, rounds: list[Round]) -> tuple[str, int]:
    """The last words and the exit code."""
    wrong = [
        f"  run {number}: {problem}" if options.runs > 1 else f"  {problem}"
        for number, done in enumerate(rounds, 1)
        for problem in verdict.problems(done)
    ]
    if wrong:
        return "\n".join([f"The demo did not go as told ({SUMMARY}):", *wrong]), ExitCode.FAILED
    figures = verdict.summary(rounds)
    requests, writes = figures["requests"], figures["writes_acknowledged"]
    lines = [
        f"None of {requests} requests failed; all {writes} acknowledged uploads are there.",
        f"{NEW} serves on {' and '.join(figures['hosts'])}.",
        f"Figures: {SUMMARY.relative_to(PROJECT)}",
    ]
    return "\n".join(lines), ExitCode.DONE


def farewell(options: Options, rounds: list[Round]) -> str:
    """How to look at the lab that stays, and how to remove it."""
    lines = [f"The lab stays up. Look at it:  inv status --env {options.name}"]
    if rounds:
        lines += [f"                               http://{server.address}/" for server in rounds[-1].servers]
    return "\n".join([*lines, f"Remove it:                     inv lab.down --name {options.name}"])


def run_task(words: tuple[str, ...]) -> int:
    """Run a task, its output where ours goes. After Ctrl-C it gets time to undo its work."""
    process = subprocess.Popen([sys.executable, "-m", "invoke", *words], cwd=PROJECT, stdin=subprocess.DEVNULL)
    try:
        return process.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            process.wait(INTERRUPT_SECONDS)
        raise


def read_options(arguments: list[str] | None = None) -> Options:
    """The command line. Exits with code 2 when it cannot be read."""
    parser = argparse.ArgumentParser("python -m lab.demo", description="An upgrade under load that loses nothing.")
    parser.add_argument("--name", default="lab", help="the lab's name (default: lab)")
    parser.add_argument("--hosts", type=int, default=2, help="how many hosts (default: 2)")
    parser.add_argument("--runs", type=int, default=1, help="how often to upgrade and undo (default: once)")
    parser.add_argument("--seconds", type=float, default=8.0, help="steady load before the upgrade (default: 8)")
    after = parser.add_mutually_exclusive_group()
    after.add_argument("--keep", action="store_true", help="leave the lab up at the end (the default)")
    after.add_argument("--down", action="store_true", help="remove the lab at the end")
    found = parser.parse_args(arguments)
    if found.runs < 1 or found.hosts < 1 or found.seconds <= 0:
        parser.error("--runs, --hosts and --seconds must be above zero")
    return Options(found.name, found.hosts, found.runs, found.seconds, found.down)


def main() -> int:
    """Show the demo and log how it went."""
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
