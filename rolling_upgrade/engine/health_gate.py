"""The health gate and the checks after it, one round trip each: the answer through Nginx, and the bake."""

from __future__ import annotations

from collections.abc import Sequence

from rolling_upgrade.engine import nginx, progress, request
from rolling_upgrade.engine.container_check import DEFINE_CHECK, define_worker_probe, ready_condition, run_ready
from rolling_upgrade.engine.model import Application, Color, Probe, Service
from rolling_upgrade.engine.podman import address_form, container_name, last_logs
from rolling_upgrade.engine.request import Request
from rolling_upgrade.engine.shell import EXACT_UPTIME, UPTIME, quote, shell_join


def gate(app: Application, service: Service, color: Color, process_file: str = "", address_file: str = "") -> str:
    """Wait until the candidate is healthy; on failure print the reason and its last log lines.

    A service with a port has to answer on its candidate port, and the command in `ready` has to succeed. The reason of an
    answer other than 2xx includes where it redirects, and the start of its body, from one more request.
    A container that exits or restarts fails at once, whatever its restart policy: its first process ends. Podman runs
    only then, because one `podman` costs more than all other commands of a check. Every pass is reported as progress,
    and while there is none, the last answer once per second.

    Args:
        process_file: stores the process that has passed, for `recall`.
        address_file: stores the address of the container, for `podman.give_alias`.
    """
    name, rules = container_name(app.name, service.name, color), service.gate
    waiting = progress.print_text("waiting: %s, %s s of %s s", '"$last"', '"$spent"', '"$limit"')
    form = "{{.State.Running}} {{.RestartCount}} {{.State.ExitCode}} {{.State.Pid}}"
    state = shell_join("podman", "container", "inspect", "--format", f"{form} {address_form(app.name)}", name)
    return f"""\
{_define_gate_failed(app, service, color)}
began=$({UPTIME}) spent=0 passes=0 misses=0 last='' shown='' pid=unknown{" address=''" if address_file else ""}
needed={rules.passes} start={round(rules.start_period_seconds)} limit={round(rules.deadline_seconds)}
{_define_probe(app, service, color)}
while :; do
  if [ ! -d "/proc/$pid" ]; then
    state=$({state} 2>&1) || gate_failed "the container is gone"
    # shellcheck disable=SC2086
    set -- $state
    case "$state" in
      'true 0 '*) pid=${{4:-unknown}}{" address=${5:-}" if address_file else ""} ;;
      *) gate_failed "the container exited or restarted: running, restarts, exit code = ${{1:-}} ${{2:-}} ${{3:-}}" ;;
    esac
  fi
  full='' answered=''
  if probe; then
    passes=$((passes + 1)) misses=0 shown=''
    {progress.print_text("passes %s of %s", '"$passes"', '"$needed"')}
  else
    passes=0 full=${{full:-$last}}
  fi
  if [ "$passes" -ge "$needed" ]; then break; fi
  spent=$(($({UPTIME}) - began))
  if [ "$passes" -eq 0 ]; then
    if [ "$spent" -ge "$start" ]; then misses=$((misses + 1)); fi
    if [ "$spent" != "$shown" ]; then shown=$spent; {waiting}; fi
  fi
  if [ "$misses" -ge {rules.retries} ]; then gate_failed "last: $full" "$answered"; fi
  if [ "$spent" -ge {round(rules.deadline_seconds)} ]; then gate_failed "deadline; last: $full" "$answered"; fi
  sleep {rules.interval_seconds:g}
done{_store(process_file) if process_file else ""}{_store_address(address_file) if address_file else ""}"""


def _define_gate_failed(app: Application, service: Service, color: Color) -> str:
    """Define `gate_failed REASON [ANSWERED]`, which prints the answer to the probe if it was answered."""
    name, ask_again = container_name(app.name, service.name, color), ""
    if not service.is_worker:
        probe = request.to_service(app, service, service.port(color))
        answer = request.print_answer(probe, service.gate.timeout_seconds)
        ask_again = f"""
  if [ -n "${{2:-}}" ]; then
{answer}
  fi"""
    return f"""\
gate_failed() {{
  printf '%s\\n' "{service.name}: {color.value} failed its health gate after $(($({UPTIME}) - began)) s ($1)"{ask_again}
  printf '%s\\n' "last log lines of {name}:"
  {last_logs(name)}
  exit 1
}}"""


