"""Snapshots of a host, and their restoration without a deploy.

`restore` observes the host again; if it still differs, the caller has to deploy.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.host import Host

APP = "/var/lib/memoryark"
#: Root's copies of the files that a deploy writes. No program under test reads this directory.
_SAVED = "/root/before-the-test"

_FILES = f"""
find /etc /usr/local {APP} /home/deploy \\
  '(' -path {APP}/watchdog -o -path /home/deploy/data -o -path /home/deploy/logs -o -path /home/deploy/uploads ')' \\
  -prune -o \\
  -path '/home/deploy/.local/share/containers/*' ! -path '*/storage/overlay-images*' ! -name 'db.sql*' -prune -o \\
  -printf '%p\\t%y %m %u %g\\t%s %T@ %l\\t%C@\\n' | sort
echo @@units
systemctl is-active nginx
nft list tables
cat {APP}/lock/held 2>/dev/null
echo @@processes
systemctl show nginx user@1000 -p MainPID
pgrep -x conmon | sort
"""
_CONTAINERS = """
podman ps -aq | xargs -r podman container inspect --format \\
  '{{.Id}} {{.Name}} {{.State.Status}} {{.RestartCount}}{{range .NetworkSettings.Networks}} {{.Aliases}}{{end}}' | sort
echo @@units
systemctl --user list-units --all --no-legend --plain 'memoryark*' | awk '{ print $1, $3 }'
"""
#: Files that every task changes and that no deploy depends on: backups, images, journals of runs, locks.
_VOLATILE = ("/home/deploy/backups/", "/home/deploy/.local/", f"{APP}/lock/", f"{APP}/journal/")

_SAVE = f"""
rm -rf {_SAVED}
mkdir -p {_SAVED}/app
cp -a /etc/nginx {_SAVED}/nginx
cp -a /usr/local/lib/memoryark {_SAVED}/lib
find {APP} -mindepth 1 -maxdepth 1 ! -name watchdog ! -name lock ! -name journal -exec cp -a {{}} {_SAVED}/app/ ';'
"""
_RESTORE = f"""
set -e
find {APP} -mindepth 1 -maxdepth 1 ! -name watchdog ! -name lock ! -name journal -exec rm -rf {{}} +
find {_SAVED}/app -mindepth 1 -maxdepth 1 -exec cp -a {{}} {APP}/ ';'
find /etc/nginx -mindepth 1 -delete
find {_SAVED}/nginx -mindepth 1 -maxdepth 1 -exec cp -a {{}} /etc/nginx/ ';'
rm -rf /usr/local/lib/memoryark
cp -a {_SAVED}/lib /usr/local/lib/memoryark
nginx -q -t
systemctl reload nginx
"""


@dataclass(frozen=True)
class Snapshot:
    """The state of a host. `exact` changes with every write; `content` is also equal after a restoration."""

    exact: str
    content: str
    containers: dict[str, bool]


#: The latest snapshot of each host, and the `exact` state of its saved files.
_latest: dict[str, Snapshot] = {}
_saved: dict[str, str] = {}


def take(host: Host) -> Snapshot:
    """Observe everything that a deploy reads or changes on a host. The ctime of a file shows whether it changed.

    Podman runs only if its database or the set of `conmon` processes changed; each running container has one.
    """
    files = host.sh(_FILES, check=False)
    exact = f"{files.returncode} {files.stdout}"
    known = _latest.get(host.container)
    if known is None or known.exact != exact:
        known = _latest[host.container] = _with_containers(host, exact, files.stdout)
    return known


def _with_containers(host: Host, exact: str, files: str) -> Snapshot:
    output = host.sh(_CONTAINERS, user="deploy", check=False).stdout
    rows, _, rest = files.partition("@@units")
    units = rest.partition("@@processes")[0]
    containers, _, user_units = output.partition("@@units")
    lasting = [_without_change_time(row) for row in rows.splitlines() if not row.startswith(_VOLATILE)]
    running = {row.split()[0]: row.split()[2] == "running" for row in containers.splitlines()}
    return Snapshot(exact, "\n".join([*lasting, units, containers, user_units]), running)


def _without_change_time(row: str) -> str:
    """Drop the fields that a copy does not preserve: the ctime, and the size and times of a directory."""
    path, kind, content, _ = row.split("\t")
    return f"{path} {kind}" if kind.startswith("d") else f"{path} {kind} {content}"


def save_files(host: Host, snapshot: Snapshot) -> None:
    """Save the files that a deploy changes, unless they are already saved for this snapshot."""
    if _saved.get(host.container) != snapshot.exact:
        host.sh(_SAVE)
        _saved[host.container] = snapshot.exact


def remove_stopped_containers(host: Host) -> None:
    host.sh("podman ps -aq --filter status=exited --filter label=rolling.app=memoryark | xargs -r podman rm", "deploy")


def restore(host: Host, before: Snapshot) -> bool:
    """Restore containers and saved files, and return whether the host has its earlier state again.

    A held lock or a removed container cannot be restored: the caller has to deploy.
    """
    now = take(host)
    if before.containers.keys() - now.containers.keys() or "\ntoken=" in now.exact:
        return False
    to_start = [id for id, runs in before.containers.items() if runs and not now.containers[id]]
    to_stop = [id for id, runs in before.containers.items() if not runs and now.containers[id]]
    to_remove = [*(now.containers.keys() - before.containers.keys())]
    statuses = [
        _podman(host, "start", to_start),
        host.sh(_RESTORE, check=False).returncode,
        _podman(host, "stop --time 5", to_stop),
        _podman(host, "rm --force --time 5", to_remove),
    ]
    return not any(statuses) and take(host).content == before.content


def _podman(host: Host, command: str, ids: list[str]) -> int:
    return host.sh(f"podman {command} {' '.join(ids)}", user="deploy", check=False).returncode if ids else 0
