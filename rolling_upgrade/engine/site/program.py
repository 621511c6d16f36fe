"""The root-owned program that alone changes the Nginx site of one application: `/usr/local/lib/APP/site`.

The deploy user may run two commands through sudo, `install` and `restore`; setup runs the others as root. The program
reads data of limited size from standard input, and takes no other argument. It tests a new text in a private view of
/etc/nginx before it installs it. The text counts as live only when Nginx itself answers with its hash on loopback:
`nginx -t` and a reload both exit 0 if the new configuration cannot bind its ports and the old one stays.

Exit codes: 0 done, 1 an error of the host, 2 usage, 3 refused, 4 Nginx kept the old text, 5 the old text was not
restored. After a failure the old text is in place again unless the message says otherwise.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import http.client
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rolling_upgrade.engine.site.chain import Chain, ChainError, join
from rolling_upgrade.engine.site.document import LARGEST, SiteError
from rolling_upgrade.engine.site.schema import Rules, Site, UserList, dump, parse_request, parse_rules
from rolling_upgrade.engine.site.text import HASH_PATH, listen_text, render, text_hash, text_port, text_site

USAGE = (
    "usage: site install < REQUEST | restore < HASH | rules < RULES | check-rules < RULES | refresh < SITE | check"
    " | certificate | renewed-certificate | check-certificate"
)
LIVE_SECONDS = 10.0
#: In /proc/net/tcp: the state of a listener, and the column of the user who opened the socket.
_LISTENING, _OWNER = "0A", 7
_VIEW = "rolling-site-"
_TEST = 'mount --bind "$1" "$2" && exec nginx -t'


class HostPaths:
    """The paths on the host, below `root`."""

    def __init__(self, program: Path, root: Path = Path("/")) -> None:
        self.own = program.parent
        self.app = self.own.name
        self.rules = self.own / "rules.json"
        self.previous = self.own / "site.previous"
        self.listen = self.own / "listen.conf"
        self.nginx = root / "etc/nginx/nginx.conf"
        self.certificate = self.own / "certificate.pem"
        self.directory = root / "etc/nginx/conf.d"
        self.site = self.directory / f"{self.app}.conf"
        self.lock = root / "run/rolling-site.lock"
        self.scratch = root / "run"
        self.log = root / "var/log/nginx/error.log"
        self.proc = root / "proc/net/tcp"
        self._root = root

    def below(self, path: str) -> Path:
        """An absolute path of the host."""
        return self._root / path.lstrip("/")


def main(words: Sequence[str], template: str, paths: HostPaths) -> int:
    """Run one command and return the exit code. Prints messages, never a traceback."""
    reset_inherited_state()
    commands = {
        "install": _install,
        "restore": _restore,
        "rules": _set_rules,
        "check-rules": _check_rules,
        "refresh": _refresh,
        "check": _check,
        "certificate": _certificate,
        "renewed-certificate": _renewed_certificate,
        "check-certificate": _check_certificate,
    }
    try:
        command = commands.get(words[0]) if len(words) == 1 else None
        if command is None:
            raise Refused(USAGE, 2)
        without_input = (_check, _certificate, _renewed_certificate, _check_certificate)
        data = b"" if command in without_input else read_input()
        with locked(paths.lock):
            _remove_leftovers(paths)
            done = command(data, paths, template)
        # After the release of the lock: the caller may never read the output.
        write_message(done)
    except Refused as error:
        write_message(str(error))
        return error.code
    except SiteError as error:
        write_message(f"refused: {error}")
        return 3
    except (OSError, subprocess.SubprocessError) as error:
        write_message(f"failed: {error}")
        return 1
    return 0


def _remove_leftovers(paths: HostPaths) -> None:
    """Remove the temporary directories of killed commands; under the lock no other command runs."""
    for directory in paths.scratch.glob(f"{_VIEW}*"):
        shutil.rmtree(directory, ignore_errors=True)


def _install(data: bytes, paths: HostPaths, template: str) -> str:
    """Install the site of a deploy; on failure restore the old text."""
    request = parse_request(data)
    text = render(request.site, _rules(paths), template)
    if text_hash(text) != request.expected_hash:
        raise Refused(
            "this host renders a site that differs from the plan: run rolling-upgrade setup for this host first"
        )
    old = read_text(paths.site)
    try:
        _write_users(request.users, paths)
        if old == text and _has_listeners(paths) and _answers(text, paths):
            return "the site is unchanged"
        _replace(old, text, paths)
    finally:
        # Also those of a refused site: the deploy user could fill the disk of root with them.
        _remove_unused_users(paths)
    return "the site is live"


def _restore(data: bytes, paths: HostPaths, template: str) -> str:
    """Restore the site before the one with the given hash; nothing happens if another one is installed."""
    wanted = data.decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9a-f]{16}", wanted):
        raise Refused("refused: restore expects the hash of the installed site: 16 hexadecimal digits")
    current, previous = read_text(paths.site), read_text(paths.previous)
    if text_hash(current) != wanted or not previous:
        return "a different site is installed: nothing to restore"
    former = text_site(previous)
    if former is None:
        raise Refused(
            "the previous site was installed by an earlier version and cannot be restored: run rolling-upgrade setup", 5
        )
    try:
        _replace(current, render(former, _rules(paths), template), paths)
    except (Refused, SiteError) as error:
        raise Refused(f"the previous site could not be restored: {error}", 5) from error
    return "the previous site is restored"


def _set_rules(data: bytes, paths: HostPaths, _: str) -> str:
    """Write the rules, unless they conflict with another application on the host."""
    wanted = _wanted_rules(data, paths)
    for app, other in _other_rules(paths):
        if claimed := wanted.conflict(other):
            raise Refused(f"refused: {claimed}: granted to {app} on this host; choose others, or tear {app} down first")
    write_text(paths.rules, dump(wanted) + "\n")
    return "the rules are in place"


def _check_rules(data: bytes, paths: HostPaths, _: str) -> str:
    """Refuse unless the stored rules are exactly the ones that `rules` would write."""
    wanted = _wanted_rules(data, paths)
    if read_text(paths.rules) != dump(wanted) + "\n":
        raise Refused("the stored rules differ from the desired ones")
    return "the rules are in place"


def _refresh(data: bytes, paths: HostPaths, template: str) -> str:
    """Render the installed site again from its own data, with the current template and rules.

    The site of the given request is the fallback if none is installed, or one of an earlier version, which contains no
    data. Its users are written in any case.
    """
    old, request = read_text(paths.site), parse_request(data)
    try:
        text = render(text_site(old) or request.site, _rules(paths), template)
    except SiteError:
        text = render(request.site, _rules(paths), template)
    _write_users(request.users, paths)
    if old != text or not _has_listeners(paths) or not _answers(text, paths):
        _replace(old, text, paths)
    return "the site is live"


def _check(_: bytes, paths: HostPaths, template: str) -> str:
    """Refuse if `refresh` would change anything."""
    text = read_text(paths.site)
    site, rules = text_site(text), _rules(paths)
    if site is None or render(site, rules, template) != text:
        raise Refused("the installed site was rendered by a different version or with different rules")
    if not _has_listeners(paths):
        raise Refused("the listeners of the site are not in the syntax of the installed Nginx")
    if not _answers(text, paths):
        raise Refused("Nginx does not run the site")
    return "the site is live"


def _certificate(_: bytes, paths: HostPaths, __: str) -> str:
    """Join the certificate and its intermediates, and let Nginx load them. On failure the former file stays."""
    changed = False
    # Until nothing changes: systemd does not report a change of a file that happens meanwhile.
    while (chain := _joined(paths)).text != (former := read_text(paths.certificate)):
        write_text(paths.certificate, chain.text)
        _load_certificate(former, paths)
        changed = True
    note = f"; left out, because they signed none of the others: {'; '.join(chain.left_out)}" if chain.left_out else ""
    return f"the certificate and its intermediates are {'in place' if changed else 'unchanged'}{note}"


def _renewed_certificate(_: bytes, paths: HostPaths, __: str) -> str:
    """Like `certificate`, with some time for the other files of a renewal, which replaces them one after the other."""
    deadline = time.monotonic() + RENEWAL_SECONDS
    while True:
        before = _versions(paths)
        try:
            return _certificate(_, paths, __)
        except Refused:
            while _versions(paths) == before:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def _versions(paths: HostPaths) -> list[tuple[int, int]]:
    """Return what changes with each file of the certificate."""
    tls = _rules(paths).tls
    found: list[tuple[int, int]] = []
    for path in (tls.certificate, tls.key, tls.chain) if tls else ():
        try:
            status = paths.below(path).stat()
            found.append((status.st_ino, status.st_mtime_ns))
        except OSError:
            found.append((0, 0))
    return found


def _load_certificate(former: str, paths: HostPaths) -> None:
    """Let Nginx load the joined file; restore the former one if it refuses. Raises Refused.

    At boot Nginx may have failed because the former file does not belong to the key any more. A stopped one stays so.
    """
    state = run("systemctl", "is-active", "nginx").stdout.strip()
    if state not in {"active", "failed"}:
        return
    test = run("nginx", "-t")
    if test.returncode or run("systemctl", "reload" if state == "active" else "start", "nginx").returncode:
        if former:
            write_text(paths.certificate, former)
        raise Refused(f"Nginx does not load the certificate; the former one stays:\n{test.stdout[-LARGEST_MESSAGE:]}")


def _check_certificate(_: bytes, paths: HostPaths, __: str) -> str:
    """Refuse unless the joined file is what `certificate` would write."""
    if _joined(paths).text != read_text(paths.certificate):
        raise Refused("the joined certificate is missing, or a file was changed after it was joined")
    return "the certificate is current"


def _joined(paths: HostPaths) -> Chain:
    tls = _rules(paths).tls
    if tls is None or not tls.chain:
        raise Refused("the site has no file with intermediate certificates")
    certificate, intermediates = (read_text(paths.below(path)) for path in (tls.certificate, tls.chain))
    if not certificate or not intermediates:
        raise Refused(f"{tls.chain if certificate else tls.certificate} is missing or empty")
    try:
        return join(certificate, intermediates, paths.below(tls.key), time.time())
    except ChainError as error:
        raise Refused(f"the certificate of {tls.certificate} and {tls.chain}: {error}") from error


def _wanted_rules(data: bytes, paths: HostPaths) -> Rules:
    """The given rules, plus the ports and domains that the installed site needs until a deploy replaces it."""
    wanted = parse_rules(data)
    if wanted.app != paths.app:
        raise Refused(f"refused: these are the rules of {wanted.app}, not of {paths.app}")
    try:
        live, granted = text_site(read_text(paths.site)), _rules(paths)
    except (SiteError, Refused):
        return wanted
    if live is None:
        return wanted
    ports = {*wanted.ports, *set(live.ports) & set(granted.ports)}
    # In lower case, because a site may name a domain in two spellings, and the rules must not.
    domains = {domain.lower() for domain in live.named_domains} & (granted.names - wanted.names)
    return replace(wanted, ports=tuple(sorted(ports)), domains=tuple(sorted({*wanted.domains, *domains})))


def _other_rules(paths: HostPaths) -> Iterator[tuple[str, Rules]]:
    """The rules of each other application on the host. Raises Refused for unreadable rules."""
    for path in sorted(paths.own.parent.glob("*/rules.json")):
        if path.parent == paths.own or path.parent.stat().st_uid != os.getuid():
            continue
        try:
            yield path.parent.name, parse_rules(read_text(path).encode())
        except SiteError as error:
            raise Refused(
                f"refused: {path} cannot be read ({error}): run rolling-upgrade setup of {path.parent.name}"
            ) from error


def _rules(paths: HostPaths) -> Rules:
    text = read_text(paths.rules)
    if not text:
        raise Refused("the host has no rules for this application: run rolling-upgrade setup for it first")
    return parse_rules(text.encode())


def _replace(old: str, new: str, paths: HostPaths) -> None:
    """Test the new text, install it and verify that it is live; restore the old text on any failure. Raises Refused."""
    former = read_text(paths.listen)
    _write_listeners(_listeners(_rules(paths)), paths)
    if problem := _refusal(new, paths):
        _write_listeners(former, paths)
        raise Refused(f"Nginx refuses the new site; nothing was changed:\n{problem}")
    write_text(paths.previous, old)
    try:
        write_text(paths.site, new)
        if _reload() and _is_live(new, paths):
            return
        reasons = _reasons(paths)
    except Exception as error:  # noqa: BLE001 - a defect of this program must not leave an unverified site
        reasons = f"\n{type(error).__name__}: {error}"
    _write_listeners(former, paths)
    _restore_old(old, paths)
    raise Refused(f"Nginx kept its old configuration; the old site is restored.{reasons}", 4)


def _listeners(rules: Rules) -> str:
    """The text of the file with the TLS listeners; '' without TLS."""
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", run("nginx", "-v").stdout) if rules.tls else None
    return listen_text(rules, tuple(map(int, found.groups())) if found else ()) if rules.tls else ""


def _has_listeners(paths: HostPaths) -> bool:
    """Whether the file with the TLS listeners is the one for the rules and for the installed Nginx."""
    wanted = _listeners(_rules(paths))
    return not wanted or read_text(paths.listen) == wanted


def _write_listeners(text: str, paths: HostPaths) -> None:
    """Write the file that sites with HTTP/2 include. It stays without TLS: Nginx may still run a site that needs it."""
    if text and text != read_text(paths.listen):
        write_text(paths.listen, text)


def _write_users(lists: Sequence[UserList], paths: HostPaths) -> None:
    """Write the users of basic authentication, which only root and the workers of Nginx may read."""
    for users in lists:
        path = paths.own / f"users-{users.id}"
        write_text(path, users.text, 0o600)
        with contextlib.suppress(KeyError):
            os.chown(path, -1, grp.getgrnam(_worker_group(paths)).gr_gid)
            path.chmod(0o640)


def _worker_group(paths: HostPaths) -> str:
    """The group of Nginx's workers. Source: nginx, directive `user`: the group has the name of the user by default."""
    found = re.search(r"^\s*user\s+([^\s;]+)(?:\s+([^\s;]+))?\s*;", read_text(paths.nginx), re.MULTILINE)
    return (found[2] or found[1]) if found else "nogroup"


