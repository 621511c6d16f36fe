"""Host keys that machines offer against those on record: what is new, what changed, and what may be written. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from fabfile.model.known_hosts import Record, host_name, rewritten, usable
from fabfile.model.public_key import PublicKey


class Verdict(str, Enum):
    """How what a machine offers stands to what is on record."""

    KNOWN = "known, unchanged"
    UNKNOWN = "not on record"
    CHANGED = "CHANGED"
    REVOKED = "REVOKED"


@dataclass(frozen=True)
class Judged:
    """A machine: its name for people, where it is, the keys it offers, the lines that name it, and the verdict."""

    name: str
    address: str
    port: int
    keys: tuple[PublicKey, ...]
    records: tuple[Record, ...]
    verdict: Verdict

    @property
    def record_name(self) -> str:
        """How it is called in known_hosts."""
        return host_name(self.address, self.port)


def judge(name: str, address: str, port: int, keys: tuple[PublicKey, ...], records: tuple[Record, ...]) -> Judged:
    """What to think of the keys that a machine offers.

    A key of the kind on record that differs is a change, and so is a machine that has none of those kinds any more.
    """
    offered = {key.blob for key in keys}
    if any(record.revoked and record.key.blob in offered for record in records):
        return Judged(name, address, port, keys, records, Verdict.REVOKED)
    known = usable(records)
    right = {record.key.type: record.key.blob for record in known}
    compared = [key for key in keys if key.type in right]
    if not known:
        verdict = Verdict.UNKNOWN
    elif compared and all(key.blob == right[key.type] for key in compared):
        verdict = Verdict.KNOWN
    else:
        verdict = Verdict.CHANGED
    return Judged(name, address, port, keys, records, verdict)


def picked(judged: Judged, fingerprints: Collection[str]) -> Judged:
    """The same with only the keys of these fingerprints, where any are given and it is not known already."""
    if not fingerprints or judged.verdict is Verdict.KNOWN:
        return judged
    return replace(judged, keys=tuple(key for key in judged.keys if key.fingerprint in fingerprints))


def refusals(found: Sequence[Judged], allowed: Collection[str], trust_file: str) -> Iterator[str]:
    """Why nothing may be written: a key that was revoked, changed, or is not the one that was named."""
    for one in found:
        if one.verdict is Verdict.REVOKED:
            yield f"{one.name}: it offers a key that is marked @revoked"
        elif one.verdict is Verdict.CHANGED and one.name not in allowed:
            yield f"{one.name}: its host key CHANGED; find out why, then repeat with --replace {one.name}"
        elif one.verdict is Verdict.CHANGED:
            yield from _elsewhere(one, trust_file)
        if one.verdict is not Verdict.KNOWN and not one.keys:
            yield f"{one.name}: it offers no key with the fingerprint that was given"


def _elsewhere(one: Judged, trust_file: str) -> Iterator[str]:
    """Records of the machine that are not in the file which is written: they would go on contradicting."""
    for file in dict.fromkeys(record.file for record in usable(one.records) if record.file != trust_file):
        yield f"{one.name}: {file} has a key for it too; ssh-keygen -f {file} -R '{one.record_name}' takes it out"


def written(text: str, new: Sequence[Judged]) -> str:
    """The known_hosts file with the keys of these machines in the place of what it had. Raises ValueError."""
    names = [one.record_name for one in new]
    return rewritten(text, names, [(one.record_name, key) for one in new for key in one.keys])


def described(one: Judged) -> Iterator[str]:
    """A machine and its keys, for a person to compare."""
    yield f"{one.name}  {one.address}:{one.port}  {one.verdict.value}"
    width = max((len(key.type) for key in one.keys), default=0)
    places = {record.key.blob: record.place for record in reversed(one.records)}
    for key in one.keys:
        where = f"  {places[key.blob]}" if key.blob in places else ""
        yield f"  {key.type:<{width}}  {key.fingerprint}{where}"
    if one.verdict in (Verdict.CHANGED, Verdict.REVOKED):
        for record in one.records:
            mark = " @revoked" if record.revoked else ""
            yield f"  on record:{mark} {record.key.type}  {record.key.fingerprint}  {record.place}"
