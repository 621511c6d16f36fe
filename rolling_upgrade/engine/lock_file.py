"""The lock file of a host: the shell text that acquires, releases and shows it, its renewal, and the parser.

`lock/held` names the holder until its lease expires. `lock/guard` (flock) makes each change atomic. A running step
holds `lock/stage` (flock), so that the first step of a new holder waits for the last step of the previous one.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Lock
from rolling_upgrade.engine.shell import quote

#: Exit status of a script that was refused because another run holds the lock.
HELD_STATUS = 40
#: Exit status of a step whose token is no longer the lock's.
LOST_STATUS = 41

#: How long a change of the lock waits for another one.
GUARD_SECONDS = 10
_POLL_SECONDS = 0.05
#: How long a script waits for a step on the host, or for the host's boot program, to end.
WAIT_SECONDS = 120
#: Exit status of a script that waited for a step which did not end in time.
BUSY_STATUS = 44
#: The prefix of the token of a lock that an operator acquired with `inv lock.acquire`.
MANUAL = "manual-"
#: Characters that break a line, change the text direction, or are not printable.
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\U0010ffff]")


def _fields(lock: Lock) -> str:
    """The lines of the lock file except its two times, which come from the host's clock."""
    values = {
        "token": lock.token,
        "owner": lock.owner,
        "workstation": lock.workstation,
        "pid": str(lock.pid),
        "reason": lock.reason,
        "target": lock.target,
    }
    return "".join(f"{key}={_UNPRINTABLE.sub('?', value)}\n" for key, value in values.items())


def acquire(home: str, lock: Lock, *, lease_seconds: float, replaceable_token: str = "") -> str:
    """Acquire the lock, or exit HELD_STATUS and print the lines of the holder.

    The script takes over an expired lease, and the lease of `replaceable_token`: of a dead run, or of the operator's
    own lock. It then prints `takeover` and the lines of the previous holder.
    """
    return f"""\
mkdir -p {quote(home + "/lock")}
(
  flock -w {GUARD_SECONDS} 9
  cd {quote(home + "/lock")} || exit
  now=$(date +%s)
  if [ -s held ]; then
    token=$(sed -n 's/^token=//p' held) expires=$(sed -n 's/^expires_at=//p' held)
    if [ "$token" != {quote(lock.token)} ]; then
      if [ "${{expires:-0}}" -gt "$now" ] && [ "$token" != {quote(replaceable_token)} ]; then
        cat held
        echo "now=$now"
        exit {HELD_STATUS}
      fi
      echo takeover
      cat held
    fi
  fi
  # Read as the host saw it: sshd(8) names the key in the file $SSH_USER_AUTH where ExposeAuthInfo is on.
  key=$(sed -n 's/^publickey //p' "${{SSH_USER_AUTH:-/nonexistent}}" 2>/dev/null | head -n 1 |
    ssh-keygen -lf - 2>/dev/null | cut -d ' ' -f 2) || :
  client=${{SSH_CONNECTION:-}}
  {{
    printf '%s' {quote(_fields(lock))}
    printf 'key=%s\\nclient=%s\\n' "$key" "${{client%% *}}"
    printf 'acquired_at=%s\\nexpires_at=%s\\n' "$now" "$((now + {round(lease_seconds)}))"
  }} > held.new
  mv -f held.new held
) 9> {quote(home + "/lock/guard")}"""


def renew(home: Path, token: str, lease_seconds: float) -> str:
    """Extend the lease of a run on this host; return '' or, if the run no longer has the lock, a text that says why.

    Two failures do not stop the run. On a full or read-only disk, the run keeps the lock, with the former end of the
    lease. If a process does not release the guard, the run continues until the lease ends: no other run can take over
    without the guard.
    """
    held = home / "lock" / "held"
    with _guard(home) as guarded:
        try:
            lines = held.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        if f"token={token}" not in lines:
            return "the lock was taken over:\n" + ("\n".join(lines) or "nobody holds it")
        if not guarded:
            lock = parse("\n".join(lines))
            is_over = lock is None or lock.expires_at <= time.time()
            return (
                f"the lease is over; it could not be renewed, as a process holds {home}/lock/guard" if is_over else ""
            )
        kept = [line for line in lines if not line.startswith("expires_at=")]
        new = held.with_name("held.new")
        with suppress(OSError):
            new.write_text("\n".join([*kept, f"expires_at={int(time.time()) + round(lease_seconds)}", ""]), "utf-8")
            new.replace(held)
    return ""


