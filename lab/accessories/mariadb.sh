#!/bin/sh
# The entrypoint of the lab's MariaDB image. Like the official one, it creates the database from MARIADB_ROOT_PASSWORD,
# MARIADB_DATABASE, MARIADB_USER and MARIADB_PASSWORD.
set -eu
case ${1:-} in -*) set -- mariadbd "$@" ;; esac
[ "$1" = mariadbd ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
  mkdir -p /var/lib/mysql /run/mysqld
  chown -R mysql:mysql /var/lib/mysql /run/mysqld
  exec setpriv --reuid=mysql --regid=mysql --clear-groups "$0" "$@"
fi

# Quote a value for SQL.
quoted() {
  printf "'%s'" "$(printf %s "$1" | sed "s/\\\\/\\\\\\\\/g; s/'/''/g")"
}

if [ ! -d /var/lib/mysql/mysql ]; then
  : "${MARIADB_ROOT_PASSWORD:?is required}"
  mariadb-install-db --datadir=/var/lib/mysql --auth-root-authentication-method=normal --skip-test-db >/dev/null
  {
    cat <<SQL
delete from mysql.global_priv where user = '';
flush privileges;
alter user 'root'@'localhost' identified by $(quoted "$MARIADB_ROOT_PASSWORD");
SQL
    if [ -n "${MARIADB_DATABASE:-}" ]; then
      echo "create database \`$MARIADB_DATABASE\`;"
    fi
    if [ -n "${MARIADB_USER:-}" ]; then
      cat <<SQL
create user '$MARIADB_USER'@'%' identified by $(quoted "$MARIADB_PASSWORD");
grant all on \`${MARIADB_DATABASE:?is required}\`.* to '$MARIADB_USER'@'%';
SQL
    fi
  } | mariadbd --datadir=/var/lib/mysql --bootstrap 2>/dev/null
fi
exec "$@" --datadir=/var/lib/mysql --socket=/run/mysqld/mysqld.sock --bind-address=0.0.0.0
