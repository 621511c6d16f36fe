"""Accessories on a host: their containers, their files, and the check of their health.

An accessory has one container, `APP-accessory-NAME`, without colors. Its directory `accessories/NAME` in the
application's directory means that it is supposed to run: a boot starts it, and the watchdog alerts when it is down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from rolling_upgrade.engine import progress, untrusted
from rolling_upgrade.engine.model import Accessory, AccessoryCheck, Application, HostState
from rolling_upgrade.engine.paths import refuse_link
from rolling_upgrade.engine.podman import (
    MULTILINE,
    accessory_container,
    ensure_network,
    ensure_volumes,
    label_options,
    last_logs,
    limit_options,
    log_options,
    network_name,
    option_arguments,
    options_in_use,
    slow_hash,
    start,
    stop,
    with_environment,
    write_environment,
)
from rolling_upgrade.engine.serialization import to_plain
from rolling_upgrade.engine.shell import UPTIME, Script, quote, script, shell_join

#: An accessory without a health check is healthy when it has run this long.
STEADY_SECONDS = 3
#: The time of one health check of `check_all`, and the bytes of its answer that are shown.
_CHECK_SECONDS, _ANSWER_BYTES = 15, 300
#: Exit status of `podman healthcheck run` without a check, or without a running container.
_NO_CHECK_STATUS = 125
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
#: The end of the name of a container that an upgrade keeps until the new one is healthy.
PREVIOUS = "-previous"


def directory(app: Application, name: str) -> str:
    """The directory of an accessory on the host, with its environment and the passwords of its databases."""
    return f"{app.home}/accessories/{name}"


def spec_hash(app: Application, accessory: Accessory) -> str:
    """A hash of everything that defines the container except its image, its health check's times included."""
    spec: dict[str, object] = {
        "network": network_name(app.name),
        "env": sorted(accessory.env),
        "mounts": [[mount.source, mount.target, mount.read_only] for mount in accessory.mounts],
        "options": options_in_use(accessory.options),
        "command": accessory.command,
        "ports": [[port.address, port.host_port, port.container_port] for port in accessory.ports],
        "health": [accessory.health, accessory.health_timeout_seconds],
        "stop": accessory.stop_seconds,
        "limits": [accessory.memory_bytes, accessory.cpus],
        "confinement": to_plain(accessory.confinement),
    }
    return slow_hash(json.dumps(spec, sort_keys=True), f"{app.name}/accessory/{accessory.name}")


