"""All resources of a prepared host in the order of their creation, and the resources of the application.

The resources of the operating system are in system.py, firewall.py and certificate.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from rolling_upgrade import rendering
from rolling_upgrade.engine import accessory_database, mount_owner, postgres
from rolling_upgrade.engine.model import Accessory, Application, Preparation, Service, Target
from rolling_upgrade.engine.nginx import program_directory, request_log, site_file
from rolling_upgrade.engine.paths import ROOTED, backup_directory, rooted
from rolling_upgrade.engine.podman import ENTER, FIND_NAMESPACE, network_name
from rolling_upgrade.engine.resource import (
    CHECK_SECONDS,
    FOREIGN,
    Resource,
    as_user,
    file,
    has_content,
    has_mode,
    in_directory,
    is_absent,
    is_empty,
    is_ours,
    is_unclaimed,
    output_of_user,
    script_as_user,
)
from rolling_upgrade.engine.shell import ENVIRONMENT, Script, quote, script, sha256, shell_join, write_file
from rolling_upgrade.engine.site import client as site
from rolling_upgrade.features.access.keys import Access
from rolling_upgrade.features.backup.shell import scheduled
from rolling_upgrade.features.setup import certificate, firewall, system


def resources(
    target: Target,
    preparation: Preparation,
    *,
    access: Access | None = None,
    block: str = "",
    watchdog: tuple[Script, str] | None = None,
    live: Application | None = None,
) -> tuple[Resource, ...]:
    """Return everything that a host needs before its first deploy, in the order of creation.

    Args:
        access: The keys of the deploy user; they go to `block` of its authorized_keys.
        watchdog: The script that installs the watchdog, and its version.
        live: The running application of a host whose site predates readable site data.
    """
    app, user = target.application, target.user
    return (
        system.python(),
        system.packages(app, preparation),
        *system.user(user),
        *system.keys(block, user, access or Access()),
        system.linger(user),
        system.storage(),
        *_directories(app, user),
        _network(app, user),
        *_mount_owners(app, user),
        *_site_helper(app, user, live),
        _program(app, "boot", "the program that starts the active colors at boot", rendering.host_program("boot")),
        _boot_unit(app, user),
        system.sshd(app, user),
        *_backups(app, user),
        *_rotation(app, user, preparation.rotate_logs_days),
        *_request_log(app),
        *system.node_exporter(app, user, preparation),
        *(certificate.before_site(app, preparation) if app.has_site else ()),
        _site(app, live) if app.has_site else _no_site(app),
        *((_watchdog(app, user, *watchdog),) if watchdog else ()),
        *system.kernel(app, preparation),
        *system.security_updates(preparation),
        *firewall.resources(app, preparation, target.port),
        # The certificate authority connects to port 80, so the firewall comes first.
        *(certificate.after_site(app, preparation) if app.has_site else ()),
    )


def _directories(app: Application, user: str) -> tuple[Resource, ...]:
    home = app.home
    own = [(home, "755"), (f"{home}/live", "755")]
    own += [(f"{home}/{name}", "700") for name in ("lock", "journal", "config")]
    data, known = data_paths(app), {path for path, _ in own}
    return (
        *(_directory(path, mode, user) for path, mode in own),
        *(_data_directory(path, user) for path in data if path not in known),
        *(_log_directory(path, user) for path in app.log_directories if path not in (*known, *data)),
    )


def data_paths(app: Application) -> tuple[str, ...]:
    """Return the directories of irreplaceable data: database, uploads, backups, the application's configuration."""
    paths = (app.database.rpartition("/")[0], backup_directory(app), app.uploads, app.uploads_backups, app.config_path)
    return tuple(dict.fromkeys(path for path in paths if path))


def _directory(path: str, mode: str, user: str) -> Resource:
    """A directory with this owner and mode; its content is not touched.

    Leave directories owned by another user alone: APP_NAME may collide with a system program.
    """
    place = quote(path)
    test = f"test -d {place} && ! test -L {place} && {has_mode(path, f'{user} {mode}')}"
    belongs_to_user = f'test "$(stat -c %U {place})" = {quote(user)}'
    possible = f"! test -L {place} && {{ ! test -e {place} || {is_empty(path)} || {belongs_to_user}; }}"
    # Above /var/lib/APP only root can write; below it the check runs as the user.
    possible = f"if {rooted(path)}; then {possible}; else {as_user(user, possible, CHECK_SECONDS)}; fi"
    remedy = "it belongs to another program or user, or is a symbolic link: choose another APP_NAME"
    title = f"directory {path} ({user}, {mode})"
    by_user = as_user(user, test, CHECK_SECONDS)
    return Resource(f"directory {path}", title, by_user, _make_directory(path, mode, user), remedy, possible=possible)


