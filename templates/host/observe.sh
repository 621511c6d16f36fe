#!/bin/sh
# Made by inv observe.install. Puts the files of Prometheus, Alertmanager and blackbox-exporter together from the parts
# of each environment, has them checked, takes them into use, and proves that the programs go by them; where one does
# not, the files before are put back. Killed at any instant, the next run finds the parts as they were. Root-owned.
#   check          says by its status whether what is in use is what the parts say
#   install NAME   takes the parts of an environment that were laid down in .staged/NAME
#   remove NAME    forgets an environment
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
umask 027

files="prometheus.yml alertmanager.yml blackbox.yml"
units="prometheus prometheus-alertmanager prometheus-blackbox-exporter"
etc=/etc/prometheus
parts=$etc/rolling
wait_seconds=60

# tried COMMAND…: its status in $status. In a condition `set -e` would not hold inside of the command.
tried() {
  set +e
  (
    set -e
    "$@"
  )
  status=$?
  set -e
}

every() {
  for one in "$parts"/*/"$1"; do
    if [ -e "$one" ]; then cat "$one"; fi
  done
}

assemble() {
  {
    cat "$parts/prometheus.yml"
    for one in "$parts"/*/alerting.yml; do
      if [ -e "$one" ]; then echo "  - $one"; fi
    done
    cat "$parts/scrape.head.yml"
    every scrape.yml
  } >"$1/prometheus.yml"
  { cat "$parts/blackbox.yml"; every module.yml; } >"$1/blackbox.yml"
  {
    cat "$parts/alertmanager.yml"
    every routes.yml
    cat "$parts/receivers.head.yml"
    every receivers.yml
  } >"$1/alertmanager.yml"
}

valid() {
  promtool check config "$1/prometheus.yml" && amtool check-config "$1/alertmanager.yml" &&
    prometheus-blackbox-exporter --config.check --config.file="$1/blackbox.yml"
}

# figure PORT NAME: one value that a program tells of itself, without its fraction.
figure() {
  curl -fs --max-time 5 "http://127.0.0.1:$1/metrics" | awk -v name="$2" '$1 == name { printf "%.0f\n", int($2) }'
}

# Each program has read its file without a fault, since the second $1.
goes_by_it() {
  for one in 9090:prometheus 9093:alertmanager 9115:blackbox_exporter; do
    read_at=$(figure "${one%%:*}" "${one#*:}_config_last_reload_success_timestamp_seconds") || return 1
    good=$(figure "${one%%:*}" "${one#*:}_config_last_reload_successful") || return 1
    if [ "${read_at:-0}" -lt "$1" ] || [ "${good:-0}" != 1 ]; then return 1; fi
  done
}

# The second of the newest file that a program reads: one that read before goes by something else.
newest() {
  for one in "$etc/prometheus.yml" "$etc/alertmanager.yml" "$etc/blackbox.yml" "$parts"/*/alerting.yml; do
    if [ -e "$one" ]; then stat -c %Y "$one"; fi
  done | sort -n | tail -n 1
}

# take FOLDER: what it has not, is not there either.
take() {
  for file in $files; do
    rm -f "$etc/$file.new"
    if [ -e "$1/$file" ]; then
      cp -p "$1/$file" "$etc/$file.new"
      mv -f "$etc/$file.new" "$etc/$file"
    else
      rm -f "$etc/$file"
    fi
  done
  began=$(date +%s)
  # shellcheck disable=SC2086  # a word for each unit
  systemctl reload-or-restart $units
  until goes_by_it "$began"; do
    if [ $(($(date +%s) - began)) -ge "$wait_seconds" ]; then return 1; fi
    sleep 0.2
  done
}

apply() {
  chgrp -R prometheus "$parts"
  assemble "$new"
  chgrp prometheus "$new"/*.yml
  chmod 640 "$new"/*.yml
  if ! said=$(valid "$new" 2>&1); then
    printf '%s\n' "$said"
    return 1
  fi
  for file in $files; do
    if [ -e "$etc/$file" ]; then cp -p "$etc/$file" "$old/$file"; fi
  done
  tried take "$new"
  if [ "$status" = 0 ]; then return 0; fi
  echo "a program does not go by its new file; the files before are put back"
  tried take "$old"
  if [ "$status" != 0 ]; then echo "and they did not come back into use"; fi
  return 1
}

# set_aside: what stands there, or that nothing does, is kept where a later run finds it, whatever becomes of this one.
set_aside() {
  mkdir -p "$aside/was" "$aside/none"
  if [ -d "$parts/$name" ]; then
    mv "$parts/$name" "$aside/was/$name"
  else
    mkdir "$aside/none/$name"
  fi
}

# come_back: what was set aside stands there again, and nothing where nothing stood.
come_back() {
  for one in "$aside"/*/*; do
    if [ ! -e "$one" ]; then continue; fi
    rm -rf "${parts:?}/${one##*/}"
    if [ "$one" = "$aside/was/${one##*/}" ]; then mv "$one" "$parts/"; fi
  done
  rm -rf "$aside"
}

exec 9>"$parts/.lock"
flock 9
name=${2:-}
new=$parts/.work/new old=$parts/.work/old aside=$parts/.aside
rm -rf "$parts/.work"
mkdir -p "$new" "$old"
trap 'rm -rf "$parts/.work"' EXIT

case "$1" in
check)
  [ ! -e "$aside" ]
  assemble "$new"
  for file in $files; do cmp -s "$new/$file" "$etc/$file"; done
  goes_by_it "$(newest)"
  exit
  ;;
install)
  come_back
  [ -d "$parts/.staged/$name" ]
  set_aside
  mv "$parts/.staged/$name" "$parts/$name"
  touch "$parts/$name"/*
  ;;
remove)
  come_back
  rm -rf "$parts/.staged/${name:?}"
  set_aside
  ;;
*) exit 2 ;;
esac

tried apply
if [ "$status" != 0 ]; then
  come_back
  exit 1
fi
mv "$aside" "$parts/.work/"
