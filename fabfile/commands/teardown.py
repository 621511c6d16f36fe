"""What takes an application off a host: everything that setup and deploys made, in reverse. It runs nothing.

Packages, the deploy user with its keys, certificates and ufw's rules stay: others may live by them. Data stays unless
it is asked for. Each part does nothing where there is nothing left to take away.
"""

from __future__ import annotations

from fabfile.commands import firewall, watchdog
from fabfile.commands.item import Item, as_user, script_as_user
from fabfile.commands.lock import HELD_STATUS
from fabfile.commands.nginx import site_file, site_helper
from fabfile.commands.podman import network_name
from fabfile.commands.setup import data_directories, remove_timer
from fabfile.commands.shell import Script, quote, script, words
from fabfile.commands.signing import LOOKASIDE
from fabfile.model import Application


def items(app: Application, user: str, *, data: bool) -> tuple[Item, ...]:
    """What is to be gone, in the order in which it goes; the check of each says whether it is."""
    home, programs = app.home, site_helper(app.name).rpartition("/")[0]
    return (
        Item("lock", "no run holds the host's lock", _free(home), script(_refuse(home))),
        _timers(app, user),
        _containers(app, user),
        _site(app),
        _renewal(app),
        _paths(
            "sudo rule and programs",
            (f"/etc/sudoers.d/{app.name}", programs, f"/etc/systemd/user/{app.name}-boot.service"),
            after=as_user(user, _unlink(app)),
        ),
        _paths("sshd", (f"/etc/ssh/sshd_config.d/{app.name}.conf",), after="systemctl reload ssh"),
        _paths("kernel", (f"/etc/sysctl.d/90-{app.name}.conf",)),
        Item("firewall", "its ports in the firewall", _absent((firewall.own_file(app),)), firewall.remove(app)),
        _paths("state", (home,)),
        *((_paths("data", data_directories(app)),) if data else ()),
    )


def stays(app: Application, *, data: bool) -> str:
    """What is left on the host afterwards, in words."""
    kept = "" if data else f", and its data: {', '.join(data_directories(app))}"
    return f"the packages, the deploy user and the certificate stay{kept}"


def _free(home: str) -> str:
    held = quote(home + "/lock/held")
    return f'! test "$(sed -n \'s/^expires_at=//p\' {held})" -gt "$(date +%s)"'


def _refuse(home: str) -> str:
    return f"if ! {{ {_free(home)}; }} 2>/dev/null; then cat {quote(home + '/lock/held')}; exit {HELD_STATUS}; fi"


def _absent(paths: tuple[str, ...]) -> str:
    return " && ".join(words("test", "!", "-e", path) for path in paths)


def _paths(id: str, paths: tuple[str, ...], after: str = "") -> Item:
    return Item(id, ", ".join(paths), _absent(paths), script(words("rm", "-rf", *paths), after))


def _unlink(app: Application) -> str:
    return (
        f"rm -f ~/.config/systemd/user/default.target.wants/{app.name}-boot.service && systemctl --user daemon-reload"
    )


def _renewal(app: Application) -> Item:
    """Certbot would go on asking for it, and fail. Source: certbot(1), delete; what Nginx read is a copy and stays."""
    lineage = f"/etc/letsencrypt/renewal/{app.name}.conf"
    delete = words("certbot", "delete", "--non-interactive", "--quiet", "--cert-name", app.name)
    return Item("renewal", f"the renewal of its certificate ({lineage})", _absent((lineage,)), script(delete))


def _timers(app: Application, user: str) -> Item:
    units = [f"/etc/systemd/user/{app.name}-{kind}.timer" for kind in ("backup", "logs")]
    test = f"{_absent((*units, watchdog.directory(app)))}"
    stop = script(
        script_as_user(user, watchdog.uninstall(app)),
        *(remove_timer(app, user, kind) for kind in ("backup", "logs")),
    )
    return Item("watchdog and timers", "its watchdog and timers", test, stop)


def _containers(app: Application, user: str) -> Item:
    label, network = quote(f"label=rolling.app={app.name}"), quote(network_name(app.name))
    ids = f"podman ps --all --quiet --filter {label}"
    test = as_user(user, f'test -z "$({ids})" && ! podman network exists {network}')
    gone = f"""\
images=$({ids} | xargs -r podman container inspect --format '{{{{.Image}}}}' | sort -u)
{ids} | xargs -r podman rm --force --time 10 >/dev/null
podman network rm --force {network} >/dev/null
for image in $images; do podman image rm "$image" >/dev/null 2>&1 || :; done
rm -f "$HOME/{LOOKASIDE}"/rolling-*.yaml"""
    known = f"id -u {quote(user)}"
    return Item(
        "containers",
        "its containers, their images and their network",
        f"! {known} || {test}",
        script_as_user(user, Script(gone)),
    )


def _site(app: Application) -> Item:
    reload = "if systemctl is-active --quiet nginx; then nginx -t 2>/dev/null && systemctl reload nginx; fi"
    return _paths("site", (site_file(app.name),), after=reload)
