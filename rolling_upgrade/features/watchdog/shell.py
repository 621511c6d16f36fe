"""Shell text that installs, removes and inspects the watchdog's unit on a host, and the parser of its state.

The unit belongs to the deploy user's manager: it needs no root, and with linger it starts at boot.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.shell import Script, direct, quote, sha256, shell_join, write_file
from rolling_upgrade.features.watchdog.state_store import metrics_file

#: Exit status of an installation on a host without a Python that can run the watchdog.
NO_PYTHON_STATUS = 45
#: Exit status of an installation on a host that setup has not prepared.
NOT_PREPARED_STATUS = 47
#: Seconds within which an installed watchdog must start.
UP_SECONDS = 15


@dataclass(frozen=True)
class Files:
    """The files of an installation: the program, its settings (secret) and its unit."""

    program: bytes
    settings: str
    unit: str

    @property
    def version(self) -> str:
        """A short hash of the three files; installing the same version again changes nothing."""
        return sha256(self.program + self.settings.encode() + self.unit.encode())[:16]


def unit_name(app: str) -> str:
    """The name of the watchdog's unit."""
    return f"{app}-watchdog.service"


def directory(app: Application) -> str:
    """The directory of the watchdog's files."""
    return f"{app.home}/watchdog"


def install(app: Application, files: Files) -> Script:
    """Install the watchdog and wait until it runs; prints `unchanged`, `installed` or `replaced`.

    Exits NOT_PREPARED_STATUS on a host without the application's directory, NO_PYTHON_STATUS without a python3 of at
    least 3.10; both change nothing.
    """
    base, unit = directory(app), f".config/systemd/user/{unit_name(app.name)}"
    name, link = quote(unit_name(app.name)), f".config/systemd/user/default.target.wants/{unit_name(app.name)}"
    encoded = base64.b64encode(files.program).decode()
    secret = write_file(f"{base}/settings.json", files.settings, secret=True)
    text = f"""\
if [ ! -w {quote(app.home)} ]; then exit {NOT_PREPARED_STATUS}; fi
if ! python3 -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  python3 --version 2>&1 || :
  exit {NO_PYTHON_STATUS}
fi
version=$(cat {quote(base + "/version")} 2>/dev/null) || version=''
if [ "$version" = {files.version} ] && systemctl --user is-active --quiet {name}; then echo unchanged; exit 0; fi
mkdir -p {quote(base)} .config/systemd/user/default.target.wants
rm -f {quote(base + "/version")}
printf %s {quote(encoded)} | base64 -d > {quote(base + "/watchdog.pyz.new")}
mv -f {quote(base + "/watchdog.pyz.new")} {quote(base + "/watchdog.pyz")}
{secret.text}
{write_file(unit, files.unit, mode="0644").text}
ln -sf {quote("../" + unit_name(app.name))} {quote(link)}
systemctl --user daemon-reload
rm -f {quote(base + "/alive")}
systemctl --user restart {name}
tries=0
until [ -e {quote(base + "/alive")} ] && systemctl --user is-active --quiet {name}; do
  tries=$((tries + 1))
  if [ "$tries" -ge {UP_SECONDS * 10} ]; then
    echo "the watchdog did not start:"
    tail -n 20 {quote(base + "/log")} 2>/dev/null || :
    exit 1
  fi
  sleep 0.1
done
echo {files.version} > {quote(base + "/version")}
if [ -n "$version" ]; then echo replaced; else echo installed; fi"""
    return direct(Script(text, secret.secrets))


def uninstall(app: Application) -> Script:
    """Stop the watchdog and delete its files; prints `gone` or `nothing`. A recovery in progress finishes."""
    base, unit = directory(app), f".config/systemd/user/{unit_name(app.name)}"
    name, link = quote(unit_name(app.name)), f".config/systemd/user/default.target.wants/{unit_name(app.name)}"
    return direct(
        f"if [ ! -e {quote(unit)} ] && [ ! -d {quote(base)} ]; then echo nothing; exit 0; fi",
        f"systemctl --user stop {name} 2>/dev/null || :",
        shell_join("rm", "-rf", unit, link, base),
        f"{shell_join('rm', '-f', metrics_file(app.metrics_dir, app.name))} || :" if app.metrics_dir else "",
        "systemctl --user daemon-reload",
        f"systemctl --user reset-failed {name} 2>/dev/null || :",
        "echo gone",
    )


