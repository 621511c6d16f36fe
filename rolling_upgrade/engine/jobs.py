"""Jobs: timers in the deploy user's systemd, each of which runs a one-off container of the current release.

`HOME/jobs/RUN/` has the units and the script of each job of a release, and `HOME/jobs/current` is a link to the
directory of the current one. The links in ~/.config/systemd/user lead through it, so that one rename changes all jobs,
and the undo changes them back. systemd runs a unit once at a time: a job never runs twice at the same time.

Standard library only: the watchdog rolls back, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rolling_upgrade.engine import podman, untrusted
from rolling_upgrade.engine.model import Application, HostState, Job, Overlap, Recorded
from rolling_upgrade.engine.shell import ENVIRONMENT, Script, direct, quote, script, sha256, shell_join, write_file

#: The time limit of the step that installs the timers.
INSTALL_SECONDS = 60
#: The seconds beyond a container's own stop time until systemd kills a job that has to end. `end` has the same limit.
_KILL_SECONDS = 10
#: The result of a run that no process has reported: the host lost its power.
INTERRUPTED = "interrupted"
_LONGEST_LINE = 300
_STRICT = "set -eu\n"
#: The start of the last line of a run in the journal; its result and the unit's InvocationID follow.
END_OF_RUN = "the job has ended:"


def directory(home: str) -> str:
    """The directory with the jobs of an application."""
    return f"{home}/jobs"


def unit(app: str, job: str) -> str:
    """The name of a job's units, without the suffix; also of its container."""
    return podman.one_off_name(app, f"job-{job}")


def content_hash(app: Application) -> str:
    """A hash of everything that defines the jobs, images included; empty without jobs."""
    found = files(app, "")
    return sha256("\0".join(f"{name}\0{text}" for name, text in found.items()).encode())[:16] if found else ""


def differ(state: HostState, app: Application) -> bool:
    """Whether the host has other jobs than the application, or a timer of them does not run."""
    return state.fact("jobs") != content_hash(app)


def files(app: Application, run_id: str) -> dict[str, str]:
    """The units and scripts of all jobs, by their names."""
    found: dict[str, str] = {}
    for job in app.jobs:
        name = unit(app.name, job.name)
        found[f"{name}.sh"] = _program(app, job, run_id)
        found[f"{name}.service"] = _service(app, job)
        found[f"{name}.timer"] = _timer(app, job)
        if job.overlap is Overlap.REPLACE:
            found[f"{name}-again.service"] = _restarter(app, job)
    return found


def _program(app: Application, job: Job, run_id: str) -> str:
    """The script of a job: `run` starts the container; `end` removes a left-over one and records the result."""
    declared = app.service(job.service)
    # The environment of the release is on the host already.
    service = replace(declared, recorded=Recorded(podman.spec_hash(app.name, declared)))
    name, results = unit(app.name, job.name), f"{directory(app.home)}/results/{job.name}"
    started, ended = quote(f"{results}.started"), quote(results)
    run = podman.one_off(
        *(app, service, job.command), name=name, release=run_id, entrypoint=job.entrypoint, replaces_shell=True
    )
    return f"""\
#!/bin/sh
# The job {job.name} of {app.name}. Written by rolling-upgrade with each release.
{ENVIRONMENT}
case ${{1:-}} in
run)
printf '%s %s\\n' "$(date +%s)" {quote(run_id or "-")} > {started}.new
mv -f {started}.new {started}
{run.text.removeprefix(_STRICT)};;
end)
{podman.remove(name, seconds=0)} || :
read -r began release < {started} || :
printf '%s %s %s %s %s\\n' "${{SERVICE_RESULT:-unknown}}" "${{EXIT_STATUS:-0}}" "${{began:-0}}" "$(date +%s)" "${{release:--}}" > {ended}.new
mv -f {ended}.new {ended}
echo "{END_OF_RUN} ${{SERVICE_RESULT:-unknown}} ${{INVOCATION_ID:-}}"
;;
esac
"""


def _service(app: Application, job: Job) -> str:
    """The unit of a job.

    Source: systemd.service(5): TimeoutStartSec= limits the whole run of a oneshot service; ExecStopPost= gets
    SERVICE_RESULT and EXIT_STATUS, also after a timeout.
    """
    program = f"{directory(app.home)}/current/{unit(app.name, job.name)}.sh"
    stop = round(app.service(job.service).drain.stop_seconds) + _KILL_SECONDS
    return f"""\
[Unit]
Description=Job {job.name} of {app.name}
# The boot unit stops left-over containers.
After={app.name}-boot.service

[Service]
Type=oneshot
ExecStart=/bin/sh {program} run
ExecStopPost=/bin/sh {program} end
TimeoutStartSec={round(job.timeout_seconds)}
TimeoutStopSec={stop}
KillMode=mixed
UMask=0077
"""


