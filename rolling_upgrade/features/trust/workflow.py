"""`inv trust`: show the host keys of an environment, compare them with known_hosts, and record new ones on confirmation.

Jump hosts come first: their keys must be recorded before a login through them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.console import operator
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.console.text import unreachable_lines
from rolling_upgrade.engine.local_file import replace_text
from rolling_upgrade.engine.model import MONITORING_HOST, Environment, exit_code
from rolling_upgrade.engine.openssh import PublicKey, Record, host_name, read_records, rewritten, usable
from rolling_upgrade.errors import PROGRAM, ExitCode, HostUnreachable, PreflightError, usage_error
from rolling_upgrade.ssh.fleet import monitor_of
from rolling_upgrade.ssh.keyscan import Address, Route, addresses, scan_all

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_COMPARE = "Compare them with the output on each host's console: for f in /etc/ssh/*.pub; do ssh-keygen -lf $f; done"


class Verdict(str, Enum):
    """The comparison of a machine's host keys with known_hosts."""

    KNOWN = "known, unchanged"
    UNKNOWN = "not on record"
    CHANGED = "CHANGED"
    REVOKED = "REVOKED"


@dataclass(frozen=True)
class ScannedHost:
    """A machine with its offered keys, its records in known_hosts, and the verdict."""

    name: str
    address: str
    port: int
    keys: tuple[PublicKey, ...]
    records: tuple[Record, ...]
    verdict: Verdict

    @property
    def record_name(self) -> str:
        """Its name in known_hosts."""
        return host_name(self.address, self.port)


def trust(
    env: str | None,
    *,
    root: Path,
    hosts: tuple[str, ...] = (),
    fingerprint: Sequence[str] = (),
    replace: Sequence[str] = (),
    force: bool = False,
) -> ExitCode:
    """Record host keys. PARTLY_DONE for an unreachable host. Raises PreflightError for a changed or revoked key."""
    environment = config.load(env, root=root, hosts=hosts)
    run = _Trust(environment, fingerprint, replace, named=bool(hosts), force=force)
    run.check()
    unreachable: dict[str, HostUnreachable] = {}
    for level in run.levels():
        unreachable |= run.scan(level)
    run.report(unreachable)
    return exit_code([*unreachable.values(), *(None for _ in run.scanned)])


class _Trust:
    """One run over the machines of an environment, level by level from the outermost hop."""

    def __init__(
        self,
        environment: Environment,
        fingerprints: Sequence[str],
        changed: Sequence[str],
        *,
        named: bool,
        force: bool,
    ) -> None:
        self._environment, self._force = environment, force
        self._fingerprints, self._changed = fingerprints, changed
        self._file = Path(environment.trust_file)
        self._files = tuple(dict.fromkeys((environment.trust_file, *environment.known_hosts)))
        seconds = environment.rollout.connect_timeout_seconds
        monitor = None if named else monitor_of(environment)
        targets = (*environment.targets, *([monitor] if monitor else []))
        self._routes = [(target, addresses(target, seconds)) for target in targets]
        names: dict[Address, list[str]] = {}
        for target, route in self._routes:
            names.setdefault(route[-1], []).append(target.name)
        self._names = {address: ",".join(shared) for address, shared in names.items()}
        self._missing = set(fingerprints)
        self.scanned: list[ScannedHost] = []

    def check(self) -> None:
        """Raise ConfigError for an invalid fingerprint or an unknown host in --replace."""
        issues = [
            ("--fingerprint", repr(text), "SHA256: and 43 characters, as ssh-keygen -l shows")
            for text in self._fingerprints
            if not _FINGERPRINT.fullmatch(text)
        ]
        known = {self._name(address) for _, route in self._routes for address in route}
        issues += [
            ("--replace", repr(name), f"one of: {', '.join(sorted(known))}")
            for name in self._changed
            if name not in known
        ]
        if issues:
            raise usage_error(*issues)

    def levels(self) -> list[dict[Address, Route]]:
        """Group the machines by distance, each once; directly reachable ones first."""
        seconds = self._environment.rollout.connect_timeout_seconds
        depth = max((len(route) for _, route in self._routes), default=0)
        levels: list[dict[Address, Route]] = [{} for _ in range(depth)]
        seen: set[Address] = set()
        for level in range(depth):
            for target, route in self._routes:
                if level < len(route) and route[level] not in seen:
                    levels[level][route[level]] = Route(target, self._files, seconds, level)
                    seen.add(route[level])
        return levels

    def scan(self, routes: Mapping[Address, Route]) -> dict[str, HostUnreachable]:
        """Scan the machines and record their keys; return the unreachable ones. Raises PreflightError."""
        found = scan_all(routes, self._environment.rollout.parallel)
        scanned = [
            compare(self._name(address), *address, keys, read_records(*address, self._files))
            for address, keys in found.items()
            if not isinstance(keys, HostUnreachable)
        ]
        self._print([line for machine in scanned for line in _description(machine)])
        self.scanned += scanned
        self._missing -= {key.fingerprint for machine in scanned for key in machine.keys}
        self._record([select(machine, self._fingerprints) for machine in scanned])
        return {self._name(address): keys for address, keys in found.items() if isinstance(keys, HostUnreachable)}

    def _record(self, scanned: Sequence[ScannedHost]) -> None:
        new = [machine for machine in scanned if machine.verdict is not Verdict.KNOWN]
        refused = list(refusals(new, self._changed, str(self._file)))
        if refused:
            listed = "\n  ".join(refused)
            raise PreflightError(f"host keys were refused; {self._file} is unchanged.\n  {listed}")
        if not new:
            return
        try:
            text = self._file.read_bytes().decode(errors="surrogateescape") if self._file.exists() else ""
            text = _with_records(text, new)
        except ValueError as error:
            raise PreflightError(f"{self._file}: {error}; nothing was written.", next_step="edit it by hand") from error
        names = ", ".join(machine.name for machine in new)
        if not self._fingerprints:
            self._print([_COMPARE])
            hint = "--fingerprint SHA256:… accepts only that key; --force accepts every key shown above, unverified"
            operator.confirm(f"Record the keys of {names} in {self._file}?", force=self._force, hint=hint)
        replace_text(self._file, text)
        self._print([f"Recorded in {self._file}: {names}"])

    def report(self, unreachable: Mapping[str, HostUnreachable]) -> None:
        """Print the unreachable machines. Raises PreflightError for a fingerprint that no machine offers."""
        if self._missing:
            raise PreflightError(f"no machine offers a key with {', '.join(sorted(self._missing))}.")
        lines = unreachable_lines({name: str(error) for name, error in unreachable.items()})
        if unreachable:
            again = list(dict.fromkeys(error.message.partition(":")[0] for error in unreachable.values()))
            only = "" if MONITORING_HOST in again else f" --hosts {','.join(again)}"
            lines.append(f"Next: {PROGRAM} trust --env {self._environment.name}{only}")
        elif all(machine.verdict is Verdict.KNOWN for machine in self.scanned):
            lines.append("Nothing to do: every host key is recorded.")
        self._print(lines)

    def _name(self, address: Address) -> str:
        host, port = address
        return self._names.get(address) or (host if port == 22 else f"{host}:{port}")

    def _print(self, lines: Sequence[str]) -> None:
        print_lines(list(lines), self._environment.secrets)


