#!/bin/sh
# The entrypoint of the lab's Redis image: options and files go to redis-server, which runs as the user redis in /data.
set -eu
case ${1:-} in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . ! -user redis -exec chown redis:redis {} + 2>/dev/null || chown -R redis:redis .
  exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi
if [ "$1" = redis-server ]; then
  # In a container, only the network of the container reaches the server.
  set -- "$@" --protected-mode no --bind '*' '-::*'
fi
exec "$@"
