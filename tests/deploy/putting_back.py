"""A host as it was before a test: looked at by what a deploy looks at and changes, and brought back without a deploy.

Whether it is as it was is never assumed: it is looked at again, and where anything differs a deploy has to mend it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.host import Host

APP = "/var/lib/memoryark"
#: Root's copies of what a deploy writes; a test's own host programs never look there.
_KEPT = "/root/before-the-test"

_FILES = f"""
find /etc /usr/local {APP} /home/deploy \\
  '(' -path {APP}/watchdog -o -path /home/deploy/data -o -path /home/deploy/logs -o -path /home/deploy/uploads ')' \\
  -prune -o \\
  -path '/home/deploy/.local/share/containers/*' ! -path '*/storage/overlay-images*' ! -name 'db.sql*' -prune -o \\
  -printf '%p\\t%y %m %u %g\\t%s %T@ %l\\t%C@\\n' | sort
echo @@units
systemctl show nginx -p ActiveState -p MainPID
systemctl show user@1000 -p MainPID
nft list tables
cat {APP}/lock/held 2>/dev/null
echo @@monitors
pgrep -x conmon | sort
"""
_CONTAINERS = """
podman ps -aq | xargs -r podman container inspect --format \\
  '{{.Id}} {{.Name}} {{.State.Status}} {{.RestartCount}}{{range .NetworkSettings.Networks}} {{.Aliases}}{{end}}' | sort
echo @@units
systemctl --user list-units --all --no-legend --plain 'memoryark*' | awk '{ print $1, $3 }'
"""
#: What is written by whatever is done, and what a deploy leaves as it is: backups, images, journals of runs, locks.
_PASSING = ("/home/deploy/backups/", "/home/deploy/.local/", f"{APP}/lock/", f"{APP}/journal/")

_KEEP = f"""
rm -rf {_KEPT}
mkdir -p {_KEPT}/app
cp -a /etc/nginx {_KEPT}/nginx
find {APP} -mindepth 1 -maxdepth 1 ! -name watchdog ! -name lock ! -name journal -exec cp -a {{}} {_KEPT}/app/ ';'
"""
_BRING_BACK = f"""
set -e
find {APP} -mindepth 1 -maxdepth 1 ! -name watchdog ! -name lock ! -name journal -exec rm -rf {{}} +
find {_KEPT}/app -mindepth 1 -maxdepth 1 -exec cp -a {{}} {APP}/ ';'
find /etc/nginx -mindepth 1 -delete
find {_KEPT}/nginx -mindepth 1 -maxdepth 1 -exec cp -a {{}} /etc/nginx/ ';'
nginx -q -t
systemctl reload nginx
"""


@dataclass(frozen=True)
class State:
    """What was seen of a host. `exact` stays the same while nothing is done; `content` is also that of a copy."""

    exact: str
    content: str
    containers: dict[str, bool]


#: What each host was when it was last looked at as a whole, and when its files were kept.
_seen: dict[str, State] = {}
_kept: dict[str, str] = {}


def look(host: Host) -> State:
    """All that a deploy looks at or changes on a host; no file is read, each has its time of change.

    Podman is asked only where its database or a `conmon` changed: a running container has one of its own.
    """
    files = host.sh(_FILES, check=False)
    exact = f"{files.returncode} {files.stdout}"
    known = _seen.get(host.container)
    if known is None or known.exact != exact:
        known = _seen[host.container] = _whole(host, exact, files.stdout)
    return known


def _whole(host: Host, exact: str, files: str) -> State:
    containers = host.sh(_CONTAINERS, user="deploy", check=False).stdout
    rows, _, rest = files.partition("@@units")
    units = rest.partition("@@monitors")[0]
    made, _, own_units = containers.partition("@@units")
    lasting = [_lasting(row) for row in rows.splitlines() if not row.startswith(_PASSING)]
    found = {row.split()[0]: row.split()[2] == "running" for row in made.splitlines()}
    return State(exact, "\n".join([*lasting, units, made, own_units]), found)


def _lasting(row: str) -> str:
    """What a copy of a file has as well; the size and times of a directory say nothing."""
    path, kind, content, _ = row.split("\t")
    return f"{path} {kind}" if kind.startswith("d") else f"{path} {kind} {content}"


def keep(host: Host, state: State) -> None:
    """Keep what a deploy would change, unless the very same is kept."""
    if _kept.get(host.container) != state.exact:
        host.sh(_KEEP)
        _kept[host.container] = state.exact


def forget_others(host: Host) -> None:
    """Take away the stopped containers, which a fresh host does not have either."""
    host.sh("podman ps -aq --filter status=exited --filter label=rolling.app=memoryark | xargs -r podman rm", "deploy")


def bring_back(host: Host, before: State) -> bool:
    """Start the containers that ran, put the kept files back, and take away what came after them.

    Whether that made it the host that it was; a lock that is held, or a container that is gone, needs a deploy.
    """
    now = look(host)
    if before.containers.keys() - now.containers.keys() or "\ntoken=" in now.exact:
        return False
    started = [id for id, runs in before.containers.items() if runs and not now.containers[id]]
    stopped = [id for id, runs in before.containers.items() if not runs and now.containers[id]]
    others = [*(now.containers.keys() - before.containers.keys())]
    done = [
        _podman(host, "start", started),
        host.sh(_BRING_BACK, check=False).returncode,
        _podman(host, "stop --time 5", stopped),
        _podman(host, "rm --force --time 5", others),
    ]
    return not any(done) and look(host).content == before.content


def _podman(host: Host, command: str, ids: list[str]) -> int:
    return host.sh(f"podman {command} {' '.join(ids)}", user="deploy", check=False).returncode if ids else 0