def _timer(app: Application, job: Job) -> str:
    name = unit(app.name, job.name)
    events = "\n".join(f"OnCalendar={event}" for event in job.calendar)
    started = f"{name}-again.service" if job.overlap is Overlap.REPLACE else f"{name}.service"
    return f"""\
[Unit]
Description=Schedule of the job {job.name} of {app.name}: {job.schedule}

[Timer]
{events}
AccuracySec=1s
Persistent=true
Unit={started}

[Install]
WantedBy=timers.target
"""


def _restarter(app: Application, job: Job) -> str:
    name = unit(app.name, job.name)
    return f"""\
[Unit]
Description=Start the job {job.name} of {app.name}, in place of a run that has not ended

[Service]
Type=oneshot
ExecStart=/usr/bin/env systemctl --user --no-block restart {name}.service
"""


def install(app: Application, run_id: str) -> Script:
    """Make the jobs of the application the only ones on the host. Runs in progress continue."""
    base = directory(app.home)
    place = f"{base}/{run_id}"
    named = files(app, run_id)
    return script(
        shell_join("mkdir", "-p", place, f"{base}/results"),
        *(write_file(f"{place}/{name}", text) for name, text in named.items()),
        write_file(f"{place}/hash", content_hash(app)),
        f"cd {quote(base)}",
        f"former=$(readlink current) || former=''\n"
        f'if [ "$former" = {quote(run_id)} ]; then former=$(cat {quote(run_id)}/former); '
        f"else printf '%s' \"$former\" > {quote(run_id)}/former; fi",
        f"ln -sfn {quote(run_id)} current.new\nmv -fT current.new current",
        _synchronize(app),
        "for old in *; do\n"
        '  if [ -L "$old" ] || [ ! -f "$old/hash" ]; then continue; fi\n'
        f'  case $old in {quote(run_id)} | "$former") ;; *) rm -rf "$old" ;; esac\n'
        "done",
    )


def restore(app: Application, run_id: str) -> Script:
    """Bring the jobs back that `install` replaced; the undo of a run that stopped half-way, too."""
    return script(
        f"if ! cd {quote(directory(app.home))} 2>/dev/null; then exit 0; fi",
        f"""\
former={quote(run_id)} now=$(readlink current) || now=''
before=$(cat "$former/former" 2>/dev/null) || before=''
# An undo that was interrupted has changed the link, perhaps without the units.
if [ "$now" != "$former" ] && [ "$now" != "$before" ]; then exit 0; fi
if [ -n "$before" ] && [ -d "$before" ]; then ln -sfn "$before" current.new; mv -fT current.new current
else rm -f current; fi""",
        _synchronize(app),
    )


#: Define `own_units KIND`: print the names of the application's links to units of a kind, `timer` or `service`.
_OWN_UNITS = """\
units=$HOME/.config/systemd/user
own_units() {
  for link in "$units"/APP-job-*."$1"; do
    if [ ! -L "$link" ]; then continue; fi
    case $(readlink "$link") in BASE/current/*) echo "${link##*/}" ;; esac
  done
}"""


def _own_units(app: Application) -> str:
    return _OWN_UNITS.replace("APP", app.name).replace("BASE", quote(directory(app.home)))


def _synchronize(app: Application) -> str:
    """Make the units of systemd those of `current`, in this directory; `$former` is the directory of the former ones.

    A new schedule counts from now on. Without this, systemd would catch up a run that was due by the new schedule before.
    Source: systemd.timer(5), Persistent=: the modification time of the stamp file is that of the last run.
    """
    return f"""\
{_own_units(app)}
stamps=${{XDG_DATA_HOME:-$HOME/.local/share}}/systemd/timers
mkdir -p "$units/timers.target.wants" "$stamps"
for name in $(own_units timer) $(own_units service); do
  if [ -e "$units/$name" ]; then continue; fi
  case $name in *.timer)
    systemctl --user stop "$name" || :
    rm -f "$units/timers.target.wants/$name" "$stamps/stamp-$name" ;;
  esac
  rm -f "$units/$name"
done
for unit in {quote(directory(app.home))}/current/*.service {quote(directory(app.home))}/current/*.timer; do
  if [ ! -f "$unit" ]; then continue; fi
  name=${{unit##*/}}
  ln -sfn "$unit" "$units/$name"
  case $name in *.timer) ln -sfn "../$name" "$units/timers.target.wants/$name" ;; esac
done
systemctl --user daemon-reload
for name in $(own_units timer); do
  if [ -n "$former" ] && cmp -s "$former/$name" "$units/$name"; then
    systemctl --user start "$name"
  else
    touch "$stamps/stamp-$name"
    systemctl --user restart "$name"
  fi
done"""


