"""What a prepared host has, as items: a check whether it is there, and a script that makes it so. It runs nothing.

The scripts run as root. Each is convergent: applied to a host that has the item, it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from fabfile.commands import postgres
from fabfile.commands.backup import backup_directory, scheduled
from fabfile.commands.nginx import site_file, site_helper
from fabfile.commands.podman import network_name
from fabfile.commands.shell import Script, quote, script, sha256, words, write_file
from fabfile.model import Application

_TOOLS = ("podman", "nginx", "curl", "sqlite3", "sudo", "visudo", "ss", "flock", "pgrep", "tar", "skopeo")


@dataclass(frozen=True)
class Item:
    """One thing a prepared host has. `check` is a shell condition; an item without `apply` can only be refused."""

    id: str
    title: str
    check: str
    apply: Script | None
    remedy: str = ""


@dataclass(frozen=True)
class Files:
    """The texts that setup installs, rendered."""

    site: str
    helper: str
    boot: str
    unit: str
    backup_unit: str
    backup_timer: str


def items(app: Application, user: str, files: Files) -> tuple[Item, ...]:
    """Everything a host needs before its first deploy, in the order in which it is made."""
    return (
        _tools(app),
        _user(user),
        _linger(user),
        *_directories(app, user),
        _network(app, user),
        _program(app, "site", files.helper),
        _program(app, "boot", files.boot),
        _sudo_rule(app, user),
        _boot_unit(app, user, files.unit),
        _key_disclosure(app, user),
        *(_timer(app, user, files) if app.auto_backup else (_no_timer(app, user),)),
        _site(app, files.site),
    )


def check(items: tuple[Item, ...]) -> Script:
    """Print `ID ok` or `ID drift` for every item; changes nothing."""
    parts = [
        f"if {{\n{item.check}\n}} >/dev/null 2>&1; then echo {quote(item.id)} ok; else echo {quote(item.id)} drift; fi"
        for item in items
    ]
    return Script("\n".join(parts) + "\n")


def as_root(text: Script, *, user: str) -> Script:
    """The script under root: as it is for root itself, through `sudo -n` for anyone else."""
    environment = "set -eu\numask 022\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C\nexport PATH LC_ALL\ncd /\n"
    body = environment + text.text
    if user == "root":
        return Script(body, text.secrets)
    return Script(f"sudo -n sh -c {quote(body)}", text.secrets)


def _tools(app: Application) -> Item:
    tools = [*_TOOLS, *(["rsync"] if app.uploads else []), *(postgres.TOOLS if app.database_server else [])]
    missing = " && ".join(f"command -v {tool}" for tool in tools)
    remedy = f"install the packages that bring {', '.join(tools)}"
    return Item("packages", "the programs a deploy needs", missing, None, remedy)


def _user(user: str) -> Item:
    remedy = f"create the user with subordinate ids: useradd --create-home --shell /bin/bash {user}"
    test = (
        f"id -u {quote(user)} && grep -q {quote(f'^{user}:')} /etc/subuid && grep -q {quote(f'^{user}:')} /etc/subgid"
    )
    return Item("user", f"the deploy user {user} with subuid and subgid ranges", test, None, remedy)


def _linger(user: str) -> Item:
    """Source: loginctl(1): without linger a user's processes end some time after the last logout.

    It only asks for the user's manager; on a busy host that start may fail, and nobody would try again.
    """
    apply = f"""\
loginctl enable-linger {quote(user)}
manager=user@$(id -u {quote(user)}).service
systemctl start "$manager" || :
tries=0
until [ -S "/run/user/$(id -u {quote(user)})/bus" ]; do
  tries=$((tries + 1))
  if [ "$tries" -ge 600 ]; then
    echo "the user manager of {user} did not come up"
    systemctl status --no-pager --lines 5 "$manager" || :
    exit 1
  fi
  sleep 0.1
