"""Shell text about paths: verify that only root controls a path, refuse links, and locate backups.

The check walks down from `/` and enters a directory only after its parent has passed. Only root can change a path that
has passed, so nothing changes between the check and the use. The check follows a link only if root alone could have
created it, and the target must pass as well.
"""

from __future__ import annotations

from rolling_upgrade.engine.model import Application
from rolling_upgrade.engine.shell import quote, shell_join

#: `rooted PATH`: succeeds if only root can write every existing directory above PATH; otherwise prints the first
#: path that fails. An access list that grants write permission shows as the group's write bit. Source: acl(5).
ROOTED = r"""rooted() (
  rest=$1 links=0
  cd / || exit 1
  while :; do
    case $(stat -c '%u %A' .) in
      '0 d'????-??-?) ;;
      *)
        echo "a user other than root can write to $(pwd -P)"
        exit 1
        ;;
    esac
    while [ "${rest#/}" != "$rest" ]; do rest=${rest#/}; done
    name=${rest%%/*}
    if [ -L "./$name" ]; then
      links=$((links + 1))
      if [ "$links" -gt 40 ]; then
        echo "too many links on the way to $1"
        exit 1
      fi
      target=$(readlink "./$name")
      case $target in /*) cd / ;; esac
      case $rest in */*) rest=$target/${rest#*/} ;; *) rest=$target ;; esac
      continue
    fi
    case $rest in */*) rest=${rest#*/} ;; *) exit 0 ;; esac
    if [ ! -e "./$name" ]; then exit 0; fi
    cd -P "./$name" || exit 1
  done
)"""


def rooted(*paths: str) -> str:
    """A self-contained shell condition: root alone can write every directory above each path."""
    conditions = " && ".join(shell_join("rooted", path) for path in paths)
    return f"{{\n{ROOTED}\n{conditions}\n}}"


def rooted_or_exit(*paths: str) -> str:
    """Exit with an explanation unless only root can write every directory above each path."""
    remedy = (
        "root does not use paths below it. Next: choose another path, or remove the write permission (chown, chmod)"
    )
    checks = [
        f'if ! problem=$({shell_join("rooted", path)}); then\n  echo "{_escaped(path)}: $problem; {remedy}"\n  exit 1\nfi'
        for path in paths
    ]
    return "\n".join([ROOTED, *checks])


def _escaped(path: str) -> str:
    """The path inside double quotes of a shell."""
    return "".join(f"\\{char}" if char in '$`"\\' else char for char in path)


_CHECK_PHYSICAL = """\
if [ "$physical" != "$named" ]; then echo "$named is a link to $physical: if you created the link, configure the path $physical; otherwise remove the link"; exit 1; fi"""


def refuse_link(path: str) -> str:
    """Fail if the path or a parent directory is a symbolic link. The check is subject to races with later changes."""
    return f'named={quote(path)}\nphysical=$(realpath -m -- "$named")\n{_CHECK_PHYSICAL}'


def enter(path: str) -> str:
    """Change into the directory; fail if a link leads there. `.` stays the same directory if the path is replaced."""
    return f'{refuse_link(path)}\ncd -P -- "$named"\nphysical=$(pwd -P)\n{_CHECK_PHYSICAL}'


#: A shell pattern for ids; it separates applications whose names share a prefix.
_DIGIT = "[0-9]"
ID_PATTERN = f"{_DIGIT * 8}T{_DIGIT * 6}Z-??????"


def backup_directory(app: Application) -> str:
    """The directory of the application's backups on the host."""
    return app.database_backups or f"{app.home}/backups"
