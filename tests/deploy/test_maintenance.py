"""The maintenance page on real hosts: visitors get it, health checks do not, and deploys leave it in place."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from lab.host import Host
from tests.deploy.conftest import DOMAIN, LOCK_FILE, Site, hold_lock

Answer = tuple[int, str | None, str]


def ask(host: Host, path: str, method: str = "GET") -> Answer:
    """Send one request. Return its status, Retry-After and body."""
    with closing(http.client.HTTPConnection(host.address, 80, timeout=10)) as connection:
        return send(connection, path, method)


def send(connection: http.client.HTTPConnection, path: str, method: str = "GET") -> Answer:
    connection.request(method, path, headers={"Host": DOMAIN}, body=b"x=1" if method == "POST" else None)
    response = connection.getresponse()
    return response.status, response.getheader("Retry-After"), response.read().decode()


@contextmanager
def visitors(host: Host) -> Iterator[Counter[tuple[int, str | None]]]:
    """Let four keep-alive visitors count their responses. A failed request counts as status -1."""
    responses: Counter[tuple[int, str | None]] = Counter()
    done = threading.Event()

    def visit() -> None:
        with closing(http.client.HTTPConnection(host.address, 80, timeout=10)) as connection:
            while not done.is_set():
                try:
                    responses[send(connection, "/api/version")[:2]] += 1
                except (OSError, http.client.HTTPException):
                    responses[-1, None] += 1
                    connection.close()

    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield responses
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.hosts(2)
def test_maintenance_switched_under_load_gives_only_200_and_503_with_retry_after(site: Site) -> None:
    host = site.lab.hosts[0]
    with visitors(host) as responses:
        site.run_ok("maintenance", "on", "--message", "Back at <nine>", "--hosts", "web1")
        page = ask(host, "/")
        posted = ask(host, "/api/items", "POST")
        health = ask(host, "/api/health"), ask(host, "/health")
        other = ask(site.lab.hosts[1], "/")
        shown = site.run("status")
        site.run_ok("maintenance", "off", "--hosts", "web1")

    assert set(responses) == {(200, None), (503, "120")}
    assert (page[:2], "Back at &lt;nine&gt;" in page[2], posted[:2]) == ((503, "120"), True, (503, "120"))
    assert ([answer[0] for answer in health], other[0]) == ([200, 200], 200)
    assert (shown[0], "MAINTENANCE: visitors get the maintenance page (503), turned on by hand" in shown[1]) == (
        0,
        True,
    )


_FLICKER = """
import os, time
os.chdir("/var/lib/memoryark/live")
end = time.monotonic() + 4
while time.monotonic() < end:
    with open("page.new", "w") as page:
        page.write("page")
    os.rename("page.new", "maintenance.html")
    for moment in range(5):
        os.stat("maintenance.html")
    os.unlink("maintenance.html")
"""


def test_maintenance_page_removed_while_nginx_opens_it_is_a_503(site: Site) -> None:
    host = site.lab.hosts[0]
    with visitors(host) as responses:
        host.sh(f"python3 -I -c '{_FLICKER}'", user="deploy")

    assert set(responses) == {(200, None), (503, "120")}


@pytest.mark.extended
def test_maintenance_page_of_an_operator_stays_through_a_deploy(site: Site) -> None:
    site.run_ok("maintenance", "on", "--hosts", "web1")

    code, output = site.deploy("v2", "--hosts", "web1")

    assert (code, ask(site.lab.hosts[0], "/")[0]) == (0, 503), output
    site.run_ok("maintenance", "off", "--hosts", "web1")
    assert site.versions() == ["v2"]


def test_maintenance_mode_follows_the_setting(site: Site) -> None:
    site.edit_env(MAINTENANCE_MODE="true")
    code, output = site.deploy("v1", "--hosts", "web1")
    assert (code, ask(site.lab.hosts[0], "/")[0]) == (0, 503), output
    assert "turn the maintenance page on" in output

    site.edit_env(MAINTENANCE_MODE="false")
    code, output = site.deploy("v1", "--hosts", "web1")

    assert (code, ask(site.lab.hosts[0], "/")[0]) == (0, 200), output


@pytest.mark.parametrize("words", [("offf",), ("off", "--message", "x"), ("on", "--message", "x" * 501)])
def test_maintenance_invalid_options_are_refused(words: tuple[str, ...], site: Site) -> None:
    code, output = site.run("maintenance", *words)

    assert (code, "nothing was contacted" in output) == (2, True)


@pytest.mark.hosts(2)
def test_maintenance_on_a_locked_host_is_refused(site: Site) -> None:
    host = site.lab.hosts[1]
    hold_lock(host)

    code, output = site.run("maintenance", "on")

    host.sh(f"rm {LOCK_FILE}", user="deploy")
    assert (code, [ask(each, "/")[0] for each in site.lab.hosts]) == (4, [200, 200]), output


def test_maintenance_link_in_place_of_the_page_shows_no_other_file(site: Site) -> None:
    host = site.lab.hosts[0]
    host.sh("ln -s /etc/passwd /var/lib/memoryark/live/maintenance.html", user="deploy")

    answer = ask(host, "/")

    host.sh("rm /var/lib/memoryark/live/maintenance.html", user="deploy")
    assert (answer[0], "root:" in answer[2]) == (503, False)


def test_maintenance_on_an_earlier_site_is_refused_with_the_next_command(site: Site) -> None:
    host = site.lab.hosts[0]
    host.sh("sed -i s/maintenance.html/other.html/ /etc/nginx/conf.d/memoryark.conf")

    code, output = site.run("maintenance", "on")

    host.sh("sed -i s/other.html/maintenance.html/ /etc/nginx/conf.d/memoryark.conf")
    assert (code, "has no maintenance page yet" in output) == (3, True)