def pause(app: Application) -> str:
    """Stop all timers and the jobs that run, because they may write to data that is about to be replaced."""
    return f"""\
{_own_units(app)}
for name in $(own_units timer) $(own_units service); do systemctl --user stop "$name"; done"""


def resume(app: Application) -> str:
    """Start all timers again; a run that was due meanwhile starts now."""
    return f'{_own_units(app)}\nfor name in $(own_units timer); do systemctl --user start "$name"; done'


def remove(app: Application) -> Script:
    """Remove all jobs of the application, and end those that run."""
    return direct(
        pause(app),
        "stamps=${XDG_DATA_HOME:-$HOME/.local/share}/systemd/timers",
        "for name in $(own_units timer) $(own_units service); do\n"
        '  rm -f "$units/$name" "$units/timers.target.wants/$name" "$stamps/stamp-$name"\n'
        "done",
        'rmdir "$units/timers.target.wants" 2>/dev/null || :',
        "systemctl --user daemon-reload",
        shell_join("rm", "-rf", directory(app.home)),
    )


def facts(app: Application) -> str:
    """Print the fact `jobs`, the hash of the installed jobs if all their timers run, and `job.NAME` for each job.

    The value of `job.NAME` is the state of its unit, `/`, its last result, `/`, and its last start.
    """
    base = quote(directory(app.home))
    if not app.jobs:
        return f"installed=''\nread -r installed 2>/dev/null < {base}/current/hash || :\nfact jobs \"$installed\""
    timers, services = ([f"{unit(app.name, job.name)}.{kind}" for job in app.jobs] for kind in ("timer", "service"))
    names = shell_join(*(job.name for job in app.jobs))
    return f"""\
installed=''
if [ "$({shell_join("systemctl", "--user", "is-active", *timers)} 2>/dev/null | sort -u)" = active ]; then
  read -r installed 2>/dev/null < {base}/current/hash || :
fi
fact jobs "$installed"
states=$({shell_join("systemctl", "--user", "is-active", *services)} 2>/dev/null || :)
job_facts() {{
  for job do
    state=${{states%%"$newline"*}} states=${{states#*"$newline"}} ended='' began=''
    read -r ended 2>/dev/null < {base}/results/"$job" || :
    read -r began 2>/dev/null < {base}/results/"$job".started || :
    fact "job.$job" "$state/$ended/$began"
  done
}}
job_facts {names}"""


@dataclass(frozen=True)
class JobState:
    """The last run of a job. `result` is systemd's (`success`, `exit-code`, `timeout` …), empty before the first run.

    Attributes:
        running: whether it runs now; then `started_at` is its start, and the rest describes the run before.
        status: the exit code, or the name of the signal.
        started_at, ended_at: Unix seconds, 0 if unknown.
        release: the id of the release whose image ran.
    """

    name: str
    running: bool = False
    result: str = ""
    status: str = ""
    started_at: int = 0
    ended_at: int = 0
    release: str = ""

    @property
    def failed(self) -> bool:
        """Whether the last run that ended has failed."""
        return self.result not in {"", "success"}

    @property
    def outcome(self) -> str:
        """How the last run ended."""
        if self.result == "exit-code":
            return f"exit code {self.status}"
        return {"": "has not run yet", "timeout": "exceeded its timeout", "signal": f"killed by {self.status}"}.get(
            self.result, self.result
        )


def states(state: HostState, app: Application) -> tuple[JobState, ...]:
    """The jobs of a host as it reported them in `facts`."""
    return tuple(_state(job.name, state.fact(f"job.{job.name}")[:_LONGEST_LINE]) for job in app.jobs)


def _state(name: str, fact: str) -> JobState:
    unit_state, ended, began = [*fact.split("/"), "", "", ""][:3]
    running = unit_state in {"activating", "deactivating"}
    started_at, *_ = (_seconds(word) for word in [*began.split(), "0"])
    fields = ended.split()
    last = JobState(name, running)
    if len(fields) == 5:
        result, status, start, end, release = fields
        last = JobState(name, running, result, status, _seconds(start), _seconds(end), release.removeprefix("-"))
    if started_at > last.started_at:
        release = began.partition(" ")[2].removeprefix("-")
        last = replace(last, started_at=started_at)
        if not running:
            last = replace(last, result=INTERRUPTED, status="", ended_at=0, release=release)
    return last


def _seconds(text: str) -> int:
    return untrusted.integer(text, maximum=untrusted.LATEST, default=0)