def create(app: Application, accessory: Accessory) -> Script:
    """Create and start the container. Its environment is passed in a 0600 file, never in argv.

    A leftover of that name that does not run is replaced. The image must be on the host.

    Source: podman-run(1): a `--health-cmd` in brackets is an array of arguments; with `disable`, no timer of systemd
    runs it. The watchdog runs it instead.
    """
    name, place = accessory_container(app.name, accessory.name), directory(app, accessory.name)
    arguments = ["podman", "run", "--detach", "--quiet", "--replace", "--name", name, "--pull=never"]
    arguments += ["--network", network_name(app.name), "--network-alias", accessory.name]
    arguments += ["--restart", "unless-stopped", "--stop-timeout", str(round(accessory.stop_seconds))]
    arguments += ["--env-file", f"{place}/env"]
    for port in accessory.ports:
        arguments += ["--publish", f"{_address(port.address)}:{port.host_port}:{port.container_port}"]
    for mount in accessory.mounts:
        arguments += ["--volume", f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"]
    arguments += limit_options(accessory.memory_bytes, accessory.cpus, accessory.confinement)
    arguments += log_options(accessory.confinement)
    arguments += option_arguments(app.name, accessory.options)
    if accessory.health:
        arguments += ["--health-cmd", json.dumps(accessory.health), "--health-interval", "disable"]
        arguments += ["--health-timeout", f"{accessory.health_timeout_seconds:g}s"]
    arguments += label_options(_labels(app, accessory))
    command = [accessory.image.pinned, *accessory.command]
    return script(
        ensure_network(app.name),
        shell_join("rm", "-rf", f"{place}/{MULTILINE}"),
        write_environment(place, accessory.env),
        *(refuse_link(mount.source) for mount in accessory.mounts),
        ensure_volumes(app, accessory.options),
        with_environment(accessory.env, place, arguments, command) + " >/dev/null",
    )


def _address(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _labels(app: Application, accessory: Accessory) -> dict[str, str]:
    return {
        "app": app.name,
        "environment": app.environment,
        "accessory": accessory.name,
        "image": accessory.image.reference,
        "digest": accessory.image.digest,
        "spec": spec_hash(app, accessory),
    }


def wait_until_healthy(app: Application, accessory: Accessory) -> str:
    """Wait until the accessory is healthy; on failure print the reason and its last log lines, and exit 1.

    A container that exits or restarts fails at once. `podman healthcheck run` exits 0 and prints nothing if the container
    is healthy, and exits 125 if it has no check.
    Source: measured with Podman 4.3 and 5.4.
    """
    name = accessory_container(app.name, accessory.name)
    state = shell_join("podman", "container", "inspect", "--format", "{{.State.Running}} {{.RestartCount}}", name)
    check = shell_join(
        "timeout", "-k", 1, f"{accessory.health_timeout_seconds:g}", "podman", "healthcheck", "run", name
    )
    waiting = progress.print_text("%s s of %s s", '"$spent"', round(accessory.deadline_seconds))
    return f"""\
failed() {{
  printf '%s\\n' {quote(f"{accessory.name} did not become healthy:")}" $1"
  printf '%s\\n' {quote(f"last log lines of {name}:")}
  {last_logs(name)}
  exit 1
}}
began=$({UPTIME}) shown=''
while :; do
  state=$({state} 2>&1) || failed "its container is gone"
  if [ "$state" != 'true 0' ]; then failed "it exited or restarted: running, restarts = $state"; fi
  spent=$(($({UPTIME}) - began)) status=0
  said=$({check} 2>&1) || status=$?
  if [ "$status" -eq 0 ] && [ -z "$said" ]; then break; fi
  if [ "$status" -eq 125 ] && [ "$spent" -ge {STEADY_SECONDS} ]; then break; fi
  if [ "$status" -eq 124 ]; then said='its health check takes too long'; fi
  if [ "$spent" -ge {round(accessory.deadline_seconds)} ]; then failed "${{said:-it has no check}}, after $spent s"; fi
  if [ "$spent" != "$shown" ]; then shown=$spent; {waiting}; fi
  sleep 0.5
done
echo "{accessory.name} is healthy"
"""


def start_container(app: Application, accessory: str) -> str:
    """Start the container if it does not run. Its number of restarts begins at 0."""
    return start(accessory_container(app.name, accessory))


def stop_container(app: Application, accessory: str, seconds: float) -> str:
    """Stop the container and keep it."""
    return stop(accessory_container(app.name, accessory), seconds=seconds)


def keep_previous(app: Application, accessory: str, seconds: float) -> str:
    """Stop the container and keep it under another name, in place of one that an earlier upgrade left there."""
    name = accessory_container(app.name, accessory)
    return f"""\
if podman container exists {quote(name)}; then
  {remove_previous(app, accessory)}
  {stop(name, seconds=seconds)}
  {shell_join("podman", "rename", name, name + PREVIOUS)}
fi"""


def bring_back_previous(app: Application, accessory: Accessory) -> str:
    """Replace the new container by the kept one and start it, also if the upgrade stopped half-way."""
    name = accessory_container(app.name, accessory.name)
    return f"""\
if podman container exists {quote(name + PREVIOUS)}; then
  {shell_join("podman", "rm", "--force", "--ignore", "--volumes", "--time", round(accessory.stop_seconds), name)} >/dev/null
  {shell_join("podman", "rename", name + PREVIOUS, name)}
fi
{start(name)}"""


def remove_previous(app: Application, accessory: str) -> str:
    """Remove the container that an upgrade has kept, and its image unless another container or tag needs it."""
    name = accessory_container(app.name, accessory) + PREVIOUS
    return f"""\
image=$({shell_join("podman", "container", "inspect", "--format", "{{.Image}}", name)} 2>/dev/null) || image=''
{shell_join("podman", "rm", "--force", "--ignore", "--volumes", "--time", 10, name)} >/dev/null
if [ -n "$image" ]; then podman image rm "$image" >/dev/null 2>&1 || :; fi"""


def remove(app: Application, accessory: str, *, data: bool) -> str:
    """Remove the container and the accessory's directory; with `data`, also the volumes that the container has.

    A volume of another application stays. One that another container uses stays too, and is an error.
    """
    name, place = accessory_container(app.name, accessory), directory(app, accessory)
    mounted = '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}'
    ours = shell_join("podman", "volume", "inspect", "--format", '{{index .Labels "rolling.app"}}')
    kept = shell_join("podman", "rm", "--force", "--ignore", "--volumes", "--time", 10, name, name + PREVIOUS)
    lines = [f"{kept} >/dev/null", shell_join("rm", "-rf", place)]
    if data:
        ask = shell_join("podman", "container", "inspect", "--format", mounted, name)
        lines.insert(0, f"volumes=$({ask} 2>/dev/null) || volumes=''")
        lines.append(f"""\
for volume in $volumes; do
  owner=$({ours} "$volume" 2>/dev/null) || continue
  case "$owner" in {quote(app.name)} | "") podman volume rm "$volume" >/dev/null; echo "removed the volume $volume" ;; esac
done""")
    return "\n".join(lines)


def require_volumes(accessory: Accessory) -> str:
    """Fail if the image keeps data in a directory that has no volume: a new container would lose it."""
    targets = (
        *(volume.target for volume in accessory.options.volumes),
        *(mount.target for mount in accessory.mounts),
        *(tmpfs.partition(":")[0] for tmpfs in accessory.options.tmpfs),
    )
    ask = shell_join(
        *("podman", "image", "inspect", "--format", "{{range $path, $_ := .Config.Volumes}}{{$path}} {{end}}"),
        accessory.image.pinned,
    )
    kept = " | ".join(f"{quote(target)} | {quote(target)}/*" for target in targets)
    covered = f"    {kept}) ;;\n" if kept else ""
    problem = quote(f"{accessory.name}: its image keeps data in")
    remedy = quote(
        "which has no volume: a new container would lose it. Next: name it in `volumes`, `mounts` or `tmpfs`"
    )
    return f"""\
paths=$({ask})
for path in $paths; do
  case $path in
{covered}    *) echo {problem}" $path, "{remedy}; exit 1 ;;
  esac
done"""


def supposed(app: Application) -> str:
    """Print the fact `accessories`: the names of the accessories that are supposed to run."""
    return f"""\
names=''
for place in {quote(f"{app.home}/accessories")}/*/; do
  if [ -d "$place" ]; then place=${{place%/}} names="$names ${{place##*/}}"; fi
done
fact accessories "$names\""""


def check_all(app: Application) -> str:
    """Run the health check of every accessory that is supposed to run, all at the same time.

    Print `NAME STATUS ANSWER` for each, as `parse_checks` parses it.
    """
    check = shell_join("timeout", "-k", 1, _CHECK_SECONDS, "podman", "healthcheck", "run")
    return f"""\
check_accessory() {{
  status=0
  said=$({check} {quote(accessory_container(app.name, ""))}"$1" 2>&1 </dev/null) || status=$?
  if [ "$status" -eq 124 ]; then said='no answer within {_CHECK_SECONDS} s'; fi
  printf '%s\t%s\t%s\n' "$1" "$status" "$(printf %s "$said" | head -c {_ANSWER_BYTES} | tr '\n\t' '  ')"
}}
for place in {quote(f"{app.home}/accessories")}/*/; do
  if [ -d "$place" ]; then place=${{place%/}}; check_accessory "${{place##*/}}" & fi
done
wait"""


def parse_checks(rows: Iterable[str]) -> tuple[AccessoryCheck, ...]:
    """Parse the output of `check_all`; other lines are ignored."""
    found = []
    for row in rows:
        name, status, answer = [*row.split("\t"), "", "", ""][:3]
        if not _NAME.fullmatch(name) or (code := untrusted.integer(status, default=None)) is None:
            continue
        good = code == 0 and not answer
        found.append(AccessoryCheck(name, code != _NO_CHECK_STATUS, "" if good else answer or f"status {code}"))
    return tuple(found)


def problem(name: str, state: HostState) -> str:
    """Return why an accessory is not healthy on a host, '' if it is."""
    container = state.accessory(name)
    if container is None:
        return "not up"
    if not container.running:
        return f"{container.status or 'not running'}, exit code {container.exit_code}"
    check = next((check for check in state.accessory_checks if check.accessory == name), None)
    return check.answer if check is not None and check.exists else ""


def expected(app: Application, state: HostState) -> tuple[str, ...]:
    """Return the names of the accessories that have to be healthy: the declared ones, and those of the host."""
    return tuple(dict.fromkeys((*(accessory.name for accessory in app.accessories), *state.supposed_accessories)))


def unreachable_urls(app: Application) -> Iterator[tuple[str, str, str]]:
    """Yield service, variable and accessory of each URL whose host is an accessory that only other hosts run."""
    for service in app.services:
        for key, value in service.env:
            host = url_host(value)
            if host in app.accessories_elsewhere and host not in {
                service.alias or service.name for service in app.services
            }:
                yield service.name, key, host


def url_host(text: str) -> str:
    """Return the host of a URL, '' for another text."""
    if "://" not in text:
        return ""
    try:
        return urlsplit(text).hostname or ""
    except ValueError:
        return ""
