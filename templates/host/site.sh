#!/bin/sh
# Changes the Nginx site of one application, and nothing else. Root-owned; the deploy user may run it through sudo with
# exactly one word: `install` (the new text on standard input) or `restore` (the hash of the text to take back on standard
# input; the text that it replaced comes back, and nothing happens when another text is in place).
#
# A new text counts only when Nginx itself answers its hash on loopback: `nginx -t` and a reload both exit 0 when the new
# configuration could not bind its ports and the old one stays. Exit 3: Nginx refused the text; 4: it kept the old one;
# 5: the old text could not be brought back. In each case of failure the old bytes are in place again, or it says so.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
umask 022

here=$(dirname "$(readlink -f "$0")")
app=$(basename "$here")
site=/etc/nginx/conf.d/$app.conf
previous=$here/site.previous

say() { printf '%s\n' "$*"; }

hash_of() { sed -n '1s/^# rolling-site: \([0-9a-f]\{16\}\)$/\1/p' "$1"; }
port_of() { sed -n '2s/^# rolling-port: \([0-9]\{1,5\}\)$/\1/p' "$1"; }

# The directives that a site may use, and no other: a text could read or write files as root through Nginx otherwise. What
# it listens on, its names and its certificate are root's to say, in `rules` beside this program: Nginx opens such paths
# as root even where it refuses the text afterwards. Loopback ports are free, and requests go to them alone.
allowed=' map default upstream server keepalive keepalive_timeout listen access_log client_max_body_size set if location
default_type return add_header proxy_pass proxy_http_version proxy_set_header proxy_hide_header proxy_connect_timeout
proxy_next_upstream_tries proxy_buffering proxy_read_timeout server_name ssl_certificate ssl_certificate_key
ssl_trusted_certificate ssl_protocols '

# The maintenance page: the one place from which a site may serve a file, allowed as these very lines and in no other form.
# The deploy user owns live/, so no link there may lead elsewhere.
page='    location = /_rolling/maintenance { internal; root /var/lib/'$app'/live; disable_symlinks on from=/var/lib/'$app
page=$page'; try_files /maintenance.html =503; error_page 404 =503 /_rolling/over;'
page=$page' default_type text/html; add_header Retry-After 120 always;'
page=$page' add_header Cache-Control no-store always; add_header X-Maintenance on always; }'
over='    location = /_rolling/over { internal; add_header Retry-After 120 always; add_header Cache-Control no-store always;'
over=$over' return 503; }'
to_page='    error_page 503 /_rolling/maintenance; recursive_error_pages on;'

# What is counted of the requests: the log in a directory of root's, and the figures of Nginx itself, on loopback alone.
ident=$(printf %s "$app" | tr - _)
# shellcheck disable=SC2016  # the variables are Nginx'
form='log_format '$ident'_requests $proxy_host/$status/$'$ident'_seconds;'
# shellcheck disable=SC2016
timed='map $upstream_http_content_type $'$ident'_seconds { default $request_time; ~*^text/event-stream -; }'
# shellcheck disable=SC2016
counted='map $proxy_host $'$ident'_counted { default 0; ~^'$ident'_[a-z0-9-]+_(blue|green)$ 1; }'
log='access_log /var/log/'$app'-requests/requests.log '$ident'_requests buffer=64k flush=1s if=$'$ident'_counted;'
figures='    location = /_rolling/nginx { stub_status; allow 127.0.0.1; deny all; }'

