"""Metrics of a lab host: Debian's node-exporter, the watchdog's text file, and counted requests."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from lab.host import Host
from tests.deploy.conftest import Site, http_request, local_address, wait_until
from tests.support.prometheus import Metrics, promtool, read

PORT = 9100
HEARTBEAT = "rolling_watchdog_heartbeat_timestamp_seconds"


@pytest.fixture(scope="module")
def metered(prepared_site: Site) -> Iterator[Site]:
    """The first host with node-exporter, a firewall, and a watchdog that observes every second."""
    with prepared_site.unchanged_files():
        prepared_site.edit_env(HEALTH_CHECK_INTERVAL="1s")
        run_setup(prepared_site, **configuration(prepared_site.lab.hosts[0]))
        yield prepared_site


def configuration(host: Host) -> dict[str, object]:
    """The setup of the first host: every scrape of these tests passes its firewall."""
    return {"node_exporter": True, "watchdog": True, "firewall": "nftables", "monitoring_host": local_address(host)}


@pytest.fixture
def web1(metered: Site) -> Host:
    """The first host."""
    return metered.lab.hosts[0]


def run_setup(site: Site, **setup: object) -> str:
    """Run setup on the first host with this configuration. Return its output."""
    site.edit_environment(setup=setup)
    return site.run_ok("setup", "--hosts", "web1")


def scrape(host: Host) -> Metrics:
    """Scrape the host as Prometheus does. Return the metrics of this application."""
    status, body = http_request(host, "/metrics", domain=host.address, port=PORT)
    text = body.decode()
    assert status == 200, text
    assert re.search(r"^node_textfile_scrape_error 0$", text, re.MULTILINE), text
    own = [line for line in text.splitlines() if re.match(r"(# TYPE )?rolling_", line)]
    return read("".join(f"{line}\n" for line in own))


def scrape_until(host: Host, condition: Callable[[Metrics], bool], what: str) -> Metrics:
    """Scrape until the condition holds. Return the last scrape."""
    scrapes: list[Metrics] = []

    def holds() -> bool:
        scrapes.append(scrape(host))
        return condition(scrapes[-1])

    wait_until(holds, what, 30)
    return scrapes[-1]


def visit(host: Host, path: str, times: int) -> None:
    """Send requests as a visitor."""
    for _ in range(times):
        http_request(host, path)


def counted(metrics: Metrics, color: str, code: str) -> float:
    """Return the number of requests to the backend."""
    return metrics.value("rolling_http_requests_total", service="backend", color=color, code=code)


def test_metrics_setup_is_idempotent_and_the_text_is_complete(metered: Site, web1: Host) -> None:
    assert "Nothing to do" in run_setup(metered, **configuration(web1))

    metrics = scrape_until(web1, lambda metrics: metrics.value("rolling_look_ok") == 1, "an observation")

    text = web1.sh("cat /var/lib/prometheus/node-exporter/rolling-memoryark.prom").stdout
    assert promtool(text) == ""
    assert {name for name, _ in read(text).samples} == metrics.names()
    assert metrics.value("rolling_check_ok", check="container", subject="backend", app="memoryark") == 1
    assert metrics.value("rolling_check_seconds", check="chain") > 0
    assert metrics.value("rolling_nginx_up") == 1
    assert metrics.value("rolling_nginx_requests_total") > 0
    assert metrics.value("rolling_deploy_last_success") == 1
    assert metrics.value("rolling_metrics_errors_total") == 0
    assert web1.sh("test -w /var/log/memoryark-requests", user="deploy", check=False).returncode == 1


def test_metrics_every_request_is_counted_across_rotations(metered: Site, web1: Host) -> None:
    before = scrape_until(web1, lambda metrics: "rolling_http_requests_total" in metrics.names(), "the first count")
    program = "sed 's/^longest=.*/longest=1/' /usr/local/lib/memoryark/requests > /usr/local/lib/memoryark/now"
    web1.sh(f"{program}; chmod 755 /usr/local/lib/memoryark/now")
    for _ in range(3):
        visit(web1, "/api/version", 40)
        web1.sh("/usr/local/lib/memoryark/now")
    visit(web1, "/api/nothing-of-this-name", 7)

    metrics = scrape_until(
        web1, lambda metrics: counted(metrics, "blue", "4xx") - counted(before, "blue", "4xx") == 7, "the last ones"
    )
    metrics = scrape_until(
        web1, lambda metrics: counted(metrics, "blue", "2xx") - counted(before, "blue", "2xx") >= 120, "all of them"
    )

    assert counted(metrics, "blue", "2xx") - counted(before, "blue", "2xx") == 120
    name = "rolling_http_request_duration_seconds"
    blue = {"service": "backend", "color": "blue"}
    assert metrics.value(f"{name}_count", **blue) == metrics.value(f"{name}_bucket", **blue, le="+Inf")
    assert metrics.value(f"{name}_sum", **blue) > 0
    assert metrics.value("rolling_metrics_errors_total") == 0


def test_metrics_of_a_deploy_show_its_lock_color_and_result(metered: Site, web1: Host) -> None:
    before = scrape(web1)
    metered.run_ok("lock.acquire", "--hosts", "web1", "--reason", 'looking "myself"')
    held = scrape_until(web1, lambda metrics: metrics.value("rolling_lock_held") == 1, "the lock")
    assert held.value("rolling_lock_info", reason='looking "myself"') == 1
    assert abs(held.value("rolling_lock_since_timestamp_seconds") - time.time()) < 60
    metered.run_ok("lock.release", "--hosts", "web1")
    scrape_until(web1, lambda metrics: metrics.value("rolling_lock_held") == 0, "a free host")

    metered.deploy_ok("v2", "--hosts", "web1")
    name = "rolling_deploy_last_timestamp_seconds"
    metrics = scrape_until(web1, lambda metrics: metrics.value(name) > before.value(name), "the deploy")
    assert metrics.labels("rolling_release_info", service="backend", color="green", version="v2")
    assert not metrics.labels("rolling_release_info", color="blue")
    assert metrics.value("rolling_deploy_last_duration_seconds", action="deploy") > 0
    visit(web1, "/api/version", 25)
    green = counted(metrics, "green", "2xx")
    scrape_until(web1, lambda metrics: counted(metrics, "green", "2xx") == green + 25, "the requests to green")


@pytest.mark.extended
def test_metrics_show_a_backup_the_maintenance_page_and_a_recovery(metered: Site, web1: Host) -> None:
    name = "rolling_backup_last_good_timestamp_seconds"
    before = scrape(web1)
    metered.run_ok("backup", "--hosts", "web1")
    scrape_until(web1, lambda metrics: metrics.value(name) > before.value(name), "the backup")

    metered.run_ok("maintenance", "on", "--hosts", "web1")
    scrape_until(web1, lambda metrics: metrics.value("rolling_maintenance") == 1, "the page")
    metered.run_ok("maintenance", "off", "--hosts", "web1")

    backend = metered.running_container(web1)
    web1.sh(f"podman stop -t 1 {backend}", user="deploy")
    metrics = scrape_until(
        web1, lambda metrics: metrics.value("rolling_recoveries_total", act="restart") == 1, "the recovery"
    )
    assert metrics.value("rolling_recoveries_failed_total", act="restart") == 0
    scrape_until(
        web1,
        lambda metrics: metrics.value("rolling_check_ok", check="container", subject="backend") == 1,
        "the end of the recovery",
    )


def test_metrics_port_is_open_only_to_the_monitoring_host(web1: Host) -> None:
    """Every scrape here comes from that host. A test of bare hosts tries the port from another one."""
    rules = web1.sh("nft list table inet rolling").stdout
    (rule,) = (line.strip() for line in rules.splitlines() if str(PORT) in line)
    assert rule == f"ip saddr {local_address(web1)} tcp dport {PORT} accept"
    assert "policy drop" in rules
    assert scrape(web1).value("rolling_look_ok") == 1


def test_metrics_of_a_stopped_watchdog_stay_unchanged_and_are_removed_with_it(metered: Site, web1: Host) -> None:
    before = scrape(web1).value(HEARTBEAT)
    scrape_until(web1, lambda metrics: metrics.value(HEARTBEAT) > before, "a heartbeat")

    web1.sh("systemctl --user stop memoryark-watchdog", user="deploy")
    last = scrape(web1).value(HEARTBEAT)
    time.sleep(3)
    assert scrape(web1).value(HEARTBEAT) == last

    metered.run_ok("monitor.uninstall", "--hosts", "web1")
    assert scrape(web1).samples == {}
