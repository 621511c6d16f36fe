"""The operating system's resources of a prepared host: programs, user, sshd, kernel settings, updates, node-exporter.

Setup installs packages with apt on Debian and Ubuntu; on other distributions the operator installs them.
"""

from __future__ import annotations

from collections.abc import Sequence

from rolling_upgrade.engine import postgres, sqlite
from rolling_upgrade.engine.model import Application, Preparation
from rolling_upgrade.engine.nginx import site_helper
from rolling_upgrade.engine.paths import ROOTED
from rolling_upgrade.engine.resource import (
    CHECK_SECONDS,
    FOREIGN,
    PYTHON,
    Resource,
    as_user,
    has_content,
    has_mode,
    is_absent,
    is_ours,
    is_unclaimed,
)
from rolling_upgrade.engine.shell import quote, script, shell_join, write_file
from rolling_upgrade.features.access.keys import Access
from rolling_upgrade.features.access.shell import effective_settings, render

#: Each program with its Debian package.
_PROGRAMS = {
    "podman": "podman",
    "crun": "crun",
    "newuidmap": "uidmap",
    "nft": "nftables",
    "iptables": "iptables",
    "nginx": "nginx",
    "curl": "curl",
    "jq": "jq",
    "git": "git",
    "python3": "python3",
    "sqlite3": "sqlite3",
    "sudo": "sudo",
    "visudo": "sudo",
    "ss": "iproute2",
    "flock": "util-linux",
    "pgrep": "procps",
    "tar": "tar",
    "skopeo": "skopeo",
    "openssl": "openssl",
}
#: Requirements of rootless Podman that are not programs: a test for each, and the package.
_PARTS = {
    "test -e /usr/lib/systemd/user/dbus.socket": "dbus-user-session",
    "test -x /usr/lib/podman/netavark || test -x /usr/libexec/podman/netavark": "netavark",
    "test -x /usr/lib/podman/aardvark-dns || test -x /usr/libexec/podman/aardvark-dns": "aardvark-dns",
    "command -v pasta || command -v slirp4netns": "",
    "python3 -I -c 'import jinja2'": "python3-jinja2",
}
#: After an interrupted installation, programs may exist although their packages are not configured; then Nginx does not
#: start at boot.
_CONFIGURED = '{ ! command -v dpkg || test -z "$(dpkg --audit)"; }'
_LOCK = "DPkg::Lock::Timeout=300"
#: How long to wait for another apt that holds the package lists, seconds: no option of apt waits for that lock.
_LISTS_SECONDS = 300

#: The port of node-exporter, for the monitoring host alone.
METRICS_PORT = 9100
#: The default directory of the textfile collector in Debian's node-exporter.
_DEBIANS_DIRECTORY = "/var/lib/prometheus/node-exporter"
_EXPORTER, _EXPORTER_UNIT = "prometheus-node-exporter", "prometheus-node-exporter.service"
_DROP_IN = f"/etc/systemd/system/{_EXPORTER_UNIT}.d/rolling.conf"

#: How many seconds a user manager may take to start.
_BUS_SECONDS = 60

#: Kernel settings that are limits: setup raises them and never lowers them.
_LIMITS = ("fs.file-max", "fs.nr_open", "net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog")
_PERIODIC = 'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n'


def python() -> Resource:
    """The interpreter of the executor, which runs the other steps on the host, with its whole library.

    Source: Debian's package python3-minimal has neither json nor concurrent.futures.
    """
    is_complete = "python3 -I -c 'import concurrent.futures, json, sys; sys.exit(sys.version_info < (3, 10))'"
    is_minimal = "python3 -I -c 'import sys; sys.exit(sys.version_info < (3, 10))'"
    return Resource(
        PYTHON,
        "python3, which executes the other steps",
        is_complete,
        script(install_packages(["python3"])),
        "install Python 3.10 or later",
        possible=f"command -v apt-get && {{ ! command -v python3 || {is_minimal}; }}",
    )


