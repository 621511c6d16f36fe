#!/bin/sh
# Rotates the request log of one application by size: the log has a line for each request. Root owns this program and
# its timer. Nginx opens a new log after the rename, so that no line is lost; the watchdog reads renamed logs to the end.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
umask 022

app=$(basename "$(dirname "$(readlink -f "$0")")")
directory=/var/log/$app-requests log=requests.log
longest=16777216
kept=4

# Work in the directory itself: a link that replaces the directory then has no effect.
cd -P "$(dirname "$directory")"
above=$(pwd -P)
cd -P "$directory"
if [ "$(pwd -P)" != "$above/$app-requests" ] || [ "$(stat -c '%u %a' .)" != "$(id -u) 755" ]; then
  echo "$directory was not made by inv setup. Next: run inv setup" >&2
  exit 1
fi
if [ "$(stat -c %s "$log" 2>/dev/null || echo 0)" -lt "$longest" ]; then exit 0; fi
number=$kept
while [ "$number" -gt 1 ]; do
  if [ -e "$log.$((number - 1))" ]; then mv -f "$log.$((number - 1))" "$log.$number"; fi
  number=$((number - 1))
done
mv -f "$log" "$log.1"
nginx -s reopen
