"""The moments of a run at which a fault hits it, the faults, and the check of the state in which the host ends."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from lab.host import Host
from lab.load import LoadProfile, WorkerGroup
from rolling_upgrade.engine.shell import quote, shell_join
from tests.deploy.conftest import LOCK_FILE, PROJECT, Site, http_request, on_each, wait_until
from tests.deploy.fork_server import ForkedTask, fork_server

APP = "/var/lib/memoryark"
#: The number of moments at which each fault hits, and the seed that selects them and their delays.
NUMBER, SEED = int(os.environ.get("MOMENTS", "20")), os.environ.get("MOMENTS_SEED", "1")
#: The load of one moment: every kind of request, at a third of the demo's rate, since several moments run at once.
LOAD = LoadProfile(WorkerGroup(4, 10), WorkerGroup(2, 10), WorkerGroup(1, 4), WorkerGroup(1, 0.4))
LEASE_SECONDS = 30
#: The longest time from the last fault to the end of a run that its host ends by itself.
END_SECONDS = 150
CHANGED = frozenset({"upgraded", "rolled back", "restored"})


@dataclass(frozen=True)
class Operation:
    """An operation as the steps of its run, in order.

    Attributes:
        before_go: lock and preparation, which change nothing that visitors see.
        changing: the steps that are undone after a failure.
        final: the steps that are completed in any case.
    """

    name: str
    before_go: tuple[str, ...]
    changing: tuple[str, ...]
    final: tuple[str, ...]

    @property
    def steps(self) -> tuple[str, ...]:
        return (*self.before_go, *self.changing, *self.final)


_COLORS = ("backend.start", "frontend.start", "backend.cutover", "frontend.cutover", "verify")
_RESTORE = ("maintenance.on", "stop", "backup", "database", "uploads", *_COLORS[:2], "verify")
DEPLOY = Operation("deploy", ("lock", "backup", "pull"), _COLORS, ("drain", "record"))
ROLLBACK = Operation("rollback", ("lock",), _COLORS, ("drain", "record"))
RESTORE = Operation("restore", ("lock", "check"), _RESTORE, ("maintenance.off", "record"))
OPERATIONS = (DEPLOY, ROLLBACK, RESTORE)

#: Parts of a second after the event of a moment: while a step runs, and right after it.
_DELAYS = {"started": 0.25, "done": 0.03}
#: The workstation connects, observes and plans during its first second. It has no run on the host yet.
_OBSERVING = (0.1, 0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Moment:
    """A point in the run of an operation: an event of a step, and a delay. Without a step: before the run exists."""

    operation: Operation
    step: str
    phase: str
    delay: float

    def __str__(self) -> str:
        return f"{self.operation.name}-{self.step or 'observing'}-{self.phase or f'{self.delay:g}'}"

    @property
    def place(self) -> str:
        """The moment with its exact delay and the seed, with which it can be repeated."""
        return f"{self}: {self.delay * 1000:.0f} ms after the event, MOMENTS_SEED={SEED}"


def moments(fault: str) -> list[Moment]:
    """Return NUMBER moments at which a fault hits, spread evenly over the runs of all operations."""
    every = [moment for operation in OPERATIONS for moment in _moments(operation, fault)]
    first, stride = Random(f"{SEED} {fault}").random(), max(1.0, len(every) / NUMBER)  # noqa: S311
    return [every[int((number + first) * stride)] for number in range(min(NUMBER, len(every)))]


def _moments(operation: Operation, fault: str) -> list[Moment]:
    """Return the start and the end of each step, and some moments before the run exists."""
    found = [Moment(operation, "", "", delay) for delay in _OBSERVING]
    for step in operation.steps:
        for phase, most in _DELAYS.items():
            delay = Random(f"{SEED} {operation.name} {fault} {step} {phase}").uniform(0, most)  # noqa: S311
            found.append(Moment(operation, step, phase, round(delay, 3)))
    return found


#: Waits for the event of a moment in the journal of a run that is newer than BEFORE, and prints the id of the run.
_REACH = """\
import json, sys, time
from pathlib import Path
before, step, phase, delay = sys.argv[1:]
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    for events in Path("/var/lib/memoryark/journal").glob("*/events.jsonl"):
        if events.parent.name <= before:
            continue
        for line in events.read_text().splitlines():
            event = json.loads(line).get("event", {}) if line.endswith("}") else {}
            if (event.get("step"), event.get("phase")) == (step, phase):
                time.sleep(float(delay))
                print(events.parent.name)
                sys.exit()
    time.sleep(0.005)
