"""The person or job that runs a task: who, from where, alive or not. Reads this machine only."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from fabfile.commands.lock import MANUAL, is_manual
from fabfile.errors import ConfigError, Interrupted
from fabfile.model import Lock


def name() -> str:
    """The operator's name: in CI the actor that the CI system names, else the login name."""
    for key in ("ROLLING_OPERATOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN"):
        if os.environ.get(key):
            return os.environ[key]
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def workstation() -> str:
    """This machine's name and, where the kernel tells, its boot and process namespace: names are not unique."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}-{boot}-{space}"


def revision(root: Path) -> str:
    """The commit of the clone in `root`, with `+changes` when files differ from it; '' where there is no Git."""
    import subprocess

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return f"{commit}+changes" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return ""


def lock(release: str, reason: str) -> Lock:
    """The lock that a run of this process asks for; the host's clock fills in its times."""
    return Lock(release, name(), workstation(), os.getpid(), reason, 0, 0)


def by_hand(reason: str) -> Lock:
    """The lock that a person asks for: no process stands behind it, so that none can be found dead."""
    token = f"{MANUAL}{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    return Lock(token, name(), workstation(), 0, reason, 0, 0)


def is_own(held: Lock) -> bool:
    """Whether this person took the lock by hand, on this machine, since or before its last boot."""
    machine = socket.gethostname()
    return is_manual(held) and held.owner == name() and f"{held.workstation}-".startswith(f"{machine}-")


def is_dead(held: Lock | None) -> bool:
    """Whether a lock belongs to a process of this very machine that no longer runs."""
    if held is None or held.workstation != workstation() or held.pid <= 0:
        return False
    try:
        os.kill(held.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def confirm(question: str, *, force: bool, hint: str) -> None:
    """Ask yes or no on the terminal. Raises ConfigError without a terminal, Interrupted when the answer is no."""
    if not force and _answer(f"{question} [y/N]", hint).lower() not in {"y", "yes"}:
        raise Interrupted("not confirmed; nothing was touched.")


def confirm_by_name(question: str, name: str, typed: str, *, hint: str) -> None:
    """Ask for a name on the terminal, unless it was given: a yes is too quickly said. Raises as `confirm` does."""
    given = typed or _answer(question, hint)
    if given != name:
        raise Interrupted(f"{given!r} is not {name!r}; nothing was touched.")


def _answer(question: str, hint: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigError("this needs a person's yes, and there is no terminal to ask on.", next_step=hint)
    print(question, end=" ", file=sys.stderr, flush=True)
    try:
        return sys.stdin.readline().strip()
    except KeyboardInterrupt:
        return ""