@contextmanager
def _guard(home: Path) -> Iterator[bool]:
    """Hold the guard during the block; yield False if another process holds it for GUARD_SECONDS."""
    try:
        handle = os.open(home / "lock" / "guard", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        yield _lock(handle, time.monotonic() + GUARD_SECONDS)
    finally:
        os.close(handle)


def _lock(handle: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def release(home: str, token: str) -> str:
    """Release the lock if this run still holds it."""
    return f"""\
(
  flock -w {GUARD_SECONDS} 9
  cd {quote(home + "/lock")} || exit
  if [ "$(sed -n 's/^token=//p' held 2>/dev/null)" = {quote(token)} ]; then rm -f held; fi
) 9> {quote(home + "/lock/guard")}"""


def is_manual(lock: Lock) -> bool:
    """Whether an operator acquired the lock with `inv lock.acquire`."""
    return lock.token.startswith(MANUAL)


def executing(home: str) -> str:
    """Print `yes` if the holder's executor is alive on the host, whatever became of its workstation.

    The lock for the question is shared: another script that asks at the same time is no executor.
    """
    return f"""\
token=$(sed -n 's/^token=//p' {quote(home + "/lock/held")} 2>/dev/null)
alive={quote(home)}/journal/$token/alive
if [ -n "$token" ] && [ -e "$alive" ] && ! flock -n -s "$alive" true; then echo yes; fi"""


def show(home: str) -> str:
    """Print the host's time, whether a run and a step are running, and the lines of the holder; never waits."""
    stage = quote(home + "/lock/stage")
    return f"""\
echo "now=$(date +%s)"
echo "executing=$({executing(home)})"
if [ -e {stage} ] && ! flock -n {stage} true; then echo step=yes; else echo step=no; fi
cat {quote(home + "/lock/held")} 2>/dev/null || :"""


def force_release(home: str, token: str) -> str:
    """Release the lock of the holder with this token; does nothing if another run holds it.

    Exits BUSY_STATUS and keeps the lock while a step is running.
    """
    return f"""\
(
  flock -n -E {BUSY_STATUS} 8
{release(home, token)}
) 8> {quote(home + "/lock/stage")}"""


def is_executing(text: str) -> bool:
    """Whether the executor of the holder is alive, from the output of `show`."""
    return "executing=yes" in untrusted.lines(text)


def is_step_running(text: str) -> bool:
    """Whether a step is running, from the output of `show`."""
    return "step=yes" in untrusted.lines(text)


def parse(text: str) -> Lock | None:
    """Read the lines of `lock/held`; None if they name no holder.

    Fields that an earlier version did not write are empty.
    """
    fields = dict(line.split("=", 1) for line in untrusted.rows(text) if "=" in line)
    if not fields.get("token"):
        return None
    return Lock(
        token=fields["token"],
        owner=fields.get("owner", "?"),
        workstation=fields.get("workstation", "?"),
        pid=_number(fields.get("pid", "")),
        reason=fields.get("reason", ""),
        target=fields.get("target", ""),
        acquired_at=_number(fields.get("acquired_at", "")),
        expires_at=_number(fields.get("expires_at", "")),
        key=fields.get("key", ""),
        client=fields.get("client", ""),
    )


def host_time(text: str) -> int:
    """The host's clock in Unix seconds, from the output of `acquire` or `show`; 0 if it is missing."""
    times = (line.removeprefix("now=") for line in untrusted.lines(text) if line.startswith("now="))
    return max(map(_number, times), default=0)


def _number(text: str) -> int:
    return untrusted.integer(text, maximum=untrusted.LATEST, default=0)
