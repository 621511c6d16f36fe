"""The machine that runs the lab: its required packages, commands as root, and Podman."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.files import cache_directory, replace_file
from rolling_upgrade.errors import PreflightError

#: The Debian packages that a lab needs.
packages: tuple[str, ...] = tuple((Path(__file__).parent / "packages.txt").read_text().split())

#: For each package, a program that shows on any distribution that the package is installed.
PROGRAMS = {
    "podman": "podman",
    "crun": "crun",
    "netavark": "netavark",
    "iptables": "iptables",
    "nftables": "nft",
    "iproute2": "ip",
    "mmdebstrap": "mmdebstrap",
    "openssh-client": "ssh-keygen",
    "util-linux": "nsenter",
}

LABEL = "rolling-lab"
CAP_SYS_RESOURCE = 1 << 24
_SEARCH = os.pathsep.join(
    [
        os.environ.get("PATH", ""),
        "/usr/local/sbin",
        "/usr/sbin",
        "/sbin",
        "/usr/lib/podman",
        "/usr/libexec/podman",
    ]
)

#: Crun refuses a v1 hierarchy with v2 mounted beside it. So Podman runs in a mount namespace without v2, which a file
#: keeps alive. All labs share it, because a network made in one namespace is unknown in another.
#: Source: unshare(1), --mount=file: a bind mount on a private mount point makes the namespace persistent. A kernel
#: that numbers namespaces per CPU (6.18) may refuse it with EINVAL on one CPU and not on another.
#: Each controller that v2 still offers gets a v1 hierarchy of its own: crun inside the hosts also
#: refuses a v2 hierarchy, but only while it offers a controller.
NAMESPACE = """
set -eu
directory=$1 hidden=$2
mkdir -p "$directory"
exec 9>"$directory.lock"
flock 9
for name in $(cat "$hidden/cgroup.controllers"); do
    mkdir -p "$directory.cgroup/$name"
    mount -t cgroup -o "$name" none "$directory.cgroup/$name" || :
done
if nsenter --mount="$directory/namespace" true 2>/dev/null; then exit 0; fi
mountpoint -q "$directory" || mount --bind "$directory" "$directory"
mount --make-private "$directory"
: >"$directory/namespace"
for cpu in $(seq 0 $(($(nproc --all) - 1))); do
    if said=$(taskset --cpu-list "$cpu" unshare --mount="$directory/namespace" umount "$hidden" 2>&1); then
        echo made
        exit 0
    fi
done
echo "$said" >&2
exit 1
"""

#: Each systemd uses a few inotify instances; Debian's limit of 128 is reached at about 18 hosts.
_WATCHERS = 1024
_WATCHERS_FILE = Path("/proc/sys/fs/inotify/max_user_instances")

_PLACES = ("/run/rolling-lab", "/sys/fs/cgroup/unified")

#: Crun ignores the v2 hierarchy, so containers have no separate cgroup there, and the systemd instances of all hosts
#: would create and remove cgroups with the same names. So the process that starts a container enters its own cgroup.
#: Source: cgroups(7): a child is born into its parent's group, and a new cgroup namespace has its root there.
_IN_A_GROUP = """
set -eu
mkdir -p "$1"
echo $$ >"$1/cgroup.procs"
shift
exec "$@"
"""
#: Podman's monitor process is in this cgroup too, and may briefly outlive its container.
_FORGET_GROUPS = """
for group; do
    tries=0
    until [ ! -d "$group" ] || said=$(find "$group" -depth -type d -exec rmdir {} + 2>&1); do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then echo "$said" >&2; exit 1; fi
        sleep 0.1
    done
