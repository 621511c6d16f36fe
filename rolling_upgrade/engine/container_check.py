"""Checks inside a container: the command in `ready`, and the HEALTHCHECK of an image."""

from __future__ import annotations

from rolling_upgrade.engine.model import Service
from rolling_upgrade.engine.shell import UPTIME, quote, shell_join

#: Define `check SECONDS COMMAND…`, which runs a check inside a container and sets `last` if it fails. Its output may
#: contain anything: one line of printable characters remains.
DEFINE_CHECK = """\
check() {
  output=$(timeout -k 1 "$@" </dev/null 2>&1) && return 0
  case $? in
    124 | 137) last="no answer within $1 s" ;;
    *) last=$(printf %s "$output" | tail -n 1 | tr -dc '[:print:]' | cut -c 1-200) last=${last:-it failed} ;;
  esac
  return 1
}"""


def run_ready(service: Service, name: str) -> str:
    """Run the command in `ready` inside the container, by `check`. `name` is a shell word."""
    seconds, command = service.gate.ready_timeout_seconds, shell_join(*service.gate.ready)
    return f"check {seconds:g} podman exec {name} {command}"


def run_healthcheck(name: str) -> str:
    """Run the HEALTHCHECK of the container's image, by `check` after `find_healthcheck`. `name` is a shell word.

    Source: measured with Podman 4.3 and 5.4: `podman healthcheck run` ends with 0 for a healthy container, 1 for another,
    also in the start period, and 125 for one without a HEALTHCHECK, such as one that sets NONE. It does not apply the
    timeout.
    """
    return f'check "$healthcheck" podman healthcheck run {name}'


def find_healthcheck(name: str) -> str:
    """Set `healthcheck` to the timeout in seconds of the HEALTHCHECK of a container's image; '' without one.

    `name` is a shell word.
    """
    form = "{{with .Config.Healthcheck}}{{index .Test 0}} {{.Timeout.Seconds}}{{end}}"
    inspect = shell_join("podman", "container", "inspect", "--format", form)
    return f"""\
healthcheck=$({inspect} {name} 2>/dev/null) || healthcheck=''
case "$healthcheck" in
  'NONE '* | '') healthcheck='' ;;
  *' 0') healthcheck=30 ;;
  *) healthcheck=${{healthcheck##* }} ;;
esac"""


def define_worker_probe(service: Service, container: str) -> str:
    """Define `probe`, which succeeds if a worker is ready, and otherwise sets `last`.

    A worker without `ready` passes by the HEALTHCHECK of its image. If the image has none, it has to run for some time:
    then one pass is needed, and nothing but the end of its process fails the gate before.
    """
    name, gate = quote(container), service.gate
    if gate.ready:
        return f'{DEFINE_CHECK}\nprobe() {{\n  {run_ready(service, name)} || {{ last="ready: $last"; return 1; }}\n}}'
    seconds = round(gate.running_seconds)
    return f"""\
{DEFINE_CHECK}
{find_healthcheck(name)}
if [ -n "$healthcheck" ]; then
  probe() {{
    {run_healthcheck(name)} || {{ last="HEALTHCHECK: $last"; return 1; }}
  }}
else
  needed=1 start={round(gate.deadline_seconds) + 1} limit={seconds}
  probe() {{
    last='it runs'
    [ $(($({UPTIME}) - began)) -ge {seconds} ]
  }}
fi"""


def ready_condition(service: Service, color: str, container: str) -> str:
    """Return a shell condition: the container is ready; a worker that nothing can check has to run.

    It sets `why` if it fails. The script must contain DEFINE_CHECK.
    """
    name = quote(container)
    failed = f'{{ why="{service.name}: {color} is not ready: $last"; false; }}'
    if service.gate.ready:
        return f"{run_ready(service, name)} || {failed}"
    state = shell_join("podman", "container", "inspect", "--format", "{{.State.Running}}", container)
    return f"""\
{find_healthcheck(name)}
if [ -n "$healthcheck" ]; then {run_healthcheck(name)} || {failed}
else [ "$({state} 2>/dev/null)" = true ] || {{ why="{service.name}: {color} does not run"; false; }}
fi"""
