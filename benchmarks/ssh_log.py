"""Counts connections and executions in the log of a host's SSH server."""

from __future__ import annotations

from dataclasses import dataclass

from lab.host import Host

_VERBOSE = "echo 'LogLevel VERBOSE' >/etc/ssh/sshd_config.d/00-bench.conf && systemctl reload ssh"
#: One log line for each login, and for each command or file transfer. Source: sshd_config(5), LogLevel.
_COUNT = """
journalctl --sync
journalctl -t sshd -t sshd-session --since @{since:.3f} -o cat >/tmp/ssh-log
grep -c 'Accepted publickey for deploy' /tmp/ssh-log
grep -cE 'Starting session: (command|subsystem)' /tmp/ssh-log
"""


@dataclass(frozen=True)
class SshCounts:
    """The logins of the deploy user, and the commands and file transfers, of one host."""

    connections: int
    executions: int


def log_executions(host: Host) -> None:
    """Let the host's SSH server log every execution."""
    host.sh(_VERBOSE)


def count(host: Host, since: float) -> SshCounts:
    """Count what has happened since this time (Unix seconds)."""
    connections, executions = host.sh(_COUNT.format(since=since), check=False).stdout.split()[:2]
    return SshCounts(int(connections), int(executions))
