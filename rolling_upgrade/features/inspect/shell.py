"""The script with the troubleshooting commands for a host, and the parser of its output.

A missing or failing tool affects only its own part, whose lines then contain the error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rolling_upgrade.engine import observation, request, untrusted
from rolling_upgrade.engine.model import Application, Color
from rolling_upgrade.engine.podman import (
    ENTER,
    FIND_NAMESPACE,
    accessory_container,
    container_name,
    volume_name,
    volume_names,
)
from rolling_upgrade.engine.request import Request
from rolling_upgrade.engine.shell import Script, direct, quote, shell_join

_MARK = "@@part "
#: The time limit of one part.
PART_SECONDS = 15
#: The titles of the parts, in the order of the page.
TITLES = {
    "resources": "resources of the containers",
    "settings": "settings of the containers",
    "processes": "processes in the containers",
    "images": "images kept",
    "volumes": "volumes",
    "listeners": "listeners",
    "connections": "established connections",
    "colors": "responses on the candidate ports",
    "disk": "disk and inodes",
    "host": "memory and load of the host",
    "nginx": "nginx",
    "boot": "boot unit",
    "run": "last run",
    "logs": "last log lines",
}


def inspect(app: Application, services: Sequence[str]) -> Script:
    """Print every part for these services, then the observation of the host."""
    parts = "\n".join(
        f"part {key} <<'END-OF-THIS-PART'\n{text}\nEND-OF-THIS-PART" for key, text in _parts(app, services)
    )
    each = f"""\
part() {{
  echo "{_MARK}$1"
  timeout {PART_SECONDS} sh 2>&1 | sed 's/^/ /' || :
}}"""
    return direct(each, parts, observation.shell_text(app, version=True))


def parse(text: str) -> dict[str, tuple[str, ...]]:
    """Parse the output of `inspect` into the lines of each part; a part without output is empty."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in untrusted.rows(text):
        if line.startswith("@@"):
            current = found.setdefault(line.removeprefix(_MARK), []) if line.startswith(_MARK) else []
        else:
            current.append(line.removeprefix(" "))
    return {key: tuple(line for line in lines if line.strip()) for key, lines in found.items()}


def _parts(app: Application, services: Sequence[str]) -> Iterator[tuple[str, str]]:
    chosen = [service for service in app.services if service.name in services]
    names = [container_name(app.name, service.name, color) for service in chosen for color in Color]
    if len(chosen) == len(app.services):
        names += [accessory_container(app.name, accessory.name) for accessory in app.accessories]
    listening = [service for service in chosen if not service.is_worker]
    ports = [
        port for service in listening for port in (service.service_port, *(service.port(color) for color in Color))
    ]
    yield "resources", _resources(names)
    yield "settings", _each(names, _settings())
    yield "processes", _each(names, 'podman top "$name" hpid user pcpu etime args 2>/dev/null || echo "not running"')
    yield "images", _images([service.image.repository for service in chosen])
    yield "volumes", _volumes(app)
    ours = " or ".join(f"sport = :{port}" for port in (*ports, *app.public_ports))
    yield "listeners", f"{shell_join('ss', '-Hltnp', f'( {ours} )')} | awk '{{ print $4, $6 }}'" if ours else ""
    yield "connections", _connections(ports)
    yield (
        "colors",
        "\n".join(
            _response(f"{service.name} {color.value}", request.to_service(app, service, service.port(color)))
            for service in listening
            for color in Color
        ),
    )
    yield "disk", _disk(app)
    yield "host", 'uptime\nfree -m\necho "$(nproc) processors"\nps -eo pid,user,pcpu,pmem,comm --sort=-pcpu | head -n 6'
    yield "nginx", "systemctl is-active nginx || :\nnginx -v"
    show = ("systemctl", "--user", "show", f"{app.name}-boot", "--property")
    yield "boot", shell_join(*show, "LoadState,UnitFileState,ActiveState,Result,ExecMainStartTimestamp")
    yield "run", _last_run(app)
    yield "logs", _each(names, 'podman logs --timestamps --tail 5 "$name"')


def _each(names: Sequence[str], command: str) -> str:
    """Run the command for each existing container, below the container's name."""
    return f"""\
for name in {shell_join(*names)}; do
  podman container exists "$name" || continue
  echo "$name"
  {{ {command}; }} 2>&1 | sed 's/^/  /'
done"""


