"""Everything that a prepared host has, in the order in which it is made: the application's own items, and the whole list.

It runs nothing. What the system itself needs is in commands/system.py, firewall.py and certificate.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fabfile.commands import certificate, firewall, metrics, postgres, system
from fabfile.commands.backup import backup_directory, scheduled
from fabfile.commands.item import FOREIGN, Item, as_user, file, owned, same, script_as_user, unclaimed
from fabfile.commands.nginx import site_file, site_helper, site_rules, site_rules_file
from fabfile.commands.podman import network_name
from fabfile.commands.rotation import rotation
from fabfile.commands.shell import Script, quote, script, words, write_file
from fabfile.model import Access, Application, Preparation, Target


@dataclass(frozen=True)
class Files:
    """What setup installs, rendered; units are a service and its timer, `watchdog` installs one.

    `granted` are the keys of those who may deploy, `block` the name of their block.
    """

    site: str
    helper: str
    boot: str
    unit: str
    backup_units: tuple[str, str]
    rotation_units: tuple[str, str]
    requests: str
    requests_units: tuple[str, str]
    watchdog: Script | None = None
    watchdog_version: str = ""
    granted: Access = field(default_factory=Access)
    block: str = ""


def items(target: Target, rules: Preparation, files: Files) -> tuple[Item, ...]:
    """Everything a host needs before its first deploy, in the order in which it is made."""
    app, user = target.application, target.user
    return (
        system.packages(app, rules),
        *system.user(user),
        *system.keys(files.block, user, files.granted),
        system.linger(user),
        system.storage(),
        *_directories(app, user),
        _network(app, user),
        _program(app, "site", files.helper),
        _rules(app),
        _program(app, "boot", files.boot),
        system.sudo_rule(app, user, site_helper(app.name)),
        _boot_unit(app, user, files.unit),
        system.sshd(app, user),
        *(_backups(app, user, files) if app.auto_backup else (_no_timer(app, user, "backup"),)),
        *(_rotation(app, user, rules, files) if _rotates(app, rules) else (_no_timer(app, user, "logs"),)),
        *metrics.request_log_items(app, files.requests, files.requests_units),
        *metrics.exporter(app, user, rules),
        *certificate.before_site(app, rules),
        _site(app, files.site),
        *(_watchdog(app, user, files.watchdog, files.watchdog_version) if files.watchdog else ()),
        *system.kernel(app, rules),
        *system.security_updates(rules),
        *firewall.items(app, rules, target.port),
        # An authority asks on port 80, so the firewall comes first.
        *certificate.after_site(app, rules),
    )


def _rotates(app: Application, rules: Preparation) -> bool:
    return bool(rules.rotate_logs_days and app.log_files)


def _directories(app: Application, user: str) -> tuple[Item, ...]:
    home = app.home
    own = [(home, "755"), (f"{home}/live", "755")]
    own += [(f"{home}/{name}", "700") for name in ("lock", "journal", "config")]
    data, known = data_directories(app), {path for path, _ in own}
    return (
        *(_directory(path, mode, user) for path, mode in own),
        *(_data_directory(path, user) for path in data if path not in known),
        *(_log_directory(path, user) for path in app.log_directories if path not in (*known, *data)),
    )


def data_directories(app: Application) -> tuple[str, ...]:
    """The directories of what nobody can make again: database, uploads, their backups, the application's configuration."""
    paths = (app.database.rpartition("/")[0], backup_directory(app), app.uploads, app.uploads_backups, app.config_path)
    return tuple(dict.fromkeys(path for path in paths if path))


def _directory(path: str, mode: str, user: str) -> Item:
    """A directory of the suite's own: made and kept with this owner and mode; what is in it is not touched.

    One that is another's is no business of ours: APP_NAME may be the name of a program of the system.
    """
    place = quote(path)
    test = f"test -d {place} && ! test -L {place} && {owned(path, f'{user} {mode}')}"
    empty = f'test -z "$(ls -A {place} 2>/dev/null)"'
    ours = f'! test -L {place} && {{ {empty} || test "$(stat -c %U {place})" = {quote(user)}; }}'
    remedy = "it belongs to another program or user, or is a link: choose another APP_NAME"
    title = f"directory {path} ({user}, {mode})"
    return Item(f"directory {path}", title, test, script(_make_directory(path, mode, user)), remedy, possible=ours)


