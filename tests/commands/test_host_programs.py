"""The programs that setup installs on a host, run as copies whose Nginx and Podman are stand-ins."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fabfile import render
from fabfile.commands import record
from fabfile.commands.nginx import site_rules
from fabfile.model import Outcome, Release, Tls
from tests.commands.running import Programs
from tests.commands.sample import application

OLD, NEW = "0" * 16, "1" * 16
PAGE = next(row for row in render.nginx_site(application()).splitlines() if "= /_rolling/maintenance" in row)


def site_text(hash: str, body: str = "server { listen 127.0.0.1:8080; }") -> str:
    return f"# rolling-site: {hash}\n# rolling-port: 8080\n{body}\n"


class Site:
    """The site helper beside an Nginx that answers the hash of what it last loaded."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        self.here = directory / "lib" / "shop"
        self.conf = directory / "conf.d"
        self.here.mkdir(parents=True)
        self.conf.mkdir()
        text = render.host_program("site").replace("/etc/nginx/conf.d", str(self.conf))
        text = text.replace("PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PATH={programs.path}")
        self.program = self.here / "site"
        self.program.write_text(text, "utf-8")
        (self.here / "rules").write_text(site_rules(application()))
        self.live = self.conf / "shop.conf"
        load = f"sed -n '1s/.* //p' {self.live} >\"$here/loaded\" 2>/dev/null || :"
        programs.add("nginx")
        programs.add("systemctl", f'case "$1" in reload) {load} ;; esac')
        programs.add("curl", 'cat "$here/loaded" 2>/dev/null')
        programs.add("sleep")
        programs.add("journalctl", "echo 'still could not bind()'")
        programs.add("tail")

    def run(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", self.program, *words], input=text, capture_output=True, text=True, timeout=60, check=False
        )

    def install(self, text: str) -> subprocess.CompletedProcess[str]:
        return self.run("install", text=text)

    def left(self) -> set[str]:
        """What the helper left beside itself."""
        return {path.name for path in self.here.iterdir()} - {"site", "rules", "site.lock", "loaded"}


@pytest.fixture
def site(tmp_path: Path, programs: Programs) -> Site:
    return Site(tmp_path, programs)


def test_site_first_text_is_installed_and_proved_live(site: Site) -> None:
    done = site.install(site_text(OLD))

    assert (done.returncode, done.stdout) == (0, "the site is live\n")
    assert (site.live.read_text(), site.left()) == (site_text(OLD), {"site.previous"})
    assert site.live.stat().st_mode & 0o777 == 0o644


def test_site_same_text_again_reloads_nothing(site: Site, programs: Programs) -> None:
    site.install(site_text(OLD))

    done = site.install(site_text(OLD))

    assert done.stdout == "the site is unchanged\n"
    assert [call[1] for call in programs.calls("systemctl")] == ["is-active", "reload"]


def test_site_text_that_nginx_refuses_leaves_the_old_bytes(site: Site, programs: Programs) -> None:
    site.install(site_text(OLD))
    programs.add("nginx", f"if grep -q {NEW} {site.live}; then echo 'unexpected end of file' >&2; exit 1; fi")

    done = site.install(site_text(NEW))

    assert (done.returncode, site.live.read_text()) == (3, site_text(OLD))
    assert "unexpected end of file" in done.stdout


def test_site_reload_that_keeps_the_old_configuration_is_noticed(site: Site, programs: Programs) -> None:
    site.install(site_text(OLD))
    programs.add("systemctl")

    done = site.install(site_text(NEW))

    assert (done.returncode, site.live.read_text()) == (4, site_text(OLD))
    assert "still could not bind()" in done.stdout


def test_site_first_text_that_never_gets_live_is_removed_again(site: Site, programs: Programs) -> None:
    programs.add("systemctl")

    assert site.install(site_text(NEW)).returncode == 4
    assert not site.live.exists()


