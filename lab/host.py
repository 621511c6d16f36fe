"""One lab host: its container and its volumes, and operations on them such as a power cut."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from lab.machine import LABEL, Machine
from rolling_upgrade.errors import HostUnreachable, StepFailed

_READY_SECONDS = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {
    "root": {"PATH": _PATH, "HOME": "/root", "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"},
    "deploy": {
        "PATH": _PATH,
        "HOME": "/home/deploy",
        "XDG_RUNTIME_DIR": "/run/user/1000",
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
    },
}
_BOOTED = """
for attempt in $(seq 300); do
    state=$(systemctl is-system-running --wait 2>/dev/null) || true
    case $state in running|degraded) exit 0 ;; esac
    sleep 0.1
done
echo "systemd says: $state"; exit 1
"""
#: On cgroup v1, Podman gives every container the machine's own systemd hierarchy, which all hosts would then share.
_INIT_ON_V1 = """
umount --recursive /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
exec /sbin/init
"""
#: The directories that survive a boot: the host's changes to its image, and its volumes.
_DISKS = "{{.GraphDriver.Data.UpperDir}}{{range .Mounts}} {{.Source}}{{end}}"
_COPY = """
set -eu
source=$1 target=$2
shift 2
for disk; do
    test -d "$disk$source"
    # A restored host differs in a few of some ten thousand files.
    rsync -aHAX --numeric-ids --delete "$disk$source/" "$disk$target/"
done
"""
_CUT = """
nft add table inet lab_cut
nft add chain inet lab_cut inbound '{ type filter hook input priority -300; policy drop; }'
nft add chain inet lab_cut outbound '{ type filter hook output priority -300; policy drop; }'
nft add rule inet lab_cut inbound iif lo accept
nft add rule inet lab_cut outbound oif lo accept
"""


@dataclass(frozen=True)
class Host:
    """A running Debian machine of the lab."""

    name: str
    address: str
    container: str
    machine: Machine

    def sh(
        self, script: str, user: str = "root", *, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a script on the host without SSH. With `check`, a failure raises StepFailed with the output."""
        done = self.machine.enter(self.container, user, _ENVIRONMENT[user], script, timeout=timeout)
        if check and done.returncode != 0:
            output = (done.stdout + done.stderr).strip()[-2000:]
            raise StepFailed(f"{self.name}: the script ended with {done.returncode}: {output}")
        return done

    def reboot(self) -> None:
        """Shut the host down cleanly and boot it again. Returns when it is up."""
        self.machine.podman("stop", "--time", "30", self.container)
        self.start()

    def power_cut(self) -> None:
        """Stop the host as a power cut does, and boot it again. Returns when it is up."""
        self.kill()
        self.start()

    def kill(self) -> None:
        """Stop the host abruptly, as a power cut does."""
        self.machine.podman("kill", self.container)
        self.machine.podman("wait", self.container)

    def start(self) -> None:
        """Boot a stopped host. Returns when it is up."""
        self.machine.inside(self.container, "start", self.container)
        self.wait_until_up()

    def save(self) -> None:
        """Shut the host down, copy its disks for `restore`, and boot it again. Returns when it is up."""
        self.machine.podman("stop", "--time", "30", self.container)
        self._copy_disks("", ".saved")
        self.start()

    def is_saved(self) -> bool:
        """Return whether `save` has copied the disks."""
        return self.machine.run("test", "-d", f"{self._disks()[0]}.saved", check=False).returncode == 0

    def restore(self) -> None:
        """Stop the host as a power cut does, and boot it from its saved disks. Returns when it is up."""
        # Not `podman stop --time 0`: crun then sometimes fails with "open pidfd: No such file or directory".
        self.machine.podman("kill", self.container, check=False)
        self.machine.podman("wait", self.container)
        self._copy_disks(".saved", "")
        self.start()

    def _copy_disks(self, source: str, target: str) -> None:
        """Copy each disk of a stopped host; the suffixes `source` and `target` name its directories."""
        self.machine.run("sh", "-c", _COPY, "sh", source, target, *self._disks())

    def _disks(self) -> list[str]:
        return self.machine.podman("inspect", "--format", _DISKS, self.container).stdout.split()

    def cut_network(self) -> None:
        """Drop every packet from and to the host, except on loopback."""
        self.sh(_CUT)

    def restore_network(self) -> None:
        """Undo `cut_network`, if it was called."""
        self.sh("nft delete table inet lab_cut", check=False)

    def wait_until_up(self) -> None:
        """Wait for the end of the boot and for sshd. Raises HostUnreachable after a minute."""
        booted = self.sh(_BOOTED, check=False, timeout=_READY_SECONDS + 30)
        if booted.returncode != 0:
            console = self.machine.podman("logs", "--tail", "5", self.container, check=False)
            output = " / ".join(text.strip() for text in (booted.stdout, booted.stderr, console.stdout, console.stderr))
            raise HostUnreachable(
                f"{self.name} did not finish its boot: {output[-800:]}",
                next_step=f"podman logs {self.container}",
            )
        wait_for(lambda: _greets(self.address, 22), _READY_SECONDS, f"sshd of {self.name} ({self.address})")