# A line that begins like a comment may lie inside a quoted string: it is left out only where it could end none.
check_text() {
  if [ "$(wc -c <"$1")" -gt 262144 ]; then say "the site text is larger than 256 KiB"; exit 3; fi
  if [ -z "$(hash_of "$1")" ] || [ -z "$(port_of "$1")" ]; then say "the site text lacks its two header lines"; exit 3; fi
  bad=$(grep -vxF -e "$page" -e "$over" -e "$to_page" -e "$form" -e "$timed" -e "$counted" -e "$log" -e "$figures" "$1" | sed 's/^[[:space:]]*#[^;{}"'"'"'\\]*$//' | tr ';{}' '\n' |
    awk -v allowed="$(printf %s "$allowed" | tr '\n' ' ')" -v rules="$here/rules" '
    BEGIN {
      count = split(allowed, names); for (i = 1; i <= count; i++) known[names[i]] = 1
      while ((getline line < rules) > 0) ruled[line] = 1
    }
    function fine() {
      if ($1 == "\047\047") return 1
      if (!($1 in known)) return 0
      if ($1 == "access_log") return $0 == "access_log off"
      if ($1 == "listen") return $0 in ruled || $0 ~ /^listen 127\.0\.0\.1:[1-9][0-9]*$/
      if ($1 == "server_name" || $1 ~ /^ssl_/) return $0 in ruled
      if ($1 == "server") return $0 ~ /^server( 127\.0\.0\.1:[0-9]+( [a-z_]+(=[0-9]+)?)*)?$/
      if ($1 == "proxy_pass") return $0 ~ /^proxy_pass http:\/\/[a-z0-9_.$]+(:[0-9]+)?$/
      return 1
    }
    NF { $1 = $1; if (!fine()) print }')
  if [ -n "$bad" ]; then
    say "the site text has a line that is not allowed here; where its names, ports or certificate are new, run inv setup first:"
    say "$bad"
    exit 3
  fi
}

reload() {
  if systemctl is-active --quiet nginx; then systemctl reload nginx; else systemctl start nginx; fi
}

# Whether Nginx answers the file's hash.
answers() {
  [ -s "$1" ] && [ "$(curl -s --max-time 1 "http://127.0.0.1:$(port_of "$1")/_rolling/site")" = "$(hash_of "$1")" ]
}

# Waits until Nginx answers the file's hash, for some ten seconds.
is_live() {
  began=$(date +%s)
  until answers "$1"; do
    if [ $(($(date +%s) - began)) -ge 10 ]; then return 1; fi
    sleep 0.1
  done
}

# The old bytes first; a reload only where Nginx does not run them still.
put_back() {
  if [ -s "$previous" ]; then cp "$previous" "$site.new" && mv -f "$site.new" "$site"; else rm -f "$site"; fi
  if answers "$site"; then return 0; fi
  if ! nginx -t >/dev/null 2>&1 || ! reload; then
    say "the old site text could not be brought back: look at nginx -t"
    exit 5
  fi
}

install_text() {
  new=$(mktemp "$here/new.XXXXXX")
  trap 'rm -f "$new"' EXIT
  cat >"$new"
  chmod 0644 "$new"
  check_text "$new"
  if [ -f "$site" ] && cmp -s "$new" "$site" && answers "$site"; then say "the site is unchanged"; exit 0; fi
  if [ -f "$site" ]; then cp "$site" "$previous.new"; else : >"$previous.new"; fi
  mv -f "$previous.new" "$previous"
  mv -f "$new" "$site"
  if ! report=$(nginx -t 2>&1); then
    put_back
    say "Nginx refused the new site text, the old one is in place:"
    say "$report"
    exit 3
  fi
  if ! reload || ! is_live "$site"; then
    put_back
    say "Nginx kept the old configuration, whatever its reload said; the old site text is in place. Its last words:"
    journalctl -u nginx -n 3 --no-pager -o cat 2>/dev/null || :
    tail -n 3 /var/log/nginx/error.log 2>/dev/null || :
    exit 4
  fi
  say "the site is live"
}

# Takes back the text of one hash; another text, or none, is somebody else's and stays.
restore_text() {
  wanted=$(head -c 16)
  if [ -f "$site" ] && [ -f "$previous" ] && [ "$(hash_of "$site")" = "$wanted" ]; then
    put_back
    say "the former site text is in place"
  fi
}

if [ $# -ne 1 ]; then say "usage: site install < TEXT | site restore < HASH"; exit 2; fi
exec 9>"$here/site.lock"
flock -w 60 9
case "$1" in
  install) install_text ;;
  restore) restore_text ;;
  *) say "usage: site install < TEXT | site restore < HASH"; exit 2 ;;
esac