def status(app: Application) -> Script:
    """Print the unit's state, the installed version and the recovery state, as `parse_status` parses them."""
    base = directory(app)
    shown = "ActiveState,SubState,NRestarts,ActiveEnterTimestampMonotonic"
    ask = shell_join("systemctl", "--user", "show", "--property=MainPID", "--value", unit_name(app.name))
    return direct(
        f"if [ -e {quote(base + '/settings.json')} ]; then echo installed=yes; else echo installed=no; fi",
        f'echo "version=$(cat {quote(base + "/version")} 2>/dev/null)"',
        'echo "uptime=$(cut -d . -f 1 /proc/uptime)"',
        f"systemctl --user show {quote(unit_name(app.name))} --property={shown} 2>/dev/null || :",
        # From /proc: not every host accounts per unit. The ticks include those of child processes.
        f"pid=$({ask} 2>/dev/null) || pid=''",
        'echo "memory_kb=$(awk \'/^VmRSS:/ { print $2 }\' "/proc/$pid/status" 2>/dev/null)"',
        'echo "ticks=$(awk \'{ print $14 + $15 + $16 + $17 }\' "/proc/$pid/stat" 2>/dev/null)"',
        'echo "ticks_a_second=$(getconf CLK_TCK)"',
        f"at=$(stat -c %Y {quote(base + '/alive')} 2>/dev/null) || at=''",
        'echo "alive=${at:+$(($(date +%s) - at))}"',
        f"echo \"memory=$(tr -d '\\n' < {quote(base + '/memory.json')} 2>/dev/null)\"",
        f'echo "last=$(tail -n 1 {quote(base + "/log")} 2>/dev/null)"',
    )


def log(app: Application, lines: int) -> Script:
    """Print the end of the watchdog's log."""
    path = quote(directory(app) + "/log")
    return direct(f"if [ -e {path} ]; then tail -n {lines} {path}; else echo 'no watchdog has run here'; fi")


@dataclass(frozen=True)
class WatchdogStatus:
    """The state of one watchdog; `alive_seconds` is the age of its last check."""

    installed: bool
    runs: bool
    current: bool
    alive_seconds: int
    starts: int
    cpu_percent: float
    memory_bytes: int
    recoveries: int
    given_up: bool
    last: str


def parse_status(text: str, version: str) -> WatchdogStatus:
    """Parse the output of `status`; `version` is the version that this clone would install."""
    values = dict(line.split("=", 1) for line in untrusted.lines(text) if "=" in line)
    memory = _memory(values.get("memory", ""))
    seconds = _number(values.get("uptime", "")) - _number(values.get("ActiveEnterTimestampMonotonic", "")) / 1e6
    cpu = _number(values.get("ticks", "")) / (_number(values.get("ticks_a_second", "")) or 100)
    return WatchdogStatus(
        installed=values.get("installed") == "yes",
        runs=values.get("ActiveState") == "active",
        current=values.get("version") == version,
        alive_seconds=_number(values.get("alive", "")),
        starts=_number(values.get("NRestarts", "")),
        cpu_percent=round(100 * cpu / seconds, 2) if seconds > 0 else 0.0,
        memory_bytes=1024 * _number(values.get("memory_kb", "")),
        recoveries=len(recoveries) if isinstance(recoveries := memory.get("recoveries"), list) else 0,
        given_up=bool(memory.get("given_up")),
        last=values.get("last", ""),
    )


def _memory(text: str) -> dict[str, Any]:
    try:
        memory = untrusted.json_object(text).get("memory")
    except untrusted.Malformed:
        return {}
    return memory if isinstance(memory, dict) else {}


def _number(text: str) -> int:
    return untrusted.integer(text, default=0)
