#!/bin/sh
# Installed by inv observe.install, owned by root. Assembles the files of Prometheus, Alertmanager and blackbox-exporter
# from the parts of each environment, validates them, reloads the programs, and checks that each has read its new file;
# otherwise it restores the previous files. If it is killed, its next run restores the previous parts.
#   check          exits 0 if the programs use the files assembled from the parts
#   install NAME   installs the parts of an environment from .staged/NAME
#   remove NAME    removes the parts of an environment
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
umask 027

files="prometheus.yml alertmanager.yml blackbox.yml"
units="prometheus prometheus-alertmanager prometheus-blackbox-exporter"
etc=/etc/prometheus
parts=$etc/rolling
wait_seconds=60

# tried COMMAND…: runs a command, and sets $status. In a condition, `set -e` would not apply inside the command.
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

# figure PORT NAME: one metric of a program, as an integer. While the program is down, any user may listen on its port:
# the output is bounded.
figure() {
  curl -fs --max-time 5 "http://127.0.0.1:$1/metrics" | head -c 33554432 |
    awk -v name="$2" '$1 == name && !found { found = 1; printf "%.0f\n", int($2) }'
}

# up_to_date TIME: every program has read its file successfully since TIME (Unix seconds).
up_to_date() {
  for one in 9090:prometheus 9093:alertmanager 9115:blackbox_exporter; do
    read_at=$(figure "${one%%:*}" "${one#*:}_config_last_reload_success_timestamp_seconds") || return 1
    good=$(figure "${one%%:*}" "${one#*:}_config_last_reload_successful") || return 1
    if [ "${read_at:-0}" -lt "$1" ] || [ "${good:-0}" != 1 ]; then return 1; fi
  done
}

# newest: the modification time of the newest file that the programs read.
newest() {
  for one in "$etc/prometheus.yml" "$etc/alertmanager.yml" "$etc/blackbox.yml" "$parts"/*/alerting.yml; do
    if [ -e "$one" ]; then stat -c %Y "$one"; fi
  done | sort -n | tail -n 1
}

# take FOLDER: replaces the files by those of a folder, and deletes files that it lacks.
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
  started=$(date +%s)
  # shellcheck disable=SC2086  # a word for each unit
  systemctl reload-or-restart $units
  until up_to_date "$started"; do
    if [ $(($(date +%s) - started)) -ge "$wait_seconds" ]; then return 1; fi
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
  echo "a program did not load its new file; the previous files are restored"
  tried take "$old"
  if [ "$status" != 0 ]; then echo "a program did not load its previous file either"; fi
  return 1
}

# set_aside: moves the current parts, or a note that there are none, to where a later run finds them.
set_aside() {
  mkdir -p "$aside/was" "$aside/none"
  if [ -d "$parts/$name" ]; then
    mv "$parts/$name" "$aside/was/$name"
  else
    mkdir "$aside/none/$name"
  fi
}

# restore_parts: restores the parts that were set aside.
restore_parts() {
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
  up_to_date "$(newest)"
  exit
  ;;
install)
  restore_parts
  [ -d "$parts/.staged/$name" ]
  set_aside
  mv "$parts/.staged/$name" "$parts/$name"
  touch "$parts/$name"/*
  ;;
remove)
  restore_parts
  rm -rf "$parts/.staged/${name:?}"
  set_aside
  ;;
*) exit 2 ;;
esac

tried apply
if [ "$status" != 0 ]; then
  restore_parts
  exit 1
fi
mv "$aside" "$parts/.work/"