def _make_directory(path: str, mode: str, user: str) -> Script:
    """Root creates the topmost missing directory and renames it into place complete; the user creates the rest.

    Where another user could place a symbolic link, the user creates the directory with its own rights: root never
    follows a link.
    """
    own = shell_join("timeout", "-k", 5, CHECK_SECONDS, "runuser", "-u", user)
    return script(f"""\
path={quote(path)} user={quote(user)}
{ROOTED}
own() {{ {own} -- sh -c 'cd / && umask 027 && mkdir -p -- "$1" && chmod {mode} -- "$1"' sh "$path"; }}
if ! own 2>/dev/null; then
  top=$path
  until [ -d "$(dirname "$top")" ]; do top=$(dirname "$top"); done
  if ! reason=$(rooted "$top"); then
    echo "$user cannot create $path, and root creates nothing there: $reason. Next: create it by hand"
    exit 1
  fi
  if [ -d "$top" ] && [ ! -L "$top" ]; then
    if [ "$(stat -c %U "$top")" = root ] && [ -n "$(find "$top" -maxdepth 0 -empty)" ]; then
      chown -h "$user:" "$top"
    fi
  elif [ ! -e "$top" ] && [ ! -L "$top" ]; then
    rm -rf "$top.new"
    mkdir -m 750 "$top.new"
    chown "$user:" "$top.new"
    mv -T "$top.new" "$top"
  fi
  own
fi""")


def _data_directory(path: str, user: str) -> Resource:
    """A directory of the application's data, created with its parents if missing; existing content stays.

    It may belong to any user id of the containers, but not to root.
    """
    title = f"directory {path} ({user})"
    not_root = 'test "$(stat -c %U .)" != root && ' if user != "root" else ""
    test = in_directory(user, path, f'{not_root}test -z "$(find . -maxdepth 0 -perm -o+w)"')
    possible = f"! test -e {quote(path)} || {in_directory(user, path, is_empty('.'))}"
    remedy = f"it belongs to root or is world-writable: check its content, then run chown {user}: and chmod 750"
    apply = _make_directory(path, "750", user)
    return Resource(f"directory {path}", title, test, apply, remedy, possible=possible)


def _log_directory(path: str, user: str) -> Resource:
    """A directory of log files, of any owner: Nginx and journald may write there too."""
    make = _make_directory(path, "750", user)
    return Resource(f"directory {path}", f"directory {path} ({user})", in_directory(user, path, ":"), make)


def _network(app: Application, user: str) -> Resource:
    """The Podman network; Podman runs only once the user's runtime directory exists.

    Source: measured on Debian 12: rootless Podman keeps the mount namespace of its first run. A runtime directory that
    is mounted later may never appear in it, and every command fails.
    """
    name = network_name(app.name)
    exists = f'test -S "$XDG_RUNTIME_DIR/bus" && {shell_join("podman", "network", "exists", name)}'
    return Resource(
        "network",
        f"Podman network {name}",
        as_user(user, exists, CHECK_SECONDS),
        script(as_user(user, shell_join("podman", "network", "create", name))),
    )


def _mount_owners(app: Application, user: str) -> tuple[Resource, ...]:
    """The mounted directories with an `owner`, created if they are missing, and given to that user of the containers.

    Podman's namespace exists once the user's runtime directory does; see `_network`.
    """
    containers: tuple[Service | Accessory, ...] = (*app.services, *app.accessories)
    owners = {mount.source: mount.owner for container in containers for mount in container.mounts if mount.owner}
    found = []
    for path, owner in owners.items():
        if path not in data_paths(app):
            found.append(_data_directory(path, user))
        title = f"owner {owner} of {path}, inside the containers"
        test = as_user(user, mount_owner.is_owned(path, owner), CHECK_SECONDS)
        found.append(Resource(f"owner {path}", title, test, script_as_user(user, mount_owner.give(path, owner))))
    return tuple(found)


def _program(app: Application, name: str, title: str, content: str) -> Resource:
    path = f"{program_directory(app.name)}/{name}"
    return file(f"program {name}", f"{title} ({path})", path, content, "755", named=name == "site")


def _site_helper(app: Application, user: str, live: Application | None) -> tuple[Resource, ...]:
    """The program of root that installs the site, its rules, and the deploy user's right to call it."""
    if not app.has_site:
        return ()
    helper = _program(app, "site", "the root-owned Nginx site helper", rendering.site_program())
    return helper, _site_rules(app, live), system.sudo_rule(app, user)


