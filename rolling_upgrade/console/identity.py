"""Who runs a task: person or CI job, machine, commit of the clone; and which locks belong to dead processes."""

from __future__ import annotations

import getpass
import os
import socket
from functools import cache
from pathlib import Path

from rolling_upgrade.engine import git, local_command
from rolling_upgrade.engine.lock_file import MANUAL, is_manual
from rolling_upgrade.engine.model import Lock, new_run_id

_GIT_SECONDS = 10.0


def name() -> str:
    """Return the operator's name: the actor of the CI system, or the login name outside CI."""
    for key in ("ROLLING_OPERATOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN"):
        if os.environ.get(key):
            return os.environ[key]
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def workstation() -> str:
    """Return this machine's name with its boot id and process namespace, which make it unique."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}-{boot}-{space}"


@cache
def revision(root: Path) -> str:
    """Return the commit of the clone in `root`, with `+changes` for uncommitted changes; empty without Git.

    The result is cached, so that code of the application, such as a test suite, cannot change it later. Git runs
    confined, because the clone's configuration may name filters that Git executes.
    """

    def git_output(*words: str) -> local_command.CommandResult:
        argv, base = git.command(str(root), *words), git.environment(os.environ)
        return local_command.capture(argv, timeout_seconds=_GIT_SECONDS, base=base, confined=True)

    commit = git_output("rev-parse", "--short=12", "HEAD")
    changes = git_output("status", "--porcelain", "--untracked-files=no") if commit.ok else commit
    if not changes.ok:
        return ""
    return f"{commit.output}+changes" if changes.output else commit.output


def lock(run_id: str, reason: str, *, target: str = "") -> Lock:
    """Return the lock for a run of this process; the host sets its times."""
    return Lock(run_id, name(), workstation(), os.getpid(), reason, 0, 0, target=target)


def manual_lock(reason: str) -> Lock:
    """Return the lock for `lock.acquire`; it has no process, so it never counts as dead."""
    return Lock(f"{MANUAL}{new_run_id()}", name(), workstation(), 0, reason, 0, 0)


def is_own(held: Lock) -> bool:
    """Return whether this operator acquired the lock by `lock.acquire` on this machine, even before a reboot."""
    machine = socket.gethostname()
    return is_manual(held) and held.owner == name() and f"{held.workstation}-".startswith(f"{machine}-")


def is_dead(held: Lock | None) -> bool:
    """Return whether a lock belongs to a process of this machine that no longer runs."""
    if held is None or held.workstation != workstation() or held.pid <= 0:
        return False
    try:
        os.kill(held.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
