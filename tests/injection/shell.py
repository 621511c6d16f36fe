"""Scripts run by a real `sh` that knows no program of the host: each stand-in keeps its words, and nothing else runs.

It runs as nobody where the tests run as root, and the host's own directories stand below a folder of the test's.
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

#: What a host has; none of them runs. Those that only change a text (awk, sed, grep …) are the machine's own.
_PROGRAMS = """
    podman nginx curl skopeo python3 systemctl loginctl sudo rsync tar pg_dump pg_restore psql openssl flock setsid
    pkill pgrep ss df du find rm chown cp ln rmdir runuser visudo sshd journalctl nice useradd usermod groupadd
    userdel install touch getent xargs systemd_run apt_get dpkg dpkg_query ufw nft sysctl certbot logrotate ssh_keygen
    setfacl nproc id uname sync tee crontab timedatectl hostname
"""
_FOLDERS = """
    home run var/lib usr/local/lib etc/systemd/user etc/systemd/system etc/nginx/conf.d etc/sudoers.d
    etc/ssh/sshd_config.d etc/sysctl.d etc/logrotate.d etc/apt/apt.conf.d etc/prometheus/rolling
"""
_DASHED = re.compile(r"(?<![\w/.-])(?:systemd-run|apt-get|dpkg-query|ssh-keygen)(?![\w-])")
_OWN = re.compile(r"(?<![\w.@+=-])/(?=(?:etc|run|var/lib|usr/local/lib)/)")
#: What a shell says that read a value as its own text.
_MISREAD = re.compile(
    rb"^\S*sh: (?:line )?\d+: (?:\S+: (?:not found|Permission denied)|Syntax error|Bad|.*bad variable).*", re.M
)
_NOBODY = 65534


@dataclass
class Ran:
    """What came of it: every call's words, every file's bytes, and what `sh` complained of."""

    calls: list[list[bytes]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    complaints: list[bytes] = field(default_factory=list)

    @property
    def words(self) -> bytes:
        """Every word and every file's content, one after the other."""
        return b"\0".join([*(word for call in self.calls for word in call), *self.files.values()])

    @property
    def taken_in(self) -> list[object]:
        """Whatever shows that a value was read as a command or as a name of a file."""
        called = [call for call in self.calls if call[0] == PWNED.encode()]
        return [*called, *(name for name in self.files if PWNED in name), *self.complaints]


class Shell:
    """A folder in which scripts run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in _FOLDERS.split():
            (root / name).mkdir(parents=True)
        (root / "etc/os-release").write_text("ID=debian\nVERSION_ID=13\n")
        if os.geteuid() == 0:
            for path in (root, *root.rglob("*")):
                os.chown(path, _NOBODY, _NOBODY)

    def run(self, scripts: Iterable[str], *, status: int = 0) -> Ran:
        """Run the scripts, each in a subshell of one `sh`, then what they gave to another shell."""
        ran, done = Ran(), set[str]()
        waiting = list(dict.fromkeys(scripts))
        while waiting:
            done.update(waiting)
            before = len(ran.calls)
            self._once(waiting, status, ran)
            inner = dict.fromkeys((*_handed_on(ran.calls[before:]), *_stages(ran.files)))
            waiting = [text for text in inner if text not in done]
        return ran

    def _once(self, scripts: list[str], status: int, ran: Ran) -> None:
        calls = self.root / "calls"
        calls.unlink(missing_ok=True)
        text = "\n".join(
            (self._prologue(status), *(f"(\n{self._moved(one)}\n) </dev/null 3</dev/null" for one in scripts))
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
        """The text with the host's own directories elsewhere, and names that a function of `sh` can have."""
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
        # Whatever waits for something has waited enough.
        return "\n".join((note, *stand_ins, clock, timeout, mktemp, "sleep() { exit 9; }"))


@contextmanager
def shell() -> Iterator[Shell]:
    """A shell in a folder that everybody may enter, taken away at the end."""
    root = Path(tempfile.mkdtemp(prefix="shell-"))
    root.chmod(0o755)
    try:
        yield Shell(root)
    finally:
        shutil.rmtree(root)


def _calls(raw: bytes) -> list[list[bytes]]:
    """The calls as they were noted: how many words, then the words."""
    words = raw.split(b"\0")
    found, at = [], 0
    while at < len(words) - 1:
        count = int(words[at])
        found.append(words[at + 1 : at + 1 + count])
        at += 1 + count
    return found


def _handed_on(calls: Iterable[list[bytes]]) -> Iterator[str]:
    """The texts that a call gives to another shell, with the words that go with it."""
    for call in calls:
        for at, word in enumerate(call[:-2]):
            if word == b"sh" and call[at + 1] == b"-c":
                text, *words = (one.decode(errors="surrogateescape") for one in call[at + 2 :])
                yield f"set -- {' '.join(shlex.quote(one) for one in words[1:])}\n{text}"


def _stages(files: dict[str, bytes]) -> Iterator[str]:
    """The stages that were written to be run in a session of their own."""
    for name, content in files.items():
        if name.endswith((".sh", ".body")):
            yield content.decode(errors="surrogateescape")
