"""The watchdog on a host whose clock jumps. A preloaded library changes the time that the watchdog reads."""

from __future__ import annotations

from lab.host import Host
from tests.deploy.conftest import Site, wait_until

DIRECTORY = "/var/lib/memoryark/watchdog"
CLOCK = "/home/deploy/clock"
DROP_IN = f"""\
[Service]
Environment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1
Environment=FAKETIME_TIMESTAMP_FILE={CLOCK}
Environment=FAKETIME_NO_CACHE=1
Environment=FAKETIME_DONT_FAKE_MONOTONIC=1
Environment=FAKETIME_SKIP_CMDS=systemd-run
"""
UNIT = "/home/deploy/.config/systemd/user/memoryark-watchdog.service.d"


def log(host: Host) -> list[str]:
    """Return the lines of the watchdog's log."""
    return host.sh(f"cat {DIRECTORY}/log").stdout.splitlines()


def stop_backend(site: Site, host: Host) -> None:
    host.sh(f"podman stop -t 0 {site.running_container(host)}", user="deploy")


def wait_for_recovery(host: Host, times: int) -> None:
    wait_until(lambda: sum(" backend: done" in line for line in log(host)) >= times, f"recovery {times}", 120)
    wait_until(lambda: log(host)[-1].endswith("all services are healthy"), "a healthy host")


def test_watchdog_after_a_clock_jump_still_recovers(site: Site) -> None:
    web1 = site.lab.hosts[0]
    site.edit_env(HEALTH_CHECK_INTERVAL="1s", HEALTH_CHECK_TIMEOUT="3s", HEALTH_CHECK_RETRIES="2", RECOVERY_WINDOW="1m")
    site.run_ok("monitor.install", "--hosts", "web1")
    try:
        web1.sh(f"echo +0 > {CLOCK}; mkdir -p {UNIT}; printf %s '{DROP_IN}' > {UNIT}/clock.conf", user="deploy")
        web1.sh("systemctl --user daemon-reload && systemctl --user restart memoryark-watchdog", user="deploy")
        wait_until(lambda: sum("watching" in line for line in log(web1)) == 2, "the watchdog with the other clock")
        today = web1.sh("date +%Y-%m-%d").stdout.strip()
        for times, jump in ((1, "-3d"), (2, "+40d")):
            web1.sh(f"echo {jump} > {CLOCK}", user="deploy")
            stop_backend(site, web1)
            wait_for_recovery(web1, times)
            # Lines of the watchdog carry the changed time. Lines of a recovery come from another process.
            assert not log(web1)[-1].startswith(today)
        assert not any("give up" in line or "could not be observed" in line for line in log(web1))
        assert site.version(web1) == "v1"
    finally:
        print(*log(web1), sep="\n")
        web1.sh(f"rm -rf {UNIT} {CLOCK}; systemctl --user daemon-reload", user="deploy")
        site.run_ok("monitor.uninstall", "--hosts", "web1")
