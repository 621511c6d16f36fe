"""Trust: show the host keys of an environment, compare them with those on record, and record new ones once confirmed.

Jump hosts come first: nobody logs in to one, to see what is behind it, before its key is on record.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fabfile import config
from fabfile.config.known_hosts import recorded
from fabfile.errors import ConfigError, ExitCode, HostUnreachable, Mistake, PreflightError
from fabfile.model import MONITORING_HOST, Environment
from fabfile.plans import trust as planning
from fabfile.plans.trust import Judged, Verdict
from fabfile.remote.scanning import Way, places, scan_all
from fabfile.report import tell
from fabfile.workflows import operator
from fabfile.workflows.fleet import monitor_of
from fabfile.workflows.replacing import replace_text

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_COMPARE = "Compare with what each host says on its console: for f in /etc/ssh/*.pub; do ssh-keygen -lf $f; done"
Place = tuple[str, int]


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    environment: str | None
    root: Path
    hosts: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    force: bool = False


def trust(request: Request) -> ExitCode:
    """Record host keys. Raises PreflightError for a changed or revoked one; PARTLY_DONE when a host is not reached."""
    environment = config.load(request.environment, root=request.root, hosts=request.hosts)
    run = _Run(request, environment)
    run.check()
    lost: dict[str, HostUnreachable] = {}
    for level in run.levels():
        lost |= run.level(level)
    run.end(lost)
    if not lost:
        return ExitCode.DONE
    return ExitCode.PARTLY_DONE if run.seen else ExitCode.REFUSED


class _Run:
    """One run: the machines of an environment, level by level from the outermost hop."""

    def __init__(self, request: Request, environment: Environment) -> None:
        self._request, self._environment = request, environment
        self._file = Path(environment.trust_file)
        self._files = tuple(dict.fromkeys((environment.trust_file, *environment.known_hosts)))
        seconds = environment.rollout.connect_timeout_seconds
        monitor = None if request.hosts else monitor_of(environment)
        targets = (*environment.targets, *([monitor] if monitor else []))
        self._ways = [(target, places(target, seconds)) for target in targets]
        names: dict[Place, list[str]] = {}
        for target, way in self._ways:
            names.setdefault(way[-1], []).append(target.name)
        self._names = {place: ",".join(named) for place, named in names.items()}
        self._unmet = set(request.fingerprints)
        self.seen: list[Judged] = []

    def check(self) -> None:
        """Raises ConfigError for a fingerprint that is none, or a host to replace that is not there."""
        mistakes = [
            Mistake("command line", "--fingerprint", repr(text), "SHA256: and 43 characters, as ssh-keygen -l shows")
            for text in self._request.fingerprints
            if not _FINGERPRINT.fullmatch(text)
        ]
        known = {self._name(place) for _, way in self._ways for place in way}
        mistakes += [
            Mistake("command line", "--replace", repr(name), f"one of: {', '.join(sorted(known))}")
            for name in self._request.replace
            if name not in known
        ]
        if mistakes:
            raise ConfigError("The command line has a mistake; nothing was contacted.", mistakes)

    def levels(self) -> list[dict[Place, Way]]:
        """The machines at each distance, each once: those that are reached directly first."""
        seconds = self._environment.rollout.connect_timeout_seconds
        depth = max((len(way) for _, way in self._ways), default=0)
        found: list[dict[Place, Way]] = [{} for _ in range(depth)]
        met: set[Place] = set()
        for level in range(depth):
            for target, way in self._ways:
                if level < len(way) and way[level] not in met:
                    found[level][way[level]] = Way(target, self._files, seconds, level)
                    met.add(way[level])
        return found

    def level(self, ways: Mapping[Place, Way]) -> dict[str, HostUnreachable]:
        """Look at the machines, refuse or ask, record; those that were not reached. Raises PreflightError."""
        found = scan_all(ways, self._environment.rollout.parallel)
        judged = [
            planning.judge(self._name(place), *place, keys, recorded(*place, self._files))
            for place, keys in found.items()
            if not isinstance(keys, HostUnreachable)
        ]
        self._tell([line for one in judged for line in planning.described(one)])
        self.seen += judged
        self._unmet -= {key.fingerprint for one in judged for key in one.keys}
        self._record([planning.picked(one, self._request.fingerprints) for one in judged])
        return {self._name(place): keys for place, keys in found.items() if isinstance(keys, HostUnreachable)}

    def _record(self, judged: Sequence[Judged]) -> None:
        new = [one for one in judged if one.verdict is not Verdict.KNOWN]
        refused = list(planning.refusals(new, self._request.replace, str(self._file)))
        if refused:
            listed = "\n  ".join(refused)
            raise PreflightError(f"host keys are refused; {self._file} is as it was.\n  {listed}")
        if not new:
            return
        try:
            text = self._file.read_bytes().decode(errors="surrogateescape") if self._file.exists() else ""
            text = planning.written(text, new)
        except ValueError as error:
            raise PreflightError(f"{self._file}: {error}; nothing was written.", next_step="edit it by hand") from error
        names = ", ".join(one.name for one in new)
        if not self._request.fingerprints:
            self._tell([_COMPARE])
            hint = "--fingerprint SHA256:… accepts that key alone; --force accepts what was shown, unverified"
            operator.confirm(f"Record the keys of {names} in {self._file}?", force=self._request.force, hint=hint)
        replace_text(self._file, text)
        self._tell([f"Recorded in {self._file}: {names}"])

    def end(self, lost: Mapping[str, HostUnreachable]) -> None:
        """Say what is left. Raises PreflightError for a fingerprint that no machine offers."""
        if self._unmet:
            raise PreflightError(f"no machine offers a key with {', '.join(sorted(self._unmet))}.")
        lines = [f"{name}  NOT REACHED: {error}" for name, error in lost.items()]
        if lost:
            again = list(dict.fromkeys(error.message.partition(":")[0] for error in lost.values()))
            only = "" if MONITORING_HOST in again else f" --hosts {','.join(again)}"
            lines.append(f"Next: inv trust --env {self._environment.name}{only}")
        elif all(one.verdict is Verdict.KNOWN for one in self.seen):
            lines.append("Nothing to do: every host key is on record.")
        self._tell(lines)

    def _name(self, place: Place) -> str:
        return self._names.get(place) or (place[0] if place[1] == 22 else f"{place[0]}:{place[1]}")

    def _tell(self, lines: Sequence[str]) -> None:
        tell(list(lines), sys.stdout, self._environment.secrets)