def _remove_unused_users(paths: HostPaths) -> None:
    """Remove the users that neither the installed nor the previous site names."""
    named = {route.users for site in _own_sites(paths) for route in site.routes}
    for path in paths.own.glob("users-*"):
        if path.name.removeprefix("users-") not in named:
            path.unlink()


def _own_sites(paths: HostPaths) -> Iterator[Site]:
    for path in (paths.site, paths.previous):
        with contextlib.suppress(SiteError):
            if site := text_site(read_text(path)):
                yield site


def _restore_old(old: str, paths: HostPaths) -> None:
    """Write the old text, and reload Nginx unless it still runs that text. Raises Refused with code 5."""
    if old:
        write_text(paths.site, old)
    else:
        paths.site.unlink(missing_ok=True)
    try:
        restored = bool(old and _answers(old, paths)) or _load(old, paths)
    except Exception:  # noqa: BLE001 - the cause of the failure may affect the old site as well
        restored = False
    if not restored:
        raise Refused("the old site could not be restored: its file is in place; check nginx -t", 5)


def _load(text: str, paths: HostPaths) -> bool:
    """Have Nginx load the installed text; return whether it answers with the text's hash, if the text has one."""
    return not run("nginx", "-t").returncode and _reload() and (not text_hash(text) or _is_live(text, paths))


