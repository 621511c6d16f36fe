"""authorized_keys on a host: the scripts that read and write it, its parser, and the managed block.

The scripts run as root, but read and write the deploy user's home as that user: a link in the home then reaches
nothing that the user could not reach alone.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.openssh import PublicKey, is_type
from rolling_upgrade.engine.resource import CHECK_SECONDS, output_of_user
from rolling_upgrade.engine.shell import Script, quote, sha256, shell_join
from rolling_upgrade.engine.untrusted import Malformed

#: The sshd settings that the script reads, as effective for the user.
_SETTINGS = (
    "authorizedkeysfile",
    "authorizedkeyscommand",
    "trustedusercakeys",
    "passwordauthentication",
    "kbdinteractiveauthentication",
)
_MOST_BYTES = 1_000_000
_CHANGED = "changed since it was read; nothing was written. Next: run the same command again"


@dataclass(frozen=True)
class KeyFile:
    """A file of keys that sshd reads for the user; `state` is owner and mode, '' for a missing file."""

    path: str
    state: str = ""
    text: str = ""


@dataclass(frozen=True)
class HostAccess:
    """The sshd settings and key files of the user. `directory` is owner and mode of ~/.ssh, '' if it is missing."""

    home: str
    settings: dict[str, str]
    directory: str
    files: tuple[KeyFile, ...]

    @property
    def path(self) -> str:
        """The file that this project manages."""
        return f"{self.home}/.ssh/authorized_keys"

    @property
    def own(self) -> KeyFile:
        """The managed file."""
        return next((file for file in self.files if file.path == self.path), KeyFile(self.path))

    @property
    def password_login(self) -> bool:
        """Whether sshd accepts a password of the user."""
        methods = ("passwordauthentication", "kbdinteractiveauthentication")
        return any(self.settings.get(method) != "no" for method in methods)


def effective_settings(user: str) -> str:
    """Print, as root, the effective sshd settings of a user. Source: sshd(8), -T and -C."""
    return shell_join("sshd", "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1")


def read_files(user: str) -> Script:
    """Print the settings of sshd for the user and every file of keys that it reads; fails for a missing user."""
    mode = output_of_user(user, "stat -L -c '%U %a' \"$path\"")
    content = output_of_user(
        user, f'if [ -f "$path" ]; then head -c {_MOST_BYTES} "$path" | base64 -w 0; fi', _MOST_BYTES * 2
    )
    return Script(f"""\
