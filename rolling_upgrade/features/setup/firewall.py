"""The host's firewall: it closes every incoming port except those of SSH and the site.

The rules belong to the host; each application has its own file of open ports, because applications share a host. Every
check reads the ports of sshd from the host itself, so that no rule can lock the operator out.
"""

from __future__ import annotations

import re

from rolling_upgrade.engine.model import Application, Firewall, Preparation
from rolling_upgrade.engine.resource import Resource, has_content, has_mode, is_absent
from rolling_upgrade.engine.shell import Script, quote, script, shell_join, write_file
from rolling_upgrade.features.setup.system import METRICS_PORT, install_packages, is_installable

_HERE = "/etc/rolling"
_RULES, _PORTS = f"{_HERE}/firewall.nft", f"{_HERE}/firewall.d"
_UNIT = "rolling-firewall.service"
_UNIT_PATH = f"/etc/systemd/system/{_UNIT}"

#: The actions with which ufw lists an open port.
_OPEN = "ALLOW|LIMIT"

#: Source: nft(8): a file is loaded as one transaction; declaring the table first makes its deletion succeed.
#: Podman's networks use the host's resolver; their outgoing traffic is forwarded, which the rules leave open.
_RULESET = f"""\
# Made by inv setup. The open ports are in {_PORTS}, a file for each application.
table inet rolling {{}}
delete table inet rolling
table inet rolling {{
  set open {{ type inet_service; }}
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    ct state invalid drop
    iif lo accept
    iifname "podman*" meta l4proto {{ tcp, udp }} th dport 53 accept
    meta l4proto {{ icmp, ipv6-icmp }} accept
    udp dport {{ 68, 546 }} accept
    tcp dport @open accept
  }}
}}
include "{_PORTS}/*.nft"
"""
_SERVICE = f"""\
# Made by inv setup.
[Unit]
Description=Close every port except those of SSH and of the sites
DefaultDependencies=no
# Debian's own unit flushes the whole ruleset when it starts.
After=local-fs.target nftables.service
PartOf=nftables.service
Before=network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {_RULES}
ExecReload=/usr/sbin/nft -f {_RULES}
ExecStop=/usr/sbin/nft delete table inet rolling

[Install]
WantedBy=sysinit.target
"""

#: Set `ports`: those of the site, of this connection, and of sshd, which listens itself or through a socket unit.
#: Any user can name a process `sshd`, run the system's sshd, or run one in a container. So a socket counts only if the
#: kernel attributes it to the system's program with all four user ids 0, in this PID namespace.
#: Source: proc(5): after an upgrade `(deleted)` follows the program's path; a directory of /proc can belong to root
#: while its process does not.
_PORTS_OF_HOST = r"""
sshd=$(readlink -f "$(command -v sshd)") || sshd=none
ports=$({
  echo 'GIVEN' | tr ' ' '\n'
  mkdir -p /run/sshd
  sshd -T 2>/dev/null | sed -n -e 's/^port //p' -e 's/^listenaddress .*:\([0-9]*\)$/\1/p'
  {
    find /proc/[0-9]* -maxdepth 1 -name exe \( -lname "$sshd" -o -lname "$sshd (deleted)" \) 2>/dev/null | while read -r program; do
      process=${program%/exe}
      ids=$(awk '/^Uid:/ { print $2, $3, $4, $5; exit }' "$process/status" 2>/dev/null) || continue
      if [ "$ids" != '0 0 0 0' ]; then continue; fi
      if [ "$(readlink "$process/ns/pid")" != "$(readlink /proc/self/ns/pid)" ]; then continue; fi
      find "$process/fd" -maxdepth 1 -lname 'socket:*' -printf '%l\n' 2>/dev/null || :
    done
    cat /proc/self/net/tcp /proc/self/net/tcp6 2>/dev/null || :
  } | awk '
    NF == 1 { held[$1] = 1 }
    $4 == "0A" && ("socket:[" $10 "]") in held { n = split($2, part, ":"); print part[n] }
  ' | while read -r port; do printf '%d\n' "0x$port"; done
  systemctl show ssh.socket --property=Listen --value 2>/dev/null | sed -n 's/.*:\([0-9]*\) (Stream).*/\1/p'
} | grep -x '[0-9][0-9]*' | sort -un)
"""


def resources(app: Application, preparation: Preparation, ssh_port: int) -> tuple[Resource, ...]:
    """Return the configured firewall; without one, setup removes its nftables rules and leaves ufw alone."""
    monitor = preparation.monitoring_host if preparation.node_exporter else ""
    if preparation.firewall is Firewall.NFTABLES:
        return (_nftables(app, ssh_port, monitor),)
    if preparation.firewall is Firewall.UFW:
        return (_none(app), _ufw(app, ssh_port, monitor))
    return (_none(app),)


def own_file(app: Application) -> str:
    """Return the path of the file that opens the application's ports."""
    return f"{_PORTS}/{app.name}.nft"