def _make_directory(path: str, mode: str, user: str) -> str:
    """Root makes the uppermost directory that is missing, complete before it has its name; the user all below it.

    Where the user may put a link in the way, it does so by its own rights alone. So root never follows one.
    """
    return f"""\
path={quote(path)} user={quote(user)}
own() {{ runuser -u "$user" -- sh -c 'cd / && umask 027 && mkdir -p -- "$1" && chmod {mode} -- "$1"' sh "$path"; }}
if ! own 2>/dev/null; then
  top=$path
  until [ -d "$(dirname "$top")" ]; do top=$(dirname "$top"); done
  above=$(dirname "$top")
  until [ "$above" = / ]; do
    if [ "$(stat -c %U "$above")" != root ]; then
      echo "$user cannot make $path, and $above is not root's: make it by hand"
      exit 1
    fi
    above=$(dirname "$above")
  done
  if [ ! -e "$top" ]; then
    rm -rf "$top.new"
    mkdir -m 750 "$top.new"
    chown "$user:" "$top.new"
    mv -T "$top.new" "$top"
  elif [ "$(stat -c %U "$top")" = root ] && [ -z "$(ls -A "$top")" ]; then
    chown "$user:" "$top"
  fi
  own
fi"""


def _data_directory(path: str, user: str) -> Item:
    """A directory of the application: made where it is missing, with its parents; what is in one that is there stays.

    One that the containers write belongs to an id of theirs; root's own are none of theirs.
    """
    place, title = quote(path), f"directory {path} ({user})"
    theirs = f'test "$(stat -L -c %U {place})" != root && ' if user != "root" else ""
    test = f'test -d {place} && {theirs}test -z "$(find -H {place} -maxdepth 0 -perm -o+w)"'
    possible = f'! test -e {place} || test -z "$(ls -A {place})"'
    remedy = (
        f"it is root's, or everyone may write it: chown {user}: and chmod 750, once you have looked at what it holds"
    )
    apply = script(_make_directory(path, "750", user))
    return Item(f"directory {path}", title, test, apply, remedy, possible=possible)


def _log_directory(path: str, user: str) -> Item:
    """Whose it is does not matter: Nginx and journald may write there as well."""
    make = script(_make_directory(path, "750", user))
    return Item(f"directory {path}", f"directory {path} ({user})", words("test", "-d", path), make)


def _network(app: Application, user: str) -> Item:
    """Podman is not asked before the user's runtime directory is there.

    Source: measured on Debian 12: rootless Podman keeps the mount namespace of its first run, in which a runtime
    directory that is mounted later may never show, and then refuses each command.
    """
    name = network_name(app.name)
    ready = f'test -S "/run/user/$(id -u {quote(user)})/bus"'
    return Item(
        "network",
        f"Podman network {name}",
        f"{ready} && {as_user(user, words('podman', 'network', 'exists', name))}",
        script(as_user(user, words("podman", "network", "create", name))),
    )


def _program(app: Application, name: str, content: str) -> Item:
    path = site_helper(app.name).rpartition("/")[0] + f"/{name}"
    title = {
        "site": "the root-owned Nginx site helper",
        "boot": "the program that starts the live colors at boot",
        "backup": "the program that the backup timer runs",
        "logs": "the program that rotates logs",
    }[name]
    return file(f"program {name}", f"{title} ({path})", path, content, "755", named=name == "site")


def _rules(app: Application) -> Item:
    path = site_rules_file(app.name)
    return file("site rules", f"name, ports and certificate of the site ({path})", path, site_rules(app), "644")


def _boot_unit(app: Application, user: str, unit: str) -> Item:
    """A unit of the deploy user's manager: with linger it runs at boot. Source: systemd.special(7), default.target."""
    name = f"{app.name}-boot.service"
    path = f"/etc/systemd/user/{name}"
    wants = f'"$(getent passwd {quote(user)} | cut -d : -f 6)/.config/systemd/user/default.target.wants"'
    enable = as_user(
        user,
        f"mkdir -p ~/.config/systemd/user/default.target.wants && ln -sf {quote(path)} ~/.config/systemd/user/default.target.wants/{quote(name)} && systemctl --user daemon-reload",
    )
    test = f"{same(path, unit)} && test -L {wants}/{quote(name)}"
    return Item(
        "boot unit",
        f"{name}, which starts the live colors",
        test,
        script(write_file(path, unit, mode="0644"), enable),
    )


def _backups(app: Application, user: str, files: Files) -> tuple[Item, ...]:
    """The timer of backups; the program that it runs holds no secret."""
    title = f"{app.name}-backup.timer: {'; '.join(app.backup_calendar)}"
    timer = _timer(app, user, "backup", title, files.backup_units)
    return (_program(app, "backup", scheduled(app)), *_password(app, user), timer)


