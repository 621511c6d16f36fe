"""What Prometheus gets from a lab host: Debian's node-exporter, the watchdog's text, the counted requests."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from lab.host import Host
from tests.deploy.conftest import DOMAIN, Site, wait_until
from tests.support.prometheus import Metrics, promtool, read

pytestmark = pytest.mark.xdist_group("metrics")

PORT = 9100
HEARTBEAT = "rolling_watchdog_heartbeat_timestamp_seconds"


@pytest.fixture(scope="module")
def metered(prepared: Site) -> Iterator[Site]:
    """The first host with node-exporter by setup, and a watchdog that looks every second."""
    files = {path: path.read_bytes() for path in prepared.folder.iterdir() if path.is_file()}
    prepared.edit_env(HEALTH_CHECK_INTERVAL="1s")
    prepare(prepared, node_exporter=True, watchdog=True)
    yield prepared
    for path, content in files.items():
        path.write_bytes(content)


@pytest.fixture
def web1(metered: Site) -> Host:
    """That host."""
    return metered.lab.hosts[0]


def prepare(site: Site, **setup: object) -> str:
    """Have setup make this of the first host; what it said."""
    site.edit_environment(setup=setup)
    code, output = site.run("setup", "--hosts", "web1")
    assert code == 0, output
    return output


def scrape(host: Host) -> Metrics:
    """What Prometheus would read now: this application's part of it."""
    connection = http.client.HTTPConnection(host.address, PORT, timeout=10)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 200, text
    assert re.search(r"^node_textfile_scrape_error 0$", text, re.MULTILINE), text
    own = [line for line in text.splitlines() if re.match(r"(# TYPE )?rolling_", line)]
    return read("".join(f"{line}\n" for line in own))


def shows(host: Host, what: Callable[[Metrics], bool], name: str) -> Metrics:
    """Wait until a scrape shows it, and return that one."""
    found: list[Metrics] = []

    def seen() -> bool:
        found.append(scrape(host))
        return what(found[-1])

    wait_until(seen, name, 30)
    return found[-1]


def visit(host: Host, path: str, times: int) -> None:
    """So many requests of a visitor."""
    for _ in range(times):
        connection = http.client.HTTPConnection(host.address, 80, timeout=10)
        connection.request("GET", path, headers={"Host": DOMAIN})
        connection.getresponse().read()
        connection.close()


def counted(found: Metrics, color: str, code: str) -> float:
    """The requests to the backend."""
    return found.value("rolling_http_requests_total", service="backend", color=color, code=code)


def test_metrics_setup_is_idempotent_and_the_text_is_complete(metered: Site, web1: Host) -> None:
    assert "Nothing to do" in prepare(metered, node_exporter=True, watchdog=True)

    found = shows(web1, lambda seen: seen.value("rolling_look_ok") == 1, "a look")

    text = web1.sh("cat /var/lib/prometheus/node-exporter/rolling-memoryark.prom").stdout
    assert promtool(text) == ""
    assert {name for name, _ in read(text).samples} == found.names()
    assert found.value("rolling_check_ok", check="container", subject="backend", app="memoryark") == 1
    assert found.value("rolling_check_seconds", check="chain") > 0
    assert found.value("rolling_nginx_up") == 1
    assert found.value("rolling_nginx_requests_total") > 0
    assert found.value("rolling_deploy_last_success") == 1
    assert found.value("rolling_metrics_errors_total") == 0
    assert web1.sh("test -w /var/log/memoryark-requests", user="deploy", check=False).returncode == 1


def test_metrics_every_request_is_counted_across_rotations(metered: Site, web1: Host) -> None:
    before = shows(web1, lambda seen: "rolling_http_requests_total" in seen.names(), "the first count")
    program = "sed 's/^longest=.*/longest=1/' /usr/local/lib/memoryark/requests > /usr/local/lib/memoryark/now"
    web1.sh(f"{program}; chmod 755 /usr/local/lib/memoryark/now")
    for _ in range(3):
        visit(web1, "/api/version", 40)
        web1.sh("/usr/local/lib/memoryark/now")
    visit(web1, "/api/nothing-of-this-name", 7)

    found = shows(
        web1, lambda seen: counted(seen, "blue", "4xx") - counted(before, "blue", "4xx") == 7, "the last ones"
    )
    found = shows(
        web1, lambda seen: counted(seen, "blue", "2xx") - counted(before, "blue", "2xx") >= 120, "all of them"
    )

    assert counted(found, "blue", "2xx") - counted(before, "blue", "2xx") == 120
    name = "rolling_http_request_duration_seconds"
    blue = {"service": "backend", "color": "blue"}
    assert found.value(f"{name}_count", **blue) == found.value(f"{name}_bucket", **blue, le="+Inf")
    assert found.value(f"{name}_sum", **blue) > 0
    assert found.value("rolling_metrics_errors_total") == 0