def _title(app: Application, ssh_port: int, name: str, monitor: str) -> str:
    ports = dict.fromkeys((ssh_port, *app.public_ports))
    also = f", and {METRICS_PORT} for {monitor}" if monitor else ""
    return f"{name}: closed except for {', '.join(map(str, ports))} and the ports of sshd{also}"


def _find_ports(app: Application, ssh_port: int) -> str:
    return _PORTS_OF_HOST.strip().replace("GIVEN", " ".join(map(str, (ssh_port, *app.public_ports))))


def _nftables(app: Application, ssh_port: int, monitor: str) -> Resource:
    own, family = own_file(app), "ip6" if ":" in monitor else "ip"
    rule = f"\nadd rule inet rolling input {family} saddr {monitor} tcp dport {METRICS_PORT} accept" if monitor else ""
    line = f"""\
{_find_ports(app, ssh_port)}
elements=$(printf %s "$ports" | sed ':all; N; $!b all; s/\\n/, /g')
line="add element inet rolling open {{ $elements }}{rule}\""""
    test = f"""\
{line}
{has_content(_RULES, _RULESET)} && {has_content(_UNIT_PATH, _SERVICE)} && {has_mode(own, "root 644")} &&
  test "$(cat {quote(own)})" = "$line" && systemctl is-enabled --quiet {_UNIT} && systemctl is-active --quiet {_UNIT} &&
  nft list chain inet rolling input | grep -q 'policy drop' &&
  for port in $ports; do nft get element inet rolling open "{{ $port }}" || exit 1; done"""
    apply = script(
        f"if ! command -v nft >/dev/null; then\n{install_packages(('nftables',))}\nfi",
        shell_join("mkdir", "-p", _PORTS),
        line,
        f"printf '%s\\n' \"$line\" > {quote(own + '.new')}\nchmod 644 {quote(own + '.new')}\nmv -f {quote(own + '.new')} {quote(own)}",
        write_file(_RULES, _RULESET, mode="0644"),
        f"nft -c -f {_RULES}",
        write_file(_UNIT_PATH, _SERVICE, mode="0644"),
        f"systemctl daemon-reload\nsystemctl enable --quiet {_UNIT}\nsystemctl restart {_UNIT}",
    )
    remedy = "install nftables"
    return Resource(
        "firewall",
        _title(app, ssh_port, "nftables", monitor),
        f"(\n{test}\n)",
        apply,
        remedy,
        possible=is_installable("nft"),
    )


def _none(app: Application) -> Resource:
    return Resource("no nftables firewall", "no ports opened by setup", is_absent(own_file(app)), remove(app))


def remove(app: Application) -> Script:
    """Close the application's ports, and remove the rules with the last application."""
    return script(f"""\
rm -f {quote(own_file(app))}
if ls {_PORTS}/*.nft >/dev/null 2>&1; then systemctl reload {_UNIT}; exit 0; fi
if [ -e {_UNIT_PATH} ]; then systemctl disable --quiet --now {_UNIT}; fi
rm -f {_UNIT_PATH} {_RULES}
rmdir {_PORTS} {_HERE} 2>/dev/null || :
systemctl daemon-reload""")


def _ufw(app: Application, ssh_port: int, monitor: str) -> Resource:
    """The ufw firewall. Source: ufw(8): rules are added before it is enabled; existing rules are skipped."""
    find = _find_ports(app, ssh_port)
    listed = f" &&\n  printf '%s\\n' \"$said\" | grep -qE {quote(f'^{METRICS_PORT}/tcp +ALLOW.* {re.escape(monitor)}')}"
    allow = "\n" + shell_join("ufw", "allow", "from", monitor, "to", "any", "port", METRICS_PORT, "proto", "tcp")
    test = f"""\
{find}
said=$(ufw status verbose) && printf '%s\\n' "$said" | grep -qx 'Status: active' &&
  printf '%s\\n' "$said" | grep -qE '^Default: (deny|reject) \\(incoming\\)'{listed if monitor else ""} &&
  for port in $ports; do printf '%s\\n' "$said" | grep -qE "^$port/tcp +({_OPEN})" || exit 1; done"""
    apply = script(
        f"if ! command -v ufw >/dev/null; then\n{install_packages(('ufw',))}\nfi",
        find,
        f"""\
said=$(ufw status)
for port in $ports; do
  if ! printf '%s\\n' "$said" | grep -qE "^$port/tcp +({_OPEN})"; then ufw allow "$port/tcp" >/dev/null; fi
done
ufw allow in on podman+ to any port 53 >/dev/null
ufw default deny incoming >/dev/null
ufw --force enable >/dev/null{f"{allow} >/dev/null" if monitor else ""}""",
    )
    return Resource(
        "firewall",
        _title(app, ssh_port, "ufw", monitor),
        f"(\n{test}\n)",
        apply,
        "install ufw",
        possible=is_installable("ufw"),
    )