def _define_probe(app: Application, service: Service, color: Color) -> str:
    """Define `probe`, which succeeds if the candidate is healthy now.

    Otherwise it sets `last`, and for an answer to a request also `full` and `answered`.
    """
    name, rules = container_name(app.name, service.name, color), service.gate
    if service.is_worker:
        return define_worker_probe(service, name)
    ready = ""
    if rules.ready:
        ready = f'\n  {run_ready(service, quote(name))} || {{ last="ready: $last"; return 1; }}'
    definitions = "\n".join((request.READ_ANSWER, *([DEFINE_CHECK] if rules.ready else [])))
    probe = request.to_service(app, service, service.port(color))
    return f"""\
{definitions}
probe() {{
  found=$({request.status(probe, rules.timeout_seconds, request.ANSWER)}) || :
  read_answer "$found"
  case "$code" in
    2??) ;;
    *) last="$answer from {rules.path}" full="$answer from {rules.path}$reason" answered=${{code#000}}; return 1 ;;
  esac{ready}
}}"""


def _store(process_file: str) -> str:
    """Store the process `pid`. Without the file, later checks ask Podman."""
    store = f"{{ printf '%s\\n' \"$process\" > {quote(process_file)}; }} 2>/dev/null"
    return f'\n{_LIVES}\nif identify "$pid"; then {store} || :; fi'


def _store_address(address_file: str) -> str:
    """Store the address. Without the file, `podman.give_alias` asks Podman."""
    store = f"{{ printf '%s\\n' \"$address\" > {quote(address_file)}; }} 2>/dev/null"
    return f'\nif [ -n "$address" ]; then {store} || :; fi'


#: Define `identify PID`, which sets `process` to the id and start time of a process, and `lives PROCESS`, for such a
#: value or an id alone. Source: proc_pid_stat(5): the start time is field 22, and field 2 may contain spaces.
_LIVES = """\
identify() {
  { read -r stat < "/proc/$1/stat"; } 2>/dev/null || return 1
  # shellcheck disable=SC2086
  set -- "$1" ${stat##*) }
  process=$1:${21:-}
  [ -n "${process#*:}" ]
}
lives() {
  case $1 in
    *:*) identify "${1%:*}" && [ "$process" = "$1" ] ;;
    *) [ -d "/proc/$1" ] ;;
  esac
}"""


def through_nginx(app: Application, service: Service, color: Color) -> str:
    """Return a shell condition: a request to the service port gets a 2xx answer from this color."""
    upstream = f"127.0.0.1:{service.port(color)}"
    otherwise = f'why="{service.name} through Nginx: expected 2xx from {upstream}, got $described" '
    probe = request.to_service(app, service, service.service_port)
    return _condition(probe, service.gate.timeout_seconds, f"2??\\ {upstream}", otherwise)


def through_candidate_port(app: Application, service: Service, color: Color) -> str:
    """A shell condition: the color answers 2xx on its candidate port."""
    probe = request.to_service(app, service, service.port(color))
    otherwise = f'why="{service.name}: {color.value} on its own port: $described" '
    return _condition(probe, service.gate.timeout_seconds, _2XX, otherwise)


def healthy(app: Application, service: Service, color: Color) -> str:
    """A shell condition: the color is healthy now. A worker that nothing can check has to run."""
    if not service.is_worker and not service.gate.ready:
        return through_candidate_port(app, service, color)
    ready = ready_condition(service, color.value, container_name(app.name, service.name, color))
    if service.is_worker:
        return f"{DEFINE_CHECK}\n{ready}"
    return f"{DEFINE_CHECK}\n{through_candidate_port(app, service, color)} && {{\n{ready}\n}}"


def answers(app: Application, probe: Probe) -> str:
    """A shell condition: a request to a service port is answered 2xx by any color."""
    service = app.service(probe.service)
    otherwise = f'why="{probe.path} through {probe.service}\'s port {service.service_port}: $described" '
    return _condition(request.of_chain(app, probe), service.gate.timeout_seconds, _2XX, otherwise)


def public(app: Application) -> str:
    """A shell condition: Nginx answers a visitor without a server error, or with its deliberate 503."""
    page, visitor = quote(nginx.maintenance_page_path(app)), request.to_site(app)
    otherwise = f'why="{visitor.url} as a visitor sees it: $described" '
    deliberate = f'if [ "$code" = 503 ] && [ -f {page} ]; then code=200; fi'
    return _condition(visitor, request.VISITOR_SECONDS, "[234]??\\ *", otherwise, deliberate)


#: A pattern for status and upstream: 2xx from any color.
_2XX = "2??\\ *"