def _no_site(app: Application) -> Resource:
    """No site on a host without a service that has a port, also if such a service ran there before.

    Root revokes its grants with it: the deploy user cannot install the site again.
    """
    path, right, rules = site_file(app.name), f"/etc/sudoers.d/{app.name}", site.rules_file(app.name)
    reload = "if systemctl is-active --quiet nginx; then nginx -t 2>/dev/null && systemctl reload nginx; fi"
    return Resource(
        "site",
        f"no Nginx site ({path}), and no right to install one",
        f"! {is_ours(path)} && ! {is_ours(right)} && {is_absent(rules)}",
        script(
            *(f"if {is_ours(own)}; then rm -f {quote(own)}; fi" for own in (right, path)),
            shell_join("rm", "-f", rules),
            reload,
        ),
    )


def _site_rules(app: Application, live: Application | None) -> Resource:
    """The name, ports and certificate that root grants the site; no two applications of a host share them."""
    path = site.rules_file(app.name)
    title, former = f"name, ports and certificate of the site ({path})", path.removesuffix(".json")
    return Resource(
        "site rules", title, site.is_granted(app, live), script(site.grant(app, live), shell_join("rm", "-f", former))
    )


def _boot_unit(app: Application, user: str) -> Resource:
    """The unit that starts the active colors at boot. Source: systemd.special(7), default.target."""
    title = f"{app.name}-boot.service, which starts the active colors"
    return _user_units(app, user, "boot unit", title, ("boot.service",), wanted_by="default.target")


def _backups(app: Application, user: str) -> tuple[Resource, ...]:
    """The backup timer and its program, which contains no secret."""
    if not app.auto_backup:
        return (_no_timer(app, user, "backup"),)
    title = f"{app.name}-backup.timer: {'; '.join(app.backup_calendar)}"
    program = _program(app, "backup", "the program that the backup timer runs", scheduled(app))
    return (program, *_password(app, user), _timer(app, user, "backup", title))


def _rotation(app: Application, user: str, days: int) -> tuple[Resource, ...]:
    """The timer of log rotation; it runs as the deploy user, because containers write with ids of that user's range."""
    if not (days and app.log_files):
        return (_no_timer(app, user, "logs"),)
    title = f"{app.name}-logs.timer: {', '.join(app.log_files)} for {days} days"
    program = _program(app, "logs", "the program that rotates logs", _rotation_program(app, days))
    return (program, _timer(app, user, "logs", title))


def _timer(app: Application, user: str, kind: str, title: str) -> Resource:
    units = (f"{kind}.service", f"{kind}.timer")
    return _user_units(app, user, f"{kind} timer", title, units, wanted_by="timers.target", started=True)


def _user_units(
    app: Application, user: str, id: str, title: str, units: Sequence[str], *, wanted_by: str, started: bool = False
) -> Resource:
    """Units of the deploy user's systemd manager, which linger starts at boot; `apply` enables the last one."""
    files = {f"/etc/systemd/user/{app.name}-{unit}": rendering.systemd_unit(unit, app) for unit in units}
    name = f"{app.name}-{units[-1]}"
    wants = f"~/.config/systemd/user/{wanted_by}.wants"
    enable = f"mkdir -p {wants} && ln -sf /etc/systemd/user/{name} {wants}/ && systemctl --user daemon-reload"
    enabled = f"test -L {wants}/{name}"
    if started:
        enable += f" && systemctl --user restart {name}"
        enabled += f" && systemctl --user is-active {name}"
    tests = [*(has_content(path, text) for path, text in files.items()), as_user(user, enabled, CHECK_SECONDS)]
    make = script(*(write_file(path, text, mode="0644") for path, text in files.items()), as_user(user, enable))
    return Resource(id, title, " && ".join(tests), make)


def _no_timer(app: Application, user: str, kind: str) -> Resource:
    test = is_absent(*timer_paths(app, kind))
    return Resource(f"{kind} timer", f"no {app.name}-{kind}.timer", test, remove_timer(app, user, kind))


def timer_paths(app: Application, kind: str) -> tuple[str, ...]:
    """Return the files of a timer: its two units and its program."""
    units = (f"/etc/systemd/user/{app.name}-{kind}.{suffix}" for suffix in ("timer", "service"))
    return (*units, f"{program_directory(app.name)}/{kind}")


