"""The resources that a teardown removes from a host: everything that setup and deploys created, in reverse order.

Packages, the deploy user with its keys, certificates and ufw's rules stay: others may rely on them. Data stays unless
the operator asks for its removal. Each part is idempotent.
"""

from __future__ import annotations

from rolling_upgrade.engine import jobs
from rolling_upgrade.engine.lock_file import MANUAL, acquire
from rolling_upgrade.engine.model import Application, Lock
from rolling_upgrade.engine.nginx import program_directory, request_log, site_file
from rolling_upgrade.engine.paths import rooted
from rolling_upgrade.engine.podman import ENTER, FIND_NAMESPACE, network_name, volume_name, volume_names
from rolling_upgrade.engine.resource import (
    CHECK_SECONDS,
    Resource,
    as_user,
    in_directory,
    is_absent,
    is_empty,
    is_ours,
    script_as_user,
)
from rolling_upgrade.engine.shell import Script, quote, script, shell_join
from rolling_upgrade.features.apply import LOCK
from rolling_upgrade.features.deploy.shell import LOOKASIDE
from rolling_upgrade.features.setup import firewall
from rolling_upgrade.features.setup.certificate import remove_units, unit_paths
from rolling_upgrade.features.setup.resources import (
    data_paths,
    remove_request_log,
    remove_timer,
    request_log_units,
)
from rolling_upgrade.features.watchdog import shell as watchdog

#: The lease of the lock, seconds: enough time to repeat an interrupted teardown.
LEASE_SECONDS = 900
_TOKEN = f"{MANUAL}teardown"


def resources(app: Application, user: str, *, data: bool) -> tuple[Resource, ...]:
    """Return what a teardown removes, in this order; each check tests for its absence."""
    unit = f"/etc/systemd/user/{app.name}-boot.service"
    return (
        _lock(app, user),
        _timers(app, user),
        _containers(app, user),
        _site(app),
        _request_log(app),
        _renewal(app),
        Resource("certificate units", f"{app.name}-certificate.path", is_absent(*unit_paths(app)), remove_units(app)),
        _file("sudo rule", f"/etc/sudoers.d/{app.name}"),
        _file("sshd", f"/etc/ssh/sshd_config.d/{app.name}.conf", after="systemctl reload ssh"),
        _file("kernel", f"/etc/sysctl.d/90-{app.name}.conf"),
        Resource("firewall", "its ports in the firewall", is_absent(firewall.own_file(app)), firewall.remove(app)),
        *((_volumes(app, user), _data(app, user)) if data else ()),
        _state(app, user),
        _programs(app, user, unit),
    )


def kept_note(app: Application, *, data: bool) -> str:
    """Describe the parts that stay on the host."""
    volumes = (f"the volume {volume_name(app.name, name)}" for name in volume_names(app))
    kept = "" if data else f", and its data: {', '.join((*data_paths(app), *volumes))}"
    also = "Podman's storage.conf, automatic updates"
    return f"the packages, the deploy user with its keys and lingering session, the certificate, {also} stay{kept}"


def _free(home: str, user: str) -> str:
    """A shell condition: no other run holds the lock. It reads the lock with the user's rights."""
    held = quote(home + "/lock/held")
    ours = f"test \"$(sed -n 's/^token=//p' {held})\" = {_TOKEN}"
    free = f'! test "$(sed -n \'s/^expires_at=//p\' {held})" -gt "$(date +%s)" || {ours}'
    return as_user(user, f"{{ {free}; }}", CHECK_SECONDS)


def _lock(app: Application, user: str) -> Resource:
    """Hold the lock against every other run until it is deleted with the rest of the state."""
    held = Lock(_TOKEN, user, "", 0, "teardown", 0, 0)
    take = script_as_user(user, script("set -eu", acquire(app.home, held, lease_seconds=LEASE_SECONDS)))
    there = shell_join("test", "!", "-d", f"{app.home}/lock")
    return Resource(LOCK, "the lock of the host, until the teardown ends", there, take, possible=_free(app.home, user))


def _file(id: str, path: str, after: str = "") -> Resource:
    """A file that setup installed; a file of another program stays."""
    return Resource(id, path, f"! {is_ours(path)}", script(shell_join("rm", "-f", path), after))


def _programs(app: Application, user: str, unit: str) -> Resource:
    """The installed programs, removed last: they identify the other files as this project's."""
    directory = program_directory(app.name)
    test = f"! {is_ours(directory + '/site')} && {is_absent(unit)}"
    unlink = (
        f"rm -f ~/.config/systemd/user/default.target.wants/{app.name}-boot.service && systemctl --user daemon-reload"
    )
    remove = script(shell_join("rm", "-f", unit), f"{as_user(user, unlink)} || :", shell_join("rm", "-rf", directory))
    return Resource("programs", f"{directory}, {unit}", test, remove)