def test_site_old_text_that_cannot_come_back_is_said(site: Site, programs: Programs) -> None:
    site.install(site_text(OLD))
    programs.add("nginx", "exit 1")
    programs.add("curl", "exit 7")

    done = site.install(site_text(NEW))

    assert (done.returncode, "could not be brought back" in done.stdout) == (5, True)


def test_site_old_text_that_nginx_still_runs_needs_no_reload(site: Site, programs: Programs) -> None:
    site.install(site_text(OLD))
    programs.add("nginx", "exit 1")
    before = len(programs.calls("systemctl"))

    done = site.install(site_text(NEW))

    assert (done.returncode, site.live.read_text(), len(programs.calls("systemctl"))) == (3, site_text(OLD), before)


@pytest.mark.parametrize(
    "line",
    [
        "include /etc/shadow;",
        "server { root /; }",
        "location /x {alias /etc/;}",
        "load_module evil.so;",
        "user root;",
        "\tlua_code_cache off;",
        "error_log /etc/cron.d/x;",
        "server { location / { autoindex on; } }",
        "  js_import a.js;",
        "fastcgi_pass unix:/run/x;",
        "root /var/lib/shop/live;",
        "try_files /etc/shadow =404;",
        "internal;",
        "disable_symlinks off;",
        "server { error_page 503 /_rolling/maintenance; error_page 404 /x; }",
        PAGE.replace("/var/lib/shop/live", "/"),
        PAGE.replace("/var/lib/shop/live", "/var/lib/other/live"),
        PAGE.replace("disable_symlinks on from=/var/lib/shop; ", ""),
        PAGE.replace("on from=/var/lib/shop", "off"),
        PAGE.replace("/maintenance.html", "/../../../../etc/passwd"),
        PAGE.replace("120 always; ", "120 always; autoindex on; "),
        PAGE + " root /;",
        "    error_page 503 /_rolling/maintenance; root /;",
        'set $x "\n# "; include /etc/shadow; set $y "\nset";',
        "set $x '\n # '; root /; set $y '\nset';",
        "set $x a\\\n#\\;root /;",
        "ssl_certificate_key engine:/var/lib/shop/live/evil.so:k;",
        "ssl_certificate /etc/ssl/private/another.pem;",
        "server { listen unix:/var/lib/shop/live/socket; }",
        "server { listen 443 ssl; }",
        "server { listen 80 default_server; }",
        "server { listen 127.0.0.1:8080 default_server; }",
        "server { server_name another.example.org; }",
        "upstream x { server unix:/run/podman/podman.sock; }",
        "upstream x { server 192.0.2.1:80; }",
        "location / { proxy_pass http://unix:/run/podman/podman.sock:/; }",
        "location / { proxy_pass https://example.org; }",
        "access_log off /etc/cron.d/x;",
        "server { listen\n80; }",
        "server { listen\n unix:/x; }",
        '"listen" unix:/x;',
        "list\\en unix:/x;",
    ],
)
def test_site_forbidden_directive_is_refused_before_nginx_sees_it(line: str, site: Site, programs: Programs) -> None:
    done = site.install(site_text(NEW, line))

    assert (done.returncode, site.live.exists(), programs.calls("nginx")) == (3, False, [])
    assert "not allowed here" in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "",
        "server { }\n",
        "# rolling-site: short\n# rolling-port: 8080\n",
        f"# rolling-site: {NEW}\nserver {{ }}\n",
        f"\n# rolling-site: {NEW}\n# rolling-port: 8080\n",
        f"# rolling-site: {NEW}\n# rolling-port: 8080; id\n",
    ],
)
def test_site_text_without_its_header_is_refused(text: str, site: Site) -> None:
    done = site.install(text)

    assert (done.returncode, "lacks its two header lines" in done.stdout) == (3, True)


