"""What a prepared host has besides the application: programs, the deploy user, sshd, kernel settings, updates.

Items only; it runs nothing. Debian and Ubuntu are prepared by apt; on another distribution a person does it.
"""

from __future__ import annotations

from collections.abc import Sequence

from fabfile.commands import access, authorized_keys, postgres
from fabfile.commands.item import FOREIGN, Item, as_user, ours, owned, same, unclaimed
from fabfile.commands.shell import quote, script, words, write_file
from fabfile.model import Access, Application, Preparation

#: Each program with the Debian package that brings it.
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
#: What rootless Podman needs and no program shows: a test for each, and the package.
_PARTS = {
    "test -e /usr/lib/systemd/user/dbus.socket": "dbus-user-session",
    "test -x /usr/lib/podman/netavark || test -x /usr/libexec/podman/netavark": "netavark",
    "test -x /usr/lib/podman/aardvark-dns || test -x /usr/libexec/podman/aardvark-dns": "aardvark-dns",
    "command -v pasta || command -v slirp4netns": "",
}
#: Cut off between unpacking and configuring, every program is there and Nginx would not start at boot.
_CONFIGURED = '{ ! command -v dpkg || test -z "$(dpkg --audit)"; }'
_LOCK = "DPkg::Lock::Timeout=300"
#: How long another apt may hold the lists, seconds: on a new machine it does, and no option waits for that lock.
_LISTS_SECONDS = 300

#: Kernel settings that are limits: they are raised, never lowered.
_LIMITS = ("fs.file-max", "fs.nr_open", "net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog")
_PERIODIC = 'APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\n'


def packages(app: Application, rules: Preparation) -> Item:
    """The programs that a deploy needs. Source: apt-get(8): --no-upgrade leaves alone what is installed."""
    programs = dict(_PROGRAMS)
    if app.uploads:
        programs["rsync"] = "rsync"
    if app.database_server:
        programs |= dict.fromkeys(postgres.TOOLS, "postgresql-client")
    if rules.rotate_logs_days and app.log_files:
        programs["logrotate"] = "logrotate"
    tests = [*(f"command -v {name}" for name in programs), *(f"{{ {test}; }}" for test in _PARTS), _CONFIGURED]
    wanted = sorted({*programs.values(), *filter(None, _PARTS.values())})
    apply = f"""\
. /etc/os-release
case "$ID ${{VERSION_ID:-}}" in
  "debian 12"* | "ubuntu 22"* | "ubuntu 24"*) network=slirp4netns ;;
  *) network=passt ;;
esac
{install(wanted, also='"$network"')}"""
    by_hand = f"this is no Debian or Ubuntu: install what brings {', '.join(programs)} and rootless Podman's network"
    return Item(
        "packages", f"packages: {', '.join(wanted)}", " && ".join(tests), script(apply), by_hand, possible=possible()
    )


def possible(program: str = "apt-get") -> str:
    """A shell condition: the program is there, or apt can bring it."""
    return f"{{ command -v {program} || command -v apt-get; }} >/dev/null 2>&1"


def install(names: Sequence[str], *, also: str = "") -> str:
    """Install Debian packages, after whatever an earlier run was cut off at; waits for another apt."""
    wanted = words(*names)
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
apt-get -qq -y -o {_LOCK} --no-upgrade --no-install-recommends install {wanted} {also} </dev/null"""


def user(name: str) -> tuple[Item, ...]:
    """The deploy user with its subordinate ids; root needs neither. Source: subuid(5), usermod(8)."""
    if name == "root":
        return ()
    ranges = " && ".join(f"grep -q {quote(f'^{name}:')} /etc/{file}" for file in ("subuid", "subgid"))
    # A locked password ('!') makes sshd refuse keys too; '*' is no password and no lock.
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
    return (Item("user", title, f"id -u {quote(name)} && {ranges}", script(apply)),)


def keys(block: str, name: str, granted: Access) -> tuple[Item, ...]:
    """The first keys of the deploy user, so that a new host lets somebody in; from then on `inv access` keeps them."""
    if not granted.granted:
        return ()
    own = authorized_keys.rendered("", block, granted.granted, ())
    first, home = quote(own.partition("\n")[0]), f"$(getent passwd {quote(name)} | cut -d : -f 6)"
    every = " && ".join(f'grep -qF {quote(key.blob)} "$file"' for _, key in granted.granted)
    add = f"""\
set -eu
umask 077
cd
mkdir -p .ssh
{{
  if [ -s .ssh/authorized_keys ]; then awk 1 .ssh/authorized_keys; fi
  printf %s {quote(own)}
}} > .ssh/authorized_keys.new
mv -f .ssh/authorized_keys.new .ssh/authorized_keys"""
    names = ", ".join(who for who, _ in granted.granted)
    test = f'file="{home}/.ssh/authorized_keys"\ngrep -qxF {first} "$file" || {{ {every}; }}'
    make = script(words("runuser", "-u", name, "--", "sh", "-c", add))
    return (Item("keys", f"the keys of {names} for {name}", test, make),)


def linger(name: str) -> Item:
    """Source: loginctl(1): without linger a user's processes end some time after the last logout.

    It only asks for the user's manager; on a busy host that start may fail, and nobody would try again. Where the bus
    came with a package just now, a manager that runs already has not heard of it.
    """
    apply = f"""\
loginctl enable-linger {quote(name)}
manager=user@$(id -u {quote(name)}).service
systemctl start "$manager" || :
{as_user(name, "systemctl --user daemon-reload && systemctl --user start dbus.socket")} >/dev/null 2>&1 || :
tries=0
until [ -S "/run/user/$(id -u {quote(name)})/bus" ]; do
  tries=$((tries + 1))
  if [ "$tries" -ge 600 ]; then
    echo "the user manager of {name} did not come up"
    systemctl status --no-pager --lines 5 "$manager" || :
    exit 1
  fi
  sleep 0.1