def _state(app: Application, user: str) -> Resource:
    """This project's directory except for data inside it; removed with the user's rights."""
    home = quote(app.home)
    kept = sorted(
        {
            path.removeprefix(f"{app.home}/").partition("/")[0]
            for path in data_paths(app)
            if path.startswith(f"{app.home}/")
        }
    )
    named = "".join(f" ! -name {quote(name)}" for name in kept)
    every = f"find {home} -mindepth 1 -maxdepth 1{named}"
    own = f"test -d {home}/live && test -d {home}/journal && test -d {home}/lock"
    first = f"{every} ! -name live ! -name journal ! -name lock -exec rm -rf {{}} +"
    last = f"rm -rf {home}/journal {home}/live {home}/lock"
    remove = script_as_user(user, script("set -eu", first, last))
    return Resource("state", app.home, f"! {{ {own}; }}", script(remove, f"rmdir {home} 2>/dev/null || :"))


def _data(app: Application, user: str) -> Resource:
    """The data, removed with the user's rights, which include the ids of the containers; root follows no link."""
    database = [f"{app.database}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")] if app.database else []
    directory = app.database.rpartition("/")[0]
    others = [path for path in data_paths(app) if path != directory]
    remove = [f"{ENTER} {shell_join('rm', '-rf', '--', path)} || :" for path in (*database, *others)]
    tidy = [_remove_empty(path, user) for path in (*others, directory) if path]
    left = " && ".join(
        f"{{ ! test -e {quote(path)} || {in_directory(user, path, is_empty('.'))}; }}" for path in others
    )
    test = " && ".join(filter(None, (is_absent(*database), left))) or "true"
    return Resource(
        "data",
        ", ".join((*database[:1], *others)),
        test,
        script(script_as_user(user, script(FIND_NAMESPACE, *remove)), *tidy),
        "the rest belongs to another user: remove it by hand",
    )


def _volumes(app: Application, user: str) -> Resource:
    """The volumes with the application's label, after its containers; volumes that were created by hand stay."""
    listed = shell_join("podman", "volume", "ls", "--quiet", "--filter", f"label=rolling.app={app.name}")
    remove = f'set -eu\nnames=$({listed})\nprintf %s "$names" | xargs -r podman volume rm >/dev/null'
    none = f'names=$({listed}) && test -z "$names"'
    return Resource(
        "volumes",
        "its volumes",
        f"! id -u {quote(user)} || {as_user(user, none, CHECK_SECONDS)}",
        script_as_user(user, Script(remove)),
        "a container of another program uses one: remove that container",
    )


def _remove_empty(path: str, user: str) -> str:
    """Remove an empty directory; as root only where no other user could place a link."""
    remove = f"rmdir {quote(path)} 2>/dev/null"
    return f"{as_user(user, remove)} || {{ {rooted(path)} >/dev/null && {remove}; }} || :"


def _request_log(app: Application) -> Resource:
    """The request log, removed after the site that names it: Nginx does not start without its directory."""
    log = request_log(app.name)
    test = is_absent(log.rpartition("/")[0], *request_log_units(app))
    return Resource("request log", f"the request log ({log})", test, remove_request_log(app))


def _renewal(app: Application) -> Resource:
    """Stop certbot's renewals, which would fail. Source: certbot(1), delete; the copy that Nginx read stays."""
    lineage = f"/etc/letsencrypt/renewal/{app.name}.conf"
    delete = shell_join("certbot", "delete", "--non-interactive", "--quiet", "--cert-name", app.name)
    return Resource("renewal", f"the renewal of its certificate ({lineage})", is_absent(lineage), script(delete))


def _timers(app: Application, user: str) -> Resource:
    units = [f"/etc/systemd/user/{app.name}-{kind}.timer" for kind in ("backup", "logs")]
    stop = script(
        script_as_user(user, watchdog.uninstall(app)),
        script_as_user(user, jobs.remove(app)),
        *(remove_timer(app, user, kind) for kind in ("backup", "logs")),
    )
    return Resource(
        "watchdog and timers",
        "its watchdog, timers and jobs",
        is_absent(*units, watchdog.directory(app), jobs.directory(app.home)),
        stop,
    )


def _containers(app: Application, user: str) -> Resource:
    """The containers. The check requires an answer of Podman, because a Podman that fails may still have containers."""
    label, network = quote(f"label=rolling.app={app.name}"), quote(network_name(app.name))
    ids = f"podman ps --all --quiet --filter {label}"
    none = f'ids=$({ids}) && test -z "$ids" && {{ podman network exists {network}; test $? -eq 1; }}'
    remove = f"""\
set -eu
ids=$({ids})
images=$(printf %s "$ids" | xargs -r podman container inspect --format '{{{{.Image}}}}' | sort -u)
printf %s "$ids" | xargs -r podman rm --force --time 10 >/dev/null
podman network rm --force {network} >/dev/null
for image in $images; do podman image rm "$image" >/dev/null 2>&1 || :; done
rm -f "$HOME/{LOOKASIDE}"/rolling-*.yaml"""
    return Resource(
        "containers",
        "its containers, their images and their network",
        f"! id -u {quote(user)} || {as_user(user, none, CHECK_SECONDS)}",
        script_as_user(user, Script(remove)),
    )


def _site(app: Application) -> Resource:
    reload = "if systemctl is-active --quiet nginx; then nginx -t 2>/dev/null && systemctl reload nginx; fi"
    return _file("site", site_file(app.name), after=reload)
