"""One thing that a prepared host has: its check, what makes it so, and what only a person can do. It runs nothing.

What makes an item runs as root and is convergent: applied to a host that has the item, it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from fabfile.commands.shell import Script, quote, script, sha256, words, write_file


@dataclass(frozen=True)
class Item:
    """One thing a prepared host has. `check` is a shell condition.

    `apply` makes it so, where the shell condition `possible` holds; an item without one can only be refused.
    """

    id: str
    title: str
    check: str
    apply: Script | None
    remedy: str = ""
    possible: str = ""


def check(items: tuple[Item, ...]) -> Script:
    """Print `ID ok`, `ID drift`, or `ID hand` where a person has to make it, for every item; changes nothing."""
    parts = []
    for item in items:
        lacking = "hand" if item.apply is None else "drift"
        otherwise = f"echo {quote(item.id)} {lacking}"
        if item.possible:
            otherwise = f"if {item.possible}; then\n  {otherwise}\nelse\n  echo {quote(item.id)} hand\nfi"
        parts.append(f"if {{\n{item.check}\n}} >/dev/null 2>&1; then\necho {quote(item.id)} ok\nelse\n{otherwise}\nfi")
    return Script("\n".join(parts) + "\n")


def as_root(text: Script, *, user: str) -> Script:
    """The script under root: as it is for root itself, through `sudo -n` for anyone else."""
    environment = "set -eu\numask 022\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C\nexport PATH LC_ALL\ncd /\n"
    body = environment + text.text
    if user == "root":
        return Script(body, text.secrets)
    # On standard input: one word of a command line is 128 KiB at the most.
    return Script(f"sudo -n sh -s <<'END-OF-ROOT'\n{body}\nEND-OF-ROOT", text.secrets)


def as_user(user: str, command: str) -> str:
    """A command line under the deploy user's own session, from a root script."""
    inner = f"cd && XDG_RUNTIME_DIR=/run/user/$(id -u) && export XDG_RUNTIME_DIR && {command}"
    return words("runuser", "-u", user, "--", "sh", "-c", inner)


def script_as_user(user: str, text: Script) -> Script:
    """A whole script under the deploy user's own session, from a root script; its secrets are in no command line."""
    start = as_user(user, "exec sh -s")
    return Script(f"{start} <<'END-OF-USER'\n{text.text}\nEND-OF-USER", text.secrets)


def file(id: str, title: str, path: str, content: str, mode: str, after: str = "", *, named: bool = False) -> Item:
    """A file of root's with exactly this content; with `named`, one of another program may have the place."""
    test = f"{same(path, content)} && {owned(path, f'root {mode}')}"
    make = script(words("mkdir", "-p", path.rpartition("/")[0]), write_file(path, content, mode=f"0{mode}"), after)
    return Item(id, title, test, make, f"{path} {FOREIGN}", unclaimed(path)) if named else Item(id, title, test, make)


#: What stands in every file that may be found where another program would have one of the same name.
_MARK = "inv setup\\|rolling-site"
FOREIGN = "is another program's, or was written by hand: move it away, or choose another APP_NAME"


def ours(path: str) -> str:
    """A shell condition: the file is one that this suite made."""
    return f"grep -qs {quote(_MARK)} {quote(path)}"


def unclaimed(path: str) -> str:
    """A shell condition: nothing is there, or what this suite made."""
    return f"{{ ! test -e {quote(path)} || {ours(path)}; }}"


def same(path: str, content: str) -> str:
    """A shell condition: the file has exactly this content."""
    return f'test "$(sha256sum < {quote(path)} | cut -d " " -f 1)" = {sha256(content.encode())}'


def owned(path: str, wanted: str) -> str:
    """A shell condition: the path has this owner and mode, such as `root 755`."""
    return f"test \"$(stat -c '%U %a' {quote(path)})\" = {quote(wanted)}"