def _refusal(text: str, paths: HostPaths) -> str:
    """The errors of `nginx -t` for the text, tested in a private mount namespace; '' if Nginx accepts the text.

    Source: unshare(1), --propagation private: only that process sees its mounts, and they end with it.
    """
    with tempfile.TemporaryDirectory(prefix=_VIEW, dir=paths.scratch) as name:
        copy = Path(name) / "conf.d"
        shutil.copytree(paths.directory, copy, symlinks=True)
        write_text(copy / paths.site.name, text)
        view = ("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _TEST, "sh")
        done = run(*view, str(copy), str(paths.directory))
    return "" if done.returncode == 0 else done.stdout[-LARGEST_MESSAGE:] or "nginx -t failed without a message"


def _reload() -> bool:
    active = run("systemctl", "is-active", "--quiet", "nginx").returncode == 0
    return run("systemctl", "reload" if active else "start", "nginx").returncode == 0


def _is_live(text: str, paths: HostPaths) -> bool:
    """Whether Nginx answers with the text's hash within ten seconds."""
    deadline = time.monotonic() + LIVE_SECONDS
    while not _answers(text, paths):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _answers(text: str, paths: HostPaths) -> bool:
    """Whether a process of root answers with the text's hash on its port: another user's process is not Nginx."""
    port, wanted = text_port(text), text_hash(text)
    if not port or not wanted or not _is_own_port(port, paths):
        return False
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", HASH_PATH)
        return connection.getresponse().read(64) == wanted.encode()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_own_port(port: int, paths: HostPaths) -> bool:
    """Whether this user, root, opened every listener on that loopback port. Source: proc(5), /proc/net/tcp."""
    local, owners = f"0100007F:{port:04X}", set()
    with contextlib.suppress(FileNotFoundError), paths.proc.open(errors="replace") as rows:
        for row in rows:
            fields = row.split()
            if len(fields) > _OWNER and fields[1] == local and fields[3] == _LISTENING:
                owners.add(fields[_OWNER])
    return owners == {str(os.getuid())}


def _reasons(paths: HostPaths) -> str:
    """The errors of Nginx about its listeners, without the lines about requests."""
    with contextlib.suppress(OSError), paths.log.open("rb") as file:
        file.seek(max(0, paths.log.stat().st_size - 65_536))
        rows = file.read(65_536).decode("utf-8", "replace").splitlines()
        errors = [row for row in rows if "[emerg]" in row and ("bind()" in row or paths.site.name in row)]
        return "".join(f"\n{row[:300]}" for row in errors[-3:])
    return ""


RENEWAL_SECONDS = 10.0
READ_SECONDS, LOCK_SECONDS, COMMAND_SECONDS = 10.0, 60.0, 60.0
LARGEST_MESSAGE = 4096
_LARGEST_TEXT = 4 * 1024 * 1024
#: Signals that the caller could send to its sudo, directly or by a timer: a change must finish or be undone.
#: Source: execve(2): interval timers continue.
_IGNORED_SIGNALS = (
    *("HUP", "INT", "QUIT", "TERM", "PIPE", "USR1", "USR2", "ALRM", "VTALRM", "PROF"),
    *("IO", "TSTP", "TTIN", "TTOU", "XFSZ", "XCPU"),
)


class Refused(Exception):
    """The command was refused or failed; `code` is the exit code."""

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in its own session, so that a signal to the caller's process group does not reach it."""
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=COMMAND_SECONDS,
        check=False,
        start_new_session=True,
    )