def _condition(asked: Request, seconds: float, expected: str, otherwise: str, correction: str = "") -> str:
    """A shell condition on the status and the upstream of an answer; if it fails for good, `watch` shows the answer.

    Args:
        asked: the request.
        seconds: its deadline.
        expected: a pattern for status and upstream.
        otherwise: sets `why` with `$described`, the answer for people.
        correction: shell text that may change `code` before it is judged.
    """
    return f"""\
found=$({request.status(asked, seconds, request.ANSWER)}) || :
read_answer "$found"
{correction or ":"}
case "$code $served" in
  {expected}) true ;;
  *)
    described="$answer${{served:+ from $served}}$reason"
    {otherwise}answered=${{code#000}}
    print_answer() {{
{request.print_answer(asked, seconds)}
    }}
    false
    ;;
esac"""


def not_restarted(names: Sequence[str]) -> str:
    """A shell condition: the containers run and never restarted; otherwise it sets `fatal`, which ends `watch`.

    As in the gate, the check runs Podman only after a container's first process has ended. The caller's script
    must contain `recall` before the first check.
    """
    form = "{{.State.Running}} {{.RestartCount}} {{.State.Pid}}"
    state = shell_join("podman", "container", "inspect", "--format", form, *names)
    return f"""\
for pid in $pids; do
  if ! lives "$pid"; then pids=''; fi
done
if [ -z "$pids" ]; then
  state=$({state} 2>&1) || :
  pids=$(printf '%s\\n' "$state" | sed -n 's/^true 0 //p')
fi
# shellcheck disable=SC2086
set -- $pids
if [ $# -lt {len(names)} ]; then
  states=$(printf %s "$state" | tr '\\n' ',')
  why="exited or restarted: {" ".join(names)}: running, restarts, process = $states" fatal=1
  false
fi"""


def recall(process_files: Sequence[str] = ()) -> str:
    """Begin the checks of `not_restarted` with the processes that have passed the gate of the same run.

    A container whose first process still lives has neither exited nor restarted. The start time shows that the id does
    not belong to another process. If a file is missing, the first check asks Podman.
    """
    if not process_files:
        return f"{_LIVES}\npids=''"
    return f"""\
{_LIVES}
pids=$({shell_join("cat", *process_files)} 2>/dev/null) || pids=''
# shellcheck disable=SC2086
set -- $pids
if [ $# -ne {len(process_files)} ]; then pids=''; fi"""


def watch(conditions: list[str], *, seconds: float, passes: int, deadline_seconds: float, tolerance: int = 3) -> str:
    """Define `watch`: repeat all conditions until they hold, every half second, and faster to confirm a good round.

    It succeeds after `passes` consecutive good rounds and at least `seconds`, to the hundredth. It fails with status 1,
    and prints `why` and the answer to a failed request, on a fatal condition, after `tolerance` consecutive bad rounds,
    or at the deadline. The seconds that are left are reported as progress.
    """
    checks = "\n".join(f"watch_{number}() {{\n{condition}\n}}" for number, condition in enumerate(conditions))
    every = " && ".join(f"watch_{number}" for number in range(len(conditions))) or "true"
    left = progress.print_text("%s s left", f'"$(({round(seconds)} - spent))"')
    report = f"""
    if [ "$spent" -ne "$shown" ] && [ "$spent" -lt {round(seconds)} ]; then shown=$spent; {left}; fi"""
    if "read_answer " in checks:
        checks = f"{request.READ_ANSWER}\n{checks}"
    return f"""\
{checks}
read_clock() {{
  clock=$({EXACT_UPTIME})
  clock=${{clock%.*}}${{clock#*.}}
}}
watch() {{
  read_clock
  began=$clock good=0 bad=0{" shown=-1" if seconds else ""} fatal='' why='nothing was asked'
  while :; do
    answered=''
    if {every}; then good=$((good + 1)) bad=0; else good=0 bad=$((bad + 1)); fi
    read_clock
    spent=$(((clock - began) / 100)){report if seconds else ""}
    if [ "$good" -ge {passes} ] && [ $((clock - began)) -ge {round(seconds * 100)} ]; then return 0; fi
    if [ -n "$fatal" ]; then break; fi
    if [ "$bad" -ge {tolerance} ]; then break; fi
    if [ "$spent" -ge {round(deadline_seconds)} ]; then break; fi
    if [ "$good" -gt 0 ] && [ "$good" -lt {passes} ]; then sleep 0.2; else sleep 0.5; fi
  done
  printf '%s (%s s)\\n' "$why" "$spent"
  if [ -n "$answered" ]; then print_answer; fi
  return 1
}}"""


def wait_for_restart(
    app: Application, colors: Sequence[tuple[Service, Color]], *, passes: int = 1, deadline_seconds: float
) -> str:
    """Wait until started colors are healthy; until the deadline, failures do not matter."""
    conditions = [healthy(app, service, color) for service, color in colors]
    watched = watch(conditions, seconds=0, passes=passes, deadline_seconds=deadline_seconds, tolerance=1000)
    return f"{watched}\nwatch"
