"""Compare the keys on a host with the directory of authorized keys, and plan the sync."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from rolling_upgrade.engine.model import HostResult, Target
from rolling_upgrade.engine.openssh import PublicKey
from rolling_upgrade.engine.plan import Plan, Step
from rolling_upgrade.engine.resource import as_root
from rolling_upgrade.errors import PROGRAM
from rolling_upgrade.features.access import shell
from rolling_upgrade.features.access.keys import Access
from rolling_upgrade.features.access.shell import Entry, HostAccess

WRITE_SECONDS = 60.0
STEP = "authorized_keys"


class Standing(str, Enum):
    """The state of a key on a host, compared with the directory of keys."""

    GRANTED = "granted"
    MISSING = "MISSING"
    REMOVED = "NOT IN THE FOLDER"
    REVOKED = "REVOKED"
    UNMANAGED = "NOT MANAGED"
    ELSEWHERE = "another block"

    @property
    def is_drift(self) -> bool:
        """Whether the host differs from the directory in this key."""
        return self not in (Standing.GRANTED, Standing.ELSEWHERE)


@dataclass(frozen=True)
class Holder:
    """A key that can or should be able to log in as the deploy user, with the name of its owner.

    `block` names the block of another application or environment that contains the key.
    """

    name: str
    key: PublicKey
    standing: Standing
    file: str
    block: str = ""
    options: str = ""

    @property
    def place(self) -> str:
        """The file and block that contain the key, for display."""
        return f"{self.file} (block of {self.block})" if self.block else self.file


@dataclass(frozen=True)
class AccessReport:
    """The keys of one host, including missing ones, and the faults of its SSH server."""

    holders: tuple[Holder, ...]
    faults: tuple[str, ...] = ()

    @property
    def drift(self) -> bool:
        """Whether the host differs from the directory."""
        return bool(self.faults) or any(holder.standing.is_drift for holder in self.holders)


#: The report texts for keys that a sync leaves in place.
_KEPT = {
    Standing.UNMANAGED: "not managed, kept",
    Standing.REVOKED: "REVOKED, but still accepted from a file or block that this project does not manage",
}


@dataclass(frozen=True)
class DesiredAccess:
    """The keys that one host should accept; `exclusive` removes every other key outside of blocks."""

    environment: str
    target: Target
    access: Access
    exclusive: bool = False

    @property
    def block(self) -> str:
        """The name of this environment's block."""
        return shell.block_name(self.target.application.name, self.environment)

    def text(self, current: HostAccess) -> str:
        """The desired content of the managed file."""
        access = self.access
        return shell.render(
            current.own.text, self.block, access.granted, access.revoked_blobs, exclusive=self.exclusive
        )


def holders(desired: DesiredAccess, current: HostAccess) -> tuple[Holder, ...]:
    """Return every key that the host accepts and every granted key that it lacks, the granted ones first."""
    accepted = [
        _holder(desired, entry, file.path, managed=file.path == current.path)
        for file in current.files
        for entry in shell.entries(file.text)
    ]
    in_block = {entry.blob for entry in shell.entries(current.own.text) if entry.block == desired.block}
    missing = [
        Holder(name, key, Standing.MISSING, current.path)
        for name, key in desired.access.granted
        if key.blob not in in_block
    ]
    order = list(Standing)
    return tuple(sorted((*accepted, *missing), key=lambda holder: (order.index(holder.standing), holder.name)))


def _holder(desired: DesiredAccess, entry: Entry, path: str, *, managed: bool) -> Holder:
    granted = {key.blob: name for name, key in desired.access.granted}
    former = {key.blob: name for name, key in desired.access.revoked}
    own = managed and entry.block == desired.block
    if entry.blob in granted:
        standing = Standing.GRANTED
    elif entry.blob in former:
        standing = Standing.REVOKED
    elif own:
        standing = Standing.REMOVED
    else:
        standing = Standing.ELSEWHERE if entry.block else Standing.UNMANAGED
    name = granted.get(entry.blob) or former.get(entry.blob) or entry.key.comment
    return Holder(name, entry.key, standing, path, "" if own else entry.block, entry.options)


