"""`inv trust`: show the host keys of an environment, compare them with known_hosts, and record new ones on confirmation.

Jump hosts come first: their keys must be recorded before a login through them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rolling_upgrade import config
from rolling_upgrade.console import prompt
from rolling_upgrade.console.output import print_lines
from rolling_upgrade.console.text import unreachable_lines
from rolling_upgrade.engine.local_file import replace_text
from rolling_upgrade.engine.model import MONITORING_HOST, Environment, Target, exit_code
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
    files = tuple(dict.fromkeys((environment.trust_file, *environment.known_hosts)))
    seconds = environment.rollout.connect_timeout_seconds
    monitor = None if hosts else monitor_of(environment)
    targets = (*environment.targets, *([monitor] if monitor else []))
    paths = [(target, addresses(target, seconds)) for target in targets]
    names = _names(paths)
    _check_options(fingerprint, replace, names)
    scanned: list[ScannedHost] = []
    unreachable: dict[str, HostUnreachable] = {}
    for depth, level in enumerate(_levels(paths)):
        routes = {address: Route(target, files, seconds, depth) for address, target in level.items()}
        found = scan_all(routes, environment.rollout.parallel)
        machines = [
            compare(names[address], *address, keys, read_records(*address, files))
            for address, keys in found.items()
            if not isinstance(keys, HostUnreachable)
        ]
        lines = [line for machine in machines for line in _description(machine)]
        print_lines(lines, environment.secrets)
        _record(environment, [select(machine, fingerprint) for machine in machines], fingerprint, replace, force=force)
        scanned += machines
        unreachable |= {names[address]: keys for address, keys in found.items() if isinstance(keys, HostUnreachable)}
    missing = set(fingerprint) - {key.fingerprint for machine in scanned for key in machine.keys}
    if missing:
        raise PreflightError(f"no machine offers a key with {', '.join(sorted(missing))}.")
    print_lines(_end_lines(environment.name, scanned, unreachable), environment.secrets)
    return exit_code([*unreachable.values(), *(None for _ in scanned)])


def _names(paths: Sequence[tuple[Target, tuple[Address, ...]]]) -> dict[Address, str]:
    """Return the name of each machine on the paths: the hosts of the inventory there, or its address."""
    hosts: dict[Address, list[str]] = {}
    for target, path in paths:
        hosts.setdefault(path[-1], []).append(target.name)
    return {
        (host, port): ",".join(hosts.get((host, port), [])) or (host if port == 22 else f"{host}:{port}")
        for _, path in paths
        for host, port in path
    }


def _levels(paths: Sequence[tuple[Target, tuple[Address, ...]]]) -> Iterator[dict[Address, Target]]:
    """Group the machines by distance, each once with a host behind it; directly reachable ones first."""
    seen: set[Address] = set()
    for depth in range(max(len(path) for _, path in paths)):
        level: dict[Address, Target] = {}
        for target, path in paths:
            if depth < len(path) and path[depth] not in seen:
                level[path[depth]] = target
                seen.add(path[depth])
        yield level


def _check_options(fingerprints: Sequence[str], changed: Sequence[str], names: Mapping[Address, str]) -> None:
    """Raise ConfigError for an invalid fingerprint or an unknown host in --replace."""
    known = sorted(set(names.values()))
    issues = [
        ("--fingerprint", repr(text), "SHA256: and 43 characters, as ssh-keygen -l shows")
        for text in fingerprints
        if not _FINGERPRINT.fullmatch(text)
    ]
    issues += [("--replace", repr(name), f"one of: {', '.join(known)}") for name in changed if name not in known]
    if issues:
        raise usage_error(*issues)


def _record(
    environment: Environment,
    scanned: Sequence[ScannedHost],
    fingerprints: Sequence[str],
    changed: Sequence[str],
    *,
    force: bool,
) -> None:
    """Record the keys of the machines that known_hosts lacks, after a confirmation. Raises PreflightError."""
    file = Path(environment.trust_file)
    new = [machine for machine in scanned if machine.verdict is not Verdict.KNOWN]
    refused = list(refusals(new, changed, str(file)))
    if refused:
        listed = "\n  ".join(refused)
        raise PreflightError(f"host keys were refused; {file} is unchanged.\n  {listed}")
    if not new:
        return
    keys = [(machine.record_name, key) for machine in new for key in machine.keys]
    try:
        text = file.read_bytes().decode(errors="surrogateescape") if file.exists() else ""
        text = rewritten(text, [machine.record_name for machine in new], keys)
    except ValueError as error:
        raise PreflightError(f"{file}: {error}; nothing was written.", next_step="edit it by hand") from error
    names = ", ".join(machine.name for machine in new)
    if not fingerprints:
        print_lines([_COMPARE], environment.secrets)
        hint = "--fingerprint SHA256:… accepts only that key; --force accepts every key shown above, unverified"
        prompt.confirm(f"Record the keys of {names} in {file}?", force=force, hint=hint)
    replace_text(file, text)
    print_lines([f"Recorded in {file}: {names}"], environment.secrets)


def _end_lines(
    environment: str, scanned: Sequence[ScannedHost], unreachable: Mapping[str, HostUnreachable]
) -> list[str]:
    lines = unreachable_lines({name: str(error) for name, error in unreachable.items()})
    if unreachable:
        again = list(dict.fromkeys(error.message.partition(":")[0] for error in unreachable.values()))
        only = "" if MONITORING_HOST in again else f" --hosts {','.join(again)}"
        lines.append(f"Next: {PROGRAM} trust --env {environment}{only}")
    elif all(machine.verdict is Verdict.KNOWN for machine in scanned):
        lines.append("Nothing to do: every host key is recorded.")
    return lines


def compare(
    name: str, address: str, port: int, keys: tuple[PublicKey, ...], records: tuple[Record, ...]
) -> ScannedHost:
    """Compare the offered keys of a machine with its records.

    A different key of a recorded type is a change, and so is a machine without any key of the recorded types.
    """
    offered = {key.blob for key in keys}
    known = usable(records)
    expected = {record.key.type: record.key.blob for record in known}
    compared = [key for key in keys if key.type in expected]
    if any(record.revoked and record.key.blob in offered for record in records):
        verdict = Verdict.REVOKED
    elif not known:
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
    return dataclasses.replace(machine, keys=tuple(key for key in machine.keys if key.fingerprint in fingerprints))


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
