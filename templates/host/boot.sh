#!/bin/sh
# Starts the accessories and the active colors after a boot, and stops the other colors; then ends the runs that the power cut interrupted. Runs as
# the deploy user.
# Podman's restart service would start nothing or, with the policy `always`, also the old color. A container of an undone
# release is not started: a failed first deploy leaves one in blue, the color without a flag.
set -u
app=$(basename "$(dirname "$(readlink -f "$0")")")
home=/var/lib/$app
failed=0

# Waits until Nginx runs, which the undo of a run reloads.
wait_for_nginx() {
  tries=0
  until systemctl is-active --quiet nginx || [ "$tries" -ge 60 ]; do
    tries=$((tries + 1))
    sleep 1
  done
}

# A run whose plan still exists has no end. A new executor ends the run in the background; its steps take the stage lock.
end_runs() {
  for plan in "$home"/journal/*/plan.json; do
    [ -f "$plan" ] || continue
    wait_for_nginx
    journal=$(dirname "$plan")
    status=0
    python3 -I "$journal/engine.pyz" run "$home" "$(basename "$journal")" 0 </dev/null >/dev/null || status=$?
    # 46: it runs, and nobody follows it.
    case $status in 0 | 46) echo "$(basename "$journal") resumed" ;; *) failed=1 ;; esac
  done
}

# A run may be undone while the host boots, so both take the stage lock.
if [ "${1:-}" != locked ]; then
  flock -o -w 300 "$home/lock/stage" sh "$0" locked || failed=1
  end_runs
  exit "$failed"
fi

# The network may come up later: retry a start for a minute.
start() {
  tries=0
  until podman start "$1" >/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -ge 30 ]; then return 1; fi
    sleep 2
  done
}

# A run that lost power may have left both colors up: from now on only the active one runs.
rm -f "$home"/live/*.standby

# Accessories first: a service may exit if it cannot reach its database. The directory of an accessory means that it is
# supposed to run. 125: it has no health check. The services start after two minutes at the latest: the unit has five.
uptime() { cut -d . -f 1 /proc/uptime; }
limit=$(($(uptime) + 120))
for place in "$home"/accessories/*/; do
  [ -d "$place" ] || continue
  name=$app-accessory-$(basename "$place")
  # A power cut during an upgrade leaves none; the end of that run brings it back.
  podman container exists "$name" || { failed=1; continue; }
  if [ "$(uptime)" -lt "$limit" ]; then start "$name"; else podman start "$name" >/dev/null; fi || failed=1
  echo "$name started"
  tries=0 status=0
  timeout 10 podman healthcheck run "$name" >/dev/null 2>&1 || status=$?
  while [ "$status" -ne 0 ] && [ "$status" -ne 125 ] && [ "$tries" -lt 60 ] && [ "$(uptime)" -lt "$limit" ]; do
    tries=$((tries + 1)) status=0
    sleep 0.5
    timeout 10 podman healthcheck run "$name" >/dev/null 2>&1 || status=$?
  done
done

# Prints the containers that shall run, and stops the others.
select_active() {
  while read -r name service color release; do
    active=blue
    if [ -f "$home/live/$service.green" ]; then active=green; fi
    if [ "$color" != "$active" ] ||
      grep -qsF "\"id\": \"$release\", \"outcome\": \"undone\"" "$home/releases.jsonl"; then
      podman stop "$name" >/dev/null || echo "!"
    else
      echo "$name"
    fi
  done
}

# One-off containers have no service: those of jobs may run already.
# A power cut leaves the containers of one-off commands, which Podman otherwise removes when they end. A job may start
# one meanwhile. Source: measured with Podman 4.3, which lists them as created; Podman 5.4 removes them after a boot.
booted=$(stat -c %Y /proc/1)
podman ps --all --quiet --filter "label=rolling.app=$app" --filter label=rolling.one-off --filter "until=$booted" \
  --filter status=created --filter status=exited | xargs -r podman rm --ignore >/dev/null || failed=1

ids=$(podman ps --all --quiet --filter "label=rolling.app=$app" --filter label=rolling.service)
[ -n "$ids" ] || exit "$failed"
# The colors of an exclusive service must not run at the same time: everything stops before anything starts.
# shellcheck disable=SC2086  # ids are hexadecimal words
active=$(podman container inspect --format \
  '{{.Name}} {{index .Config.Labels "rolling.service"}} {{index .Config.Labels "rolling.color"}} {{index .Config.Labels "rolling.release"}}' $ids |
  select_active)
for name in $active; do
  if [ "$name" = "!" ]; then
    failed=1
  else
    start "$name" || failed=1
    echo "$name started"
  fi
done
exit "$failed"