def _resources(names: Sequence[str]) -> str:
    columns = "{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.PIDs}}"
    return f"""\
running=''
for name in {shell_join(*names)}; do
  if [ "$(podman container inspect --format '{{{{.State.Running}}}}' "$name" 2>/dev/null)" = true ]; then running="$running $name"; fi
done
if [ -z "$running" ]; then echo "no container runs"; exit; fi
printf 'container\\tcpu\\tmemory / limit\\tprocesses\\n'
# shellcheck disable=SC2086
podman stats --no-stream --format {quote(columns)} $running"""


def _settings() -> str:
    template = (
        "created {{.Created}}  image {{.ImageName}}  restart {{.HostConfig.RestartPolicy.Name}}  "
        "memory {{.HostConfig.Memory}}  cpus {{.HostConfig.NanoCpus}}  oom-killed {{.State.OOMKilled}}"
        "{{range .Mounts}}\nmount {{.Source}} -> {{.Destination}}{{end}}"
        "{{range $port, $at := .NetworkSettings.Ports}}{{range $at}}\nport {{.HostIP}}:{{.HostPort}} -> {{$port}}{{end}}{{end}}"
    )
    return f'podman container inspect --format {quote(template)} "$name"'


def _images(repositories: Sequence[str]) -> str:
    columns = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.Size}}\t{{.CreatedSince}}"
    lines = [
        shell_join("podman", "images", "--format", columns, "--filter", f"reference={name}") for name in repositories
    ]
    return "\n".join(dict.fromkeys(lines))


def _volumes(app: Application) -> str:
    """Print each volume of the application with its size and its directory on the host."""
    listed = shell_join("podman", "volume", "ls", "--quiet", "--filter", f"label=rolling.app={app.name}")
    named = shell_join(*(volume_name(app.name, name) for name in volume_names(app)))
    return f"""\
{FIND_NAMESPACE}
for name in $({{ {listed}; printf '%s\\n' {named or "''"}; }} | sort -u); do
  path=$(podman volume inspect --format '{{{{.Mountpoint}}}}' "$name" 2>/dev/null) || path=''
  if [ -z "$path" ]; then printf '%s\\tmissing\\n' "$name"; continue; fi
  printf '%s\\t%s\\t%s\\n' "$name" "$({ENTER} du -sh "$path" 2>/dev/null | cut -f 1)" "$path"
done"""


def _connections(ports: Sequence[int]) -> str:
    return f"""\
for port in {shell_join(*ports)}; do
  printf '%s\\t%s\\n' "$port" "$(ss -Htn state established "( sport = :$port )" | wc -l)"
done"""


def _response(name: str, asked: Request) -> str:
    curl = request.status(asked, 3, "HTTP %{http_code}\\t%{time_total} s")
    return f"printf '%s\\t%s\\t%s\\n' {quote(name)} {quote(asked.url)} \"$({curl} || :)\""


def _disk(app: Application) -> str:
    paths = [path for path in (app.home, app.database, app.database_backups, app.uploads, "/var/log") if path]
    return f"""\
set -- "$HOME"
for path in {shell_join(*dict.fromkeys(paths))}; do if [ -e "$path" ]; then set -- "$@" "$path"; fi; done
df -hP "$@" | awk '!seen[$6]++'
df -iP "$@" | awk '!seen[$6]++'"""


def _last_run(app: Application) -> str:
    """Print the steps of the newest run in the order of their starts, and the last lines of the failed ones."""
    return f"""\
cd {quote(app.home + "/journal")} || exit 0
run=$(find . -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
if [ -z "$run" ]; then echo "none"; exit; fi
echo "${{run#./}}"
cd "$run" || exit
find . -name '*.session' -printf '%T@ %f\\n' | sort -n | cut -d ' ' -f 2 | while read -r session; do
  step=${{session%.session}}
  status=$(cat "$step.status" 2>/dev/null || echo "no status")
  printf '  %s\\t%s\\n' "$step" "$status"
  if [ "$status" != 0 ]; then tail -n 5 "$step.log" | sed 's/^/    /'; fi
done"""
