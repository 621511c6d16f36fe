"""Who can log in to a host against who may: how each key stands, and the plan that makes both the same. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fabfile.commands import access as commands
from fabfile.commands import authorized_keys
from fabfile.commands.access import Seen
from fabfile.commands.authorized_keys import Entry
from fabfile.commands.item import as_root
from fabfile.model import Access, Holder, HostResult, Standing, Target
from fabfile.plans.step import Plan, Step

WRITE_SECONDS = 60.0
STEP = "authorized_keys"
#: How what a sync leaves alone is told.
REVOKED = "REVOKED, YET LET IN by what is not ours"
_KEPT = {Standing.UNMANAGED: "not managed, kept", Standing.REVOKED: REVOKED}


@dataclass(frozen=True)
class Wanted:
    """What the operator wants of one host: who may log in, and whether everybody else goes."""

    environment: str
    target: Target
    access: Access
    exclusive: bool = False

    @property
    def block(self) -> str:
        """The name of the block that is ours."""
        return authorized_keys.block_name(self.target.application.name, self.environment)

    def text(self, seen: Seen) -> str:
        """The managed file as it is to be."""
        access = self.access
        return authorized_keys.rendered(
            seen.own.text, self.block, access.granted, access.revoked_blobs, exclusive=self.exclusive
        )


def holders(wanted: Wanted, seen: Seen) -> tuple[Holder, ...]:
    """Everybody who can log in with a key, and who should and cannot; those of the folder first."""
    found = [
        _holder(wanted, entry, file.path, managed=file.path == seen.path)
        for file in seen.files
        for entry in authorized_keys.entries(file.text)
    ]
    inside = {entry.blob for entry in authorized_keys.entries(seen.own.text) if entry.block == wanted.block}
    missing = [
        Holder(name, key, Standing.MISSING, seen.path) for name, key in wanted.access.granted if key.blob not in inside
    ]
    order = list(Standing)
    return tuple(sorted((*found, *missing), key=lambda one: (order.index(one.standing), one.name)))


def _holder(wanted: Wanted, entry: Entry, path: str, *, managed: bool) -> Holder:
    granted = {key.blob: name for name, key in wanted.access.granted}
    former = {key.blob: name for name, key in wanted.access.revoked}
    own = managed and entry.block == wanted.block
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


def is_wrong(wanted: Wanted, seen: Seen) -> bool:
    """Whether the file, or an owner or a mode, is not as it is to be."""
    user = wanted.target.user
    modes = (seen.directory, seen.own.state) != (f"{user} 700", f"{user} 600")
    return modes or seen.own.text != wanted.text(seen)


def lost(wanted: Wanted, seen: Seen) -> frozenset[str]:
    """The fingerprints of the keys that the plan takes out of the managed file."""
    before, after = (
        {entry.key.fingerprint for entry in authorized_keys.entries(text)}
        for text in (seen.own.text, wanted.text(seen))
    )
    return frozenset(before - after)


def is_read(seen: Seen) -> bool:
    """Whether sshd reads the managed file at all."""
    return any(file.path == seen.path for file in seen.files)


def plan_access(wanted: Wanted, seen: Seen) -> Plan:
    """The step that makes the host's file as the folder says, with each key that comes or goes."""
    target = wanted.target
    notes = tuple(_notes(wanted, seen))
    if not is_wrong(wanted, seen):
        return Plan(target.name, "access", "", notes=notes)
    script = as_root(commands.write(target.user, seen, wanted.text(seen)), user=target.setup_user)
    step = Step(STEP, f"write {seen.path}, 0600", script, WRITE_SECONDS)
    return Plan(target.name, "access", "", notes=notes, steps=(step,), result=HostResult.SYNCED)


def _notes(wanted: Wanted, seen: Seen) -> Iterator[str]:
    gone = lost(wanted, seen)
    for holder in holders(wanted, seen):
        who = f"{holder.name or 'no name'} {holder.key.fingerprint}"
        outside = holder.file == seen.path and not holder.block
        if holder.standing is Standing.MISSING:
            yield f"+ {who}"
        elif holder.key.fingerprint in gone and outside:
            yield f"- {who} ({holder.standing.value.lower()})"
        elif holder.standing is Standing.GRANTED and holder.options:
            yield f"- the options in front of {who}"
    yield from unsettled(wanted, seen)


def unsettled(wanted: Wanted, seen: Seen) -> tuple[str, ...]:
    """Who stays whom the folder does not know, or knows as revoked: for a person to act on."""
    return tuple(
        f"{_KEPT[holder.standing]}: {holder.name or 'no name'} {holder.key.fingerprint} in {holder.place}"
        for holder in holders(wanted, seen)
        if holder.standing in _KEPT and not _goes(wanted, seen, holder)
    )


def _goes(wanted: Wanted, seen: Seen, holder: Holder) -> bool:
    """Whether the sync takes away what it does not know, or knows as revoked."""
    outside = holder.file == seen.path and not holder.block
    return outside and (wanted.exclusive or holder.standing is Standing.REVOKED)


def faults(wanted: Wanted, seen: Seen, environment: str) -> tuple[str, ...]:
    """What else is not as it is to be: owners and modes, password login, ways in that are no keys."""
    user, found = wanted.target.user, []
    if not is_read(seen):
        found.append(f"sshd does not read {seen.path}: AuthorizedKeysFile {seen.settings.get('authorizedkeysfile')}")
    elif seen.own.state and (seen.directory, seen.own.state) != (f"{user} 700", f"{user} 600"):
        found.append(f"~/.ssh is {seen.directory}, authorized_keys {seen.own.state}; wanted 700 and 600, of {user}")
    if seen.password_login:
        found.append(f"sshd lets {user} in with a password: inv setup --env {environment} ends that")
    for file in seen.files:
        if lines := authorized_keys.unread(file.text):
            numbers = ", ".join(map(str, lines))
            found.append(
                f"{file.path}: not understood, and perhaps a way in: line {numbers}; look, or sync --exclusive"
            )
    for key in ("authorizedkeyscommand", "trustedusercakeys"):
        if seen.settings.get(key, "none") != "none":
            found.append(f"sshd also lets in whom {key} names ({seen.settings[key]}): not looked at")
    return tuple(found)