def packages(app: Application, preparation: Preparation) -> Resource:
    """The programs that a deploy needs. Source: apt-get(8): --no-upgrade leaves installed packages alone."""
    without = () if app.has_site else ("nginx", "visudo")
    programs = {name: package for name, package in _PROGRAMS.items() if name not in without}
    if app.uploads:
        programs["rsync"] = "rsync"
    if app.database_server:
        programs |= dict.fromkeys(postgres.TOOLS, "postgresql-client")
    if preparation.rotate_logs_days and app.log_files:
        programs["logrotate"] = "logrotate"
    if any(service.options.init for service in app.services):
        programs["catatonit"] = "catatonit"
    parts = {test: package for test, package in _PARTS.items() if app.has_site or package != "python3-jinja2"}
    parts |= {sqlite.CAPABLE: "python3"} if app.database else {}
    tests = [*(f"command -v {name}" for name in programs), *(f"{{ {test}; }}" for test in parts), _CONFIGURED]
    names = sorted({*programs.values(), *filter(None, parts.values())})
    apply = f"""\
. /etc/os-release
case "$ID ${{VERSION_ID:-}}" in
  "debian 12"* | "ubuntu 22"* | "ubuntu 24"*) network=slirp4netns ;;
  *) network=passt ;;
esac
{install_packages(names, also='"$network"')}"""
    remedy = f"not Debian or Ubuntu: install {', '.join(programs)} and the network programs of rootless Podman"
    return Resource(
        "packages",
        f"packages: {', '.join(names)}",
        " && ".join(tests),
        script(apply),
        remedy,
        possible=is_installable(),
    )


def is_installable(program: str = "apt-get") -> str:
    """A shell condition: the program exists, or apt can install it."""
    return f"{{ command -v {program} || command -v apt-get; }} >/dev/null 2>&1"


def install_packages(names: Sequence[str], *, also: str = "") -> str:
    """Install Debian packages; first finish an interrupted installation, and wait for another apt.

    Source: dpkg(1): a package whose unpacking was interrupted has the flag `reinstreq`, and only its reinstallation
    removes the flag.
    """
    packages = shell_join(*names)
    install = f"apt-get -qq -y -o {_LOCK} --no-install-recommends"
    return f"""\
export DEBIAN_FRONTEND=noninteractive
ready() {{
  said=$(dpkg --configure -a 2>&1 </dev/null) || case $said in *"lock was locked"*) return 1 ;; esac
  said=$(apt-get -qq -o {_LOCK} update 2>&1 </dev/null)
}}
began=$(date +%s)
until ready; do
  case $said in *"lock was locked"* | *"get lock"*) ;; *) began=0 ;; esac
  if [ $(($(date +%s) - began)) -ge {_LISTS_SECONDS} ]; then
    printf '%s\n' "$said"
    exit 1
  fi
  sleep 2
done
interrupted=$(dpkg-query -W -f '${{db:Status-Eflag}} ${{Package}}\\n' | sed -n 's/^reinstreq //p')
# shellcheck disable=SC2086
if [ -n "$interrupted" ]; then {install} --reinstall install $interrupted </dev/null; fi
{install} --no-upgrade install {packages} {also} </dev/null"""


def user(name: str) -> tuple[Resource, ...]:
    """The deploy user with its subordinate ids, unless it is root. Source: subuid(5), usermod(8)."""
    if name == "root":
        return ()
    ranges = " && ".join(f"grep -q {quote(f'^{name}:')} /etc/{file}" for file in ("subuid", "subgid"))
    # A locked password ('!') makes sshd refuse keys too; '*' means no password and is not locked.
    apply = f"""\
if ! id -u {quote(name)} >/dev/null 2>&1; then
  useradd --create-home --shell /bin/bash {quote(name)}
  usermod --password '*' {quote(name)}
fi
for ids in uid gid; do
  if ! grep -q {quote(f"^{name}:")} "/etc/sub$ids"; then
    first=$(awk -F : '$2 + $3 > free {{ free = $2 + $3 }} END {{ print (free > 100000 ? free : 100000) }}' "/etc/sub$ids")
    usermod "--add-sub${{ids}}s" "$first-$((first + 65535))" {quote(name)}
  fi
done"""
    title = f"the deploy user {name} with subuid and subgid ranges"
    return (Resource("user", title, f"id -u {quote(name)} && {ranges}", script(apply)),)


def keys(block: str, name: str, access: Access) -> tuple[Resource, ...]:
    """The initial keys of the deploy user on a new host; from then on `inv access` manages them."""
    if not access.granted:
        return ()
    own = render("", block, access.granted, ())
    first, path = quote(own.partition("\n")[0]), ".ssh/authorized_keys"
    every = " && ".join(f"grep -qF {quote(key.blob)} {path}" for _, key in access.granted)
    add = f"""\
set -eu
umask 077
cd
mkdir -p .ssh
{{
  if [ -f .ssh/authorized_keys ]; then awk 1 .ssh/authorized_keys; fi
  printf %s {quote(own)}
}} > .ssh/authorized_keys.new
mv -f .ssh/authorized_keys.new .ssh/authorized_keys"""
    names = ", ".join(holder for holder, _ in access.granted)
    present = f"test -f {path} && {{ grep -qxF {first} {path} || {{ {every}; }}; }}"
    test = as_user(name, present, CHECK_SECONDS)
    make = script(shell_join("timeout", "-k", 5, CHECK_SECONDS, "runuser", "-u", name, "--", "sh", "-c", add))
    return (Resource("keys", f"the keys of {names} for {name}", test, make),)