user={quote(user)}
home=$(getent passwd "$user" | cut -d : -f 6)
if [ -z "$home" ]; then echo "there is no user $user"; exit 1; fi
settings=$({effective_settings(user)})
echo "home=$home"
printf '%s\\n' "$settings" | sed -n -E 's/^({"|".join(_SETTINGS)}) (.*)/setting \\1=\\2/p'
export path="$home/.ssh"
echo "directory=$({mode} | tr -cd '[:print:]')"
for word in $(printf '%s\\n' "$settings" | sed -n 's/^authorizedkeysfile //p'); do
  path=$(printf %s "$word" | sed "s|%h|$home|g; s|%u|$user|g; s|%%|%|g")
  case "$path" in none) continue ;; /*) ;; *) path=$home/$path ;; esac
  echo "file=$path"
  echo "state=$({mode} | tr -cd '[:print:]')"
  echo "content=$({content} | tr -cd 'A-Za-z0-9+/=')"
done
echo end
""")


def parse(output: str) -> HostAccess:
    """Parse the output of `read_files`. Raises Malformed for truncated output."""
    rows = [line.partition("=") for line in untrusted.lines(output)]
    if not rows or rows[-1][0] != "end":
        raise Malformed("the answer is truncated")
    facts = {key: value for key, _, value in rows}
    settings = {key.removeprefix("setting "): value for key, _, value in rows if key.startswith("setting ")}
    files: list[KeyFile] = []
    for at, (key, _, value) in enumerate(rows):
        if key == "file" and at + 2 < len(rows):
            state, content = rows[at + 1][2].strip(), rows[at + 2][2]
            files.append(KeyFile(value, state, _text(content)))
    if not facts.keys() >= {"home", "directory"}:
        raise Malformed("the answer names no home")
    return HostAccess(facts["home"], settings, facts["directory"].strip(), tuple(dict.fromkeys(files)))


def _text(content: str) -> str:
    try:
        # surrogateescape: bytes that are not UTF-8 survive the rewrite of the file.
        text = base64.b64decode(content).decode(errors="surrogateescape")
    except ValueError as error:
        raise Malformed("a file of keys is truncated") from error
    untrusted.rows(text)
    return text


def write(user: str, current: HostAccess, text: str) -> Script:
    """Replace the managed file atomically, unless it has changed since it was read.

    If another user owns ~/.ssh, and only authorized_keys files are in it, root gives it to the deploy user: it changes
    into the directory first and then the owner of `.`, so that a replacement in between has no effect.
    """
    before = sha256(current.own.text.encode(errors="surrogateescape"))
    encoded = base64.b64encode(text.encode(errors="surrogateescape")).decode()
    inner = f"""\
set -eu
umask 077
cd {quote(current.home)}
mkdir -p .ssh
chmod 700 .ssh
now=$(cat .ssh/authorized_keys 2>/dev/null | sha256sum | cut -d ' ' -f 1)
if [ "$now" != {before} ]; then echo {quote(f"{current.path}: {_CHANGED}")}; exit 1; fi
printf %s {encoded} | base64 -d > .ssh/authorized_keys.new
chmod 600 .ssh/authorized_keys.new
sync .ssh/authorized_keys.new
mv -f .ssh/authorized_keys.new .ssh/authorized_keys"""
    return Script(f"""\
(
  cd -P {quote(current.home)} || exit
  above=$(pwd -P)
  if ! cd -P ./.ssh 2>/dev/null || [ "$(pwd -P)" != "$above/.ssh" ]; then exit 0; fi
  if [ "$(stat -c %U .)" = {quote(user)} ]; then exit 0; fi
  if [ -z "$(find . -mindepth 1 ! -name 'authorized_keys*' -print -quit)" ]; then chown {quote(user)}: .; fi
)
{shell_join("timeout", "-k", 5, CHECK_SECONDS, "runuser", "-u", user, "--", "sh", "-c", inner)}
""")


def session_key() -> str:
    """Print the fingerprint of the key that opened this session, if sshd exposes it."""
    return """\
sed -n 's/^publickey //p' "${SSH_USER_AUTH:-/nonexistent}" 2>/dev/null | head -n 1 |
  ssh-keygen -lf - 2>/dev/null | cut -d ' ' -f 2 || :"""


_BEGIN = "# BEGIN inv access: "
_END = "# END inv access: "
_NOTE = "# Made by inv access.sync from deploy/authorized_keys: edit that folder, not this block."


@dataclass(frozen=True)
class Entry:
    """One line with a key. `block` names the block that contains it, '' outside of all blocks."""

    key: PublicKey
    block: str = ""
    options: str = ""

    @property
    def blob(self) -> str:
        """The key as base64, which identifies it."""
        return self.key.blob


@dataclass(frozen=True)
class _Line:
    text: str
    block: str = ""
    entry: Entry | None = None


def block_name(application: str, environment: str) -> str:
    """The name of the block of an application in an environment."""
    return f"{application} {environment}"


def entries(text: str) -> tuple[Entry, ...]:
    """Return every line with a key, in order."""
    return tuple(line.entry for line in _lines(text) if line.entry is not None)


def unparsed_lines(text: str) -> tuple[int, ...]:
    """Return the numbers, from 1, of the lines that cannot be parsed; sshd may read them differently."""
    rows = enumerate(_lines(text), start=1)
    return tuple(number for number, line in rows if line.entry is None and not _is_ignored(line.text.strip()))


def render(
    text: str, block: str, keys: Sequence[tuple[str, PublicKey]], revoked: Collection[str], *, exclusive: bool = False
) -> str:
    """Render the file with exactly these keys in the block, and neither these nor `revoked` keys outside of blocks.

    Other blocks stay. Other keys outside of blocks stay too, unless `exclusive`.
    """
    excluded = {key.blob for _, key in keys} | set(revoked)
    own = [f"{_BEGIN}{block}", _NOTE, *(key.line(name) for name, key in keys), f"{_END}{block}"]
    out: list[str] = []
    placed = False
    for line in _lines(text):
        if line.block == block:
            out += [] if placed else own
            placed = True
        elif line.block or _stays(line, excluded, exclusive=exclusive):
            out.append(line.text)
    return "\n".join(out if placed else [*out, *own]) + "\n"


def _stays(line: _Line, excluded: Collection[str], *, exclusive: bool) -> bool:
    words = line.text.strip()
    if _is_ignored(words):
        return True
    if exclusive:
        return False
    return line.entry.blob not in excluded if line.entry else not any(blob in words for blob in excluded)


def _is_ignored(words: str) -> bool:
    return not words or words.startswith("#")


def _lines(text: str) -> list[_Line]:
    """Split the text into lines with their blocks; a block without an end before the next begin does not count."""
    rows = untrusted.rows(text)
    rows = rows[:-1] if rows[-1] == "" else rows
    lines: list[_Line] = []
    at = 0
    while at < len(rows):
        end = _end(rows, at)
        block = rows[at].strip().removeprefix(_BEGIN) if end else ""
        stop = end + 1 if end else at + 1
        lines += [_Line(row, block, _entry(row, block)) for row in rows[at:stop]]
        at = stop
    return lines


def _end(rows: Sequence[str], at: int) -> int:
    """Return the index of the last line of the block that begins at `at`; 0 for no block."""
    first = rows[at].strip()
    if not first.startswith(_BEGIN):
        return 0
    last = _END + first.removeprefix(_BEGIN)
    for number in range(at + 1, len(rows)):
        row = rows[number].strip()
        if row == last:
            return number
        if row.startswith((_BEGIN, _END)):
            return 0
    return 0


def _entry(row: str, block: str) -> Entry | None:
    text = row.strip()
    if not text or text.startswith("#"):
        return None
    options = ""
    if not is_type(text.split(None, 1)[0]):
        options, text = _options(text)
    words = text.split(None, 2)
    if len(words) < 2 or not is_type(words[0]):
        return None
    key = PublicKey(words[0], words[1], words[2] if len(words) > 2 else "")
    return Entry(key, block, options) if key.fingerprint else None


def _options(text: str) -> tuple[str, str]:
    """Split the options from the rest of the line: they end at the first blank outside of double quotes."""
    quoted, at = False, 0
    while at < len(text) and (quoted or text[at] not in " \t"):
        if text.startswith('\\"', at):
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        at += 1
    return text[:at], text[at:].strip()
