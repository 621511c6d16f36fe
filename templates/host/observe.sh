#!/bin/sh
# Made by inv observe.install. Puts the files of Prometheus, Alertmanager and blackbox-exporter together from the parts
# of each environment, has them checked, takes them into use, and proves that the programs go by them; where one does
# not, the files before are put back. Root-owned.
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

take() {
  for file in $files; do
    chmod 640 "$1/$file"
    cp -p "$1/$file" "$etc/$file.new"
    mv -f "$etc/$file.new" "$etc/$file"
  done
  # shellcheck disable=SC2086  # a word for each unit
  began=$(date +%s) && systemctl reload-or-restart $units
  until goes_by_it "$began"; do
    if [ $(($(date +%s) - began)) -ge "$wait_seconds" ]; then return 1; fi
    sleep 0.2
  done
}

apply() {
  chgrp -R prometheus "$parts"
  assemble "$new"
  chgrp prometheus "$new"/*.yml
  if ! said=$(valid "$new" 2>&1); then
    printf '%s\n' "$said"
    return 1
  fi
  for file in $files; do cp -p "$etc/$file" "$old/$file"; done
  if take "$new"; then return 0; fi
  echo "a program does not go by its new file; the files before are put back"
  take "$old" || echo "and they did not come back into use"
  return 1
}

exec 9>"$parts/.lock"
flock 9
name=${2:-}
rm -rf "$parts/.work"
mkdir -p "$parts/.work/new" "$parts/.work/old" "$parts/.work/aside"
new=$parts/.work/new old=$parts/.work/old aside=$parts/.work/aside
trap 'rm -rf "$parts/.work"' EXIT

# back: what stood there before, and nothing where nothing did.
back() {
  rm -rf "${parts:?}/${name:?}"
  if [ -d "$aside/$name" ]; then mv "$aside/$name" "$parts/$name"; fi
  exit 1
}

case "$1" in
check)
  assemble "$new"
  for file in $files; do cmp -s "$new/$file" "$etc/$file"; done
  # shellcheck disable=SC2086  # a word for each unit
  systemctl is-active --quiet $units && systemctl is-enabled --quiet $units
  goes_by_it 0
  ;;
install)
  [ -d "$parts/.staged/$name" ]
  if [ -d "$parts/$name" ]; then mv "$parts/$name" "$aside/$name"; fi
  mv "$parts/.staged/$name" "$parts/$name"
  apply || back
  ;;
remove)
  if [ -d "$parts/$name" ]; then mv "$parts/$name" "$aside/$name"; fi
  apply || back
  ;;
*) exit 2 ;;
esac
