"""What a host needs before it gives metrics away: the request log with its rotation, node-exporter and its directory.

Items only; it runs nothing. What the watchdog writes is made in `watchdog/`.
"""

from __future__ import annotations

from fabfile.commands.firewall import METRICS_PORT
from fabfile.commands.item import Item, owned, same
from fabfile.commands.nginx import request_log, site_helper
from fabfile.commands.shell import Script, quote, script, words, write_file
from fabfile.commands.system import install, possible
from fabfile.model import Application, Preparation

#: Where Debian's node-exporter looks for texts of others unless it is told otherwise.
DEBIANS_DIRECTORY = "/var/lib/prometheus/node-exporter"
_PROGRAM, _UNIT = "prometheus-node-exporter", "prometheus-node-exporter.service"
_DROP_IN = f"/etc/systemd/system/{_UNIT}.d/rolling.conf"


def text_file(directory: str, app: str) -> str:
    """The file that the watchdog of an application writes for node-exporter."""
    return f"{directory}/rolling-{app}.prom"


def timer_paths(app: str) -> tuple[str, str]:
    """The units that rotate the request log: root's, as the log is."""
    return f"/etc/systemd/system/{app}-requests.service", f"/etc/systemd/system/{app}-requests.timer"


def request_log_items(app: Application, program: str, units: tuple[str, str]) -> tuple[Item, ...]:
    """The request log's directory and rotation. Where it is switched off they stay: the site may name the log still.

    Nginx's workers open a rotated log by their own rights, so that anyone may enter the directory; only root writes it.
    """
    if not app.request_metrics:
        return ()
    log = request_log(app.name)
    directory, path = log.rpartition("/")[0], f"{site_helper(app.name).rpartition('/')[0]}/requests"
    timer = f"{app.name}-requests.timer"
    files = {
        path: (program, "755"),
        **{unit: (text, "644") for unit, text in zip(timer_paths(app.name), units, strict=True)},
    }
    test = [f"{same(name, text)} && {owned(name, f'root {mode}')}" for name, (text, mode) in files.items()]
    test += [f"test -d {quote(directory)} && ! test -L {quote(directory)} && {owned(directory, 'root 755')}"]
    test += [words("systemctl", "is-active", "--quiet", timer), words("systemctl", "is-enabled", "--quiet", timer)]
    apply = script(
        words("mkdir", "-p", path.rpartition("/")[0]),
        *(write_file(name, text, mode=f"0{mode}") for name, (text, mode) in files.items()),
        words("install", "-d", "-o", "root", "-g", "root", "-m", "755", directory),
        f"systemctl daemon-reload\n{words('systemctl', 'enable', '--quiet', timer)}\n{words('systemctl', 'restart', timer)}",
    )
    title = f"the request log ({log}), rotated by {timer}"
    possible = f"! test -L {quote(directory)}"
    return (
        Item("request log", title, " && ".join(test), apply, f"{directory} is a link: remove it", possible=possible),
    )


def remove_request_log(app: Application) -> Script:
    """Take the request log and its rotation away; the site that names it is gone by then."""
    timer = f"{app.name}-requests.timer"
    return script(
        f"{words('systemctl', 'disable', '--quiet', '--now', timer)} 2>/dev/null || :",
        words("rm", "-f", *timer_paths(app.name)),
        words("rm", "-rf", request_log(app.name).rpartition("/")[0]),
        "systemctl daemon-reload",
    )


def exporter(app: Application, user: str, rules: Preparation) -> tuple[Item, ...]:
    """Node-exporter as Debian has it, and the right of the deploy user to leave a text in its directory.

    Where it is off, what is installed stays: others may want it.
    """
    if not rules.node_exporter:
        return ()
    return (_package(app), _directory(app.metrics_dir, user)) if app.metrics_dir else (_package(app),)


def _package(app: Application) -> Item:
    """Source: systemd.service(5): an empty ExecStart= forgets the one before; Debian's unit reads ARGS from a file."""
    wanted = app.metrics_dir or DEBIANS_DIRECTORY
    flag = f"--collector.textfile.directory={wanted}"
    drop_in = f"# Made by inv setup.\n[Service]\nExecStart=\nExecStart=/usr/bin/{_PROGRAM} {flag} $ARGS\n"
    elsewhere = wanted != DEBIANS_DIRECTORY
    known = same(_DROP_IN, drop_in) if elsewhere else words("test", "!", "-e", _DROP_IN)
    running = f"systemctl is-enabled --quiet {_UNIT} && systemctl is-active --quiet {_UNIT}"
    test = f"command -v {_PROGRAM} && command -v setfacl && {known} && {running}"
    place = script(words("mkdir", "-p", _DROP_IN.rpartition("/")[0]), write_file(_DROP_IN, drop_in, mode="0644"))
    apply = script(
        f"if ! command -v {_PROGRAM} >/dev/null || ! command -v setfacl >/dev/null; then\n"
        f"{install((_PROGRAM, 'acl'))}\nfi",
        place if elsewhere else words("rm", "-f", _DROP_IN),
        f"systemctl daemon-reload\nsystemctl enable --quiet {_UNIT}\nsystemctl restart {_UNIT}",
    )
    title = f"{_PROGRAM} on port {METRICS_PORT}, with the texts in {wanted}"
    remedy = f"this is no Debian or Ubuntu: install {_PROGRAM} and setfacl"
    return Item("node exporter", title, test, apply, remedy, possible=f"{possible(_PROGRAM)} && {possible('setfacl')}")


def _directory(path: str, user: str) -> Item:
    """Several applications may write there, each user its own files: sticky, and an entry in the access list for each.

    A group would reach the running manager of a user, and so its watchdog, only after a new login. Root does nothing
    behind a link: `cd` first, then only what it stands in.
    """
    place = quote(path)
    theirs = words("runuser", "-u", user, "--", "test", "-w", path)
    sticky = f'test -z "$(find -H {place} -maxdepth 0 ! -perm -1555)"'
    test = f"test -d {place} && {sticky} && {theirs}"
    apply = f"""\
mkdir -p {place}
cd -P {place}
if [ "$(pwd -P)" != {place} ]; then
  echo {quote(f"{path} is reached through a link: name the directory itself in METRICS_DIR")}
  exit 1
fi
chmod 1755 .
setfacl -m {quote(f"u:{user}:rwx")} ."""
    return Item("metrics directory", f"directory {path} ({user} may write)", test, script(apply))
