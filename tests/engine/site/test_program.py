"""The site program as a host runs it, with a fake Nginx that answers with the hash of the loaded site."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.host import wait_for
from rolling_upgrade import rendering
from rolling_upgrade.engine.model import Application, Route, SiteOptions, Tls
from rolling_upgrade.engine.site import client as commands
from rolling_upgrade.engine.site import program
from rolling_upgrade.engine.site.schema import (
    Redirect,
    Request,
    User,
    UserList,
    dump,
    dump_request,
    parse_rules,
)
from rolling_upgrade.engine.site.text import render, text_hash, text_site
from tests.support.certificate import Issued
from tests.support.sample import application, backend, frontend
from tests.support.servers import free_ports
from tests.support.shell import Programs, Signal
from tests.support.site_sample import rules_document

_RUN = """
import sys
from pathlib import Path
from rolling_upgrade.engine.site import program as site
site.LIVE_SECONDS, site.READ_SECONDS, site.RENEWAL_SECONDS = 1.0, 2.0, 5.0
program, root, template = map(Path, sys.argv[1:4])
sys.exit(site.main(sys.argv[4:], template.read_text(), site.HostPaths(program, root)))
"""


class Nginx(http.server.BaseHTTPRequestHandler):
    """Answers with the hash that the stub of `systemctl reload` recorded last."""

    loaded: Path

    def do_GET(self) -> None:
        body = self.loaded.read_bytes() if self.loaded.exists() else b""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


class Host:
    """A host's directories with the program, and stubs of the commands that it runs."""

    def __init__(self, root: Path, programs: Programs, port: int) -> None:
        self.root, self.programs = root, programs
        self.app = application(backend(service_port=port), frontend())
        self.program = root / "usr/local/lib/shop/site"
        self.site = root / "etc/nginx/conf.d/shop.conf"
        for place in (self.program.parent, self.site.parent, root / "run", root / "proc/net", root / "var/log/nginx"):
            place.mkdir(parents=True)
        (root / "proc/net/tcp").symlink_to("/proc/net/tcp")
        self.template = Path(rendering.TEMPLATES / "nginx/site.conf.j2")
        programs.add("nginx")
        # The last two arguments are the private copy of conf.d, and conf.d itself.
        programs.add("unshare", 'for word; do copy=$last last=$word; done; export copy; exec nginx -t "$copy"')
        self.systemctl()

    def systemctl(self, reload: str = "") -> None:
        """Add a systemctl stub; by default a reload loads the installed site."""
        load = f"sed -n '1s/.* //p' {self.site} | tr -d '\\n' >\"$here/loaded\""
        self.programs.add("systemctl", f'case "$1" in is-active) echo active ;; reload) {reload or load} ;; esac')

    def start(self, *words: str, limit: str = "", output: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a command of the program; `limit` is a shell command such as `ulimit -n 3`."""
        python = [sys.executable, "-c", _RUN, str(self.program), str(self.root), str(self.template), *words]
        command = ["sh", "-c", f'{limit}\nexec "$@"', "sh", *python] if limit else python
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PATH": self.programs.path, "PYTHONPATH": str(Path.cwd())},
        )

    def run(self, *words: str, text: str = "", limit: str = "") -> tuple[int, str]:
        """Run a command of the program and return its exit code and message."""
        process = self.start(*words, limit=limit)
        said, _ = process.communicate(text, timeout=60)
        return process.returncode, said

    def grant(self, app: Application | None = None) -> tuple[int, str]:
        return self.run("rules", text=dump(commands.rules(app or self.app)))

    def text(self, app: Application | None = None) -> str:
        return rendering.nginx_site(app or self.app)

    def install(self, app: Application | None = None, hash: str = "") -> tuple[int, str]:
        wanted = app or self.app
        return self.run("install", text=dump_request(commands.request(wanted, hash or text_hash(self.text(wanted)))))

    def refresh(self, app: Application) -> tuple[int, str]:
        return self.run("refresh", text=dump_request(commands.request(app, "0" * 16)))

    def files(self) -> set[str]:
        """Return the paths of all files on the host."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path / "bin")


@pytest.fixture
def host(tmp_path: Path, programs: Programs) -> Iterator[Host]:
    handler = type("Loaded", (Nginx,), {"loaded": tmp_path / "loaded"})
    port = free_ports(10_000, 20_000)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield Host(tmp_path / "host", programs, port)
        server.shutdown()


SHOP_FILES = {"usr/local/lib/shop/rules.json", "usr/local/lib/shop/site.previous", "run/rolling-site.lock"}


def other(host: Host, **changes: object) -> Application:
    """The same application with another upload limit."""
    return replace(host.app, max_upload_bytes=7, **changes)  # type: ignore[arg-type]


def test_first_site_is_installed_and_verified(host: Host) -> None:
    assert host.grant() == (0, "the rules are in place\n")

    assert host.install() == (0, "the site is live\n")
    assert host.site.read_text() == host.text()
    assert host.site.stat().st_mode & 0o777 == 0o644
    assert host.files() - {"proc/net/tcp"} == SHOP_FILES | {"etc/nginx/conf.d/shop.conf"}


def test_same_site_again_reloads_nothing(host: Host, programs: Programs) -> None:
    host.grant()
    host.install()

    assert host.install() == (0, "the site is unchanged\n")
    assert [call[1] for call in programs.calls("systemctl")] == ["is-active", "reload"]


def test_site_without_rules_is_refused(host: Host, programs: Programs) -> None:
    code, said = host.install()

    assert (code, "run rolling-upgrade setup" in said, host.site.exists(), programs.calls()) == (3, True, False, [])


def test_text_other_than_the_plan_showed_is_refused(host: Host, programs: Programs) -> None:
    host.grant()

    code, said = host.install(hash="f" * 16)

    assert (code, "differs from the plan" in said, host.site.exists(), programs.calls()) == (3, True, False, [])


def test_port_of_another_application_is_refused(host: Host, programs: Programs) -> None:
    host.grant()
    grown = replace(host.app, services=(*host.app.services, frontend(name="spy", service_port=8090, routes=())))

    code, said = host.install(grown)

    assert (code, "do not belong to shop" in said, programs.calls()) == (3, True, [])


def test_site_that_nginx_refuses_changes_nothing_in_place(host: Host, programs: Programs) -> None:
    host.grant()
    host.install()
    programs.add(
        "nginx", 'if grep -q "client_max_body_size 7;" "$copy/shop.conf"; then echo refused by nginx; exit 1; fi'
    )
    before, reloads = host.files(), len(programs.calls("systemctl"))

    code, said = host.install(other(host))

    assert (code, "refused by nginx" in said, host.site.read_text()) == (3, True, host.text())
    assert (host.files(), len(programs.calls("systemctl"))) == (before, reloads)


@pytest.mark.parametrize("reload", [":", "exit 1"])
def test_reload_without_effect_restores_the_previous_site(host: Host, reload: str) -> None:
    host.grant()
    host.install()
    log = host.root / "var/log/nginx/error.log"
    log.write_text("[error] 1#1: other.conf secret request\n[emerg] 1#1: still could not bind()\n")
    host.systemctl(reload)

    code, said = host.install(other(host))

    assert (code, host.site.read_text()) == (4, host.text())
    assert ("still could not bind()" in said, "secret request" in said) == (True, False)


def test_first_site_that_nginx_never_serves_is_removed(host: Host) -> None:
    host.grant()
    host.systemctl(":")

    assert host.install()[0] == 4
    assert not host.site.exists()


def test_old_site_that_cannot_be_restored_is_reported(host: Host, programs: Programs) -> None:
    host.grant()
    host.install()
    host.systemctl('rm -f "$here/loaded"; printf 0 >"$here/loaded"')
    programs.add("nginx", '[ -n "${copy:-}" ]')

    code, said = host.install(other(host))

    assert (code, "could not be restored" in said) == (5, True)


def test_restore_reinstalls_the_previous_site(host: Host) -> None:
    host.grant()
    host.install()
    host.install(other(host))

    assert host.run("restore", text=text_hash(host.text(other(host)))) == (0, "the previous site is restored\n")
    assert host.site.read_text() == host.text()


def test_restore_of_a_site_that_is_not_in_place_changes_nothing(host: Host) -> None:
    host.grant()
    host.install()
    host.install(other(host))

    assert host.run("restore", text=text_hash(host.text()))[0] == 0
    assert host.site.read_text() == host.text(other(host))


def test_restore_uses_the_current_rules(host: Host) -> None:
    """A restore uses the current rules, so it does not bring back a revoked domain."""
    host.grant()
    host.install()
    host.install(other(host))
    host.grant(replace(host.app, domain="new.test"))

    assert host.run("restore", text=text_hash(host.site.read_text()))[0] == 0
    assert ("server_name new.test;" in host.site.read_text(), text_site(host.site.read_text())) == (
        True,
        commands.site(host.app),
    )


def test_restore_of_a_text_that_was_changed_by_hand_is_checked_like_any_other(host: Host) -> None:
    host.grant()
    host.install()
    host.install(other(host))
    previous = host.program.with_name("site.previous")
    previous.write_text(previous.read_text().replace('"blue":17001', '"blue":19001'))

    code, said = host.run("restore", text=text_hash(host.site.read_text()))

    assert (code, "19001" in said, host.site.read_text()) == (5, True, host.text(other(host)))


@pytest.mark.parametrize("text", ["", "x", "f" * 15, "f" * 17, "../../../etc/pwd", "F" * 16, "f" * 70_000, "\0" * 16])
def test_restore_accepts_only_a_hash(host: Host, text: str) -> None:
    host.grant()

    assert host.run("restore", text=text)[0] == 3


@pytest.mark.parametrize("words", [(), ("remove",), ("install", "x"), ("restore", "--force"), ("--help",)])
def test_unknown_arguments_are_refused(host: Host, words: tuple[str, ...]) -> None:
    code, said = host.run(*words)

    assert (code, said.startswith("usage:")) == (2, True)


def test_endless_input_is_refused_at_the_size_limit(host: Host) -> None:
    with host.start("install") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            for _ in range(1000):
                process.stdin.write("x" * 65_536)
        assert "larger than" in process.stdout.read()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()

    assert process.returncode == 3


def test_stalled_input_is_refused_at_the_deadline(host: Host) -> None:
    with host.start("install") as process:
        assert process.stdout is not None
        assert "did not end within" in process.stdout.read()

    assert process.returncode == 3


#: Signals that a terminal, a timer of the caller or sudo can send; signals for program faults are excluded.
SENT = "HUP INT QUIT USR1 USR2 PIPE ALRM TERM TSTP TTIN TTOU XCPU XFSZ VTALRM PROF IO"


@pytest.mark.parametrize("number", [signal.Signals[f"SIG{name}"] for name in SENT.split()])
def test_signal_does_not_interrupt_a_change(host: Host, programs: Programs, tmp_path: Path, number: int) -> None:
    host.grant()
    reached, go_on = Signal(tmp_path / "reached"), Signal(tmp_path / "go-on")
    load = f"sed -n '1s/.* //p' {host.site} | tr -d '\\n' >\"$here/loaded\""
    host.systemctl(f"echo now >{reached.path}; read word <{go_on.path}; {load}")
    with host.start("install") as process:
        assert process.stdin is not None
        process.stdin.write(dump_request(commands.request(host.app, text_hash(host.text()))))
        process.stdin.close()
        reached.wait()
        process.send_signal(number)
        go_on.give()

    assert process.returncode == 0
    assert host.site.read_text() == host.text()
    reached.close()
    go_on.close()


def test_inherited_sigchld_ignore_does_not_hide_a_rejected_site(host: Host, programs: Programs) -> None:
    """A process that ignores SIGCHLD cannot read exit statuses of its children, and sudo inherits that setting."""
    host.grant()
    host.install()
    programs.add("nginx", 'echo "[emerg] unknown directive"; exit 1')
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    text = dump_request(commands.request(other(host), text_hash(host.text(other(host)))))

    code, said = host.run("install", text=text, limit=f"exec {sys.executable} -c '{ignoring}' \"$@\"")

    assert (code, "unknown directive" in said) == (3, True), said
    assert host.site.read_text() == host.text()


def test_unexpected_error_after_a_change_restores_the_previous_site(host: Host) -> None:
    """After the change, the program fails to read the table of sockets."""
    host.grant()
    host.install()
    table = host.root / "proc/net/tcp"
    table.unlink()
    table.mkdir()

    code, said = host.install(other(host))

    assert (code, "its file is in place" in said, "Traceback" in said) == (5, True, False), said
    assert host.site.read_text() == host.text()


def test_listener_is_found_in_a_large_socket_table(host: Host) -> None:
    """Any user can open sockets, so the table can be arbitrarily large and can change while it is read."""
    host.grant()
    table = host.root / "proc/net/tcp"
    real = Path("/proc/net/tcp").read_text()
    table.unlink()
    row = f"   1: 0100007F:1F90 0100007F:{{:04X}} 06 {'0' * 100} 1000\n"
    rows = [row.format(number % 65_536) for number in range(40_000)]
    table.write_text("".join(["header\n", *rows, "cut\n", *real.splitlines(keepends=True)[1:]]))

    assert host.install() == (0, "the site is live\n")


def test_unread_output_does_not_block_other_changes(host: Host) -> None:
    """The caller passes a full pipe as output: the program blocks on its message after it has released the lock."""
    host.grant()
    full, end = os.pipe()
    os.set_blocking(end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(end, b"x" * 65_536)
    os.set_blocking(end, True)
    stuck = host.start("check-rules", output=end)
    assert stuck.stdin is not None
    stuck.stdin.write(dump(commands.rules(host.app)))
    stuck.stdin.close()

    assert host.install() == (0, "the site is live\n")
    assert stuck.poll() is None
    os.close(end)
    os.close(full)
    stuck.wait(timeout=30)


def test_kill_leaves_a_valid_site_and_the_next_command_cleans_up(
    host: Host, programs: Programs, tmp_path: Path
) -> None:
    """After SIGKILL, as after a power cut, the installed files are valid for Nginx."""
    host.grant()
    host.install()
    reached = Signal(tmp_path / "reached")
    programs.add("nginx", f"exec >/dev/null 2>&1; echo now >{reached.path}; exec sleep 60")
    with host.start("install") as process:
        assert process.stdin is not None
        process.stdin.write(dump_request(commands.request(other(host), text_hash(host.text(other(host))))))
        process.stdin.close()
        reached.wait()
        process.kill()
    assert host.site.read_text() == host.text()
    programs.add("nginx")

    assert host.install(other(host))[0] == 0
    assert {name for name in host.files() if "conf.d" in name} == {"etc/nginx/conf.d/shop.conf"}
    reached.close()


@pytest.mark.parametrize("limit", ["ulimit -f 0", "ulimit -n 8", "ulimit -t 1", "umask 777"])
def test_limits_of_the_caller_never_leave_a_partial_change(host: Host, limit: str) -> None:
    host.grant()
    host.install()

    code, _ = host.run(
        "install", text=dump_request(commands.request(other(host), text_hash(host.text(other(host))))), limit=limit
    )

    assert host.site.read_text() == host.text(host.app if code else other(host))
    assert host.site.stat().st_mode & 0o777 == 0o644


def test_answer_of_another_users_process_does_not_count(host: Host) -> None:
    """A process that took the port before Nginx could answer with any hash."""
    host.grant()
    table = host.root / "proc/net/tcp"
    row = f"0: 0100007F:{host.app.services[0].service_port:04X} 00000000:0000 0A 0:0 0:0 0 4242 0 1"
    table.unlink()
    table.write_text(f"  sl local rem st\n   {row}\n")

    assert host.install()[0] == 4
    assert not host.site.exists()


def neighbour(host: Host, **changes: object) -> Path:
    """Rules of another application on the host."""
    place = host.program.parent.parent / "notes" / "rules.json"
    place.parent.mkdir(exist_ok=True)
    document = rules_document() | {"app": "notes", "domain": "notes.test", "http_port": 8081, "ports": [18090]}
    place.write_text(json.dumps(document | changes))
    return place


@pytest.mark.parametrize(
    ("changes", "claimed"),
    [
        ({"ports": [17001]}, "17001"),
        ({"ports": [7001, 9000]}, "7001"),
        ({"http_port": 27001}, "27001"),
        ({"domain": "shop.test", "http_port": 80}, "the domain shop.test"),
        ({"domain": "SHOP.test", "http_port": 80}, "the domain shop.test"),
    ],
)
def test_rules_that_conflict_with_another_application_are_refused(
    host: Host, changes: dict[str, object], claimed: str
) -> None:
    neighbour(host, **changes)

    code, said = host.grant()

    assert (code, claimed in said, "granted to notes" in said) == (3, True, True)
    assert not host.program.with_name("rules.json").exists()


def test_listener_that_is_another_applications_loopback_port_is_refused(host: Host) -> None:
    neighbour(host, ports=[8081])

    code, said = host.grant(replace(host.app, http_port=8081))

    assert (code, "8081" in said, "granted to notes" in said) == (3, True, True)


def test_rules_without_conflicts_are_granted(host: Host) -> None:
    neighbour(host)

    assert host.grant()[0] == 0


def test_rules_are_refused_if_other_rules_are_unreadable(host: Host) -> None:
    neighbour(host, app="a/b")

    assert host.grant()[0] == 3


def test_rules_of_another_name_are_refused(host: Host) -> None:
    code, said = host.grant(replace(host.app, name="notes"))

    assert (code, "not of shop" in said) == (3, True)


def test_rules_keep_the_ports_of_the_site_in_place_until_a_deploy_replaces_it(host: Host) -> None:
    host.grant()
    host.install()
    smaller = replace(host.app, services=host.app.services[:1], full_chain=None)

    assert host.grant(smaller)[0] == 0
    assert host.run("check-rules", text=dump(commands.rules(smaller)))[0] == 0
    assert host.install(other(host))[0] == 0
    assert host.install(smaller)[0] == 0
    assert host.run("check-rules", text=dump(commands.rules(smaller)))[0] == 3
    assert host.grant(smaller)[0] == 0
    assert host.install()[0] == 3


def test_refresh_renders_the_site_again_from_its_own_data(host: Host) -> None:
    host.grant()
    host.install(other(host))
    moved = replace(host.app, domain="new.test")
    host.grant(moved)
    assert host.run("check")[0] == 3

    assert host.refresh(host.app) == (0, "the site is live\n")
    assert host.site.read_text() == host.text(other(host, domain="new.test"))
    assert host.run("check") == (0, "the site is live\n")


@pytest.mark.parametrize("old", ["", "# rolling-site: 0123456789abcdef\n# rolling-port: 8080\nserver { }\n"])
def test_refresh_uses_the_given_site_as_a_fallback(host: Host, old: str) -> None:
    host.grant()
    if old:
        host.site.write_text(old)

    assert host.refresh(host.app)[0] == 0
    assert host.site.read_text() == host.text()


TLS = Tls("/etc/ssl/certs/a.pem", "/etc/ssl/private/a.pem")


def listeners(host: Host) -> str:
    """The installed file of the TLS listeners."""
    return host.program.with_name("listen.conf").read_text()


@pytest.mark.parametrize(
    ("version", "rows"),
    [
        ("nginx version: nginx/1.22.1", ["listen 443 ssl http2;", "listen [::]:443 ssl http2;"]),
        ("nginx version: nginx/1.26.3 (Debian)", ["listen 443 ssl;", "listen [::]:443 ssl;", "http2 on;"]),
        ("unreadable", ["listen 443 ssl http2;", "listen [::]:443 ssl http2;"]),
    ],
)
def test_http2_has_the_syntax_of_the_hosts_nginx(host: Host, programs: Programs, version: str, rows: list[str]) -> None:
    programs.add("nginx", f'[ "$1" != -v ] || echo "{version}" >&2')
    app = replace(host.app, tls=TLS)
    host.grant(app)

    assert host.install(app) == (0, "the site is live\n")
    assert listeners(host).splitlines() == rows
    assert "include /usr/local/lib/shop/listen.conf;" in host.site.read_text()


def test_new_version_of_nginx_changes_the_listeners_by_setup(host: Host, programs: Programs) -> None:
    app = replace(host.app, tls=TLS)
    host.grant(app)
    host.install(app)
    programs.add("nginx", '[ "$1" != -v ] || echo nginx/1.26.3')

    code, said = host.run("check")
    assert (code, "not in the syntax of the installed Nginx" in said) == (3, True)
    assert host.refresh(app) == (0, "the site is live\n")
    assert (host.run("check")[0], "http2 on;" in listeners(host)) == (0, True)


def test_file_of_the_listeners_stays_without_tls_and_is_no_difference(host: Host) -> None:
    app = replace(host.app, tls=TLS)
    host.grant(app)
    host.install(app)
    host.grant()

    assert host.refresh(host.app) == (0, "the site is live\n")
    assert host.run("check") == (0, "the site is live\n")
    assert host.install()[0] == 0
    assert host.run("check") == (0, "the site is live\n")


def test_refused_site_leaves_the_former_listeners(host: Host, programs: Programs) -> None:
    app = replace(host.app, tls=TLS)
    host.grant(app)
    host.install(app)
    before = listeners(host)
    moved = replace(app, https_port=8443)
    host.grant(moved)
    programs.add("nginx", '[ "$1" != -t ] || exit 1')

    assert host.install(moved)[0] == 3
    assert (listeners(host), host.site.read_text()) == (before, host.text(app))
    programs.add("nginx")
    host.systemctl(":")
    assert host.install(moved)[0] == 4
    assert (listeners(host), host.site.read_text()) == (before, host.text(app))


def with_domains(host: Host, *domains: str) -> Application:
    """The application with further domains."""
    return replace(host.app, site=SiteOptions(domains=domains))


def test_domain_that_root_did_not_grant_is_refused(host: Host) -> None:
    host.grant()

    code, said = host.install(with_domains(host, "evil.test"))

    assert (code, "evil.test does not belong to shop" in said, host.site.exists()) == (3, True, False)


def test_rules_keep_the_domains_of_the_site_in_place_until_a_deploy_replaces_it(host: Host) -> None:
    both = with_domains(host, "api.test", "www.test")
    host.grant(both)
    host.install(both)

    assert host.grant(with_domains(host, "www.test"))[0] == 0
    assert host.run("check-rules", text=dump(commands.rules(host.app)))[0] == 0
    assert host.refresh(host.app)[0] == 0
    assert "server_name shop.test api.test www.test;" in host.site.read_text()
    assert host.install()[0] == 0
    assert host.run("check-rules", text=dump(commands.rules(host.app)))[0] == 3
    assert host.grant()[0] == 0
    assert host.install(both)[0] == 3


def test_primary_domain_may_change_places_with_another_one(host: Host) -> None:
    before = replace(host.app, site=SiteOptions(domains=("new.test",), redirects=(("new.test", "shop.test"),)))
    host.grant(before)
    host.install(before)
    after = replace(
        host.app, domain="new.test", site=SiteOptions(domains=("shop.test",), redirects=(("shop.test", "new.test"),))
    )

    assert host.grant(after)[0] == 0
    assert host.refresh(after) == (0, "the site is live\n")
    assert host.site.read_text() == host.text(after)
    assert host.install(after) == (0, "the site is unchanged\n")


def test_trusted_proxies_come_from_the_rules(host: Host) -> None:
    app = replace(host.app, site=SiteOptions(trusted_proxies=("192.0.2.0/24",)))
    host.grant()

    assert host.install(app)[0] == 3
    host.grant(app)
    assert host.install(app)[0] == 0
    assert "set_real_ip_from 192.0.2.0/24;" in host.site.read_text()


HASHES = {"ann": "$6$salt$" + "a" * 86, "bob": "$apr1$salt$" + "b" * 22}


def with_users(host: Host, **hashes: str) -> Application:
    """The application whose pages ask for a password."""
    routes = (Route("/", users=tuple(HASHES)),)
    services = (host.app.services[0], replace(host.app.services[1], routes=routes))
    return replace(host.app, services=services, site=SiteOptions(password_hashes=tuple((HASHES | hashes).items())))


def user_files(host: Host) -> list[Path]:
    return sorted(host.program.parent.glob("users-*"))


def test_users_are_in_a_file_of_root_and_not_in_the_site(host: Host) -> None:
    app = with_users(host)
    host.grant(app)

    assert host.install(app) == (0, "the site is live\n")
    (file,) = user_files(host)
    assert file.read_text() == "".join(f"{name}:{text}\n" for name, text in HASHES.items())
    assert file.stat().st_mode & 0o777 in {0o600, 0o640}
    assert f"auth_basic_user_file /usr/local/lib/shop/{file.name};" in host.site.read_text()
    assert not [text for text in HASHES.values() if text in host.site.read_text()]


def test_new_password_changes_the_site_and_the_former_users_stay_for_its_undo(host: Host) -> None:
    first, second, third = (with_users(host, bob="$apr1$salt$" + char * 22) for char in "bcd")
    host.grant(first)
    host.install(first)
    assert host.install(second) == (0, "the site is live\n")
    assert [file.read_text().count("c" * 22) for file in user_files(host)].count(1) == 1

    assert host.run("restore", text=text_hash(host.text(second))) == (0, "the previous site is restored\n")
    assert host.install(third) == (0, "the site is live\n")
    assert len(user_files(host)) == 2
    assert host.install(host.app) == (0, "the site is live\n")
    assert host.install(other(host)) == (0, "the site is live\n")
    assert user_files(host) == []


def test_setup_writes_the_users_of_a_new_host(host: Host) -> None:
    app = with_users(host)
    host.grant(app)

    assert host.refresh(app) == (0, "the site is live\n")
    assert (len(user_files(host)), host.install(app)) == (1, (0, "the site is unchanged\n"))


def test_request_without_the_users_of_its_routes_is_refused(host: Host) -> None:
    app = with_users(host)
    host.grant(app)
    request = replace(commands.request(app, text_hash(host.text(app))), users=())

    code, said = host.run("install", text=dump_request(request))

    assert (code, "are missing" in said, host.site.exists()) == (3, True, False)


def test_users_that_no_route_names_are_refused(host: Host) -> None:
    app = with_users(host)
    host.grant(app)
    given = commands.request(app, text_hash(host.text(app)))
    spare = UserList((User("eve", HASHES["ann"]),))

    code, said = host.run("install", text=dump_request(replace(given, users=(*given.users, spare))))

    assert (code, "no route names the users" in said, user_files(host)) == (3, True, [])


def test_escapes_that_would_make_the_installed_site_unreadable_are_refused(host: Host) -> None:
    routes = (Route("/", response_headers=(("X-Braces", "{" * 20),)),)
    app = replace(host.app, services=(host.app.services[0], replace(host.app.services[1], routes=routes)))
    host.grant(app)
    text = dump_request(commands.request(app, "0" * 16)).replace("{" * 20, "\\u007b" * 20)

    code, said = host.run("install", text=text)

    assert (code, "nests deeper" in said, host.site.exists()) == (3, True, False)


def test_users_of_a_refused_site_do_not_stay(host: Host) -> None:
    first, second = (with_users(host, bob="$apr1$salt$" + char * 22) for char in "bc")
    host.grant(first)
    host.install(first)
    before = user_files(host)

    host.systemctl(reload=":")
    assert host.install(second)[0] in {4, 5}
    assert user_files(host) == before
    host.programs.add("nginx", "echo invalid; exit 1")
    assert host.install(second)[0] == 3
    assert user_files(host) == before


def test_site_that_spells_a_domain_in_two_ways_does_not_break_the_rules(host: Host) -> None:
    app = replace(host.app, site=SiteOptions(domains=("old.example",)))
    host.grant(app)
    domains = ("old.example", host.app.domain.upper())
    site = replace(commands.site(host.app), domains=domains, redirects=(Redirect("old.example", host.app.domain),))
    text = render(site, commands.rules(app), host.template.read_text())
    assert host.run("install", text=dump_request(Request(site, (), text_hash(text))))[0] == 0

    moved = replace(host.app, domain="new.example")
    host.grant(moved)

    rules = parse_rules((host.program.parent / "rules.json").read_bytes())
    assert rules.names == {"new.example", "old.example", host.app.domain}


@pytest.mark.parametrize(
    ("user", "group"),
    [("user www-data;", "www-data"), ("user  www-data  adm ;", "adm"), ("# user root;\nuser nginx;", "nginx")],
)
def test_worker_group_is_that_of_the_nginx_configuration(tmp_path: Path, user: str, group: str) -> None:
    paths = program.HostPaths(tmp_path / "shop/site", tmp_path)
    paths.nginx.parent.mkdir(parents=True)
    paths.nginx.write_text(f"{user}\nworker_processes auto;\n")

    assert program._worker_group(paths) == group


def test_certificate_is_the_one_that_root_named(host: Host) -> None:
    app = replace(host.app, tls=Tls("/etc/ssl/certs/a.pem", "/etc/ssl/private/a.pem", acme=True))
    host.grant(app)

    assert host.install(app)[0] == 0
    assert host.install(replace(app, tls=Tls("/etc/ssl/certs/a.pem", "/var/lib/shop/live/x")))[0] == 3
    assert "ssl_certificate_key /etc/ssl/private/a.pem;" in host.site.read_text()


def test_program_is_one_file_that_python_runs(tmp_path: Path) -> None:
    place = tmp_path / "shop" / "site"
    place.parent.mkdir()
    place.write_bytes(rendering.site_program().encode(errors="surrogateescape"))
    hostile = {"PYTHONPATH": "/nonexistent", "PYTHONINSPECT": "1", "PYTHONSTARTUP": "/nonexistent", "PATH": "/bin"}

    command = [sys.executable, "-I", str(place), "--in-scope"]
    done = subprocess.run(command, env=hostile, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout.startswith("usage: site"), done.stderr) == (2, True, "")
    assert rendering.site_program() == rendering.site_program()


@pytest.fixture
def chained(host: Host) -> Host:
    """A host whose site has a certificate and a file with its intermediate."""
    host.app = replace(host.app, tls=Tls("/etc/ssl/shop.pem", "/etc/ssl/shop.key", "/etc/ssl/chain.pem"))
    (host.root / "etc/ssl").mkdir()
    put(host, LEAF, INTERMEDIATE)
    assert host.grant()[0] == 0
    return host


INTERMEDIATE = Issued.root().issue("Intermediate")
LEAF = INTERMEDIATE.issue("shop.test", authority=False)


def put(host: Host, leaf: Issued, intermediate: Issued) -> None:
    for name, text in (("shop.pem", leaf.pem), ("shop.key", leaf.private), ("chain.pem", intermediate.pem)):
        (host.root / "etc/ssl" / name).write_text(text)


def served(host: Host) -> Path:
    return host.root / "usr/local/lib/shop/certificate.pem"


def reloads(host: Host) -> int:
    return host.programs.calls("systemctl").count(["systemctl", "reload", "nginx"])


def test_certificate_is_joined_and_loaded_once(chained: Host) -> None:
    assert chained.run("check-certificate")[0] == 3
    assert chained.run("certificate") == (0, "the certificate and its intermediates are in place\n")
    assert chained.run("check-certificate") == (0, "the certificate is current\n")
    assert chained.run("certificate") == (0, "the certificate and its intermediates are unchanged\n")

    assert served(chained).read_text() == LEAF.pem + INTERMEDIATE.pem
    assert served(chained).stat().st_mode & 0o777 == 0o644
    assert reloads(chained) == 1


def test_renewed_certificate_is_joined_again(chained: Host) -> None:
    chained.run("certificate")
    renewed = INTERMEDIATE.issue("shop.test", authority=False)
    put(chained, renewed, INTERMEDIATE)

    assert chained.run("check-certificate")[0] == 3
    assert chained.run("certificate")[0] == 0
    assert served(chained).read_text() == renewed.pem + INTERMEDIATE.pem


def test_half_of_a_renewal_leaves_the_former_certificate(chained: Host) -> None:
    chained.run("certificate")
    renewed = INTERMEDIATE.issue("shop.test", authority=False)
    (chained.root / "etc/ssl/shop.pem").write_text(renewed.pem)

    code, message = chained.run("certificate")

    assert (code, "belongs to none of the certificates" in message) == (3, True)
    assert (served(chained).read_text(), reloads(chained)) == (LEAF.pem + INTERMEDIATE.pem, 1)


def test_renewal_waits_for_its_other_files(chained: Host) -> None:
    chained.run("certificate")
    renewed = INTERMEDIATE.issue("shop.test", authority=False)
    (chained.root / "etc/ssl/shop.pem").write_text(renewed.pem)
    process = chained.start("renewed-certificate")
    # The program holds its lock while it waits.
    lock = chained.root / "run/rolling-site.lock"
    wait_for(lambda: is_locked(lock), 20, "the program")

    put(chained, renewed, INTERMEDIATE)

    assert process.communicate(timeout=30)[0] == "the certificate and its intermediates are in place\n"
    assert served(chained).read_text() == renewed.pem + INTERMEDIATE.pem


def is_locked(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_renewal_that_stays_incomplete_fails(chained: Host) -> None:
    (chained.root / "etc/ssl/shop.key").write_text(Issued.root().private)

    code, message = chained.run("renewed-certificate")

    assert (code, "belongs to none of the certificates" in message) == (3, True)


def test_certificate_that_nginx_rejects_is_not_kept(chained: Host) -> None:
    chained.run("certificate")
    put(chained, INTERMEDIATE.issue("shop.test", authority=False), INTERMEDIATE)
    chained.programs.add("nginx", "echo 'cannot load certificate'; exit 1")

    code, message = chained.run("certificate")

    assert (code, "cannot load certificate" in message) == (3, True)
    assert (served(chained).read_text(), reloads(chained)) == (LEAF.pem + INTERMEDIATE.pem, 1)


def test_certificate_while_nginx_is_stopped_starts_nothing(chained: Host) -> None:
    chained.programs.add("systemctl", "echo inactive; exit 3")

    assert chained.run("certificate")[0] == 0
    assert [call[1] for call in chained.programs.calls("systemctl")] == ["is-active"]


def test_certificate_starts_an_nginx_that_failed(chained: Host) -> None:
    chained.programs.add("systemctl", "echo failed; [ $1 = start ]")

    assert chained.run("certificate")[0] == 0
    assert [call[1] for call in chained.programs.calls("systemctl")] == ["is-active", "start"]


@pytest.mark.parametrize("name", ["shop.pem", "chain.pem"])
def test_missing_file_of_the_certificate_is_named(chained: Host, name: str) -> None:
    (chained.root / "etc/ssl" / name).unlink()

    assert chained.run("certificate") == (3, f"/etc/ssl/{name} is missing or empty\n")


def test_certificate_without_a_chain_is_refused(host: Host) -> None:
    host.grant()

    assert host.run("certificate") == (3, "the site has no file with intermediate certificates\n")