sys.exit("the run did not reach the moment")
"""


def newest_run(host: Host) -> str:
    """Return the id of the newest run on the host."""
    return host.sh(f"ls {APP}/journal | sort | tail -n 1").stdout.strip()


def start(site: Site, *words: str) -> ForkedTask:
    """Start a task of a workstation."""
    command = (words[0], "--env", site.lab.name, *words[1:])
    return fork_server().start(command, PROJECT, {**os.environ, "CI": "true"})


def reach(host: Host, moment: Moment, before: str, then: str = "") -> None:
    """Wait for the moment of the run after the run `before`, and execute a script of root on the host at once."""
    if not moment.step:
        time.sleep(moment.delay)
        host.sh(then or ":")
        return
    wait = shell_join("python3", "-I", "-c", _REACH, before, moment.step, moment.phase, str(moment.delay))
    host.sh(f"{wait} || exit\n{then}", timeout=90)


_CUT_SSH = """\
nft add table inet moment
nft add chain inet moment inbound '{ type filter hook input priority -300; }'
nft add chain inet moment outbound '{ type filter hook output priority -300; }'
nft add rule inet moment inbound tcp dport 22 %s
nft add rule inet moment outbound tcp sport 22 tcp flags '&' rst == 0 drop
"""
#: Drops every packet of SSH, or answers every one with a reset; visitors notice nothing.
DROP_SSH, RESET_SSH = _CUT_SSH % "drop", _CUT_SSH % "reject with tcp reset"
#: Finds the established connections of the deploy user; ends them.
SESSIONS = "pgrep -u deploy -x sshd-session || pgrep -u deploy -x sshd"
CLOSE_SSH = "pkill -KILL -u deploy -x sshd-session || pkill -KILL -u deploy -x sshd || :"


def lift(host: Host) -> None:
    """Let SSH through again."""
    host.sh("nft delete table inet moment", check=False)


@dataclass(frozen=True)
class Run:
    """The run of a journal: the started and completed steps, and its end."""

    id: str
    started: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    result: str = ""
    message: str = ""
    text: str = field(default="", repr=False)

    def is_changing(self, operation: Operation) -> bool:
        """Whether the run has received `go`: it has started a step that visitors may notice."""
        return any(step in (*operation.changing, *operation.final) for step in self.started)


def read_run(host: Host, run_id: str) -> Run:
    """Read the journal of a run."""
    text = host.sh(f"cat {APP}/journal/{run_id}/events.jsonl", check=False).stdout
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    events = [line["event"] for line in lines if "event" in line]
    end = next((line["end"] for line in lines if "end" in line), {"result": "", "message": ""})
    started, done = (
        tuple(event["step"] for event in events if event["phase"] == phase) for phase in ("started", "done")
    )
    return Run(run_id, started, done, end["result"], end["message"], text)


def wait_for_end(host: Host, before: str, seconds: float = END_SECONDS) -> Run | None:
    """Wait until the run after `before` has ended and nobody holds the lock. Return it; None without such a run."""
    over = f"""\