def test_metrics_of_a_deploy_show_its_lock_color_and_result(metered: Site, web1: Host) -> None:
    before = scrape(web1)
    assert metered.run("lock.acquire", "--hosts", "web1", "--reason", 'looking "myself"')[0] == 0
    held = shows(web1, lambda seen: seen.value("rolling_lock_held") == 1, "the lock")
    assert held.value("rolling_lock_info", reason='looking "myself"') == 1
    assert abs(held.value("rolling_lock_since_timestamp_seconds") - time.time()) < 60
    assert metered.run("lock.release", "--hosts", "web1")[0] == 0
    shows(web1, lambda seen: seen.value("rolling_lock_held") == 0, "a free host")

    code, output = metered.deploy("v2", "--hosts", "web1")
    assert code == 0, output
    name = "rolling_deploy_last_timestamp_seconds"
    found = shows(web1, lambda seen: seen.value(name) > before.value(name), "the deploy")
    assert found.labels("rolling_release_info", service="backend", color="green", version="v2")
    assert not found.labels("rolling_release_info", color="blue")
    assert found.value("rolling_deploy_last_duration_seconds", action="deploy") > 0
    visit(web1, "/api/version", 25)
    green = counted(found, "green", "2xx")
    shows(web1, lambda seen: counted(seen, "green", "2xx") == green + 25, "the requests to green")


def test_metrics_show_a_backup_the_maintenance_page_and_a_recovery(metered: Site, web1: Host) -> None:
    name = "rolling_backup_last_good_timestamp_seconds"
    before = scrape(web1)
    assert metered.run("backup", "--hosts", "web1")[0] == 0
    shows(web1, lambda seen: seen.value(name) > before.value(name), "the backup")

    assert metered.run("maintenance", "on", "--hosts", "web1")[0] == 0
    shows(web1, lambda seen: seen.value("rolling_maintenance") == 1, "the page")
    assert metered.run("maintenance", "off", "--hosts", "web1")[0] == 0

    backend = next(one for one, runs in metered.running(web1).items() if runs and "backend" in one)
    web1.sh(f"podman stop -t 1 {backend}", user="deploy")
    found = shows(web1, lambda seen: seen.value("rolling_recoveries_total", act="restart") == 1, "the recovery")
    assert found.value("rolling_recoveries_failed_total", act="restart") == 0
    shows(web1, lambda seen: seen.value("rolling_check_ok", check="container", subject="backend") == 1, "its end")


def test_metrics_port_is_open_only_to_the_monitoring_host(metered: Site, web1: Host) -> None:
    with socket.create_connection((web1.address, 22), timeout=5) as connection:
        own = connection.getsockname()[0]
    prepare(metered, node_exporter=True, watchdog=True, firewall="nftables", monitoring_host="192.0.2.9")
    with pytest.raises(OSError, match="timed out"):
        socket.create_connection((web1.address, PORT), timeout=1)

    said = prepare(metered, node_exporter=True, watchdog=True, firewall="nftables", monitoring_host=own)

    assert f"and {PORT} for {own}" in said
    assert scrape(web1).value("rolling_look_ok") == 1
    prepare(metered, node_exporter=True, watchdog=True)


def test_metrics_of_a_stopped_watchdog_stay_unchanged_and_are_removed_with_it(metered: Site, web1: Host) -> None:
    before = scrape(web1).value(HEARTBEAT)
    shows(web1, lambda seen: seen.value(HEARTBEAT) > before, "a heartbeat")

    web1.sh("systemctl --user stop memoryark-watchdog", user="deploy")
    last = scrape(web1).value(HEARTBEAT)
    time.sleep(3)
    assert scrape(web1).value(HEARTBEAT) == last

    code, output = metered.run("monitor.uninstall", "--hosts", "web1")
    assert code == 0, output
    assert scrape(web1).samples == {}