def remove_timer(app: Application, user: str, kind: str) -> Script:
    """Stop and delete a timer of the deploy user's systemd manager."""
    name = f"{app.name}-{kind}.timer"
    disable = f"rm -f ~/.config/systemd/user/timers.target.wants/{name} && systemctl --user daemon-reload"
    stop = as_user(user, f"systemctl --user stop {name}")
    return script(f"{stop} || :", shell_join("rm", "-f", *timer_paths(app, kind)), as_user(user, disable))


def request_log_units(app: Application) -> tuple[str, str]:
    """The units of root that rotate the request log."""
    return f"/etc/systemd/system/{app.name}-requests.service", f"/etc/systemd/system/{app.name}-requests.timer"


def _request_log(app: Application) -> tuple[Resource, ...]:
    """The request log's directory and rotation. They stay when it is switched off: the site may still use the log.

    Nginx's workers open a rotated log as their own user. So everyone may enter the directory; only root may write.
    """
    if not (app.request_metrics and app.has_site):
        return ()
    log = request_log(app.name)
    directory, path = log.rpartition("/")[0], f"{program_directory(app.name)}/requests"
    timer = f"{app.name}-requests.timer"
    service_path, timer_path = request_log_units(app)
    files = {
        path: (rendering.host_program("requests"), "755"),
        service_path: (rendering.systemd_unit("requests.service", app), "644"),
        timer_path: (rendering.systemd_unit("requests.timer", app), "644"),
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
        shell_join("rm", "-f", *request_log_units(app)),
        shell_join("rm", "-rf", request_log(app.name).rpartition("/")[0]),
        "systemctl daemon-reload",
    )


def _password(app: Application, user: str) -> tuple[Resource, ...]:
    """The passwords of the databases, which a scheduled backup needs before anything else has written them."""
    named = [
        (f"the password of {one.name} of {one.accessory}", accessory_database.password_file(app, one), one.password)
        for one in app.databases
        if one.password
    ]
    if app.database_server is not None and app.database_server.password:
        content = postgres.password_line(app.database_server)
        named.append(("the password of the database", postgres.password_file(app.home), content))
    return tuple(_password_file(title, path, content, user) for title, path, content in named)


def _password_file(title: str, path: str, content: str, user: str) -> Resource:
    # The check passes no hash of the password on a command line: every user of the host can read those.
    read = f"test -f {quote(path)} && stat -c '%U %a' {quote(path)} && head -c {len(content.encode()) + 1} {quote(path)} | sha256sum"
    expected = f"{user} 600\n{sha256(content.encode())}  -"
    test = f'test "$({output_of_user(user, read)})" = {quote(expected)}'
    write = script(shell_join("mkdir", "-p", path.rpartition("/")[0]), write_file(path, content, secret=True))
    return Resource(f"password {path}", f"{title} for backups ({path}, 600)", test, script_as_user(user, write))


def _watchdog(app: Application, user: str, install: Script, version: str) -> Resource:
    place, unit = f"{app.home}/watchdog/version", f"{app.name}-watchdog.service"
    running = as_user(user, f"systemctl --user is-active --quiet {unit}", CHECK_SECONDS)
    read = f"test -f {quote(place)} && head -c 64 {quote(place)}"
    test = f'test "$({output_of_user(user, read)})" = {quote(version)} && {running}'
    return Resource("watchdog", f"the watchdog ({unit})", test, script_as_user(user, install))


def _site(app: Application, live: Application | None) -> Resource:
    """The Nginx site, rendered again from its own data by the current program and rules; a deploy changes the data.

    A change of the rules changes the site too.
    """
    path = site_file(app.name)
    title = f"the Nginx site ({path}), verified live"
    test = f"{site.is_granted(app, live)} && {site.is_current(app)}"
    apply = script(site.refresh(app, live or app))
    return Resource("site", title, test, apply, f"{path} {FOREIGN}", is_unclaimed(path))


def _rotation_program(app: Application, days: int) -> str:
    """The program that the timer runs. Source: logrotate(8), copytruncate: a writer keeps its file open."""
    rules = f"""\
{" ".join(app.log_files)} {{
  daily
  rotate {days}
  missingok
  notifempty
  copytruncate
  compress
  delaycompress
}}"""
    rotate = shell_join("logrotate", "--state", f"{app.home}/logs.state", f"{app.home}/logs.conf")
    return f"""\
#!/bin/sh
# Rotates the logs of {app.name}. Made by inv setup: change the settings and run it again.
{ENVIRONMENT}
umask 077
cat > {quote(f"{app.home}/logs.conf")} <<'END-OF-RULES'
{rules}
END-OF-RULES
{FIND_NAMESPACE}
{ENTER} {rotate}
"""