done"""
    test = f'test -e {quote("/var/lib/systemd/linger/" + user)} && test -S "/run/user/$(id -u {quote(user)})/bus"'
    return Item("linger", f"linger for {user}", test, script(apply))


def _directories(app: Application, user: str) -> tuple[Item, ...]:
    home = app.home
    own = [(home, "755"), (f"{home}/live", "755")]
    own += [(f"{home}/{name}", "700") for name in ("lock", "journal", "config")]
    data = [
        app.database.rpartition("/")[0],
        backup_directory(app),
        app.uploads,
        app.uploads_backups,
        app.config_path,
    ]
    data += app.log_directories
    known = {path for path, _ in own}
    return (
        *(_directory(path, mode, user) for path, mode in own),
        *(_data_directory(path, user) for path in dict.fromkeys(data) if path and path not in known),
    )


def _directory(path: str, mode: str, user: str) -> Item:
    """A directory of the suite's own: made and kept with this owner and mode; what is in it is not touched."""
    test = f"test \"$(stat -c '%U %a' {quote(path)})\" = {quote(f'{user} {mode}')}"
    apply = f"mkdir -p {quote(path)}\nchown {quote(user)}: {quote(path)}\nchmod {mode} {quote(path)}"
    return Item(f"directory {path}", f"directory {path} ({user}, {mode})", test, script(apply))


def _data_directory(path: str, user: str) -> Item:
    """A directory of the application: made where it is missing, with its parents; one that is there stays as it is."""
    apply = f"""\
missing={quote(path)}
while [ ! -d "$(dirname "$missing")" ]; do missing=$(dirname "$missing"); done
mkdir -p {quote(path)}
chown -R {quote(user)}: "$missing"
chmod 750 {quote(path)}"""
    return Item(f"directory {path}", f"directory {path} ({user})", words("test", "-d", path), script(apply))


def as_user(user: str, command: str) -> str:
    """A command line under the deploy user's own session, from a root script."""
    inner = f"cd && XDG_RUNTIME_DIR=/run/user/$(id -u) && export XDG_RUNTIME_DIR && {command}"
    return words("runuser", "-u", user, "--", "sh", "-c", inner)


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
    }[name]
    return _file(f"program {name}", f"{title} ({path})", path, content, "755")


def _file(id: str, title: str, path: str, content: str, mode: str, after: str = "") -> Item:
    directory = path.rpartition("/")[0]
    test = f"{_same(path, content)} && test \"$(stat -c '%U %a' {quote(path)})\" = {quote(f'root {mode}')}"
    return Item(
        id,
        title,
        test,
        script(words("mkdir", "-p", directory), write_file(path, content, mode=f"0{mode}"), after),
    )


def _same(path: str, content: str) -> str:
    return f'test "$(sha256sum < {quote(path)} | cut -d " " -f 1)" = {sha256(content.encode())}'


def _sudo_rule(app: Application, user: str) -> Item:
    """Exactly two command lines. Source: sudoers(5): arguments in a rule must match the command line exactly."""
    helper, path = site_helper(app.name), f"/etc/sudoers.d/{app.name}"
    content = (
        "# Made by inv setup: the deploy user may replace one Nginx site through one helper, and nothing else.\n"
        f"{user} ALL=(root) NOPASSWD: {helper} install, {helper} restore\n"
    )
    staged = f"/etc/sudoers.d/.{app.name}.checked"
    apply = script(
        write_file(staged, content, mode="0440"),
        f"visudo -cqf {quote(staged)}",
        words("mv", "-f", staged, path),
    )
    test = f"{_same(path, content)} && test \"$(stat -c '%U %a' {quote(path)})\" = 'root 440'"
    return Item("sudo rule", f"sudo for the site helper alone ({path})", test, apply)