def is_wrong(desired: DesiredAccess, current: HostAccess) -> bool:
    """Whether the content, owner or mode of the managed file differs from the desired one."""
    user = desired.target.user
    modes = (current.directory, current.own.state) != (f"{user} 700", f"{user} 600")
    return modes or current.own.text != desired.text(current)


def removed_keys(desired: DesiredAccess, current: HostAccess) -> frozenset[str]:
    """Return the fingerprints of the keys that the plan removes from the managed file."""
    before, after = (
        {entry.key.fingerprint for entry in shell.entries(text)} for text in (current.own.text, desired.text(current))
    )
    return frozenset(before - after)


def is_read(current: HostAccess) -> bool:
    """Whether sshd reads the managed file."""
    return any(file.path == current.path for file in current.files)


def plan_access(desired: DesiredAccess, current: HostAccess) -> Plan:
    """Plan the step that writes the host's file, with a note for each added and removed key."""
    target = desired.target
    notes = tuple(_notes(desired, current))
    if not is_wrong(desired, current):
        return Plan(target.name, "access", "", notes=notes)
    script = as_root(shell.write(target.user, current, desired.text(current)), user="root")
    step = Step(STEP, f"write {current.path}, 0600", script, WRITE_SECONDS)
    return Plan(target.name, "access", "", notes=notes, steps=(step,), result=HostResult.SYNCED)


def _notes(desired: DesiredAccess, current: HostAccess) -> Iterator[str]:
    removed = removed_keys(desired, current)
    for holder in holders(desired, current):
        who = f"{holder.name or 'no name'} {holder.key.fingerprint}"
        outside = holder.file == current.path and not holder.block
        if holder.standing is Standing.MISSING:
            yield f"+ {who}"
        elif holder.key.fingerprint in removed and outside:
            yield f"- {who} ({holder.standing.value.lower()})"
        elif holder.standing is Standing.GRANTED and holder.options:
            yield f"- the options in front of {who}"
    yield from map(kept_line, kept(desired, current))


def kept(desired: DesiredAccess, current: HostAccess) -> tuple[Holder, ...]:
    """Return the unmanaged and revoked keys that a sync leaves in place, for the operator to act on."""
    return tuple(
        holder
        for holder in holders(desired, current)
        if holder.standing in _KEPT and not _removes(desired, current, holder)
    )


def kept_line(holder: Holder) -> str:
    """Describe a key that a sync leaves in place."""
    return f"{_KEPT[holder.standing]}: {holder.name or 'no name'} {holder.key.fingerprint} in {holder.place}"


def _removes(desired: DesiredAccess, current: HostAccess, holder: Holder) -> bool:
    """Whether the sync removes an unmanaged or revoked key."""
    outside = holder.file == current.path and not holder.block
    return outside and (desired.exclusive or holder.standing is Standing.REVOKED)


def compare(desired: DesiredAccess, current: HostAccess) -> AccessReport:
    """Compare the host with the directory of keys."""
    return AccessReport(holders(desired, current), faults(desired, current))


def faults(desired: DesiredAccess, current: HostAccess) -> tuple[str, ...]:
    """List further deviations: owners and modes, password login, and logins without a key of the files."""
    user, problems = desired.target.user, []
    if not is_read(current):
        problems.append(
            f"sshd does not read {current.path}: AuthorizedKeysFile {current.settings.get('authorizedkeysfile')}"
        )
    elif current.own.state and (current.directory, current.own.state) != (f"{user} 700", f"{user} 600"):
        problems.append(
            f"~/.ssh is {current.directory}, authorized_keys is {current.own.state}; expected {user} 700 and {user} 600"
        )
    if current.password_login:
        problems.append(
            f"sshd accepts a password for {user}. Next: {PROGRAM} setup --env {desired.environment} disables it"
        )
    for file in current.files:
        if lines := shell.unparsed_lines(file.text):
            numbers = ", ".join(map(str, lines))
            problems.append(
                f"{file.path}: line {numbers} cannot be parsed and may grant access. "
                f"Next: check it, or {PROGRAM} access.sync --exclusive"
            )
    for key in ("authorizedkeyscommand", "trustedusercakeys"):
        if current.settings.get(key, "none") != "none":
            problems.append(
                f"sshd also accepts logins through {key} ({current.settings[key]}), which is not checked here"
            )
    return tuple(problems)