def _rotation(app: Application, user: str, rules: Preparation, files: Files) -> tuple[Item, ...]:
    """The timer of log rotation: the deploy user's own, since containers write with ids of that user's range."""
    title = f"{app.name}-logs.timer: {', '.join(app.log_files)} for {rules.rotate_logs_days} days"
    timer = _timer(app, user, "logs", title, files.rotation_units)
    return (_program(app, "logs", rotation(app, rules.rotate_logs_days)), timer)


def _timer(app: Application, user: str, kind: str, title: str, contents: tuple[str, str]) -> Item:
    """A timer of the deploy user's manager."""
    name = f"{app.name}-{kind}"
    units = dict(zip((f"/etc/systemd/user/{name}.service", f"/etc/systemd/user/{name}.timer"), contents, strict=True))
    wants = "~/.config/systemd/user/timers.target.wants"
    link = words("ln", "-sf", f"/etc/systemd/user/{name}.timer")
    enable = as_user(
        user,
        f"mkdir -p {wants} && {link} {wants}/ && systemctl --user daemon-reload && systemctl --user restart {name}.timer",
    )
    test = [*(same(path, content) for path, content in units.items())]
    test.append(as_user(user, f"test -L {wants}/{name}.timer && systemctl --user is-active {name}.timer"))
    make = script(*(write_file(path, content, mode="0644") for path, content in units.items()), enable)
    return Item(f"{kind} timer", title, " && ".join(test), make)


def _no_timer(app: Application, user: str, kind: str) -> Item:
    paths = timer_paths(app, kind)
    test = " && ".join(words("test", "!", "-e", path) for path in paths)
    return Item(f"{kind} timer", f"no {app.name}-{kind}.timer", test, remove_timer(app, user, kind))


def timer_paths(app: Application, kind: str) -> tuple[str, ...]:
    """The files of a timer: its two units and its program."""
    units = (f"/etc/systemd/user/{app.name}-{kind}.{suffix}" for suffix in ("timer", "service"))
    return (*units, f"{site_helper(app.name).rpartition('/')[0]}/{kind}")


def remove_timer(app: Application, user: str, kind: str) -> Script:
    """Take a timer of the deploy user's manager away."""
    name = f"{app.name}-{kind}.timer"
    disable = f"rm -f ~/.config/systemd/user/timers.target.wants/{name} && systemctl --user daemon-reload"
    stop = as_user(user, f"systemctl --user stop {name}")
    return script(f"{stop} || :", words("rm", "-f", *timer_paths(app, kind)), as_user(user, disable))


def _password(app: Application, user: str) -> tuple[Item, ...]:
    if app.database_server is None or not app.database_server.password:
        return ()
    path, content = postgres.password_file(app.home), postgres.password_line(app.database_server)
    test = f"{same(path, content)} && {owned(path, f'{user} 600')}"
    apply = script_as_user(user, write_file(path, content, secret=True))
    return (Item("database password", f"the database's password for backups ({path}, 600)", test, apply),)


def _watchdog(app: Application, user: str, install: Script, version: str) -> tuple[Item, ...]:
    place, unit = f"{app.home}/watchdog/version", f"{app.name}-watchdog.service"
    running = as_user(user, f"systemctl --user is-active --quiet {unit}")
    test = f'test "$(cat {quote(place)})" = {quote(version)} && {running}'
    return (Item("watchdog", f"the watchdog ({unit})", test, script_as_user(user, install)),)


def _site(app: Application, site: str) -> Item:
    """A first site, so that a deploy finds Nginx ready; what is live already is a deploy's to change, with its undo."""
    helper = quote(site_helper(app.name))
    file, staged = quote(site_file(app.name)), f"/run/{app.name}-site.conf"
    test = (
        f'test "$(curl -fs --max-time 10 "http://127.0.0.1:$(sed -n \'2s/^# rolling-port: //p\' {file})/_rolling/site")"'
        f" = \"$(sed -n '1s/^# rolling-site: //p' {file})\""
    )
    apply = script(
        write_file(staged, site, mode="0644"),
        f'status=0\n{helper} install < {quote(staged)} || status=$?\nrm -f {quote(staged)}\nexit "$status"',
    )
    title, path = f"the Nginx site ({site_file(app.name)}), proved live", site_file(app.name)
    return Item("site", title, f"test -s {file} && {test}", apply, f"{path} {FOREIGN}", unclaimed(path))
