"""What takes an application off a host: everything that setup and deploys made, in reverse. It runs nothing.

Packages, the deploy user with its keys, certificates and ufw's rules stay: others may live by them. Data stays unless
it is asked for. Each part does nothing where there is nothing left to take away.
"""

from __future__ import annotations

from fabfile.commands import firewall, metrics, watchdog
from fabfile.commands.item import Item, as_user, ours, script_as_user
from fabfile.commands.lock import MANUAL, acquire
from fabfile.commands.namespace import ENTER, FIND_NAMESPACE
from fabfile.commands.nginx import request_log, site_file, site_helper
from fabfile.commands.podman import network_name
from fabfile.commands.setup import data_directories, remove_timer
from fabfile.commands.shell import Script, quote, script, words
from fabfile.commands.signing import LOOKASIDE
from fabfile.model import Application, Lock

#: For how long nobody else may begin anything on the host, seconds: a teardown that was cut off is repeated within it.
LEASE_SECONDS = 900
LOCK = "lock"
_TOKEN = f"{MANUAL}teardown"


def items(app: Application, user: str, *, data: bool) -> tuple[Item, ...]:
    """What is to be gone, in the order in which it goes; the check of each says whether it is."""
    programs = site_helper(app.name).rpartition("/")[0]
    unit = f"/etc/systemd/user/{app.name}-boot.service"
    return (
        _lock(app, user),
        _timers(app, user),
        _containers(app, user),
        _site(app),
        _request_log(app),
        _renewal(app),
        _file("sudo rule", f"/etc/sudoers.d/{app.name}"),
        _file("sshd", f"/etc/ssh/sshd_config.d/{app.name}.conf", after="systemctl reload ssh"),
        _file("kernel", f"/etc/sysctl.d/90-{app.name}.conf"),
        Item("firewall", "its ports in the firewall", _absent(firewall.own_file(app)), firewall.remove(app)),
        *((_data(app, user),) if data else ()),
        _state(app, user),
        _programs(app, user, programs, unit),
    )


def stays(app: Application, *, data: bool) -> str:
    """What is left on the host afterwards, in words."""
    kept = "" if data else f", and its data: {', '.join(data_directories(app))}"
    also = "Podman's storage.conf, automatic updates"
    return f"the packages, the deploy user with its keys and lingering session, the certificate, {also} stay{kept}"


def _free(home: str) -> str:
    held = quote(home + "/lock/held")
    ours = f"test \"$(sed -n 's/^token=//p' {held})\" = {_TOKEN}"
    return f'{{ ! test "$(sed -n \'s/^expires_at=//p\' {held})" -gt "$(date +%s)" || {ours}; }}'


def _lock(app: Application, user: str) -> Item:
    """Keep every other run away until the lock goes with the rest of the state."""
    held = Lock(_TOKEN, user, "", 0, "teardown", 0, 0)
    take = script_as_user(user, script("set -eu", acquire(app.home, held, lease_seconds=LEASE_SECONDS)))
    there = words("test", "!", "-d", f"{app.home}/lock")
    return Item(LOCK, "the lock of the host, until the end", there, take, possible=_free(app.home))


def _absent(*paths: str) -> str:
    return " && ".join(words("test", "!", "-e", path) for path in paths)


def _file(id: str, path: str, after: str = "") -> Item:
    """A file of setup's; one that another program put there stays."""
    return Item(id, path, f"! {ours(path)}", script(words("rm", "-f", path), after))


def _programs(app: Application, user: str, directory: str, unit: str) -> Item:
    """The last to go: by them the rest is known to be this suite's."""
    test = f"! {ours(directory + '/site')} && {_absent(unit)}"
    unlink = (
        f"rm -f ~/.config/systemd/user/default.target.wants/{app.name}-boot.service && systemctl --user daemon-reload"
    )
    gone = script(words("rm", "-f", unit), f"{as_user(user, unlink)} || :", words("rm", "-rf", directory))
    return Item("programs", f"{directory}, {unit}", test, gone)


