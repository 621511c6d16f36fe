"""The root-owned program that alone changes the Nginx site of one application: `/usr/local/lib/APP/site`.

The deploy user may run two of its commands through sudo, `install` and `restore`; setup runs the others as root. It
takes data on standard input, bounded in size and time, and no argument that names anything. A new text is tested under
a private view of /etc/nginx before it is put in place, and counts only when Nginx itself answers its hash on loopback:
`nginx -t` and a reload both exit 0 when the new configuration cannot bind its ports and the old one stays.

Exit codes: 0 done, 1 an error of the host, 2 usage, 3 refused, 4 Nginx kept the old text, 5 the old text did not
come back. In each case of failure the old text is in place again, or the message says that it is not.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rolling_upgrade.engine.site.schema import Rules, SiteError, dump, parse_request, parse_rules, parse_site
from rolling_upgrade.engine.site.system import (
    LARGEST_MESSAGE,
    Refused,
    locked,
    read_input,
    read_text,
    run,
    say,
    shield,
    write_text,
)
from rolling_upgrade.engine.site.text import HASH_PATH, render, text_hash, text_port, text_site

USAGE = "usage: site install < REQUEST | restore < HASH | rules < RULES | check-rules < RULES | refresh < SITE | check"
LIVE_SECONDS = 10.0
#: In /proc/net/tcp: the state of a listener, and the column of the user who opened the socket.
_LISTENS, _OWNER = "0A", 7
_VIEW = "rolling-site-"
_TEST = 'mount --bind "$1" "$2" && exec nginx -t'


class Places:
    """Where everything is on the host; tests put it below another root."""

    def __init__(self, program: Path, root: Path = Path("/")) -> None:
        self.here = program.parent
        self.app = self.here.name
        self.rules = self.here / "rules.json"
        self.previous = self.here / "site.previous"
        self.directory = root / "etc/nginx/conf.d"
        self.site = self.directory / f"{self.app}.conf"
        self.lock = root / "run/rolling-site.lock"
        self.scratch = root / "run"
        self.log = root / "var/log/nginx/error.log"
        self.proc = root / "proc/net/tcp"


def main(words: Sequence[str], template: str, places: Places) -> int:
    """Run one command; the exit code. Prints messages for people, and never a traceback."""
    shield()
    commands = {
        "install": _install,
        "restore": _restore,
        "rules": _set_rules,
        "check-rules": _check_rules,
        "refresh": _refresh,
        "check": _check,
    }
    try:
        command = commands.get(words[0]) if len(words) == 1 else None
        if command is None:
            raise Refused(USAGE, 2)
        data = b"" if command is _check else read_input()
        with locked(places.lock):
            _clear(places)
            done = command(data, places, template)
        # Without the lock: the caller may never read.
        say(done)
    except Refused as error:
        say(str(error))
        return error.code
    except SiteError as error:
        say(f"refused: {error}")
        return 3
    except (OSError, subprocess.SubprocessError) as error:
        say(f"failed: {error}")
        return 1
    return 0


def _clear(places: Places) -> None:
    """Remove what a killed command left; the lock says that none runs."""
    for left in places.scratch.glob(f"{_VIEW}*"):
        shutil.rmtree(left, ignore_errors=True)


def _install(data: bytes, places: Places, template: str) -> str:
    """Put the site of a deploy in place, or its old text back."""
    site, expected = parse_request(data)
    text = render(site, _rules(places), template)
    if text_hash(text) != expected:
        raise Refused(
            "this host makes another text of the site than the plan shows: run rolling-upgrade setup for it first"
        )
    old = read_text(places.site)
    if old == text and _answers(text, places):
        return "the site is unchanged"
    _replace(old, text, places)
    return "the site is live"


def _restore(data: bytes, places: Places, template: str) -> str:
    """Bring back the site before the one of the given hash; nothing happens where another text is in place."""
    wanted = data.decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9a-f]{16}", wanted):
        raise Refused("refused: restore takes the hash of a text: 16 hexadecimal digits")
    current, previous = read_text(places.site), read_text(places.previous)
    if text_hash(current) != wanted or not previous:
        return "another site is in place: nothing to restore"
    former = text_site(previous)
    if former is None:
        raise Refused(
            "the former site was made by an earlier version and is not restored: run rolling-upgrade setup", 5
        )
    try:
        _replace(current, render(former, _rules(places), template), places)
    except (Refused, SiteError) as error:
        raise Refused(f"the former site did not come back: {error}", 5) from error
    return "the former site is in place"


def _set_rules(data: bytes, places: Places, _: str) -> str:
    """Grant the application its names, listeners and ports, where no other application on the host has them."""
    wanted = _wanted_rules(data, places)
    for app, other in _neighbours(places):
        if claimed := wanted.conflict(other):
            raise Refused(f"refused: {claimed}: granted to {app} on this host; choose others, or remove {app} first")
    write_text(places.rules, dump(wanted) + "\n")
    return "the rules are in place"


def _check_rules(data: bytes, places: Places, _: str) -> str:
    """Refuse where the rules in place are not exactly those that `rules` would write."""
    wanted = _wanted_rules(data, places)
    if read_text(places.rules) != dump(wanted) + "\n":
        raise Refused("the rules differ")
    return "the rules are in place"


def _refresh(data: bytes, places: Places, template: str) -> str:
    """Make the site in place anew from its own data, under the template and the rules of now.

    The given site is taken where there is none yet, or one of an earlier version, which carries no data.
    """
    old = read_text(places.site)
    try:
        site = text_site(old) or parse_site(data)
        text = render(site, _rules(places), template)
    except SiteError:
        text = render(parse_site(data), _rules(places), template)
    if old != text or not _answers(text, places):
        _replace(old, text, places)
    return "the site is live"


def _check(_: bytes, places: Places, template: str) -> str:
    """Refuse where `refresh` would change something."""
    text = read_text(places.site)
    site = text_site(text)
    if site is None or render(site, _rules(places), template) != text:
        raise Refused("the site was made by another version, or under other rules")
    if not _answers(text, places):
        raise Refused("Nginx does not run the site")
    return "the site is live"


def _wanted_rules(data: bytes, places: Places) -> Rules:
    """The rules of setup, with the ports that the site in place needs until a deploy replaces it."""
    wanted = parse_rules(data)
    if wanted.app != places.app:
        raise Refused(f"refused: these are the rules of {wanted.app}, not of {places.app}")
    try:
        live = text_site(read_text(places.site))
        granted = set(_rules(places).ports)
    except (SiteError, Refused):
        live, granted = None, set()
    kept = set(live.ports) & granted if live else set()
    return Rules(**{**vars(wanted), "ports": tuple(sorted({*wanted.ports, *kept}))})


def _neighbours(places: Places) -> Iterator[tuple[str, Rules]]:
    """The rules of every other application on the host. Raises Refused for rules that cannot be read."""
    for path in sorted(places.here.parent.glob("*/rules.json")):
        if path.parent == places.here or path.parent.stat().st_uid != os.getuid():
            continue
        try:
            yield path.parent.name, parse_rules(read_text(path).encode())
        except SiteError as error:
            raise Refused(
                f"refused: {path} cannot be read ({error}): run rolling-upgrade setup of {path.parent.name}"
            ) from error


def _rules(places: Places) -> Rules:
    text = read_text(places.rules)
    if not text:
        raise Refused("the host has no rules for this application: run rolling-upgrade setup for it first")
    return parse_rules(text.encode())


def _replace(old: str, new: str, places: Places) -> None:
    """Test the new text, put it in place and prove it live; any failure puts the old text back. Raises Refused."""
    if said := _refusal(new, places):
        raise Refused(f"Nginx refuses the new site; nothing was changed:\n{said}")
    write_text(places.previous, old)
    try:
        write_text(places.site, new)
        if _reload() and _is_live(new, places):
            return
        reasons = _reasons(places)
    except Exception as error:  # noqa: BLE001 - a defect of this program must not leave the new site unproved either
        reasons = f"\n{type(error).__name__}: {error}"
    _put_back(old, places)
    raise Refused(f"Nginx kept the old configuration, the old site is in place.{reasons}", 4)


def _put_back(old: str, places: Places) -> None:
    """The old bytes first; a reload only where Nginx no longer runs them. Raises Refused with code 5."""
    if old:
        write_text(places.site, old)
    else:
        places.site.unlink(missing_ok=True)
    try:
        back = bool(old and _answers(old, places)) or _loads(old, places)
    except Exception:  # noqa: BLE001 - what kept the new site from its proof may keep the old one from it too
        back = False
    if not back:
        raise Refused("the old site could not be brought back: its text is in place, look at nginx -t", 5)


def _loads(text: str, places: Places) -> bool:
    """Have Nginx load what is in place; whether it answers the text's hash, where the text has one."""
    return not run("nginx", "-t").returncode and _reload() and (not text_hash(text) or _is_live(text, places))


