"""The owners of mounted directories, as containers see them: who owns a directory, and whether an image can write it.

Rootless Podman maps the users of containers to subordinate ids of the deploy user. So both run in that user's
namespace, in which a user has the same number as inside a container.
"""

from __future__ import annotations

from rolling_upgrade.engine.model import Service
from rolling_upgrade.engine.paths import refuse_link
from rolling_upgrade.engine.podman import ENTER, FIND_NAMESPACE, in_namespace
from rolling_upgrade.engine.shell import Script, quote, script, shell_join

#: The longest passwd or group file of an image that is read, in bytes.
_LONGEST_FILE = 1 << 20


def is_owned(path: str, owner: str) -> str:
    """A shell condition: the directory belongs to this `UID:GID` inside the containers."""
    ask = f"{ENTER} {shell_join('stat', '-c', '%u:%g', '--', path)}"
    return f'{FIND_NAMESPACE}\ntest "$({ask})" = {quote(owner)}'


def give(path: str, owner: str) -> Script:
    """Give the directory and its content to this `UID:GID`, without following links."""
    return script(
        refuse_link(path), FIND_NAMESPACE, f"{ENTER} {shell_join('chown', '-R', '-h', '-P', owner, '--', path)}"
    )


def check_writable(service: Service) -> str:
    """Fail if the user of a new container cannot write a directory that is mounted writable.

    An image that starts as root is trusted to prepare its directories. A release of a host's record has worked before.
    A user that the image does not know is left to Podman, which names it.

    Source: measured with Podman 4.3 and 5.4: `podman image mount` works inside `podman unshare`.
    Source: setpriv(1); access(2) checks `.` without its parent directories, like a mount.
    """
    writable = [mount for mount in service.mounts if not mount.read_only]
    if service.recorded or not writable:
        return ""
    image = quote(service.image.pinned)
    given = quote(service.options.user)
    configured = f"$({shell_join('podman', 'image', 'inspect', '--format', '{{.Config.User}}')} {image})"
    checks = "\n".join(f"check {quote(service.name)} {quote(mount.source)} {quote(mount.target)}" for mount in writable)
    return f"""\
user={given}
if [ -z "$user" ]; then user={configured}; fi
case ${{user%%:*}} in
  '' | 0 | root) ;;
  *)
{in_namespace(_PROGRAM.replace("IMAGE", image).replace("CHECKS", checks))}
    {ENTER} sh -c "$program" sh "$user"
    ;;
esac"""


#: Find the ids of the user `$1` in the files of the image, then check each mount as that user.
_PROGRAM = f"""\
set -eu
name=${{1%%:*}} group=''
case $1 in *:*) group=${{1#*:}} ;; esac
root=$(podman image mount IMAGE)
list() {{ if [ -f "$root/etc/$1" ] && [ ! -L "$root/etc/$1" ]; then head -c {_LONGEST_FILE} "$root/etc/$1"; fi; }}
entry=$(list passwd | awk -F : -v name="$name" '$1 == name || $3 == name {{ print $3 ":" $4 ":" $1; exit }}')
if [ -n "$group" ]; then
  group=$(list group | awk -F : -v name="$group" '$1 == name {{ print $3; exit }}' | grep . || echo "$group")
  groups=$group
else
  group=$(echo "$entry:0" | cut -d : -f 2)
  login=$(echo "$entry" | cut -d : -f 3)
  groups=$(list group | awk -F : -v name="$login" -v all="${{group:-0}}" '
    {{ count = split($4, members, ","); for (i = 1; i <= count; i++) if (members[i] == name) all = all "," $3 }}
    END {{ print all }}')
fi
podman image unmount IMAGE >/dev/null || :
user=${{entry%%:*}}
case $name in *[!0-9]*) ;; *) user=$name ;; esac
case $user$group in '' | *[!0-9]*) exit 0 ;; esac
as() {{ setpriv --reuid "$user" --regid "${{group:-0}}" --groups "$groups" "$@"; }}
as true 2>/dev/null || exit 0
check() {{
  cd "$2" 2>/dev/null || return 0
  if as test -w . && as test -x .; then return 0; fi
  echo "$1: the image's user $name ($user:${{group:-0}}) cannot write $2, which is mounted at $3."
  echo "On the host, as its deploy user: podman unshare chown -R $user:${{group:-0}} $2"
  echo "Or set 'owner: \\"$user:${{group:-0}}\\"' for the mount and run setup; or 'read_only: true' if the service only reads it"
  exit 1
}}
CHECKS"""
