"""The scripts that list the jobs of a host and run one now, and the parser of the list."""

from __future__ import annotations

from collections.abc import Iterable

from rolling_upgrade.engine import jobs, untrusted
from rolling_upgrade.engine.model import Application, HostState, Job
from rolling_upgrade.engine.observation import FACT
from rolling_upgrade.engine.shell import Script, direct, quote, shell_join

#: Exit status of `run` for a job that systemd ended, such as after its timeout.
ENDED_STATUS = 1
#: The time in which the journal shows the last line of a run that has ended.
JOURNAL_SECONDS = 10


def listing(app: Application) -> Script:
    """Print the facts of the jobs, and `next.NAME`, the next start of each in Unix seconds."""
    parts = []
    for job in app.jobs:
        timer = f"{jobs.unit(app.name, job.name)}.timer"
        ask = shell_join("systemctl", "--user", "show", "--property=NextElapseUSecRealtime", "--value", timer)
        parts.append(
            f"next=$({ask} 2>/dev/null) || next=''\n"
            f'if [ -n "$next" ]; then next=$(date -d "$next" +%s 2>/dev/null) || next=\'\'; fi\n'
            f'fact next.{job.name} "$next"'
        )
    return direct(FACT, 'fact now "$(date +%s)"', jobs.facts(app), *parts)


def parse(host: str, text: str) -> HostState:
    """Parse the output of `listing`."""
    facts = tuple((key, value.strip()) for key, _, value in (row.partition("=") for row in untrusted.lines(text)))
    now = untrusted.integer(dict(facts).get("now", ""), maximum=untrusted.LATEST, default=0)
    return HostState(host, now=now, facts=facts)


def next_start(state: HostState, job: str) -> int:
    """Return the next start of a job in Unix seconds; 0 without one."""
    return untrusted.integer(state.fact(f"next.{job}"), maximum=untrusted.LATEST, default=0)


def run(app: Application, job: Job) -> Script:
    """Start the job's unit, print the output of the run from the journal, and exit with the exit code of the job.

    The run belongs to systemd: it continues if this script ends early. Source: systemd.exec(5), INVOCATION_ID; the
    unit's last line contains it, so that no output of the job is taken for the end of the run.
    """
    name = jobs.unit(app.name, job.name)
    unit = quote(f"{name}.service")
    result = quote(f"{jobs.directory(app.home)}/results/{job.name}")
    read = shell_join("journalctl", "--quiet", "--no-pager", "--output", "cat", "--user-unit", f"{name}.service")
    return direct(
        f"""\
last() {{ sed -n 's/^-- cursor: //p' | tail -n 1; }}
cursor=$({read} --lines 1 --show-cursor 2>/dev/null | last) || cursor=''
systemctl --user start --no-block {unit}
id=$(systemctl --user show --property=InvocationID --value {unit})
ended='' page=$(mktemp)
trap 'rm -f "$page"' EXIT
print_new() {{
  {read} _TRANSPORT=stdout --show-cursor ${{cursor:+--after-cursor "$cursor"}} > "$page" 2>/dev/null || :
  newer=$(last < "$page")
  cursor=${{newer:-$cursor}}
  sed -e '/^-- cursor: s=/d' -e '/^{jobs.END_OF_RUN} .*[0-9a-f]\\{{32\\}}$/d' "$page"
  if grep -q "^{jobs.END_OF_RUN} .* $id\\$" "$page"; then ended=yes; fi
}}
while :; do
  case $(systemctl --user is-active {unit} 2>/dev/null) in activating | deactivating) ;; *) break ;; esac
  print_new
  sleep 0.3
done
tries=0
until [ -n "$ended" ] || [ "$tries" -ge {JOURNAL_SECONDS * 5} ]; do
  print_new
  tries=$((tries + 1))
  if [ -z "$ended" ]; then sleep 0.2; fi
done
if [ -z "$ended" ]; then
  echo "only root may read the journal with the output. Next: as root on the host: mkdir -p /var/log/journal && systemctl restart systemd-journald" >&2
fi
read -r how status _ < {result}
case $how in
  success) exit 0 ;;
  exit-code) exit "$status" ;;
  *)
    echo "the job {job.name} was ended by systemd: $how" >&2
    exit {ENDED_STATUS} ;;
esac"""
    )


def named(apps: Iterable[Application]) -> tuple[str, ...]:
    """Return the names of all jobs."""
    return tuple(dict.fromkeys(job.name for app in apps for job in app.jobs))
