"""Runs scripts in a real `sh` with stubs for all programs of a host, which record their arguments.

Under root the shell runs as nobody. The host's directories are below a temporary directory.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.injection.hostile import PWNED

#: The programs with stubs. Programs that only process text (awk, sed, grep …) are real.
_PROGRAMS = """
    podman nginx curl skopeo python3 systemctl loginctl sudo rsync tar pg_dump pg_restore psql openssl flock setsid
    pkill pgrep ss df du find rm chown cp ln rmdir runuser visudo sshd journalctl nice useradd usermod groupadd
    userdel install touch getent xargs systemd_run apt_get dpkg dpkg_query ufw nft sysctl certbot logrotate ssh_keygen
    setfacl nproc id uname sync tee crontab timedatectl hostname
"""
_DIRECTORIES = """
    home run var/lib usr/local/lib etc/systemd/user etc/systemd/system etc/nginx/conf.d etc/sudoers.d
    etc/ssh/sshd_config.d etc/sysctl.d etc/logrotate.d etc/apt/apt.conf.d etc/prometheus/rolling
"""
_DASHED = re.compile(r"(?<![\w/.-])(?:systemd-run|apt-get|dpkg-query|ssh-keygen)(?![\w-])")
_OWN = re.compile(r"(?<![\w.@+=-])/(?=(?:etc|run|var/lib|usr/local/lib)/)")
#: Error messages of a shell that evaluated a value.
_MISREAD = re.compile(
    rb"^\S*sh: (?:line )?\d+: (?:\S+: (?:not found|Permission denied)|Syntax error|Bad|.*bad variable).*", re.M
)
_NOBODY = 65534


@dataclass
class Ran:
    """The arguments of every call, the content of every file, and the errors of `sh`."""

    calls: list[list[bytes]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    complaints: list[bytes] = field(default_factory=list)

    @property
    def words(self) -> bytes:
        """Every argument and the content of every file, joined."""
        return b"\0".join([*(word for call in self.calls for word in call), *self.files.values()])

    @property
    def injections(self) -> list[object]:
        """The evidence that a value was executed or used as a file name."""
        called = [call for call in self.calls if call[0] == PWNED.encode()]
        return [*called, *(name for name in self.files if PWNED in name), *self.complaints]


class Shell:
    """A directory in which scripts run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in _DIRECTORIES.split():
            (root / name).mkdir(parents=True)
        (root / "etc/os-release").write_text("ID=debian\nVERSION_ID=13\n")
        if os.geteuid() == 0:
            for path in (root, *root.rglob("*")):
                os.chown(path, _NOBODY, _NOBODY)

    def run(self, scripts: Iterable[str], *, status: int = 0) -> Ran:
        """Run each script in a subshell of one `sh`, and then the scripts that they pass to other shells."""
        ran, done = Ran(), set[str]()
        waiting = list(dict.fromkeys(scripts))
        while waiting:
            done.update(waiting)
            before = len(ran.calls)
            self._once(waiting, status, ran)
            inner = dict.fromkeys((*_handed_on(ran.calls[before:]), *_written(ran.files)))
            waiting = [text for text in inner if text not in done]
        return ran

    def _once(self, scripts: list[str], status: int, ran: Ran) -> None:
        calls = self.root / "calls"
        calls.unlink(missing_ok=True)
        text = "\n".join(
            (self._prologue(status), *(f"(\n{self._moved(script)}\n) </dev/null 3</dev/null" for script in scripts))
        )
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.root / "home"), "LC_ALL": "C"}
        options = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(
            ["sh", "-s"], input=text.encode(errors="surrogateescape"), capture_output=True, cwd=self.root / "home",
            env=environment, timeout=120, check=False, **options,  # type: ignore[call-overload]
        )  # fmt: skip
        ran.complaints += [match[0] for match in _MISREAD.finditer(done.stderr)]
        ran.calls += _calls(calls.read_bytes() if calls.exists() else b"")
        for path in self.root.rglob("*"):
            if path.is_file() and path != calls:
                ran.files[str(path.relative_to(self.root))] = path.read_bytes()

    def _moved(self, text: str) -> str:
        """Move the host's directories in a text, and replace program names that `sh` functions cannot have."""
        text = _OWN.sub(f"{self.root}/", text)
        text = _DASHED.sub(lambda name: name[0].replace("-", "_"), text)
        if text.startswith("exec sh -c "):
            return shlex.split(text)[3]
        return text

    def _prologue(self, status: int) -> str:
        note = f'note() {{ printf \'%s\\0\' "$#" "$@" >> {shlex.quote(str(self.root / "calls"))}; }}'
        stand_ins = [f'{name}() {{ note {name} "$@"; return {status}; }}' for name in (*_PROGRAMS.split(), PWNED)]
        stand_ins.append(f'pg_restore() {{ note pg_restore "$@"; echo --restrict-key; return {status}; }}')
        clock = 'date() { note date "$@"; case "$*" in *%s*) echo 1000 ;; *) echo 2026-11-23T00:00:00Z ;; esac; }'
        password = f'case "$*" in *--password-stdin*) cat > {shlex.quote(str(self.root / "password"))} ;; esac'
        timeout = f'timeout() {{ note timeout "$@"; {password}; return {status}; }}'
        made = shlex.quote(str(self.root / "made"))
        mktemp = f'mktemp() {{ note mktemp "$@"; : > {made}; echo {made}; return {status}; }}'
        # A script that sleeps in a loop ends at once.
        return "\n".join((note, *stand_ins, clock, timeout, mktemp, "sleep() { exit 9; }"))


@contextmanager
def shell() -> Iterator[Shell]:
    """Yield a shell in a temporary, world-readable directory."""
    root = Path(tempfile.mkdtemp(prefix="shell-"))
    root.chmod(0o755)
    try:
        yield Shell(root)
    finally:
        shutil.rmtree(root)


def _calls(raw: bytes) -> list[list[bytes]]:
    """Parse the recorded calls: each is a count and that many arguments."""
    words = raw.split(b"\0")
    calls, at = [], 0
    while at < len(words) - 1:
        count = int(words[at])
        calls.append(words[at + 1 : at + 1 + count])
        at += 1 + count
    return calls


def _handed_on(calls: Iterable[list[bytes]]) -> Iterator[str]:
    """Yield the scripts that calls pass to another shell, with their arguments; not to one in a container."""
    for call in calls:
        if call[:2] == [b"podman", b"run"]:
            continue
        for at, word in enumerate(call[:-2]):
            if word == b"sh" and call[at + 1] == b"-c":
                text, *arguments = (argument.decode(errors="surrogateescape") for argument in call[at + 2 :])
                yield f"set -- {' '.join(map(shlex.quote, arguments[1:]))}\n{text}"


def _written(files: dict[str, bytes]) -> Iterator[str]:
    """Yield the scripts that were written to files."""
    for name, content in files.items():
        if name.endswith((".sh", ".body")):
            yield content.decode(errors="surrogateescape")