def compare(
    name: str, address: str, port: int, keys: tuple[PublicKey, ...], records: tuple[Record, ...]
) -> ScannedHost:
    """Compare the offered keys of a machine with its records.

    A different key of a recorded type is a change, and so is a machine without any key of the recorded types.
    """
    offered = {key.blob for key in keys}
    if any(record.revoked and record.key.blob in offered for record in records):
        return ScannedHost(name, address, port, keys, records, Verdict.REVOKED)
    known = usable(records)
    expected = {record.key.type: record.key.blob for record in known}
    compared = [key for key in keys if key.type in expected]
    if not known:
        verdict = Verdict.UNKNOWN
    elif compared and all(key.blob == expected[key.type] for key in compared):
        verdict = Verdict.KNOWN
    else:
        verdict = Verdict.CHANGED
    return ScannedHost(name, address, port, keys, records, verdict)


def select(machine: ScannedHost, fingerprints: Collection[str]) -> ScannedHost:
    """Keep only the keys with these fingerprints; keep all without fingerprints, and for a known machine."""
    if not fingerprints or machine.verdict is Verdict.KNOWN:
        return machine
    return replace(machine, keys=tuple(key for key in machine.keys if key.fingerprint in fingerprints))


def refusals(scanned: Sequence[ScannedHost], allowed: Collection[str], trust_file: str) -> Iterator[str]:
    """Return the reasons against recording: revoked keys, changed keys, and missing fingerprints."""
    for machine in scanned:
        if machine.verdict is Verdict.REVOKED:
            yield f"{machine.name}: it offers a key that known_hosts marks as @revoked"
        elif machine.verdict is Verdict.CHANGED and machine.name not in allowed:
            yield f"{machine.name}: its host key CHANGED; find out why, then run again with --replace {machine.name}"
        elif machine.verdict is Verdict.CHANGED:
            yield from _elsewhere(machine, trust_file)
        if machine.verdict is not Verdict.KNOWN and not machine.keys:
            yield f"{machine.name}: it offers no key with the fingerprint of --fingerprint"


def _elsewhere(machine: ScannedHost, trust_file: str) -> Iterator[str]:
    """Return the records of the machine in other files, which would contradict the new record."""
    for file in dict.fromkeys(record.file for record in usable(machine.records) if record.file != trust_file):
        yield f"{machine.name}: {file} has a key for it too; ssh-keygen -f {file} -R '{machine.record_name}' removes it"


def _with_records(text: str, new: Sequence[ScannedHost]) -> str:
    """Return the known_hosts text with the records of these machines replaced. Raises ValueError."""
    names = [machine.record_name for machine in new]
    return rewritten(text, names, [(machine.record_name, key) for machine in new for key in machine.keys])


def _description(machine: ScannedHost) -> Iterator[str]:
    """Yield the lines with a machine and its keys, for the operator to compare."""
    yield f"{machine.name}  {machine.address}:{machine.port}  {machine.verdict.value}"
    width = max((len(key.type) for key in machine.keys), default=0)
    places = {record.key.blob: record.place for record in reversed(machine.records)}
    for key in machine.keys:
        where = f"  {places[key.blob]}" if key.blob in places else ""
        yield f"  {key.type:<{width}}  {key.fingerprint}{where}"
    if machine.verdict in (Verdict.CHANGED, Verdict.REVOKED):
        for record in machine.records:
            mark = " @revoked" if record.revoked else ""
            yield f"  on record:{mark} {record.key.type}  {record.key.fingerprint}  {record.place}"