def _refusal(text: str, places: Places) -> str:
    """What Nginx says against the text, tested in a mount namespace of its own; '' where it takes it.

    Source: unshare(1), --propagation private: a mount made there is seen by that process alone and goes with it.
    """
    with tempfile.TemporaryDirectory(prefix=_VIEW, dir=places.scratch) as name:
        copy = Path(name) / "conf.d"
        shutil.copytree(places.directory, copy, symlinks=True)
        write_text(copy / places.site.name, text)
        view = ("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _TEST, "sh")
        done = run(*view, str(copy), str(places.directory))
    return "" if done.returncode == 0 else done.stdout[-LARGEST_MESSAGE:] or "nginx -t failed without a message"


def _reload() -> bool:
    active = run("systemctl", "is-active", "--quiet", "nginx").returncode == 0
    return run("systemctl", "reload" if active else "start", "nginx").returncode == 0


def _is_live(text: str, places: Places) -> bool:
    """Whether Nginx answers the text's hash within ten seconds."""
    deadline = time.monotonic() + LIVE_SECONDS
    while not _answers(text, places):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _answers(text: str, places: Places) -> bool:
    """Whether the text's hash is answered on its port by a process of root's: another user's is not Nginx."""
    port, wanted = text_port(text), text_hash(text)
    if not port or not wanted or not _is_roots(port, places):
        return False
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", HASH_PATH)
        return connection.getresponse().read(64) == wanted.encode()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_roots(port: int, places: Places) -> bool:
    """Whether every listener on that loopback port was opened by this user. Source: proc(5), /proc/net/tcp."""
    local, owners = f"0100007F:{port:04X}", set()
    with contextlib.suppress(FileNotFoundError), places.proc.open(errors="replace") as rows:
        for row in rows:
            fields = row.split()
            if len(fields) > _OWNER and fields[1] == local and fields[3] == _LISTENS:
                owners.add(fields[_OWNER])
    return owners == {str(os.getuid())}


def _reasons(places: Places) -> str:
    """Nginx' own complaints about its listeners; lines about requests of any application stay out."""
    with contextlib.suppress(OSError), places.log.open("rb") as file:
        file.seek(max(0, places.log.stat().st_size - 65_536))
        rows = file.read(65_536).decode("utf-8", "replace").splitlines()
        found = [row for row in rows if "[emerg]" in row and ("bind()" in row or places.site.name in row)]
        return "".join(f"\n{row[:300]}" for row in found[-3:])
    return ""
