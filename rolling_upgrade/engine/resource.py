"""Resources of a prepared host: check them, create them, and run parts of a root script as the deploy user.

Scripts run as root and are idempotent. Root never waits indefinitely for the deploy user: that user's part of a script
has a deadline, no input from root, and bounded output.
"""

from __future__ import annotations

from dataclasses import dataclass

from rolling_upgrade.engine import untrusted
from rolling_upgrade.engine.shell import Script, quote, script, sha256, shell_join, write_file

#: The id of the resource that the executor itself needs.
PYTHON = "python"
#: The time limit of the deploy user's part of a check, in seconds.
CHECK_SECONDS = 30
#: The time limits of the deploy user's part of a change, in seconds, below the deadline of the whole step.
USER_SECONDS = 300
SCRIPT_SECONDS = 850
#: The limits for output of the deploy user that root reads, in seconds and bytes.
_USER_OUTPUT_SECONDS = 15
_USER_OUTPUT_BYTES = 4096


@dataclass(frozen=True)
class Resource:
    """A resource of a prepared host. `check` is a shell condition.

    `apply` creates the resource if the shell condition `possible` holds; without `apply`, an operator has to create it.
    """

    id: str
    title: str
    check: str
    apply: Script | None
    remedy: str = ""
    possible: str = ""


def check(resources: tuple[Resource, ...]) -> Script:
    """Print `ID ok`, `ID drift`, or `ID hand` (an operator has to act) for every resource; changes nothing."""
    parts = []
    for item in resources:
        verdict = "hand" if item.apply is None else "drift"
        otherwise = f"echo {quote(item.id)} {verdict}"
        if item.possible:
            otherwise = f"if {{\n{item.possible}\n}} >/dev/null 2>&1; then\n  {otherwise}\nelse\n  echo {quote(item.id)} hand\nfi"
        parts.append(f"if {{\n{item.check}\n}} >/dev/null 2>&1; then\necho {quote(item.id)} ok\nelse\n{otherwise}\nfi")
    return Script("\n".join(parts) + "\n")


def parse_check(output: str) -> dict[str, bool]:
    """Parse the output of `check`: the ids of the missing resources, and whether a script can create each.

    Raises Malformed for any other output.
    """
    missing = {}
    for line in untrusted.lines(output):
        id, _, state = line.rpartition(" ")
        if state not in {"ok", "drift", "hand"}:
            raise untrusted.Malformed(f"unexpected answer to a check: {untrusted.line(line)!r}")
        if state != "ok":
            missing[id] = state == "drift"
    return missing


def as_root(text: Script, *, user: str, seconds: float = 0) -> Script:
    """Run the script as root, through `sudo -n` unless the user is root, within `seconds` if given.

    The shell reads the whole text before it starts, so that no child process can read a part of it. For root itself,
    the connection does this; see ssh/fabric_host.py.
    """
    environment = "set -eu\numask 022\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C\nexport PATH LC_ALL\ncd /\n"
    if user == "root" and not seconds:
        return Script(environment + text.text, text.secrets)
    body = f"{environment}main() {{\n{text.text}\n}}\nmain </dev/null\nexit"
    become = "" if user == "root" else "sudo -n "
    limit = f"timeout -k 5 {seconds:g} " if seconds else ""
    # On standard input, because one word of a command line has at most 128 KiB.
    return Script(f"{become}{limit}sh -s <<'END-OF-ROOT'\n{body}\nEND-OF-ROOT", text.secrets)


def as_user(user: str, command: str, seconds: int = USER_SECONDS) -> str:
    """A command line that runs in the deploy user's session from a root script, with a deadline.

    Source: timeout(1), runuser(1): timeout kills runuser, which would wait for a stopped process of the user.
    """
    inner = f"cd && XDG_RUNTIME_DIR=/run/user/$(id -u) && export XDG_RUNTIME_DIR && {command}"
    return shell_join("timeout", "-k", 5, seconds, "runuser", "-u", user, "--", "sh", "-c", inner)


def output_of_user(user: str, command: str, bytes: int = _USER_OUTPUT_BYTES) -> str:
    """A command line that prints the first bytes of a command's output, run as the deploy user from a root script.

    A process that keeps the pipe open does not delay it: the deadline kills the reader as well.
    """
    ask = shell_join("runuser", "-u", user, "--", "sh", "-c", f"cd && {command}")
    return shell_join("timeout", "-s", "KILL", _USER_OUTPUT_SECONDS, "sh", "-c", f"{ask} 2>/dev/null | head -c {bytes}")


def script_as_user(user: str, text: Script) -> Script:
    """A whole script in the deploy user's session, from a root script; no secret appears in argv.

    The user's shell reads an unlinked file: a pipe that it does not read would block the writer, which is root.
    """
    start = as_user(user, "exec sh -s", SCRIPT_SECONDS)
    return Script(
        f"""\
orders=$(mktemp)
exec 6>"$orders"
exec 7<"$orders"
rm -f "$orders"
cat >&6 <<'END-OF-USER'
{text.text}
END-OF-USER
exec 6>&-
{start} <&7 7<&-
exec 7<&-""",
        text.secrets,
    )


def file(id: str, title: str, path: str, content: str, mode: str, *, named: bool = False) -> Resource:
    """A root-owned file with exactly this content; with `named`, another program may use the same path."""
    test = f"{has_content(path, content)} && {has_mode(path, f'root {mode}')}"
    make = script(shell_join("mkdir", "-p", path.rpartition("/")[0]), write_file(path, content, mode=f"0{mode}"))
    if named:
        return Resource(id, title, test, make, f"{path} {FOREIGN}", is_unclaimed(path))
    return Resource(id, title, test, make)


#: The marker in files of this program whose paths other programs may use too.
_MARK = "inv setup\\|rolling-site"
FOREIGN = "belongs to another program or was created by hand: move it, or choose another APP_NAME"


def is_ours(path: str) -> str:
    """A shell condition: this program created the file."""
    return f"grep -qs {quote(_MARK)} {quote(path)}"


def is_unclaimed(path: str) -> str:
    """A shell condition: the file does not exist, or this program created it."""
    return f"{{ ! test -e {quote(path)} || {is_ours(path)}; }}"


def is_absent(*paths: str) -> str:
    """A shell condition: none of the paths exists."""
    return " && ".join(shell_join("test", "!", "-e", path) for path in paths)


def has_content(path: str, content: str) -> str:
    """A shell condition: the file has exactly this content."""
    return f'test "$(sha256sum < {quote(path)} | cut -d " " -f 1)" = {sha256(content.encode(errors="surrogateescape"))}'


def has_mode(path: str, owner_and_mode: str) -> str:
    """A shell condition: the path has this owner and mode, such as `root 755`."""
    return f"test \"$(stat -c '%U %a' {quote(path)})\" = {quote(owner_and_mode)}"


def is_empty(path: str) -> str:
    """A shell condition: the path is an empty directory and not a link. It reads at most one entry."""
    return f'test -n "$(find {quote(path)} -maxdepth 0 -type d -empty)"'


def in_directory(user: str, path: str, condition: str) -> str:
    """A shell condition on the directory `.`, checked as the deploy user, or as root if no link leads there.

    The user may have no access to a directory that its containers own.
    """
    directory = quote(path)
    by_root = f'( cd -P {directory} && test "$(pwd -P)" = {directory} && {condition} )'
    return f"{{ {as_user(user, f'cd -P {directory} && {condition}', CHECK_SECONDS)} || {by_root}; }}"
