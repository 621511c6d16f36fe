"""The report of one run: its changes and steps on each host, the runs before it, and the requests sent during it.

`inv report --json` prints a `RunReport` field by field, so its field names are the documented keys, except those that a `key` overrides.
"""

from __future__ import annotations

import math
import shlex
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Color, Outcome, Release, ServiceRelease, StepRecord, short_digest
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.history.workflow import HostHistory

_MAX_LINE_BYTES = 64 << 10
#: The seconds of the chart of a load.
MAX_SECONDS = 600


class TimedRequest(NamedTuple):
    """One request: when it ended (Unix seconds), its latency (milliseconds), and whether it succeeded."""

    at: float
    ms: float
    ok: bool


@dataclass(frozen=True)
class Figures:
    """Requests in a span of time: their number, the failed ones, and the latencies of the others (milliseconds)."""

    requests: int
    failed: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Requests:
    """Requests in the order in which they ended.

    Their file has one JSON object per line and request: `at`, Unix seconds at which the response was complete or the
    request failed, `ms`, its latency, and `ok`. `make demo` writes such a file; so can any load generator.
    """

    requests: tuple[TimedRequest, ...]

    @classmethod
    def read(cls, lines: Iterable[str]) -> Requests:
        """Parse the lines of a file. Raises ValueError with the number of an invalid line."""
        requests = [_request(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        return cls(tuple(sorted(requests)))

    def figures(self, start: float, end: float) -> Figures:
        """Return the figures of the requests that ended in `start <= t < end`."""
        chosen = self._between(start, end)
        latencies = sorted(request.ms for request in chosen if request.ok)
        failed = sum(not request.ok for request in chosen)
        return Figures(len(chosen), failed, _percentile(latencies, 0.50), _percentile(latencies, 0.99))

    def each_second(self, start: float, end: float) -> list[tuple[int, Figures]]:
        """Return the figures of each second, of the first MAX_SECONDS seconds."""
        first = math.floor(start)
        seconds = range(first, min(math.ceil(end), first + MAX_SECONDS))
        return [(second, self.figures(second, second + 1)) for second in seconds]

    def _between(self, start: float, end: float) -> Sequence[TimedRequest]:
        return self.requests[bisect_left(self.requests, (start,)) : bisect_left(self.requests, (end,))]


def _request(number: int, line: str) -> TimedRequest:
    try:
        fields = untrusted.json_object(line, max_bytes=_MAX_LINE_BYTES)
        return TimedRequest(untrusted.moment(fields["at"]), untrusted.number(fields["ms"]), bool(fields["ok"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"line {number} is not an object with at, ms and ok") from error


def _percentile(ordered: Sequence[float], share: float) -> float:
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1) if ordered else 0.0


#: The number of runs in the chart of durations and outcomes.
RUNS_SHOWN = 30
_WORST_FIRST = (Outcome.UNDO_FAILED, Outcome.UNDONE, Outcome.GOOD)
_VERSION_ACTIONS = frozenset({"deploy", "rollback"})


@dataclass(frozen=True)
class RunRecord:
    """The observations of one run: the hosts' histories, its steps by host, and the errors of unreachable hosts."""

    environment: str
    run: str
    histories: Mapping[str, HostHistory]
    steps: Mapping[str, Sequence[StepRecord]]
    unreachable: Mapping[str, str]
    requests: Requests | None = None


@dataclass(frozen=True)
class ServiceVersion:
    """The image of a service in a run."""

    image: str
    digest: str
    revision: str


@dataclass(frozen=True)
class ServiceChange:
    """The change of one service; `before` is None for the first run of the service on the host."""

    service: str
    before: ServiceVersion | None
    after: ServiceVersion
    color: Color
    image_changed: bool
    configuration_changed: bool


@dataclass(frozen=True)
class StepReport:
    """One step of a run; `began` is in Unix seconds, `seconds` and `status` are None for a step that never ended."""

    id: str = field(metadata={"key": "step"})
    began: float
    seconds: float | None
    status: int | None
    log: tuple[str, ...]


@dataclass(frozen=True)
class HostReport:
    """The run on one host; `intact` is False when a line of the host's history was changed or removed."""

    host: str
    outcome: Outcome
    seconds: float
    reason: str
    intact: bool = field(metadata={"key": "whole"})
    changes: tuple[ServiceChange, ...]
    steps: tuple[StepReport, ...] = field(metadata={"key": "stages"})


@dataclass(frozen=True)
class UnreachableHost:
    """A host that gave no answer, and the error."""

    host: str
    why: str


@dataclass(frozen=True)
class PastRun:
    """A run in the histories, with its worst outcome and its longest duration on any host."""

    id: str
    time: str
    action: str
    outcome: Outcome
    seconds: float
    images: str


@dataclass(frozen=True)
class SecondFigures(Figures):
    """The figures of one second, which starts `at` Unix seconds."""

    at: int


@dataclass(frozen=True)
class CutoverFigures(Figures):
    """The figures around the cutover of one service on one host."""

    host: str
    step: str


@dataclass(frozen=True)
class LoadReport:
    """The figures of a load: of the whole run, of each second, and within two seconds of each cutover."""

    total: Figures = field(metadata={"key": "whole"})
    seconds: tuple[SecondFigures, ...]
    cutovers: tuple[CutoverFigures, ...]


@dataclass(frozen=True)
class RunReport:
    """One run over an environment; `undo` is the command that goes back, '' when there is none."""

    environment: str
    run: str
    action: str
    outcome: Outcome
    time: str
    seconds: float
    owner: str
    workstation: str
    client: str
    key: str
    key_of: str
    revision: str
    reason: str
    target: str
    undo: str
    hosts: tuple[HostReport, ...]
    hosts_without_run: tuple[str, ...] = field(metadata={"key": "not_in_it"})
    unreachable: tuple[UnreachableHost, ...] = field(metadata={"key": "lost"})
    runs: tuple[PastRun, ...]
    requests: LoadReport | None


def newest(histories: Iterable[HostHistory]) -> str:
    """Return the id of the newest run in any history; '' without one. Ids sort by time."""
    return max((release.id for history in histories for release in history.releases), default="")


def run_report(record: RunRecord) -> RunReport:
    """Return the report of a run that at least one history holds."""
    found = {name: _entry(history, record.run) for name, history in record.histories.items()}
    entries = {name: entry for name, entry in found.items() if entry is not None}
    first = min(entries.values(), key=lambda entry: entry.time)
    outcome = _worst(entries.values())
    key_names = next((history.key_names for history in record.histories.values()), {})
    return RunReport(
        environment=record.environment,
        run=record.run,
        action=first.action,
        outcome=outcome,
        time=first.time,
        seconds=max(entry.seconds for entry in entries.values()),
        owner=first.owner,
        workstation=first.workstation,
        client=first.client,
        key=first.key,
        key_of=key_names.get(first.key, ""),
        revision=first.revision,
        reason=next((entry.reason for entry in entries.values() if entry.reason), ""),
        target=first.target,
        undo=_undo(first, outcome, record),
        hosts=tuple(_host(name, entry, record) for name, entry in entries.items()),
        hosts_without_run=tuple(name for name, entry in found.items() if entry is None),
        unreachable=tuple(UnreachableHost(name, error) for name, error in record.unreachable.items()),
        runs=_past_runs(record.histories.values()),
        requests=_load(record),
    )


def _entry(history: HostHistory, run: str) -> Release | None:
    """Return the last entry of a run: a good run that was undone afterwards counts as undone."""
    return next((release for release in reversed(history.releases) if release.id == run), None)


def _worst(entries: Iterable[Release]) -> Outcome:
    outcomes = {entry.outcome for entry in entries}
    return next(outcome for outcome in _WORST_FIRST if outcome in outcomes)


def _undo(entry: Release, outcome: Outcome, record: RunRecord) -> str:
    """Return the command that goes back, if this run is the newest one and ended well."""
    if outcome is not Outcome.GOOD or record.run != newest(record.histories.values()):
        return ""
    if entry.action == "deploy":
        return f"{PROGRAM} rollback --env {record.environment}"
    if entry.action == "rollback" and entry.left:
        return f"{PROGRAM} rollback --env {record.environment} --to {shlex.quote(entry.left)}"
    return ""


def _host(name: str, entry: Release, record: RunRecord) -> HostReport:
    history = record.histories[name]
    return HostReport(
        host=name,
        outcome=entry.outcome,
        seconds=entry.seconds,
        reason=entry.reason,
        intact=not history.faults,
        changes=_changes(_before(history, entry), entry),
        steps=tuple(_step(step) for step in record.steps.get(name, ())),
    )


def _before(history: HostHistory, entry: Release) -> Release | None:
    """Return the release that was active when the run started."""
    earlier = history.releases[: history.releases.index(entry)]
    return next(
        (
            release
            for release in reversed(earlier)
            if release.good and release.action in _VERSION_ACTIONS and release.id != entry.id
        ),
        None,
    )


def _changes(before: Release | None, entry: Release) -> tuple[ServiceChange, ...]:
    earlier = dict(before.services) if before else {}
    return tuple(_change(service, earlier.get(service), after) for service, after in entry.services)


def _change(service: str, before: ServiceRelease | None, after: ServiceRelease) -> ServiceChange:
    return ServiceChange(
        service=service,
        before=_version(before) if before else None,
        after=_version(after),
        color=after.color,
        image_changed=before is None or before.digest != after.digest,
        configuration_changed=before is None or before.spec != after.spec,
    )


def _version(release: ServiceRelease) -> ServiceVersion:
    return ServiceVersion(release.image, release.digest, release.revision)


def _step(step: StepRecord) -> StepReport:
    seconds = None if step.ended is None else round(max(0.0, step.ended - step.began), 3)
    return StepReport(step.id, round(step.began, 3), seconds, step.status, step.log)


def _past_runs(histories: Iterable[HostHistory]) -> tuple[PastRun, ...]:
    """Return the newest runs of all hosts, oldest first."""
    by_id: dict[str, list[Release]] = {}
    for history in histories:
        for release in history.releases:
            by_id.setdefault(release.id, []).append(release)
    return tuple(_past_run(run, entries) for run, entries in sorted(by_id.items())[-RUNS_SHOWN:])


def _past_run(run: str, entries: Sequence[Release]) -> PastRun:
    images = ", ".join(f"{name} {_tag(service.image)}" for name, service in entries[-1].services)
    seconds = max(entry.seconds for entry in entries)
    return PastRun(run, entries[0].time, entries[0].action, _worst(entries), seconds, images)


def _tag(image: str) -> str:
    last = image.rpartition("/")[2]
    return last.partition("@")[0].partition(":")[2] or short_digest(last.partition("@")[2]) or last


def _load(record: RunRecord) -> LoadReport | None:
    requests = record.requests
    steps = [(host, step) for host, host_steps in record.steps.items() for step in host_steps]
    if requests is None or not steps:
        return None
    start = min(step.began for _, step in steps) - 5
    end = max(step.ended or step.began for _, step in steps) + 5
    cutovers = [
        CutoverFigures(**asdict(requests.figures(step.began - 2, step.ended + 2)), host=host, step=step.id)
        for host, step in steps
        if step.id.endswith(".cutover") and step.ended is not None
    ]
    seconds = [SecondFigures(**asdict(figures), at=at) for at, figures in requests.each_second(start, end)]
    return LoadReport(requests.figures(start, end), tuple(seconds), tuple(cutovers))