def linger(name: str) -> Resource:
    """Linger for the deploy user. Source: loginctl(1): without it a user's processes end after the last logout.

    enable-linger only requests the user's manager; on a busy host its start may fail without a retry. A manager that
    was running before the dbus package was installed has to reload to see the bus.
    """
    bus = as_user(name, 'test -S "$XDG_RUNTIME_DIR/bus"', CHECK_SECONDS)
    apply = f"""\
loginctl enable-linger {quote(name)}
manager=user@$(id -u {quote(name)}).service
systemctl start "$manager" || :
{as_user(name, "systemctl --user daemon-reload && systemctl --user start dbus.socket")} >/dev/null 2>&1 || :
began=$(date +%s)
until {bus}; do
  if [ $(($(date +%s) - began)) -ge {_BUS_SECONDS} ]; then
    echo "the user manager of {name} did not start within {_BUS_SECONDS} s"
    systemctl status --no-pager --lines 5 "$manager" || :
    exit 1
  fi
  sleep 0.1
done"""
    test = f"test -e {quote('/var/lib/systemd/linger/' + name)} && {bus}"
    return Resource("linger", f"linger for {name}", test, script(apply))


def storage() -> Resource:
    """Podman's storage driver. Source: measured on Debian 12: without a setting rootless Podman 4.3 uses vfs."""
    path = "/etc/containers/storage.conf"
    content = (
        '# Made by inv setup.\n[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\n'
        'graphroot = "/var/lib/containers/storage"\n'
    )
    make = script("mkdir -p /etc/containers", write_file(path, content, mode="0644"))
    return Resource("storage", f"the overlay driver for Podman's storage ({path})", f"test -s {path}", make)


def sshd(app: Application, name: str) -> Resource:
    """Accept only keys of the deploy user, and expose the key to its sessions: the history records it.

    Source: sshd_config(5): a Match block ends with its file and overrides settings outside of Match blocks; of two
    matching blocks the first wins. So the check asks sshd for the effective settings.
    """
    path = f"/etc/ssh/sshd_config.d/{app.name}.conf"
    content = (
        "# Made by inv setup: sshd accepts only keys of the deploy user; the history of releases names their owners.\n"
        f"Match User {name}\n    ExposeAuthInfo yes\n    PasswordAuthentication no\n    KbdInteractiveAuthentication no\n"
    )
    settings = ("exposeauthinfo yes", "passwordauthentication no", "kbdinteractiveauthentication no")
    holds = f"test \"$({effective_settings(name)} | grep -cxE '{'|'.join(settings)}')\" = {len(settings)}"
    apply = script(
        write_file(path, content, mode="0644"),
        f"mkdir -p /run/sshd\nif ! sshd -t; then rm -f {quote(path)}; exit 1; fi\nsystemctl reload ssh",
        f"if ! {holds}; then\n"
        f"  echo {quote(f'sshd does not apply {path}. Next: include it in /etc/ssh/sshd_config before any Match block')}\n"
        "  exit 1\nfi",
    )
    title = f"sshd accepts only keys of {name} and exposes them to sessions ({path})"
    test = f"{has_content(path, content)} && {holds}"
    return Resource("sshd", title, test, apply, f"{path} {FOREIGN}", is_unclaimed(path))


def kernel(app: Application, preparation: Preparation) -> tuple[Resource, ...]:
    """Kernel settings, now and at each boot; higher limits stay. Source: sysctl.d(5)."""
    path = f"/etc/sysctl.d/90-{app.name}.conf"
    if not preparation.sysctl:
        return (Resource("kernel", f"no {path}", f"! {is_ours(path)}", script(shell_join("rm", "-f", path))),)
    tests, rows = [], []
    for key, value in preparation.sysctl:
        now, line = f"\"$(sysctl -n {key} | tr '\\t' ' ')\"", quote(f"{key} = {value}")
        exact, higher = f"test {now} = {quote(value)} && grep -qxF {line} {quote(path)}", f"test {now} -gt {value}"
        if key in _LIMITS:
            tests.append(f"{{ {exact} || {higher}; }}")
            rows.append(f"if ! {higher}; then echo {line}; fi")
        else:
            tests.append(f"{{ {exact}; }}")
            rows.append(f"echo {line}")
    listed = "\n  ".join(rows)
    apply = f"""\
{{
  echo '# Made by inv setup.'
  {listed}
}} > {quote(path + ".new")}
chmod 644 {quote(path + ".new")}
mv -f {quote(path + ".new")} {quote(path)}
sysctl -q -p {quote(path)}"""
    title = ", ".join(f"{key} {value}" for key, value in preparation.sysctl)
    test = " && ".join(tests)
    return (
        Resource("kernel", f"kernel settings: {title}", test, script(apply), f"{path} {FOREIGN}", is_unclaimed(path)),
    )