def test_site_text_too_large_is_refused(site: Site) -> None:
    done = site.install(site_text(NEW, "# " + "x" * 262_144))

    assert (done.returncode, "larger than 256 KiB" in done.stdout) == (3, True)


def test_site_refused_text_leaves_nothing_behind(site: Site) -> None:
    site.install("no header")

    assert site.left() == set()


def test_site_restore_brings_the_former_text_back(site: Site) -> None:
    site.install(site_text(OLD))
    site.install(site_text(NEW))

    done = site.run("restore", text=NEW)

    assert (done.returncode, site.live.read_text()) == (0, site_text(OLD))


def test_site_restore_of_a_text_that_is_not_in_place_changes_nothing(site: Site) -> None:
    site.install(site_text(OLD))
    site.install(site_text(NEW))

    done = site.run("restore", text=OLD)

    assert (done.returncode, site.live.read_text()) == (0, site_text(NEW))


def test_site_reload_that_fails_puts_the_old_text_back(site: Site, programs: Programs) -> None:
    site.install(site_text(OLD))
    programs.add("systemctl", 'case "$1" in reload) exit 1 ;; esac')

    done = site.install(site_text(NEW))

    assert (done.returncode, site.live.read_text()) == (4, site_text(OLD))


def test_site_restore_without_a_former_install_changes_nothing(site: Site) -> None:
    assert (site.run("restore").returncode, site.live.exists()) == (0, False)


@pytest.mark.parametrize("words", [(), ("remove",), ("install", "x"), ("restore", "--force")])
def test_site_any_other_words_are_refused(words: tuple[str, ...], site: Site) -> None:
    assert site.run(*words).returncode == 2


COUNTED = [
    row
    for row in render.nginx_site(replace(application(), request_metrics=True)).splitlines()
    if row not in render.nginx_site(application()).splitlines()
    and row
    and not row.startswith("#")
    and "return 200" not in row
]


def test_site_that_counts_requests_passes_its_check(site: Site) -> None:
    done = site.install(render.nginx_site(replace(application(), request_metrics=True)))

    assert (len(COUNTED), done.returncode, done.stdout) == (5, 0, "the site is live\n")


@pytest.mark.parametrize("row", COUNTED)
@pytest.mark.parametrize(
    ("own", "other"),
    [
        ("shop", "another"),
        ("/var/log/", "/etc/"),
        ("127.0.0.1", "all"),
        ("flush=1s", "flush=1s gzip"),
        (";", "; root /;"),
        ("log_format", "error_log"),
    ],
)
def test_site_that_counts_requests_elsewhere_or_otherwise_is_refused(
    row: str, own: str, other: str, site: Site, programs: Programs
) -> None:
    changed = row.replace(own, other)

    done = site.install(site_text(NEW, changed))

    assert (done.returncode, programs.calls("nginx") == []) == ((0, False) if changed == row else (3, True)), changed