def _key_disclosure(app: Application, user: str) -> Item:
    """Let the deploy user's sessions see which key they were opened with: the history names it.

    Source: sshd_config(5), ExposeAuthInfo; a Match block ends with the file that it stands in.
    """
    path = f"/etc/ssh/sshd_config.d/{app.name}.conf"
    content = (
        "# Made by inv setup: the history of releases names the key of whoever made them.\n"
        f"Match User {user}\n    ExposeAuthInfo yes\n"
    )
    included = "grep -qi '^include.*/etc/ssh/sshd_config\\.d/' /etc/ssh/sshd_config"
    apply = script(
        write_file(path, content, mode="0644"),
        f"if ! sshd -t; then rm -f {quote(path)}; exit 1; fi\nsystemctl reload ssh",
    )
    return Item("sshd", f"sshd tells which key was used ({path})", f"! {included} || {_same(path, content)}", apply)


def _boot_unit(app: Application, user: str, unit: str) -> Item:
    """A unit of the deploy user's manager: with linger it runs at boot. Source: systemd.special(7), default.target."""
    name = f"{app.name}-boot.service"
    path = f"/etc/systemd/user/{name}"
    wants = f'"$(getent passwd {quote(user)} | cut -d : -f 6)/.config/systemd/user/default.target.wants"'
    enable = as_user(
        user,
        f"mkdir -p ~/.config/systemd/user/default.target.wants && ln -sf {quote(path)} ~/.config/systemd/user/default.target.wants/{quote(name)} && systemctl --user daemon-reload",
    )
    test = f"{_same(path, unit)} && test -L {wants}/{quote(name)}"
    return Item(
        "boot unit",
        f"{name}, which starts the live colors",
        test,
        script(write_file(path, unit, mode="0644"), enable),
    )


def _timer(app: Application, user: str, files: Files) -> tuple[Item, ...]:
    """A timer of the deploy user's manager that backs up; the program that it runs holds no secret."""
    name = f"{app.name}-backup"
    units = {
        f"/etc/systemd/user/{name}.service": files.backup_unit,
        f"/etc/systemd/user/{name}.timer": files.backup_timer,
    }
    wants = "~/.config/systemd/user/timers.target.wants"
    link = words("ln", "-sf", f"/etc/systemd/user/{name}.timer")
    enable = as_user(
        user,
        f"mkdir -p {wants} && {link} {wants}/ && systemctl --user daemon-reload && systemctl --user restart {name}.timer",
    )
    test = [*(_same(path, content) for path, content in units.items())]
    test.append(as_user(user, f"test -L {wants}/{name}.timer && systemctl --user is-active {name}.timer"))
    return (
        _program(app, "backup", scheduled(app)),
        *_password(app, user),
        Item(
            "backup timer",
            f"{name}.timer: {'; '.join(app.backup_calendar)}",
            " && ".join(test),
            script(*(write_file(path, content, mode="0644") for path, content in units.items()), enable),
        ),
    )


def _password(app: Application, user: str) -> tuple[Item, ...]:
    if app.database_server is None or not app.database_server.password:
        return ()
    path, content = postgres.password_file(app.home), postgres.password_line(app.database_server)
    test = f"{_same(path, content)} && test \"$(stat -c '%U %a' {quote(path)})\" = {quote(f'{user} 600')}"
    apply = script(write_file(path, content, secret=True), words("chown", f"{user}:", path))
    return (Item("database password", f"the database's password for backups ({path}, 600)", test, apply),)


def _no_timer(app: Application, user: str) -> Item:
    name = f"{app.name}-backup"
    paths = [
        f"/etc/systemd/user/{name}.timer",
        f"/etc/systemd/user/{name}.service",
        f"{site_helper(app.name).rpartition('/')[0]}/backup",
    ]
    disable = as_user(
        user, f"rm -f ~/.config/systemd/user/timers.target.wants/{name}.timer && systemctl --user daemon-reload"
    )
    stop = as_user(user, f"systemctl --user stop {name}.timer")
    test = " && ".join(words("test", "!", "-e", path) for path in paths)
    return Item("backup timer", f"no {name}.timer", test, script(f"{stop} || :", words("rm", "-f", *paths), disable))


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
    return Item("site", f"the Nginx site ({site_file(app.name)}), proved live", f"test -s {file} && {test}", apply)
