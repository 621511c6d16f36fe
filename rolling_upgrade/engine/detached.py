"""Stages: run a script that changes a host, detached from its connection, with its own log.

A stage checks the run's lock, renews its lease, runs under `lock/stage`, and leaves its log and exit status in
`journal/RUN/`. A dropped connection does not stop it; `attach` waits for it and reads its answer.
"""

from __future__ import annotations

import base64

from rolling_upgrade.engine import lock_file
from rolling_upgrade.engine.prune_entry import size_of
from rolling_upgrade.engine.shell import ENVIRONMENT, Script, quote

#: Exit status of `attach` for a stage that never began.
NEVER_BEGAN_STATUS = 42
#: Exit status of `attach` for a stage that ended without a status: it was killed, or the host went down.
DIED_STATUS = 43
#: How long a stage waits for another one on the host, or for the host's boot program, to end.
WAIT_SECONDS = 120
#: Exit status of a stage that waited too long for another stage.
BUSY_STATUS = lock_file.BUSY_STATUS
#: Exit status of a stage that ran longer than its deadline. Source: timeout(1).
TIMED_OUT_STATUS = 124


def launch(home: str, run_id: str, step: str, body: Script, *, seconds: float, lease_seconds: float) -> Script:
    """Run the body as a stage of at most `seconds`, print its log, and exit with its status.

    The body, secrets included, is in a file with mode 0600 in a directory of the deploy user. The stage deletes the
    file at its end.
    """
    inner = _stage_text(home, run_id, step, body, seconds=seconds, lease_seconds=lease_seconds)
    encoded = base64.b64encode(inner.encode()).decode()
    base = f"{home}/journal/{run_id}/{step}"
    text = f"""\
{ENVIRONMENT}mkdir -p {quote(f"{home}/journal/{run_id}")}
rm -f {quote(base + ".status")}
printf %s {quote(encoded)} | base64 -d > {quote(base + ".sh")}
setsid flock -o -w {WAIT_SECONDS} -E {BUSY_STATUS} {quote(home + "/lock/stage")} sh {quote(base + ".sh")} </dev/null >{quote(base + ".log")} 2>&1 &
stage=$!
echo "$stage" > {quote(base + ".session")}
if wait "$stage"; then status=0; else status=$?; fi
if [ -f {quote(base + ".status")} ]; then status=$(cat {quote(base + ".status")}); fi
tail -c 65536 {quote(base + ".log")}
exit "$status"
"""
    return Script(text, (encoded,) if body.secrets else ())


def _stage_text(home: str, run_id: str, step: str, body: Script, *, seconds: float, lease_seconds: float) -> str:
    base = f"{home}/journal/{run_id}/{step}"
    return f"""\
{ENVIRONMENT}finish() {{
  status=$?
  rm -f {quote(base + ".sh")} {quote(base + ".body")}
  echo "$status" > {quote(base + ".status.new")}
  mv -f {quote(base + ".status.new")} {quote(base + ".status")}
}}
trap finish EXIT
trap 'exit 143' TERM INT HUP
{lock_file.renew(home, run_id, lease_seconds=seconds + lease_seconds)}
cat > {quote(base + ".body")} <<'END-OF-THE-BODY-OF-THIS-STAGE'
{body.text}
END-OF-THE-BODY-OF-THIS-STAGE
timeout -k 5 {seconds:g} sh {quote(base + ".body")}
"""


def attach(home: str, run_id: str, step: str, *, seconds: float) -> Script:
    """Wait for a stage whose connection was lost, print its log and exit with its status.

    Exits NEVER_BEGAN_STATUS if the host never received it, DIED_STATUS if it ended without a status.
    """
    base = quote(f"{home}/journal/{run_id}/{step}")
    text = f"""\
{ENVIRONMENT}base={base}
waited=0
while [ ! -s "$base.session" ]; do
  if [ "$waited" -ge 10 ]; then exit {NEVER_BEGAN_STATUS}; fi
  waited=$((waited + 1))
  sleep 0.2
done
began=$(date +%s)
while [ ! -f "$base.status" ]; do
  if ! grep -qsF "$base.sh" "/proc/$(cat "$base.session")/cmdline"; then
    if [ -f "$base.status" ]; then break; fi
    tail -c 65536 "$base.log" 2>/dev/null || :
    exit {DIED_STATUS}
  fi
  if [ $(($(date +%s) - began)) -ge {round(seconds)} ]; then exit {TIMED_OUT_STATUS}; fi
  sleep 0.2
done
tail -c 65536 "$base.log"
exit "$(cat "$base.status")"
"""
    return Script(text)


def abort(home: str, run_id: str) -> str:
    """End the running stage of this run with its children, and wait until it has ended.

    Containers live on: Podman's monitor processes have their own sessions.
    """
    return f"""\
for session in {quote(f"{home}/journal/{run_id}")}/*.session; do
  base=${{session%.session}}
  if [ ! -s "$session" ] || [ -f "$base.status" ]; then continue; fi
  # After a reboot the id may belong to another session.
  if ! grep -qsF "$base.sh" "/proc/$(cat "$session")/cmdline"; then continue; fi
  pkill -TERM -s "$(cat "$session")" || :
  waited=0
  while pgrep -s "$(cat "$session")" >/dev/null; do
    if [ "$waited" -eq 40 ]; then pkill -KILL -s "$(cat "$session")" || :; fi
    if [ "$waited" -ge 80 ]; then break; fi
    waited=$((waited + 1))
    sleep 0.1
  done
done"""


def undo_all(parts: list[Script]) -> Script:
    """Run every undo in a subshell, even after another failed; fail if any failed."""
    blocks = [f"(\nset -eu\n{part.text}\n)\nundone=$((undone | $?))" for part in parts]
    text = "\n".join(["set +e", "undone=0", *blocks, '[ "$undone" -eq 0 ]'])
    return Script(text + "\n", tuple(secret for part in parts for secret in part.secrets))


def prune_journals(home: str, keep: int) -> str:
    """Select the journals of all runs except the newest; run ids sort by time."""
    directory = quote(f"{home}/journal")
    return (
        f"find {directory} -mindepth 1 -maxdepth 1 -type d | sort -r | tail -n +{keep + 1} | "
        f'while read -r old; do prune_entry journal "$old" {size_of("old")} rm -rf "$old"; done'
    )
