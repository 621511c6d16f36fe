"""The watchdog's unit on a host: put in place, taken away, looked at, and its recoveries started. It runs nothing.

It is a unit of the deploy user's own manager: no root, and with linger it comes up at boot.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from fabfile.commands.journal import direct
from fabfile.commands.metrics import text_file
from fabfile.commands.shell import Script, quote, sha256, words, write_file
from fabfile.model import Application
from fabfile.model.watch import Act

#: Exit status of an installation on a host without a Python that can run the watchdog.
NO_PYTHON_STATUS = 45
#: Exit status of an installation on a host that setup has not prepared.
NOT_PREPARED_STATUS = 47
#: How long an installed watchdog has to come up, seconds.
UP_SECONDS = 15
#: How long a recovery may take: a release anew with its gates, undone again.
RECOVERY_SECONDS = 3600


@dataclass(frozen=True)
class Files:
    """What an installation puts on the host: the program, its settings (secret) and its unit."""

    program: bytes
    settings: str
    unit: str

    @property
    def version(self) -> str:
        """A short hash of all three: the same again changes nothing."""
        whole = self.program + self.settings.encode() + self.unit.encode()
        return sha256(whole)[:16]


def unit_name(app: str) -> str:
    """The watchdog's unit."""
    return f"{app}-watchdog.service"


def directory(app: Application) -> str:
    """Where the watchdog's files are."""
    return f"{app.home}/watchdog"


def install(app: Application, files: Files) -> Script:
    """Put the watchdog in place and prove that it runs; prints `unchanged`, `installed` or `replaced`.

    Exits NOT_PREPARED_STATUS on a host without the application's directory, NO_PYTHON_STATUS where no python3 of at
    least 3.10 is found; nothing is changed then.
    """
    place, unit = directory(app), f".config/systemd/user/{unit_name(app.name)}"
    name, link = quote(unit_name(app.name)), f".config/systemd/user/default.target.wants/{unit_name(app.name)}"
    encoded = base64.b64encode(files.program).decode()
    secret = write_file(f"{place}/settings.json", files.settings, secret=True)
    text = f"""\
if [ ! -w {quote(app.home)} ]; then exit {NOT_PREPARED_STATUS}; fi
if ! python3 -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  python3 --version 2>&1 || :
  exit {NO_PYTHON_STATUS}
fi
version=$(cat {quote(place + "/version")} 2>/dev/null) || version=''
if [ "$version" = {files.version} ] && systemctl --user is-active --quiet {name}; then echo unchanged; exit 0; fi
mkdir -p {quote(place)} .config/systemd/user/default.target.wants
rm -f {quote(place + "/version")}
printf %s {quote(encoded)} | base64 -d > {quote(place + "/watchdog.pyz.new")}
mv -f {quote(place + "/watchdog.pyz.new")} {quote(place + "/watchdog.pyz")}
{secret.text}
{write_file(unit, files.unit, mode="0644").text}
ln -sf {quote("../" + unit_name(app.name))} {quote(link)}
systemctl --user daemon-reload
rm -f {quote(place + "/alive")}
systemctl --user restart {name}
tries=0
until [ -e {quote(place + "/alive")} ] && systemctl --user is-active --quiet {name}; do
  tries=$((tries + 1))
  if [ "$tries" -ge {UP_SECONDS * 10} ]; then
    echo "the watchdog does not come up:"
    tail -n 20 {quote(place + "/log")} 2>/dev/null || :
    exit 1
  fi
  sleep 0.1
done
echo {files.version} > {quote(place + "/version")}
if [ -n "$version" ]; then echo replaced; else echo installed; fi"""
    return direct(Script(text, secret.secrets))


def uninstall(app: Application) -> Script:
    """Stop the watchdog and take its files away; prints `gone` or `nothing`. A recovery that runs goes on to its end."""
    place, unit = directory(app), f".config/systemd/user/{unit_name(app.name)}"
    name, link = quote(unit_name(app.name)), f".config/systemd/user/default.target.wants/{unit_name(app.name)}"
    return direct(
        f"if [ ! -e {quote(unit)} ] && [ ! -d {quote(place)} ]; then echo nothing; exit 0; fi",
        f"systemctl --user stop {name} 2>/dev/null || :",
        words("rm", "-rf", unit, link, place),
        f"{words('rm', '-f', text_file(app.metrics_dir, app.name))} || :" if app.metrics_dir else "",
        "systemctl --user daemon-reload",
        f"systemctl --user reset-failed {name} 2>/dev/null || :",
        "echo gone",
    )


def status(app: Application) -> Script:
    """Print the unit's state, the version that is installed, and the memory; changes nothing."""
    place = directory(app)
    shown = "ActiveState,SubState,NRestarts,ActiveEnterTimestampMonotonic"
    ask = words("systemctl", "--user", "show", "--property=MainPID", "--value", unit_name(app.name))
    return direct(
        f"if [ -e {quote(place + '/settings.json')} ]; then echo installed=yes; else echo installed=no; fi",
        f'echo "version=$(cat {quote(place + "/version")} 2>/dev/null)"',
        'echo "uptime=$(cut -d . -f 1 /proc/uptime)"',
        f"systemctl --user show {quote(unit_name(app.name))} --property={shown} 2>/dev/null || :",
        # Of the kernel, not of the unit: not every host counts per unit. The time is its own and its children's.
        f"pid=$({ask} 2>/dev/null) || pid=''",
        'echo "memory_kb=$(awk \'/^VmRSS:/ { print $2 }\' "/proc/$pid/status" 2>/dev/null)"',
        'echo "ticks=$(awk \'{ print $14 + $15 + $16 + $17 }\' "/proc/$pid/stat" 2>/dev/null)"',
        'echo "ticks_a_second=$(getconf CLK_TCK)"',
        f"at=$(stat -c %Y {quote(place + '/alive')} 2>/dev/null) || at=''",
        'echo "alive=${at:+$(($(date +%s) - at))}"',
        f"echo \"memory=$(tr -d '\\n' < {quote(place + '/memory.json')} 2>/dev/null)\"",
        f'echo "last=$(tail -n 1 {quote(place + "/log")} 2>/dev/null)"',
    )


def log(app: Application, lines: int) -> Script:
    """Print the end of the watchdog's log."""
    path = quote(directory(app) + "/log")
    return direct(f"if [ -e {path} ]; then tail -n {lines} {path}; else echo 'no watchdog has run here'; fi")


def act(home: str, app: str, act: Act, service: str, seconds: float, reason: str) -> Script:
    """Run one recovery as a unit of its own, outside the watchdog's limits and life, and wait for its end.

    `seconds` is how long the trouble has lasted. It writes into the watchdog's log. Source: systemd-run(1): `--wait`
    gives the unit's exit status, `--collect` forgets a failed one. The name is new each time: where processes of the
    containers that a recovery started stay in its unit, the unit stays too.
    """
    program = ["/usr/bin/env", "python3", "-I", f"{home}/watchdog/watchdog.pyz", "recover", home, act.value, service]
    # Source: systemd.service(5): the manager would put a variable in the place of `$NAME`.
    program += [f"{seconds:.0f}", reason.replace("$", "$$")]
    log = f"append:{home}/watchdog/log"
    rules = ("KillMode=process", "UMask=0077", f"StandardOutput={log}", f"StandardError={log}")
    start = words("systemd-run", "--user", "--quiet", "--wait", "--collect", *(f"--property={rule}" for rule in rules))
    return direct(f'{start} --unit {quote(f"{app}-recovery")}-"$(date +%s%N)" {words(*program)}')