if [ -s {LOCK_FILE} ]; then exit 1; fi
run=$(ls {APP}/journal | sort | tail -n 1)
[ "$run" = {quote(before)} ] || grep -q '^{{"end"' {APP}/journal/$run/events.jsonl"""
    wait_until(lambda: host.sh(over, check=False).returncode == 0, "the end of the run", seconds)
    run_id = newest_run(host)
    return None if run_id == before else read_run(host, run_id)


_AGREEMENT = f"""\
set -eu
json() {{ python3 -I -c 'import json, sys; print(json.dumps(sys.stdin.read()))'; }}
cat <<END
{{
"lock": $(cat {LOCK_FILE} 2>/dev/null | json),
"live": $(ls {APP}/live | json),
"history": $(cat {APP}/releases.jsonl | json),
"site": $(sed -n 's/^# rolling-site: //p' /etc/nginx/conf.d/memoryark.conf | json),
"served_site": $(curl -s http://127.0.0.1:8080/_rolling/site | json),
"nginx": $(nginx -t 2>&1 | json),
"backend": $(curl -sI http://127.0.0.1:8080/api/health | sed -n 's/^X-Served-By: //p' | json),
"frontend": $(curl -sI http://127.0.0.1:7001/health | sed -n 's/^X-Served-By: //p' | json),
"aside": $(find /home/deploy/uploads /home/deploy/data -maxdepth 1 -name '.?*' ! -name '.*.part' | json),
"plans": $(find {APP}/journal -name 'plan.json*' | json)
}}
END
"""
_PORTS = {"blue": "1", "green": "2"}


@dataclass(frozen=True)
class Agreed:
    """What a host agrees on: the tag that it serves, its history, and its containers that run."""

    tag: str
    history: tuple[dict[str, object], ...]
    running: frozenset[str]


def agree(site: Site, host: Host) -> Agreed:
    """Assert that lock, flags, containers, site, visitors and history of a host agree, and nothing is left over."""
    state = json.loads(host.sh(_AGREEMENT).stdout)
    assert state["lock"] == ""
    flags = set(state["live"].split())
    assert flags <= {"backend.green", "frontend.green"}, flags
    colors = {name: "green" if f"{name}.green" in flags else "blue" for name in ("backend", "frontend")}
    listed = json.loads(host.sh("podman ps --format json", user="deploy").stdout)
    running = {container["Names"][0]: container["Labels"] for container in listed}
    assert set(running) == {f"memoryark-{service}-{color}" for service, color in colors.items()}
    history = [json.loads(line) for line in state["history"].splitlines()]
    good = next(line for line in reversed(history) if line["outcome"] == "good")
    for service, color in colors.items():
        labels, recorded = running[f"memoryark-{service}-{color}"], good["services"][service]
        shown = {key: labels[f"rolling.{key}"] for key in ("color", "image", "digest", "spec")}
        assert shown == {key: recorded[key] for key in shown}, service
        assert state[service].strip().rpartition(":")[2].startswith(_PORTS[color]), (service, state[service], color)
        assert service in _aliases(host, service, color), f"{service} has no alias"
    tags = {recorded["image"].rpartition(":")[2] for recorded in good["services"].values()}
    page = re.search(rb'id="version">([^<\s]+)<', http_request(host, "/")[1])
    assert page is not None
    assert tags == {site.version(host), page[1].decode()}
    assert (state["site"].strip(), "successful" in state["nginx"]) == (state["served_site"], True), state
    assert (state["aside"], state["plans"]) == ("", "")
    checks = [("status",), ("history", "--verify")]
    for code, output in on_each(checks, lambda words: site.run(*words, "--hosts", host.name)):
        assert code == 0, output
    return Agreed(tags.pop(), tuple(history), frozenset(running))


def _aliases(host: Host, service: str, color: str) -> list[str]:
    form = "{{range .NetworkSettings.Networks}}{{json .Aliases}}{{end}}"
    command = f"podman container inspect --format '{form}' memoryark-{service}-{color}"
    return list(json.loads(host.sh(command, user="deploy").stdout))


def assert_outcome(run: Run | None, moment: Moment, before: Agreed, now: Agreed, wanted: str) -> None:
    """Assert that the end of a run, the history and the served release tell the same."""
    new = now.history[len(before.history) :]
    assert now.history[: len(before.history)] == before.history
    if run is None or run.result == "not-started":
        assert (new, now.tag, now.running) == ((), before.tag, before.running), run
        return
    ends = {"undone": "undone", **dict.fromkeys(CHANGED, "good")}
    assert run.result in ends, run
    assert [(line["id"], line["outcome"], line["action"]) for line in new] == [
        (run.id, ends[run.result], moment.operation.name)
    ]
    assert now.tag == (wanted if run.result in CHANGED else before.tag), run


def end_task(task: ForkedTask, seconds: float = 240) -> tuple[int, str]:
    """Return the exit code and the output of a task."""
    output, _ = task.communicate(seconds)
    assert task.returncode is not None
    return task.returncode, output


def signal_task(number: int) -> Callable[[ForkedTask], None]:
    """Return a function that sends a signal to a task, unless it has ended."""

    def send(task: ForkedTask) -> None:
        if task.poll() is None:
            os.kill(task.pid, number)

    return send


KILL, CANCEL = signal_task(signal.SIGKILL), signal_task(signal.SIGINT)
