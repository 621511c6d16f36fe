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

#: Where a secret belongs on a host: the environment of a release, the login, the watchdog's channels, and what Podman
#: itself keeps of a container. Each of them is for the deploy user alone.
MEANT = (
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
        """Each as it is, and as it would stand in an address, in a login and in an encoded file."""
        found = []
        for value in self.values.values():
            # However the special characters of one are escaped, what stands between them is the same.
            found += [value, quote(value, safe=""), *re.findall(r"cAnArY\w+", value)]
            # Base64 of a text that holds it, at each of the three places where it may begin.
            found += [base64.b64encode(b" " * shift + value.encode())[4:-4].decode() for shift in range(3)]
        return tuple(dict.fromkeys(found))

    def found_in(self, text: str | bytes) -> list[str]:
        """The kinds whose secret, in any form, stands in a text."""
        raw = text.encode(errors="surrogateescape") if isinstance(text, str) else text
        return [form for form in self.forms if form.encode() in raw]


def files_on(host: Host, canaries: Canaries, *, user: int) -> list[str]:
    """The files of the host in which that user can find one."""
    host.sh(f"cat > {_LIST} <<'CANARIES'\n" + "\n".join(canaries.forms) + "\nCANARIES\nchmod 0644 " + _LIST)
    search = f"""\
setpriv --reuid={user} --regid={user} --clear-groups \\
  find / \\( -path /proc -o -path /sys -o -path /dev \\) -prune -o \\
  -type f -readable -size -65536k ! -name 'canaries*' -print0 2>/dev/null |
  setpriv --reuid={user} --regid={user} --clear-groups xargs -0 -r grep -lsF -f {_LIST} --"""
    try:
        return host.sh(f"{search} || :", timeout=180).stdout.splitlines()
    finally:
        host.sh(f"rm -f {_LIST}")


def journal_of(host: Host, canaries: Canaries) -> list[str]:
    """The lines of the host's journal, of every user and unit, that hold one."""
    text = host.sh("journalctl --no-pager --all --output=export; cat /var/log/*.log 2>/dev/null || :", timeout=120)
    return canaries.found_in(text.stdout)


@contextmanager
def sampled(host: Host, canaries: Canaries, here: Path) -> Iterator[list[str]]:
    """Look at every process while the block runs: on the host as nobody, here with all that root sees of our own.

    The list is filled at the end.
    """
    found: list[str] = []
    texts, out = here / "canaries", here / "found"
    texts.write_text("\n".join(canaries.forms) + "\n")
    host.sh(f"cat > {_LIST} <<'CANARIES'\n" + "\n".join(canaries.forms) + f"\nCANARIES\nchmod 0600 {_LIST}")
    host.sh(f"cat > {_PROGRAM} <<'PROGRAM'\n{SAMPLER.read_text()}\nPROGRAM\nrm -f {_FOUND}*")
    host.sh(f"systemd-run --quiet --unit=canaries python3 {_PROGRAM} {_LIST} {_FOUND} {NOBODY}")
    mine = subprocess.Popen([sys.executable, str(SAMPLER), str(texts), str(out), "0", str(os.getpid())])
    try:
        wait_for(lambda: _looks(host) > 0 and _number(out) > 0, 30, "both samplers")
        yield found
        first = _looks(host), _number(out)
        wait_for(lambda: _looks(host) > first[0] and _number(out) > first[1], 30, "one more look of both")
    finally:
        out.with_name(f"{out.name}.end").touch()
        mine.wait(timeout=30)
        host.sh(f"touch {_FOUND}.end; while systemctl is-active --quiet canaries; do sleep 0.1; done")
        found += out.read_text(errors="replace").splitlines()
        found += [f"host: {line}" for line in host.sh(f"cat {_FOUND} 2>/dev/null || :").stdout.splitlines()]
        host.sh(f"rm -f {_LIST} {_FOUND}* {_PROGRAM}")


def _looks(host: Host) -> int:
    return int(host.sh(f"cat {_FOUND}.looks 2>/dev/null || :").stdout or 0)


def _number(out: Path) -> int:
    path = out.with_name(f"{out.name}.looks")
    return int((path.read_text() if path.exists() else "") or 0)


def files_here(folders: Iterable[Path], canaries: Canaries) -> list[str]:
    """The files of the workstation that hold one."""
    every = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in every if canaries.found_in(path.read_bytes())]
