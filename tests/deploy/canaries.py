"""Canary secrets of every kind, and the searches for them on a host and on the workstation."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lab.host import Host, wait_for

SAMPLER = Path(__file__).parent / "sampler.py"
NOBODY = 65534
_LIST, _FOUND, _PROGRAM = "/run/canaries", "/run/canaries-found", "/run/canaries-sampler.py"
#: The file that `sampled` writes first: a file with a canary changed later.
_BEGIN = "/run/canaries-begin"

#: The places of secrets on a host: environments of releases, the watchdog's channels, the registry login, and Podman's
#: own storage. Only the deploy user can read them.
EXPECTED_PATHS = (
    "/var/lib/memoryark/config/",
    "/var/lib/memoryark/watchdog/settings.json",
    "/home/deploy/.config/containers/auth.json",
    "/home/deploy/.local/share/containers/storage/",
    "/run/user/1000/",
)


@dataclass(frozen=True)
class Canaries:
    """The secrets by kind."""

    values: dict[str, str]

    @property
    def forms(self) -> tuple[str, ...]:
        """Each secret plain, percent-encoded and base64-encoded."""
        forms = []
        for value in self.values.values():
            # The part without special characters is the same under every escaping.
            forms += [value, quote(value, safe=""), *re.findall(r"cAnArY\w+", value)]
            # The base64 encoding depends on the position of the secret in the text, modulo three.
            forms += [base64.b64encode(b" " * shift + value.encode())[4:-4].decode() for shift in range(3)]
        return tuple(dict.fromkeys(forms))

    def found_in(self, text: str | bytes) -> list[str]:
        """Return the forms of secrets that a text contains."""
        raw = text.encode(errors="surrogateescape") if isinstance(text, str) else text
        return [form for form in self.forms if form.encode() in raw]


def files_on(host: Host, canaries: Canaries, *, user: int) -> list[str]:
    """Return the files of the host, changed since `sampled` began, in which this user can read a secret."""
    host.sh(f"cat > {_LIST} <<'CANARIES'\n" + "\n".join(canaries.forms) + "\nCANARIES\nchmod 0644 " + _LIST)
    search = f"""\
setpriv --reuid={user} --regid={user} --clear-groups \\
  find / \\( -path /proc -o -path /sys -o -path /dev \\) -prune -o \\
  -type f -cnewer {_BEGIN} -readable -size -65536k ! -name 'canaries*' -print0 2>/dev/null |
  setpriv --reuid={user} --regid={user} --clear-groups xargs -0 -r grep -lsF -f {_LIST} --"""
    try:
        return host.sh(f"{search} || :", timeout=180).stdout.splitlines()
    finally:
        host.sh(f"rm -f {_LIST}")


def journal_of(host: Host, canaries: Canaries) -> list[str]:
    """Return the forms of secrets in the host's journal and logs."""
    logs = host.sh("journalctl --no-pager --all --output=export; cat /var/log/*.log 2>/dev/null || :", timeout=120)
    return canaries.found_in(logs.stdout)


@contextmanager
def sampled(host: Host, canaries: Canaries, directory: Path) -> Iterator[list[str]]:
    """Search every process for secrets while the block runs: as nobody on the host, as root among this process's own.

    The list is filled at the end.
    """
    host.sh(f"touch {_BEGIN}")
    found: list[str] = []
    texts, out = directory / "canaries", directory / "found"
    texts.write_text("\n".join(canaries.forms) + "\n")
    host.sh(f"cat > {_LIST} <<'CANARIES'\n" + "\n".join(canaries.forms) + f"\nCANARIES\nchmod 0600 {_LIST}")
    host.sh(f"cat > {_PROGRAM} <<'PROGRAM'\n{SAMPLER.read_text()}\nPROGRAM\nrm -f {_FOUND}*")
    host.sh(f"systemd-run --quiet --unit=canaries python3 {_PROGRAM} {_LIST} {_FOUND} {NOBODY}")
    local = subprocess.Popen([sys.executable, str(SAMPLER), str(texts), str(out), "0", str(os.getpid())])
    try:
        wait_for(lambda: _samples_on(host) > 0 and _samples_here(out) > 0, 30, "both samplers")
        yield found
        first = _samples_on(host), _samples_here(out)
        wait_for(lambda: _samples_on(host) > first[0] and _samples_here(out) > first[1], 30, "another sample of both")
    finally:
        out.with_name(f"{out.name}.end").touch()
        local.wait(timeout=30)
        host.sh(f"touch {_FOUND}.end; while systemctl is-active --quiet canaries; do sleep 0.1; done")
        found += out.read_text(errors="replace").splitlines()
        found += [f"host: {line}" for line in host.sh(f"cat {_FOUND} 2>/dev/null || :").stdout.splitlines()]
        host.sh(f"rm -f {_LIST} {_FOUND}* {_PROGRAM}")


def _samples_on(host: Host) -> int:
    return int(host.sh(f"cat {_FOUND}.samples 2>/dev/null || :").stdout or 0)


def _samples_here(out: Path) -> int:
    path = out.with_name(f"{out.name}.samples")
    return int((path.read_text() if path.exists() else "") or 0)


def files_here(directories: Iterable[Path], canaries: Canaries) -> list[str]:
    """Return the files of this machine that contain a secret."""
    files = (path for directory in directories for path in directory.rglob("*") if path.is_file())
    return [str(path) for path in files if canaries.found_in(path.read_bytes())]
