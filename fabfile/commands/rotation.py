"""Rotation of the application's logs on a host, in the deploy user's own session. Pure text; it runs nothing."""

from __future__ import annotations

from fabfile.commands.journal import ENVIRONMENT
from fabfile.commands.namespace import ENTER, FIND_NAMESPACE
from fabfile.commands.shell import quote, words
from fabfile.model import Application


def rotation(app: Application, days: int) -> str:
    """The program that the timer runs. Source: logrotate(8), copytruncate: whoever writes keeps its file open."""
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
    rotate = words("logrotate", "--state", f"{app.home}/logs.state", f"{app.home}/logs.conf")
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