class RequestLog:
    """The program that rotates the request log, beside an Nginx that opens a new one."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        here = directory / "lib" / "shop"
        here.mkdir(parents=True)
        self.log = directory / "log" / "shop-requests" / "requests.log"
        self.log.parent.mkdir(parents=True)
        text = render.host_program("requests").replace("/var/log/", f"{directory}/log/")
        text = text.replace("longest=16777216", "longest=10")
        self.program = here / "requests"
        self.program.write_text(text.replace("PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PATH={programs.path}"), "utf-8")
        programs.add("nginx", f'case "$*" in "-s reopen") : >>{self.log} ;; esac')

    def run(self) -> int:
        return subprocess.run(["sh", self.program], timeout=60, check=False).returncode

    def left(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.log.parent.iterdir()}


def test_request_log_that_is_short_or_not_there_stays(tmp_path: Path, programs: Programs) -> None:
    log = RequestLog(tmp_path, programs)
    assert (log.run(), log.left()) == (0, {})
    log.log.write_text("short")

    assert (log.run(), log.left(), programs.calls("nginx")) == (0, {"requests.log": "short"}, [])


def test_request_log_that_is_long_is_renamed_and_four_are_kept(tmp_path: Path, programs: Programs) -> None:
    log = RequestLog(tmp_path, programs)
    for number in range(6):
        log.log.write_text(f"{number} is long enough")
        assert log.run() == 0

    assert {name: text[:1] for name, text in log.left().items()} == {
        "requests.log": "",
        **{f"requests.log.{number}": str(6 - number) for number in range(1, 5)},
    }


@pytest.mark.parametrize("tls", [None, Tls("/srv/cert.pem", "/srv/key.pem", "/srv/chain.pem", acme=True)])
def test_site_what_is_rendered_passes_its_check(site: Site, tls: Tls | None) -> None:
    app = replace(application(), tls=tls)
    (site.here / "rules").write_text(site_rules(app))

    done = site.install(render.nginx_site(app))

    assert (done.returncode, done.stdout) == (0, "the site is live\n")


class Boot:
    """The boot program beside a Podman with containers of both colors."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        self.flags = directory / "var" / "shop" / "live"
        self.flags.mkdir(parents=True)
        (self.flags.parent / "lock").mkdir()
        here = directory / "lib" / "shop"
        here.mkdir(parents=True)
        self.program = here / "boot"
        self.program.write_text(render.host_program("boot").replace("/var/lib/", f"{directory}/var/"), "utf-8")
        self.programs = programs
        rows = [f"shop-{service}-{color} {service} {color} r1" for service in ("a", "b") for color in ("blue", "green")]
        (directory / "rows").write_text("\n".join(rows) + "\n")
        self.podman()
        programs.add("sleep")

    def podman(self, start: str = ":") -> None:
        self.programs.add(
            "podman",
            f'case "$1" in ps) echo c0ffee ;; container) cat "$here/rows" ;; start) {start} ;; esac',
        )

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", self.program],
            capture_output=True,
            text=True,
            env={"PATH": self.programs.path},
            timeout=60,
            check=False,
        )

    def told(self, verb: str) -> list[str]:
        return [call[-1] for call in self.programs.calls("podman") if call[1] == verb]


@pytest.fixture
def boot(tmp_path: Path, programs: Programs) -> Boot:
    return Boot(tmp_path, programs)


def test_boot_starts_exactly_the_colors_that_the_flags_name(boot: Boot) -> None:
    (boot.flags / "b.green").touch()

    done = boot.run()

    assert done.returncode == 0
    assert boot.told("start") == ["shop-a-blue", "shop-b-green"]
    assert boot.told("stop") == ["shop-a-green", "shop-b-blue"]


def test_boot_container_of_a_release_that_was_undone_stays_down(boot: Boot) -> None:
    """A first deploy that failed: its container stands in the color that no flag names."""
    undone = replace(Release("r1", "t", "deploy", Outcome.UNDONE, ()), reason="its gate")
    (boot.flags.parent / "releases.jsonl").write_text(record.line(undone) + "\n")

    assert boot.run().returncode == 0
    assert boot.told("start") == []


def test_boot_network_that_comes_up_later_is_waited_for(boot: Boot) -> None:
    boot.podman('n=$(cat "$here/n" 2>/dev/null || echo 0); echo $((n + 1)) >"$here/n"; [ "$n" -ge 3 ]')

    assert boot.run().returncode == 0
    assert boot.told("start") == ["shop-a-blue"] * 4 + ["shop-b-blue"]


def test_boot_container_that_never_starts_fails_but_the_others_start(boot: Boot) -> None:
    boot.podman('[ "$2" != shop-a-blue ]')

    assert boot.run().returncode == 1
    assert "shop-b-blue" in boot.told("start")


def test_boot_host_without_containers_is_no_error(boot: Boot) -> None:
    boot.programs.add("podman")

    assert boot.run().returncode == 0