done
"""

#: nsenter takes milliseconds, `podman exec` a quarter of a second, and tests run scripts on their hosts all the time.
#: The process joins the container's cgroups, as with `podman exec`; a stale PID does not match the container's id.
_ENTER = """
pid=$(cat "$2" 2>/dev/null) && grep -qs "$1" "/proc/$pid/mountinfo" || exit 213
shift 2
while IFS=: read -r number names path; do
    case $names in
    '') place=/sys/fs/cgroup; [ ! -d /sys/fs/cgroup/unified ] || place=/sys/fs/cgroup/unified ;;
    *) place=/sys/fs/cgroup/${names#name=} ;;
    esac
    { echo $$ >"$place${path%/init.scope}/cgroup.procs" || echo $$ >"$place$path/cgroup.procs" || :; } 2>/dev/null
done <"/proc/$pid/cgroup"
umask 022
exec nsenter --target "$pid" --all "$@"
"""
#: The exit code of that script when the container is missing; neither `sh` nor nsenter uses it.
_AWAY = 213

_FACTS = """
[ -f /sys/fs/cgroup/cgroup.controllers ] && echo v2 || echo v1
[ -f /sys/fs/cgroup/unified/cgroup.controllers ] && echo hybrid || echo plain
sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status
ulimit -H -n
"""


#: The id and the PID file of each container, by its name.
_places: dict[str, tuple[str, str]] = {}


@dataclass(frozen=True)
class Machine:
    """The way to run Podman as root on this machine."""

    sudo: tuple[str, ...] = ()
    hybrid: bool = False
    legacy: bool = False
    limits: tuple[str, ...] = ()

    def run(
        self, *command: str, stdin: bytes | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run one command as root. With `check`, a failure raises PreflightError with the end of its output."""
        argv = [*self.sudo, *command]
        ran = subprocess.run(argv, input=stdin or b"", capture_output=True, timeout=timeout, check=False)
        done = subprocess.CompletedProcess(
            argv, ran.returncode, ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")
        )
        if check and done.returncode != 0:
            output = (done.stderr.strip() or done.stdout.strip() or "no output")[-2000:]
            raise PreflightError(
                f"`{' '.join(command)[:300]}` failed with {done.returncode}: {output}",
                next_step="run inv lab.up again; if the error persists, run inv lab.down first",
            )
        return done

    def podman(
        self, *arguments: str, stdin: bytes | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run one Podman command as root, in the lab's namespace and with its configuration."""
        return self.run(*self.podman_command(*arguments), stdin=stdin, check=check, timeout=timeout)

    def inside(
        self, container: str, *arguments: str, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a Podman command that starts a process of this container."""
        command = self.podman_command(*arguments)
        if self.hybrid:
            command = ["sh", "-c", _IN_A_GROUP, "sh", _group(container), *command]
        return self.run(*command, check=check, timeout=timeout)

    def enter(
        self, container: str, user: str, environment: Mapping[str, str], script: str, *, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a script in a running container. The exit code is 213 if the container is not running.

        The method does not wait for background processes of the script.
        """
        ran = self._enter(_places.get(container) or self._place(container), user, environment, script, timeout)
        if ran.returncode != _AWAY:
            return ran
        return self._enter(self._place(container), user, environment, script, timeout)

    def _enter(
        self, place: tuple[str, str], user: str, environment: Mapping[str, str], script: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        limits = [f"--{value}" for value in self.limits if "=" in value]
        words = [*(("setpriv", "--reuid", user, "--regid", user, "--init-groups") if user != "root" else ())]
        words += [
            "env",
            "-i",
            f"--chdir={environment['HOME']}",
            *(f"{name}={value}" for name, value in environment.items()),
            "sh",
            "-c",
            script,
        ]
        argv = [*self.sudo, *(("prlimit", *limits) if limits else ()), "sh", "-c", _ENTER, "sh", *place, "--", *words]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            ran = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                timeout=timeout,
                start_new_session=True,
                check=False,
            )
            output = []
            for file in (out, errors):
                file.seek(0)
                output.append(file.read().decode(errors="replace"))
        return subprocess.CompletedProcess(argv, ran.returncode, *output)

    def _place(self, container: str) -> tuple[str, str]:
        """Return the id of a container and its PID file, and cache them."""
        shown = self.podman("inspect", "--format", "{{.Id}} {{.PidFile}}", container, check=False).stdout.split()
        if len(shown) == 2:
            _places[container] = (shown[0], shown[1])
        return _places.get(container, ("none", "none"))

    def remove(self, *containers: str) -> None:
        """Remove containers in any state. Missing ones are ignored."""
        running = {*self.podman("ps", "--format", "{{.Names}}").stdout.split()} & {*containers}
        if running:
            # Crun sometimes fails to delete a container that it is killing: "open pidfd: No such file or directory".
            self.podman("kill", *running, check=False)
            self.podman("wait", *running)
        self.podman("rm", "--force", "--time", "0", "--ignore", *containers)
        for container in containers:
            _places.pop(container, None)
        if self.hybrid:
            self.run("sh", "-c", _FORGET_GROUPS, "sh", *map(_group, containers))

    def podman_command(self, *arguments: str) -> list[str]:
        """Return the argv of a Podman command, without sudo."""
        enter = ["nsenter", f"--mount={_PLACES[0]}/namespace"] if self.hybrid else []
        configuration = cache_directory() / "containers.conf"
        return [*enter, "env", f"CONTAINERS_CONF={configuration}", "podman", *arguments]


def find_machine() -> Machine:
    """Check this machine and prepare it for labs. Raises PreflightError with all missing requirements."""
    sudo = _way_to_root()
    _refuse_missing(missing_programs(PROGRAMS), sudo)
    prefix = sudo or ()
    facts = subprocess.run([*prefix, "sh", "-c", _FACTS], capture_output=True, text=True, timeout=60, check=False)
    if facts.returncode != 0:
        raise PreflightError(
            f"The lab needs root, and sudo refused: {facts.stderr.strip()}",
            next_step="run sudo -v, then again",
        )
    version, hybrid, capabilities, open_files = facts.stdout.split()
    machine = Machine(prefix, hybrid == "hybrid", version == "v1", limits(capabilities, open_files))
    replace_file(cache_directory() / "containers.conf", '[network]\nnetwork_backend = "netavark"\n')
    if machine.hybrid:
        _ensure_namespace(machine)
    return machine


def raise_limits(machine: Machine, log: Callable[[str], None]) -> None:
    """Raise the kernel's limit for many instances of systemd, until the next boot."""
    allowed = int(_WATCHERS_FILE.read_text())
    if allowed < _WATCHERS:
        log(f"Raising fs.inotify.max_user_instances from {allowed} to {_WATCHERS}, until the next boot")
        machine.run("sh", "-c", f"echo {_WATCHERS} >{_WATCHERS_FILE}")


def missing_programs(programs: dict[str, str]) -> tuple[str, ...]:
    """Return the packages whose programs are not installed."""
    return tuple(package for package, program in programs.items() if not shutil.which(program, path=_SEARCH))


def labelled(machine: Machine, kind: str, value: str = "", *options: str) -> list[str]:
    """Return the names of containers (`ps`), volumes or networks of one lab or of all."""
    wanted = f"label={LABEL}={value}" if value else f"label={LABEL}"
    if kind == "ps":
        command = ["ps", "--all", "--filter", wanted, "--format", "{{.Names}}", *options]
    else:
        command = [kind, "ls", "--filter", wanted, "--format", "{{.Name}}", *options]
    return machine.podman(*command).stdout.split()


def _group(container: str) -> str:
    return f"{_PLACES[1]}/{LABEL}/{container}"


def _way_to_root() -> tuple[str, ...] | None:
    if os.geteuid() == 0:
        return ()
    if not shutil.which("sudo"):
        return None
    ask = sys.stdin.isatty() if sys.stdin else False
    if ask:
        subprocess.run(["sudo", "-v"], timeout=300, check=False)
    return ("sudo", "-n")


def _refuse_missing(absent: Sequence[str], sudo: Iterable[str] | None) -> None:
    reasons = [f"package {name}" for name in absent]
    if sudo is None:
        reasons.append("root, or sudo to become root")
    if sys.platform != "linux":
        reasons = ["Linux (the hosts are containers of this machine's kernel)"]
    if reasons:
        raise PreflightError(
            "This machine cannot run a lab. Missing: " + "; ".join(reasons) + ". Nothing was started.",
            next_step="make setup, or apt-get install --no-install-recommends " + " ".join(packages),
        )


def limits(capabilities: str, open_files: str) -> tuple[str, ...]:
    """Return limits for machines without CAP_SYS_RESOURCE, where Podman cannot set its own defaults."""
    if int(capabilities, 16) & CAP_SYS_RESOURCE:
        return ()
    files = 20000 if open_files == "unlimited" else min(20000, int(open_files))
    return ("--ulimit", f"nofile={files}:{files}", "--ulimit", "nproc=32768:32768")


def _ensure_namespace(machine: Machine) -> None:
    """Create the mount namespace if it is missing, and stop containers of a lost one, whose networks are gone."""
    if machine.run("sh", "-c", NAMESPACE, "sh", *_PLACES).stdout.strip() == "made":
        running = labelled(machine, "ps")
        if running:
            machine.podman("stop", "--time", "5", *running, check=False)