def security_updates(preparation: Preparation) -> tuple[Resource, ...]:
    """Debian's unattended security updates. Turning the setting off removes nothing: others may rely on it."""
    if not preparation.security_updates:
        return ()
    path, timers = "/etc/apt/apt.conf.d/20auto-upgrades", "apt-daily.timer apt-daily-upgrade.timer"
    apply = script(
        install_packages(("unattended-upgrades",)),
        write_file(path, _PERIODIC, mode="0644"),
        f"systemctl enable --quiet --now {timers}",
    )
    test = f"command -v unattended-upgrade && {has_content(path, _PERIODIC)} && systemctl is-enabled {timers}"
    remedy = "not Debian or Ubuntu: configure the automatic updates of the distribution"
    return (
        Resource("security updates", "unattended security updates", test, apply, remedy, possible=is_installable()),
    )


def sudo_rule(app: Application, name: str) -> Resource:
    """Allow exactly two command lines. Source: sudoers(5): arguments in a rule must match the command line exactly."""
    path, helper = f"/etc/sudoers.d/{app.name}", site_helper(app.name)
    content = (
        "# Made by inv setup: the deploy user may replace one Nginx site through one helper, and nothing else.\n"
        f"{name} ALL=(root) NOPASSWD: {helper} install, {helper} restore\n"
    )
    staged = f"/etc/sudoers.d/.{app.name}.checked"
    apply = script(
        write_file(staged, content, mode="0440"),
        f"visudo -cqf {quote(staged)}",
        shell_join("mv", "-f", staged, path),
    )
    test = f"{has_content(path, content)} && {has_mode(path, 'root 440')}"
    title = f"sudo for the site helper alone ({path})"
    return Resource("sudo rule", title, test, apply, f"{path} {FOREIGN}", is_unclaimed(path))


def node_exporter(app: Application, user: str, preparation: Preparation) -> tuple[Resource, ...]:
    """Debian's node-exporter, and the deploy user's right to write to its directory.

    An installed node-exporter stays when the setting is turned off, because other programs may use it.
    """
    if not preparation.node_exporter:
        return ()
    directory = (_metrics_directory(app.metrics_dir, user),) if app.metrics_dir else ()
    return (_node_exporter_service(app), *directory)


def _node_exporter_service(app: Application) -> Resource:
    """Source: systemd.service(5): an empty ExecStart= resets the command. Debian's unit reads ARGS from a file."""
    directory = app.metrics_dir or _DEBIANS_DIRECTORY
    flag = f"--collector.textfile.directory={directory}"
    drop_in = f"# Made by inv setup.\n[Service]\nExecStart=\nExecStart=/usr/bin/{_EXPORTER} {flag} $ARGS\n"
    elsewhere = directory != _DEBIANS_DIRECTORY
    known = has_content(_DROP_IN, drop_in) if elsewhere else is_absent(_DROP_IN)
    running = f"systemctl is-enabled --quiet {_EXPORTER_UNIT} && systemctl is-active --quiet {_EXPORTER_UNIT}"
    test = f"command -v {_EXPORTER} && command -v setfacl && {known} && {running}"
    place = script(shell_join("mkdir", "-p", _DROP_IN.rpartition("/")[0]), write_file(_DROP_IN, drop_in, mode="0644"))
    apply = script(
        f"if ! command -v {_EXPORTER} >/dev/null || ! command -v setfacl >/dev/null; then\n"
        f"{install_packages((_EXPORTER, 'acl'))}\nfi",
        place if elsewhere else shell_join("rm", "-f", _DROP_IN),
        f"systemctl daemon-reload\nsystemctl enable --quiet {_EXPORTER_UNIT}\nsystemctl restart {_EXPORTER_UNIT}",
    )
    title = f"{_EXPORTER} on port {METRICS_PORT}, with the text files of {directory}"
    remedy = f"this host is not Debian or Ubuntu: install {_EXPORTER} and setfacl by hand"
    return Resource(
        "node exporter",
        title,
        test,
        apply,
        remedy,
        possible=f"{is_installable(_EXPORTER)} && {is_installable('setfacl')}",
    )


def _metrics_directory(path: str, user: str) -> Resource:
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
