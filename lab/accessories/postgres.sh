#!/bin/sh
# The entrypoint of the lab's PostgreSQL image. Like the official one, it creates the cluster from POSTGRES_USER,
# POSTGRES_PASSWORD and POSTGRES_DB, and passes its arguments to the server.
set -eu
case ${1:-} in -*) set -- postgres "$@" ;; esac
[ "$1" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /run/postgresql
  chmod 700 "$PGDATA"
  chown -R postgres:postgres "$PGDATA" /run/postgresql
  exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres}
  if [ -z "${POSTGRES_PASSWORD:-}" ]; then
    echo 'Error: Database is uninitialized and superuser password is not specified. Set POSTGRES_PASSWORD.' >&2
    exit 1
  fi
  secret=$(mktemp)
  printf '%s\n' "$POSTGRES_PASSWORD" >"$secret"
  initdb --username="$user" --pwfile="$secret" --auth-local=trust --auth-host=scram-sha-256 --no-sync >/dev/null
  rm "$secret"
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
  pg_ctl --wait --silent --options="-c listen_addresses=''" start
  database=${POSTGRES_DB:-$user}
  if [ "$database" != postgres ]; then
    psql --no-psqlrc --quiet --username="$user" --dbname=postgres --set=database="$database" <<'SQL'
create database :"database";
SQL
  fi
  pg_ctl --wait --silent --mode=fast stop
fi
exec "$@"