def _state(app: Application, user: str) -> Item:
    """The suite's own directory but for data in it, which may be kept there; removed by the user's own rights."""
    home = quote(app.home)
    kept = sorted(
        {path[len(app.home) + 1 :].partition("/")[0] for path in data_directories(app) if _is_in(path, app.home)}
    )
    named = "".join(f" ! -name {quote(name)}" for name in kept)
    every = f"find {home} -mindepth 1 -maxdepth 1{named}"
    own = f"test -d {home}/live && test -d {home}/journal && test -d {home}/lock"
    first = f"{every} ! -name live ! -name journal ! -name lock -exec rm -rf {{}} +"
    last = f"rm -rf {home}/journal {home}/live {home}/lock"
    remove = script_as_user(user, script("set -eu", first, last))
    return Item("state", app.home, f"! {{ {own}; }}", script(remove, f"rmdir {home} 2>/dev/null || :"))


def _is_in(path: str, directory: str) -> bool:
    return path.startswith(directory + "/")


def _data(app: Application, user: str) -> Item:
    """What the containers wrote belongs to their ids. The user's own rights suffice, and root follows no link of its."""
    database = [f"{app.database}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")] if app.database else []
    directory = app.database.rpartition("/")[0]
    others = [path for path in data_directories(app) if path != directory]
    remove = [f"{ENTER} {words('rm', '-rf', '--', path)} || :" for path in (*database, *others)]
    tidy = [f"rmdir {quote(path)} 2>/dev/null || :" for path in (*others, directory) if path]
    left = " && ".join(f'test -z "$(ls -A {quote(path)} 2>/dev/null)"' for path in others)
    test = " && ".join(filter(None, (_absent(*database), left))) or "true"
    return Item(
        "data",
        ", ".join((*database[:1], *others)),
        test,
        script(script_as_user(user, script(FIND_NAMESPACE, *remove)), *tidy),
        "what is left belongs to another user",
    )


def _request_log(app: Application) -> Item:
    """Gone after the site, which names it: Nginx would not start without its directory."""
    log = request_log(app.name)
    test = _absent(log.rpartition("/")[0], *metrics.timer_paths(app.name))
    return Item("request log", f"the request log ({log})", test, metrics.remove_request_log(app))


def _renewal(app: Application) -> Item:
    """Certbot would go on asking for it, and fail. Source: certbot(1), delete; what Nginx read is a copy and stays."""
    lineage = f"/etc/letsencrypt/renewal/{app.name}.conf"
    delete = words("certbot", "delete", "--non-interactive", "--quiet", "--cert-name", app.name)
    return Item("renewal", f"the renewal of its certificate ({lineage})", _absent(lineage), script(delete))


def _timers(app: Application, user: str) -> Item:
    units = [f"/etc/systemd/user/{app.name}-{kind}.timer" for kind in ("backup", "logs")]
    stop = script(
        script_as_user(user, watchdog.uninstall(app)),
        *(remove_timer(app, user, kind) for kind in ("backup", "logs")),
    )
    return Item("watchdog and timers", "its watchdog and timers", _absent(*units, watchdog.directory(app)), stop)


def _containers(app: Application, user: str) -> Item:
    """Podman must have answered that nothing is left: no answer is none."""
    label, network = quote(f"label=rolling.app={app.name}"), quote(network_name(app.name))
    ids = f"podman ps --all --quiet --filter {label}"
    none = f'ids=$({ids}) && test -z "$ids" && {{ podman network exists {network}; test $? -eq 1; }}'
    gone = f"""\
set -eu
ids=$({ids})
images=$(printf %s "$ids" | xargs -r podman container inspect --format '{{{{.Image}}}}' | sort -u)
printf %s "$ids" | xargs -r podman rm --force --time 10 >/dev/null
podman network rm --force {network} >/dev/null
for image in $images; do podman image rm "$image" >/dev/null 2>&1 || :; done
rm -f "$HOME/{LOOKASIDE}"/rolling-*.yaml"""
    return Item(
        "containers",
        "its containers, their images and their network",
        f"! id -u {quote(user)} || {as_user(user, none)}",
        script_as_user(user, Script(gone)),
    )


def _site(app: Application) -> Item:
    reload = "if systemctl is-active --quiet nginx; then nginx -t 2>/dev/null && systemctl reload nginx; fi"
    return _file("site", site_file(app.name), after=reload)