done"""
    test = f'test -e {quote("/var/lib/systemd/linger/" + name)} && test -S "/run/user/$(id -u {quote(name)})/bus"'
    return Item("linger", f"linger for {name}", test, script(apply))


def storage() -> Item:
    """Podman's storage. Source: measured on Debian 12: where nothing is said, rootless Podman 4.3 takes vfs."""
    path = "/etc/containers/storage.conf"
    content = (
        '# Made by inv setup.\n[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\n'
        'graphroot = "/var/lib/containers/storage"\n'
    )
    make = script("mkdir -p /etc/containers", write_file(path, content, mode="0644"))
    return Item("storage", f"the overlay driver for Podman's storage ({path})", f"test -s {path}", make)


def sshd(app: Application, name: str) -> Item:
    """Let the deploy user in by key alone, and let its sessions see by which: the history names it.

    Source: sshd_config(5): a Match block ends with the file that it stands in, and overrides what stands outside of
    all; of two that match, the first counts. So sshd is asked what holds in the end.
    """
    path = f"/etc/ssh/sshd_config.d/{app.name}.conf"
    content = (
        "# Made by inv setup: keys alone let the deploy user in, and the history of releases names whose they were.\n"
        f"Match User {name}\n    ExposeAuthInfo yes\n    PasswordAuthentication no\n    KbdInteractiveAuthentication no\n"
    )
    settings = ("exposeauthinfo yes", "passwordauthentication no", "kbdinteractiveauthentication no")
    holds = f"test \"$({access.effective(name)} | grep -cxE '{'|'.join(settings)}')\" = {len(settings)}"
    apply = script(
        write_file(path, content, mode="0644"),
        f"mkdir -p /run/sshd\nif ! sshd -t; then rm -f {quote(path)}; exit 1; fi\nsystemctl reload ssh",
        f"if ! {holds}; then\n"
        f"  echo {quote(f'sshd does not go by {path}: does /etc/ssh/sshd_config include it, before any Match?')}\n"
        "  exit 1\nfi",
    )
    title = f"sshd lets {name} in by key alone, and tells by which ({path})"
    test = f"{same(path, content)} && {holds}"
    return Item("sshd", title, test, apply, f"{path} {FOREIGN}", unclaimed(path))


def kernel(app: Application, rules: Preparation) -> tuple[Item, ...]:
    """Kernel settings, now and at each boot; a limit that is higher already stays. Source: sysctl.d(5)."""
    path = f"/etc/sysctl.d/90-{app.name}.conf"
    if not rules.sysctl:
        return (Item("kernel", f"no {path}", f"! {ours(path)}", script(words("rm", "-f", path))),)
    now = "\"$(sysctl -n {0} | tr '\\t' ' ')\""
    tests = []
    for key, value in rules.sysctl:
        kept = f"grep -qxF {quote(f'{key} = {value}')} {quote(path)}"
        exact = f"test {now.format(key)} = {quote(value)} && {kept}"
        tests.append(f"{{ {exact} || test {now.format(key)} -gt {value}; }}" if key in _LIMITS else f"{{ {exact}; }}")
    rows = [
        f"if ! test {now.format(key)} -gt {value}; then echo {quote(f'{key} = {value}')}; fi"
        if key in _LIMITS
        else f"echo {quote(f'{key} = {value}')}"
        for key, value in rules.sysctl
    ]
    listed = "\n  ".join(rows)
    apply = f"""\
{{
  echo '# Made by inv setup.'
  {listed}
}} > {quote(path + ".new")}
chmod 644 {quote(path + ".new")}
mv -f {quote(path + ".new")} {quote(path)}
sysctl -q -p {quote(path)}"""
    title = ", ".join(f"{key} {value}" for key, value in rules.sysctl)
    test = " && ".join(tests)
    return (Item("kernel", f"kernel settings: {title}", test, script(apply), f"{path} {FOREIGN}", unclaimed(path)),)


def security_updates(rules: Preparation) -> tuple[Item, ...]:
    """Debian's security updates, unattended. Where it is off, what is installed stays: others may want it."""
    if not rules.security_updates:
        return ()
    path, timers = "/etc/apt/apt.conf.d/20auto-upgrades", "apt-daily.timer apt-daily-upgrade.timer"
    apply = script(
        install(("unattended-upgrades",)),
        write_file(path, _PERIODIC, mode="0644"),
        f"systemctl enable --quiet --now {timers}",
    )
    test = f"command -v unattended-upgrade && {same(path, _PERIODIC)} && systemctl is-enabled {timers}"
    remedy = "this is no Debian or Ubuntu: set its own automatic updates up"
    return (Item("security updates", "unattended security updates", test, apply, remedy, possible=possible()),)


def sudo_rule(app: Application, name: str, helper: str) -> Item:
    """Exactly two command lines. Source: sudoers(5): arguments in a rule must match the command line exactly."""
    path = f"/etc/sudoers.d/{app.name}"
    content = (
        "# Made by inv setup: the deploy user may replace one Nginx site through one helper, and nothing else.\n"
        f"{name} ALL=(root) NOPASSWD: {helper} install, {helper} restore\n"
    )
    staged = f"/etc/sudoers.d/.{app.name}.checked"
    apply = script(
        write_file(staged, content, mode="0440"),
        f"visudo -cqf {quote(staged)}",
        words("mv", "-f", staged, path),
    )
    test = f"{same(path, content)} && {owned(path, 'root 440')}"
    title = f"sudo for the site helper alone ({path})"
    return Item("sudo rule", title, test, apply, f"{path} {FOREIGN}", unclaimed(path))
