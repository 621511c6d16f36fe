#!/bin/sh
# Starts, after a boot, exactly the colors that the flags name, and stops any other. Runs as the deploy user.
# Podman's own restart service would start nothing or, with the policy `always`, the old color as well. A container of a
# release that was undone is not started: a first deploy that failed leaves one in the color that no flag names.
set -u
app=$(basename "$(dirname "$(readlink -f "$0")")")
home=/var/lib/$app
failed=0

# A run that was cut off may be undone while the host boots: flags are read, and containers moved, one at a time.
if [ "${1:-}" != locked ]; then
  exec flock -o -w 300 "$home/lock/stage" sh "$0" locked
fi

# The network may come up after us: a start is tried for a minute.
start() {
  tries=0
  until podman start "$1" >/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -ge 30 ]; then return 1; fi
    sleep 2
  done
}

ids=$(podman ps --all --quiet --filter "label=rolling.app=$app")
# shellcheck disable=SC2086  # ids are hexadecimal words
[ -z "$ids" ] || podman container inspect --format \
  '{{.Name}} {{index .Config.Labels "rolling.service"}} {{index .Config.Labels "rolling.color"}} {{index .Config.Labels "rolling.release"}}' $ids |
  {
    while read -r name service color release; do
      active=blue
      if [ -f "$home/live/$service.green" ]; then active=green; fi
      if grep -qsF "\"id\": \"$release\", \"outcome\": \"undone\"" "$home/releases.jsonl"; then
        podman stop "$name" >/dev/null || failed=1
      elif [ "$color" = "$active" ]; then
        start "$name" || failed=1
        echo "$name started"
      else
        podman stop "$name" >/dev/null || failed=1
      fi
    done
    exit "$failed"
  }
