#!/bin/sh
# Rotates the request log of one application once it is long, by its size and not by the day: it has a line for each
# request. Root-owned, run by a timer of root's. The log is renamed and Nginx opens a new one, so that no line is lost;
# the watchdog reads the renamed ones to their ends first.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
umask 022

app=$(basename "$(dirname "$(readlink -f "$0")")")
log=/var/log/$app-requests/requests.log
longest=16777216
kept=4

if [ "$(stat -c %s "$log" 2>/dev/null || echo 0)" -lt "$longest" ]; then exit 0; fi
number=$kept
while [ "$number" -gt 1 ]; do
  if [ -e "$log.$((number - 1))" ]; then mv -f "$log.$((number - 1))" "$log.$number"; fi
  number=$((number - 1))
done
mv -f "$log" "$log.1"
nginx -s reopen
