"""The resources of a host that exports metrics: the request log with its rotation, node-exporter and its directory."""

from __future__ import annotations

from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Application, Preparation
from rolling_upgrade.engine.nginx import request_log, site_helper
from rolling_upgrade.engine.paths import ROOTED
from rolling_upgrade.engine.resource import CHECK_SECONDS, Resource, as_user, has_content, has_mode
from rolling_upgrade.engine.shell import Script, quote, script, shell_join, write_file
from rolling_upgrade.features.setup.firewall import METRICS_PORT
from rolling_upgrade.features.setup.system import install, possible

#: The default directory of the textfile collector in Debian's node-exporter.
DEBIANS_DIRECTORY = "/var/lib/prometheus/node-exporter"
_PROGRAM, _UNIT = "prometheus-node-exporter", "prometheus-node-exporter.service"
_DROP_IN = f"/etc/systemd/system/{_UNIT}.d/rolling.conf"


def timer_paths(app: str) -> tuple[str, str]:
    """The units of root that rotate the request log."""
    return f"/etc/systemd/system/{app}-requests.service", f"/etc/systemd/system/{app}-requests.timer"


def request_log_resources(app: Application) -> tuple[Resource, ...]:
    """The request log's directory and rotation. They stay when it is switched off: the site may still use the log.

    Nginx's workers open a rotated log as their own user; so everyone may enter the directory, and only root writes to it.
    """
    if not app.request_metrics:
        return ()
    log = request_log(app.name)
    directory, path = log.rpartition("/")[0], f"{site_helper(app.name).rpartition('/')[0]}/requests"
    timer = f"{app.name}-requests.timer"
    files = {
        path: (rendering.host_program("requests"), "755"),
        **{
            unit: (text, "644") for unit, text in zip(timer_paths(app.name), rendering.requests_units(app), strict=True)
        },
    }
    test = [f"{has_content(name, text)} && {has_mode(name, f'root {mode}')}" for name, (text, mode) in files.items()]
    test += [f"test -d {quote(directory)} && ! test -L {quote(directory)} && {has_mode(directory, 'root 755')}"]
    test += [
        shell_join("systemctl", "is-active", "--quiet", timer),
        shell_join("systemctl", "is-enabled", "--quiet", timer),
    ]
    apply = script(
        shell_join("mkdir", "-p", path.rpartition("/")[0]),
        *(write_file(name, text, mode=f"0{mode}") for name, (text, mode) in files.items()),
        shell_join("install", "-d", "-o", "root", "-g", "root", "-m", "755", directory),
        f"systemctl daemon-reload\n{shell_join('systemctl', 'enable', '--quiet', timer)}\n{shell_join('systemctl', 'restart', timer)}",
    )
    title = f"the request log ({log}), rotated by {timer}"
    possible = f"! test -L {quote(directory)}"
    return (
        Resource(
            "request log", title, " && ".join(test), apply, f"{directory} is a link: remove it", possible=possible
        ),
    )


def remove_request_log(app: Application) -> Script:
    """Remove the request log and its rotation, after the site that uses it."""
    timer = f"{app.name}-requests.timer"
    return script(
        f"{shell_join('systemctl', 'disable', '--quiet', '--now', timer)} 2>/dev/null || :",
        shell_join("rm", "-f", *timer_paths(app.name)),
        shell_join("rm", "-rf", request_log(app.name).rpartition("/")[0]),
        "systemctl daemon-reload",
    )


def exporter(app: Application, user: str, rules: Preparation) -> tuple[Resource, ...]:
    """Debian's node-exporter, and the deploy user's right to write to its directory.

    An installed node-exporter stays when the setting is turned off, because other programs may use it.
    """
    if not rules.node_exporter:
        return ()
    return (_package(app), _directory(app.metrics_dir, user)) if app.metrics_dir else (_package(app),)


def _package(app: Application) -> Resource:
    """Source: systemd.service(5): an empty ExecStart= resets the command. Debian's unit reads ARGS from a file."""
    directory = app.metrics_dir or DEBIANS_DIRECTORY
    flag = f"--collector.textfile.directory={directory}"
    drop_in = f"# Made by inv setup.\n[Service]\nExecStart=\nExecStart=/usr/bin/{_PROGRAM} {flag} $ARGS\n"
    elsewhere = directory != DEBIANS_DIRECTORY
    known = has_content(_DROP_IN, drop_in) if elsewhere else shell_join("test", "!", "-e", _DROP_IN)
    running = f"systemctl is-enabled --quiet {_UNIT} && systemctl is-active --quiet {_UNIT}"
    test = f"command -v {_PROGRAM} && command -v setfacl && {known} && {running}"
    place = script(shell_join("mkdir", "-p", _DROP_IN.rpartition("/")[0]), write_file(_DROP_IN, drop_in, mode="0644"))
    apply = script(
        f"if ! command -v {_PROGRAM} >/dev/null || ! command -v setfacl >/dev/null; then\n"
        f"{install((_PROGRAM, 'acl'))}\nfi",
        place if elsewhere else shell_join("rm", "-f", _DROP_IN),
        f"systemctl daemon-reload\nsystemctl enable --quiet {_UNIT}\nsystemctl restart {_UNIT}",
    )
    title = f"{_PROGRAM} on port {METRICS_PORT}, with the text files of {directory}"
    remedy = f"this host is not Debian or Ubuntu: install {_PROGRAM} and setfacl by hand"
    return Resource(
        "node exporter", title, test, apply, remedy, possible=f"{possible(_PROGRAM)} && {possible('setfacl')}"
    )


def _directory(path: str, user: str) -> Resource:
    """Several applications may write there, each user its own files: a sticky directory with an ACL entry for each user.

    A group would apply to a user's running systemd manager, and so to its watchdog, only after a new login. Root follows
    no link: the script changes to the directory first, and then uses relative paths.
    """
    place = quote(path)
    sticky = f'( cd -P {place} && test -z "$(find . -maxdepth 0 ! -perm -1555)" )'
    test = f"{sticky} && {as_user(user, shell_join('test', '-w', path), CHECK_SECONDS)}"
    apply = f"""\
if [ ! -e {place} ]; then
  {ROOTED}
  if ! said=$(rooted {place}); then
    echo {quote(f"root does not create {path}:")} "$said. Next: create it by hand, or choose another METRICS_DIR"
    exit 1
  fi
  mkdir -p {place}
fi
cd -P {place}
if [ "$(pwd -P)" != {place} ]; then
  echo {quote(f"{path} is behind a symbolic link: set METRICS_DIR to the real path")}
  exit 1
fi
chmod 1755 .
setfacl -m {quote(f"u:{user}:rwx")} ."""
    return Resource("metrics directory", f"directory {path} ({user} may write)", test, script(apply))
