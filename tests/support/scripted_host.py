"""A fake host that records the scripts it receives and answers them as a test prescribes. No script runs."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rolling_upgrade.engine import locking
from rolling_upgrade.engine import observation as state
from rolling_upgrade.engine.executor import RunContext
from rolling_upgrade.engine.host import Answer
from rolling_upgrade.engine.model import Color, Event, HostState, Image, Outcome, Phase, Release, RolloutPolicy
from rolling_upgrade.engine.plan import Change, Plan, ServicePlan, Step, record_failure, record_success
from rolling_upgrade.engine.rollout import HostRun
from rolling_upgrade.engine.shell import Script, script
from rolling_upgrade.errors import ConnectionDropped, HostUnreachable
from tests.engine.test_observation import EMPTY
from tests.support import host_engine
from tests.support.sample import LOCK, application

APP = application()

#: The reaction to one script: an answer, an error, or a function to call before success.
Reply = Answer | Exception | Callable[[], None]


class ScriptedHost:
    """Records `KIND` or `step ID` of each script, and gives the next reply for it, or success without one.

    A run is executed by the real code of a host. `interrupted` is Ctrl-C on the workstation.
    """

    def __init__(self, name: str, replies: Mapping[str, Sequence[Reply]], log: list[str], scene: Scene) -> None:
        self._name, self._log, self._scene = name, log, scene
        self._replies: dict[str, Iterator[Reply]] = {kind: iter(given) for kind, given in replies.items()}
        self.texts: dict[str, str] = {}
        self._is_lost = False

    @property
    def name(self) -> str:
        return self._name

    def run(self, script: Script, *, timeout_seconds: float, cancelled: threading.Event | None = None) -> Answer:
        return self.respond(script.text)

    def stream(
        self,
        script: Script,
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        *,
        timeout_seconds: float = math.inf,
        cancelled: threading.Event | None = None,
        on_open: Callable[[host_engine.Send], None] = lambda _: None,
        shell: str = "",
    ) -> int:
        context = self._scene.context
        if self._is_lost:
            raise HostUnreachable(f"{self._name}: no route to host.")
        try:
            return host_engine.execute(
                script.text, self.respond, on_output, on_open, clock=context.clock, interrupted=context.cancelled
            )
        except ConnectionDropped:
            # The run goes on without this workstation.
            self._is_lost = True
            raise

    def respond(self, text: str) -> Answer:
        """Answer one script."""
        kind = kind_of(text)
        self._log.append(f"{self._name} {kind}")
        self.texts[kind] = text
        reply = next(self._replies.get(kind, iter(())), None)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Answer):
            return reply
        if reply is not None:
            reply()
        return Answer(0, EMPTY if kind == "lock" else "")

    def close(self) -> None:
        """Hold no connection."""


def kind_of(text: str) -> str:
    """Return `KIND` of a script, or `step ID` of the script of a step."""
    if "@@checks" in text:
        return "health"
    if host_engine.is_run(text):
        return "run"
    if "@@facts" in text:
        return "lock" if "held.new" in text else "observe"
    if step := host_engine.step_of(text):
        return f"step {step}"
    return "unlock" if "rm -f held" in text else "query"


@dataclass
class Scene:
    """The hosts of a test with one common log, and the context of a run with a fake clock."""

    log: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.context = RunContext("r2", 60, self.events.append, lambda: self.now)

    def host(self, name: str = "web1", **replies: Sequence[Reply]) -> ScriptedHost:
        """Return a host; `step_a` has the replies to step a."""
        return ScriptedHost(name, {kind.replace("_", " "): given for kind, given in replies.items()}, self.log, self)

    def host_run(self, name: str, *, plan: Plan | None = None, **replies: Sequence[Reply]) -> HostRun:
        host = self.host(name, **replies)
        return HostRun(host, APP, state.parse(APP.name, name, EMPTY), plan or three_steps(name))

    def titles(self, phase: Phase) -> list[str]:
        """Return the titles of the events of one phase."""
        return [event.title for event in self.events if event.phase is phase]

    def calls(self, name: str) -> list[str]:
        """Return the kinds of the scripts that one host received."""
        return [entry.partition(" ")[2] for entry in self.log if entry.startswith(f"{name} ")]


def three_steps(host: str = "web1", *, replaceable_token: str = "") -> Plan:
    """Return a plan with a backup, then a and b, which have an undo, then c, which has none."""
    record = Release("r2", "2026-11-23T00:00:00+00:00", "deploy", Outcome.GOOD, ())
    return Plan(
        host=host,
        action="deploy",
        run_id="r2",
        acquire=(locking.acquire_step(APP, LOCK, lease_seconds=60, replaceable_token=replaceable_token),),
        prepare=(Step("backup", "back up", script("do backup"), 10),),
        steps=(
            Step("a", "do a", script("do a"), 10, script("undo a"), "take a back"),
            Step("b", "do b", script("do b"), 10, script("undo b"), "take b back"),
            Step("c", "do c", script("do c"), 10),
        ),
        finalize=(record_success("/var/lib/shop", record),),
        abort=(record_failure("/var/lib/shop", record),),
        home="/var/lib/shop",
        environment="production",
        record=record,
    )


def empty_plan(host: str) -> Plan:
    return Plan(host, "deploy", "r2", home="/var/lib/shop", environment="production")


def fail_on_replan(state: HostState) -> Plan:
    raise AssertionError(f"{state.host} was planned again")


def rollout(batch: str = "100%") -> RolloutPolicy:
    return RolloutPolicy(batch=batch, lease_seconds=60)


OLD = Image("registry.test:5000/shop/backend", "v1", "sha256:" + "1" * 64)
NEW = Image("registry.test:5000/shop/backend", "v2", "sha256:" + "2" * 64)


def replacing_plan(host: str, before: Image | None = OLD, after: Image = NEW) -> Plan:
    change = Change.REPLACE if before else Change.FIRST
    return replace(three_steps(host), services=(ServicePlan("backend", change, after, Color.GREEN, before),))
