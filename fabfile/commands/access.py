"""Shell text for who may log in as the deploy user: a look at what sshd reads, and the file put in place. Runs nothing.

The scripts run as root. Whatever lies in the user's home is read and written as the user: a link that the user made
leads nowhere that the user could not go alone.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from fabfile.commands.shell import Script, quote, sha256, words

#: What of sshd's settings is asked, as it holds for the user.
_SETTINGS = (
    "authorizedkeysfile",
    "authorizedkeyscommand",
    "trustedusercakeys",
    "passwordauthentication",
    "kbdinteractiveauthentication",
)
_MOST_BYTES = 1_000_000
_CHANGED = "it was changed since it was looked at; run the same command again"


@dataclass(frozen=True)
class KeyFile:
    """A file of keys that sshd reads for the user; `state` is owner and mode, '' where there is no file."""

    path: str
    state: str = ""
    text: str = ""


@dataclass(frozen=True)
class Seen:
    """What sshd of a host goes by when the user logs in. `directory` is owner and mode of ~/.ssh, '' for none."""

    home: str
    settings: dict[str, str]
    directory: str
    files: tuple[KeyFile, ...]

    @property
    def path(self) -> str:
        """The file that is managed here."""
        return managed(self.home)

    @property
    def own(self) -> KeyFile:
        """The managed file, as it is."""
        return next((file for file in self.files if file.path == self.path), KeyFile(self.path))

    @property
    def password_login(self) -> bool:
        """Whether sshd lets the user in with a password."""
        asked = ("passwordauthentication", "kbdinteractiveauthentication")
        return any(self.settings.get(key) != "no" for key in asked)


def managed(home: str) -> str:
    """The file in which keys are granted."""
    return f"{home}/.ssh/authorized_keys"


def effective(user: str) -> str:
    """The command that prints sshd's settings as they hold for a user, as root. Source: sshd(8), -T and -C."""
    return words("sshd", "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1")


def look(user: str) -> Script:
    """Print what sshd reads for the user, with its content; fails where there is no such user. Changes nothing."""
    reading = f'if [ -f "$1" ]; then head -c {_MOST_BYTES} "$1" | base64 -w 0; fi'
    read = f'runuser -u "$user" -- sh -c {quote(reading)} sh'
    return Script(f"""\
user={quote(user)}
home=$(getent passwd "$user" | cut -d : -f 6)
if [ -z "$home" ]; then echo "there is no user $user"; exit 1; fi
settings=$({effective(user)})
echo "home=$home"
printf '%s\\n' "$settings" | sed -n -E 's/^({"|".join(_SETTINGS)}) (.*)/setting \\1=\\2/p'
echo "directory=$(stat -L -c '%U %a' "$home/.ssh" 2>/dev/null || :)"
for word in $(printf '%s\\n' "$settings" | sed -n 's/^authorizedkeysfile //p'); do
  path=$(printf %s "$word" | sed "s|%h|$home|g; s|%u|$user|g; s|%%|%|g")
  case "$path" in none) continue ;; /*) ;; *) path=$home/$path ;; esac
  echo "file=$path"
  echo "state=$(stat -L -c '%U %a' "$path" 2>/dev/null || :)"
  echo "content=$({read} "$path" || :)"
done
echo end
""")


def parse(output: str) -> Seen:
    """Read what `look` printed. Raises ValueError when it is not whole."""
    rows = [line.partition("=") for line in output.splitlines()]
    if not rows or rows[-1][0] != "end":
        raise ValueError("the answer was cut short")
    facts = {key: value for key, _, value in rows}
    settings = {key.removeprefix("setting "): value for key, _, value in rows if key.startswith("setting ")}
    files: list[KeyFile] = []
    for at, (key, _, value) in enumerate(rows):
        if key == "file":
            state, content = rows[at + 1][2].strip(), rows[at + 2][2]
            files.append(KeyFile(value, state, _text(content)))
    return Seen(facts["home"], settings, facts["directory"].strip(), tuple(dict.fromkeys(files)))


def _text(content: str) -> str:
    try:
        # Bytes that are no text come back as they were when the file is written again.
        return base64.b64decode(content).decode(errors="surrogateescape")
    except binascii.Error as error:
        raise ValueError("a file of keys did not arrive whole") from error


def write(user: str, seen: Seen, text: str) -> Script:
    """Put the text in place of the managed file, whole or not at all, unless somebody changed the file meanwhile."""
    directory = f"{seen.home}/.ssh"
    before = sha256(seen.own.text.encode(errors="surrogateescape"))
    encoded = base64.b64encode(text.encode(errors="surrogateescape")).decode()
    inner = f"""\
set -eu
umask 077
cd {quote(seen.home)}
mkdir -p .ssh
chmod 700 .ssh
now=$(cat .ssh/authorized_keys 2>/dev/null | sha256sum | cut -d ' ' -f 1)
if [ "$now" != {before} ]; then echo {quote(f"{seen.path}: {_CHANGED}")}; exit 1; fi
printf %s {encoded} | base64 -d > .ssh/authorized_keys.new
chmod 600 .ssh/authorized_keys.new
sync .ssh/authorized_keys.new
mv -f .ssh/authorized_keys.new .ssh/authorized_keys"""
    return Script(f"""\
if [ -d {quote(directory)} ] && [ ! -L {quote(directory)} ]; then chown -h {quote(user)}: {quote(directory)}; fi
{words("runuser", "-u", user, "--", "sh", "-c", inner)}
""")


def disclosed() -> str:
    """Print the fingerprint of the key with which this very session was opened, where sshd tells it."""
    return """\
sed -n 's/^publickey //p' "${SSH_USER_AUTH:-/nonexistent}" 2>/dev/null | head -n 1 |
  ssh-keygen -lf - 2>/dev/null | cut -d ' ' -f 2 || :"""