def read_text(path: Path) -> str:
    """The text of a root-owned file, up to a limit; '' if the file is missing."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_TEXT).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file atomically and durably. The write replaces the leftover of an earlier attempt."""
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def read_input() -> bytes:
    """Read one document of limited size from standard input, within ten seconds. Raises Refused."""
    data, deadline = b"", time.monotonic() + READ_SECONDS
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([0], [], [], left)[0]:
            raise Refused(f"refused: standard input did not end within {READ_SECONDS:.0f} s")
        chunk = os.read(0, 65_536)
        data += chunk
        if not chunk:
            return data
        if len(data) > LARGEST:
            raise Refused(f"refused: standard input is larger than {LARGEST // 1024} KiB")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock for changes of any site on the host. Raises Refused after a minute."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Refused("another change of a site on this host has not ended within a minute", 1) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def reset_inherited_state() -> None:
    """Reset the signals and limits of the caller that could stop a change half-way or hide a failed command."""
    # With an inherited SIG_IGN for SIGCHLD, the exit status of a command would be lost. Source: waitpid(2), ECHILD.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for name in _IGNORED_SIGNALS:
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0")
    for kind in (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_DATA):
        _raise_limit(kind, resource.RLIM_INFINITY)
    _raise_limit(resource.RLIMIT_NOFILE, 1024)
    os.umask(0o022)
    os.chdir("/")


def _raise_limit(kind: int, least: int) -> None:
    """Raise a limit of the caller; without the privilege, only up to its hard limit. Source: getrlimit(2)."""
    soft, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY and (least == resource.RLIM_INFINITY or hard < least):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (least, least))
            return
    resource.setrlimit(kind, (hard, hard) if least == resource.RLIM_INFINITY else (max(soft, min(least, hard)), hard))


def write_message(text: str) -> None:
    """Print a message of limited length; a closed output is no error."""
    with contextlib.suppress(OSError):
        print(text[: LARGEST_MESSAGE * 2], flush=True)
