"""SQLite and configuration backups on the host: online, integrity-checked, owner-only. It runs nothing.

Source: SQLite's VACUUM INTO takes a consistent copy while others write; `.backup` restarts at each write and `cp`
is malformed under writes. A mistyped source would give an empty copy and status 0, hence the size check first.
"""

from __future__ import annotations

from fabfile.commands.nginx import site_file
from fabfile.commands.shell import quote, words
from fabfile.model import Application

#: Free space, in KiB, that a backup leaves on its file system at the least.
SPARE_KIB = 51_200


def backup_directory(app: Application) -> str:
    """Where the host keeps the backups of a deploy."""
    return app.database_backups or f"{app.home}/backups"


def backup(app: Application, release: str) -> str:
    """Back up the database and the configuration as `RELEASE.db` and `RELEASE.config.tar.gz`; print what was done.

    The copy is made inside the user namespace: a container's user may own the database under a subuid.
    """
    directory = backup_directory(app)
    target = f"{directory}/{app.name}-{release}"
    parts = ["umask 077", words("mkdir", "-p", directory)]
    if app.database:
        parts.append(_database(app.database, directory, f"{target}.db"))
    parts.append(_configuration(app, f"{target}.config.tar.gz"))
    return "\n".join(parts)


def _database(source: str, directory: str, target: str) -> str:
    vacuum = f".timeout 10000\nvacuum into '{target.replace(chr(39), chr(39) * 2)}.part';\n"
    check = words("podman", "unshare", "sqlite3", f"{target}.part", "pragma integrity_check")
    return f"""\
if podman unshare test -s {quote(source)}; then
  need=$(($(podman unshare du -k {quote(source)} | cut -f 1) + {SPARE_KIB}))
  free=$(df -Pk {quote(directory)} | awk 'NR == 2 {{ print $4 }}')
  if [ "$free" -lt "$need" ]; then
    echo "no room for a backup in {directory}: $free KiB free, $need KiB needed"; exit 1
  fi
  rm -f {quote(target + ".part")} {quote(target)}
  printf %s {quote(vacuum)} | podman unshare sh -c 'umask 077; exec sqlite3 -bail "$1"' sh {quote(source)}
  verdict=$({check})
  if [ "$verdict" != ok ]; then echo "the backup of the database is damaged: $verdict"; exit 1; fi
  mv {quote(target + ".part")} {quote(target)}
  echo "database: $(du -h {quote(target)} | cut -f 1) in {target}"
else
  echo "database: none yet"
fi"""


def _configuration(app: Application, target: str) -> str:
    paths = [f"{app.home}/config", site_file(app.name)]
    if app.config_path:
        paths.append(app.config_path)
    listed = " ".join(quote(path) for path in paths)
    return f"""\
set --
for path in {listed}; do if [ -e "$path" ]; then set -- "$@" "${{path#/}}"; fi; done
if [ $# -gt 0 ]; then
  tar -czf {quote(target + ".part")} -C / "$@"
  mv {quote(target + ".part")} {quote(target)}
  echo "configuration: {target}"
fi"""


def prune_backups(app: Application) -> str:
    """Delete backups past their days, and never the newest of a kind."""
    directory = backup_directory(app)
    parts = []
    for ending in (".db", ".config.tar.gz"):
        pattern = quote(f"{app.name}-[0-9]*{ending}")
        parts.append(
            f"find {quote(directory)} -maxdepth 1 -type f -name {pattern} -printf '%T@ %p\\n' |\n"
            "  sort -n | head -n -1 | cut -d ' ' -f 2- | while read -r old; do\n"
            f'    find "$old" -mtime +{app.backup_retention_days} -delete\n'
            "  done"
        )
    return f"if [ -d {quote(directory)} ]; then\n" + "\n".join(parts) + "\nfi"
