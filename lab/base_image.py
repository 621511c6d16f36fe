"""The base image of lab hosts: Debian with systemd, sshd, Nginx and Podman, built by mmdebstrap.

Images are cached by the hash of their recipe.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lab.files import cache_directory, locked
from lab.machine import LABEL, Machine
from rolling_upgrade.errors import ConfigError, PreflightError

RELEASES = ("trixie", "bookworm")
_COMMON = (
    "systemd,systemd-sysv,libpam-systemd,dbus,dbus-user-session,openssh-server,podman,crun,netavark,aardvark-dns,"
    "uidmap,nginx-light,sqlite3,curl,jq,sudo,iproute2,nftables,iptables,procps,python3,python3-jinja2,ca-certificates,"
    "cron,rsync,skopeo,git,docker-registry,postgresql,libfaketime"
)
PACKAGES: dict[str, str] = {"trixie": f"{_COMMON},passt", "bookworm": f"{_COMMON},slirp4netns,fuse-overlayfs"}
#: A host before setup, as a provider delivers it.
_BARE = "systemd,systemd-sysv,libpam-systemd,dbus,openssh-server,ca-certificates"
PACKAGES |= {f"{release}-bare": _BARE for release in RELEASES}
#: Documentation, and the large library with which PostgreSQL optionally compiles queries.
_LEFT_OUT = (
    *("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"),
    *(
        "/usr/lib/*/libLLVM*",
        "/usr/lib/llvm*",
        "/usr/lib/postgresql/*/lib/bitcode/*",
        "/usr/lib/postgresql/*/lib/llvmjit*",
    ),
)
_SCRIPT = Path(__file__).parent / "base.sh"
_SECONDS = 900


def host_image(machine: Machine, kind: str, log: Callable[[str], None]) -> str:
    """Return the name of the host image, which is built if it is missing (about a minute).

    `kind` is a release, or a release with `-bare` for a host with only sshd.
    """
    if kind not in PACKAGES:
        raise ConfigError(f"There is no lab host of release {kind!r}.", next_step=f"--release {' or '.join(PACKAGES)}")
    recipe = hashlib.sha256(f"{kind}\n{PACKAGES[kind]}\n{_LEFT_OUT}\n{_SCRIPT.read_text()}".encode()).hexdigest()[:12]
    image = f"localhost/{LABEL}-{kind}:{recipe}"
    with locked(kind):
        if machine.podman("image", "exists", image, check=False).returncode == 0:
            return image
        archive = cache_directory() / f"host-{kind}-{recipe}.tar"
        if not archive.exists():
            log(f"Building the {kind} base image, once per machine: about a minute")
            debian_tree(machine, archive, _host_arguments(kind), kind.partition("-")[0], log)
        log(f"Importing the {kind} base image")
        machine.podman("import", "--quiet", str(archive), image, timeout=300)
        _remove_older(machine, kind, archive, image)
    return image


def debian_tree(
    machine: Machine, archive: Path, arguments: list[str], release: str, log: Callable[[str], None]
) -> None:
    """Write a Debian tree to a tar file atomically. Raises PreflightError when the build fails."""
    partial = archive.with_suffix(".partial")
    command = [*machine.sudo, "mmdebstrap", *arguments, release, "-"]
    with (
        partial.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True) as process,
    ):
        deadline = threading.Timer(_SECONDS, process.kill)
        deadline.start()
        try:
            output = _progress(process, log)
            code = process.wait()
        finally:
            deadline.cancel()
            process.kill()
    if code != 0:
        partial.unlink(missing_ok=True)
        raise PreflightError(
            f"mmdebstrap could not build {release} ({code}): {' / '.join(output[-5:])}",
            next_step="check that this machine reaches a Debian mirror, then inv lab.up",
        )
    partial.rename(archive)


def _remove_older(machine: Machine, release: str, archive: Path, image: str) -> None:
    """Remove images of older recipes. Podman refuses to remove an image that a running lab uses."""
    for stale in cache_directory().glob(f"host-{release}-*.tar"):
        if stale != archive:
            stale.unlink()
    listed = machine.podman("images", "--format", "{{.Repository}}:{{.Tag}}", f"localhost/{LABEL}-{release}")
    for name in listed.stdout.split():
        if name != image:
            machine.podman("image", "rm", name, check=False)


def _host_arguments(kind: str) -> list[str]:
    return [
        "--variant=minbase",
        f"--include={PACKAGES[kind]}",
        *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
        f'--customize-hook=chroot "$1" sh -s {kind.partition("-")[2]} <{shlex.quote(str(_SCRIPT))}',
    ]


def _progress(process: subprocess.Popen[str], log: Callable[[str], None]) -> list[str]:
    """Log the stages of mmdebstrap when they start. Return its output for an error message."""
    started = time.monotonic()
    lines: list[str] = []
    for line in process.stderr or ():
        lines.append(line.strip())
        if line.startswith("I: ") and not line.startswith(("I: automatically", "I: success")):
            log(f"  {time.monotonic() - started:3.0f} s  {line[3:].strip()}")
    return lines