def wait_for(
    condition: Callable[[], bool],
    seconds: float,
    what: str,
    *,
    pause: float = 0.2,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Poll a condition every `pause` seconds until it holds. Raises HostUnreachable at the deadline."""
    deadline = clock() + seconds
    while not condition():
        if clock() > deadline:
            raise HostUnreachable(f"{what} did not answer within {seconds:.0f} s.", next_step="inv lab.status")
        sleep(pause)


def create(host: Host, *, laboratory: str, image: str, registry: str, role: str, files: dict[str, bytes | str]) -> None:
    """Create and boot the host's container with these files, unless it exists with the same specification.

    `files` maps absolute paths to bytes, or to the target of a symbolic link when it is a string. A container with
    another specification is replaced, and a stopped one is started.
    """
    archive = _archive(files)
    arguments = _arguments(host, laboratory, image, registry, role)
    spec = hashlib.sha256(repr(arguments).encode() + archive).hexdigest()[:16]
    inspected = host.machine.podman(
        "inspect",
        "--format",
        '{{index .Config.Labels "spec"}} {{.State.Status}}',
        host.container,
        check=False,
    )
    current, _, state = inspected.stdout.strip().partition(" ")
    if inspected.returncode == 0 and current == spec and state in ("running", "exited"):
        if state == "exited":
            host.machine.inside(host.container, "start", host.container)
        return
    remove(host)
    host.machine.podman("create", "--label", f"spec={spec}", *arguments)
    host.machine.podman("cp", "-", f"{host.container}:/", stdin=archive)
    host.machine.inside(host.container, "start", host.container)


def remove(host: Host) -> None:
    """Remove the host's container and its volumes in any state."""
    host.machine.remove(host.container)
    volumes = _volumes(host)
    host.machine.podman("volume", "rm", "--force", *volumes, check=False)


def _volumes(host: Host) -> tuple[str, str]:
    return f"{host.container}-containers", f"{host.container}-home"


def _arguments(host: Host, laboratory: str, image: str, registry: str, role: str) -> list[str]:
    containers, home = _volumes(host)
    last = [int(part) for part in host.address.split(".")[1:]]
    legacy = ["--env", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"] if host.machine.legacy else []
    return [
        *("--name", host.container, "--hostname", host.name),
        *("--label", f"{LABEL}={laboratory}", "--label", f"host={host.name}", "--label", f"role={role}"),
        *("--label", f"address={host.address}"),
        # A fixed hardware address, so that the ARP caches of neighbours stay valid after a reboot.
        *(
            "--network",
            laboratory,
            "--ip",
            host.address,
            "--mac-address",
            "02:00:0a:{:02x}:{:02x}:{:02x}".format(*last),
        ),
        *("--add-host", f"registry:{registry}"),
        *("--privileged", "--systemd=always", "--cgroupns=private", "--stop-signal", "SIGRTMIN+3"),
        *("--volume", f"{containers}:/var/lib/containers", "--volume", f"{home}:/home"),
        *legacy,
        *host.machine.limits,
        image,
        *(("sh", "-ec", _INIT_ON_V1) if host.machine.legacy else ("/sbin/init",)),
    ]


def _archive(files: dict[str, bytes | str]) -> bytes:
    """Return a deterministic tar of the files. Paths that end in `_key` have mode 0600, others 0644."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
                continue
            entry.size, entry.mode = len(content), 0o600 if path.endswith("_key") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _greets(address: str, port: int) -> bool:
    """Return whether an SSH server answers at the address."""
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
