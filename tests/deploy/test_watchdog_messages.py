"""Notifications of the watchdog on a real host: a recovery, a page, an alert and its end, each sent once."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.host import Host
from tests.deploy.conftest import Site, local_address, wait_until
from tests.support.receiver import Receiver, receiving, slack

DIRECTORY = "/var/lib/memoryark/watchdog"
BACKUPS = "/home/deploy/backups/database"


@pytest.fixture
def web1(site: Site) -> Iterator[Host]:
    host = site.lab.hosts[0]
    site.edit_env(HEALTH_CHECK_INTERVAL="1s", HEALTH_CHECK_TIMEOUT="3s", HEALTH_CHECK_RETRIES="2", FRESH_RELEASE="0")
    yield host
    site.run_ok("monitor.uninstall", "--hosts", "web1")


def install(site: Site, chat: Receiver, hook: Receiver, **more: str) -> None:
    """Install the watchdog with these channels."""
    site.edit_env(SLACK_WEBHOOK=chat.url(), WEBHOOK_URL=hook.url("/hook"), **more)
    site.run_ok("monitor.install", "--hosts", "web1")


def events(hook: Receiver) -> list[str]:
    """Return the event and the check of every message about a check or a recovery."""
    messages = [request.json for request in hook.requests]
    return [f"{message['event']}: {message['check']}" for message in messages if message["check"]]


def assert_events(hook: Receiver, *expected: str, seconds: float = 90) -> None:
    """Wait until as many messages arrived, and compare them."""
    wait_until(lambda: len(events(hook)) >= len(expected), f"the messages {expected}", seconds)
    assert events(hook) == list(expected)


def container_starts(host: Host) -> str:
    """Return each running container and its start time."""
    return host.sh("podman ps --no-trunc --format '{{.ID}} {{.StartedAt}}'", user="deploy").stdout


def stop_backend(site: Site, host: Host) -> None:
    host.sh(f"podman stop -t 0 {site.running_container(host)}", user="deploy")


def test_recovery_is_reported_once_per_hour(site: Site, web1: Host) -> None:
    address = local_address(web1)
    with receiving(judge=slack, address=address) as chat, receiving(address=address) as hook:
        install(site, chat, hook)
        stop_backend(site, web1)
        assert_events(hook, "recovery done: backend")
        message = hook.requests[0].json
        stop_backend(site, web1)
        wait_until(lambda: web1.sh(f"cat {DIRECTORY}/log").stdout.count(" backend: done") == 2, "another recovery")

    assert events(hook) == ["recovery done: backend"]
    assert "container restarted" in message["message"]
    assert "backend container: " in message["cause"]
    assert (message["who"], message["hosts"], message["severity"]) == ("watchdog", ["web1"], "warning")
    assert message["next_command"] == f"rolling-upgrade history --env {site.lab.name} --hosts web1"
    assert [request.json["text"].count("Recovered: backend on web1") for request in chat.requests] == [1]
    assert chat.url() not in web1.sh(f"cat {DIRECTORY}/log").stdout


def test_giving_up_at_the_limit_is_paged_and_its_end_is_reported(site: Site, web1: Host) -> None:
    address = local_address(web1)
    with receiving(judge=slack, address=address) as chat, receiving(address=address) as hook:
        install(site, chat, hook, RECOVERY_LIMIT="1")
        name = site.running_container(web1)
        web1.sh(f"podman rm -f -t 0 {name}", user="deploy")
        assert_events(hook, "recovery given-up: backend")
        page = hook.requests[0].json
        log = web1.sh(f"cat {DIRECTORY}/log").stdout
        assert ("give up: " in log, log.count("acquire the lock …")) == (True, 1), log
        code, output = site.run("monitor.status", "--hosts", "web1", "--json")
        assert (code, json.loads(output)["hosts"][0]["given_up"]) == (0, True), output
        site.deploy_ok("v1", "--hosts", "web1")
        assert_events(hook, "recovery given-up: backend", "check resolved: backend")
        wait_until(lambda: '"given_up": false' in web1.sh(f"cat {DIRECTORY}/memory.json").stdout, "a reset watchdog")
        assert "all services are healthy" in web1.sh(f"cat {DIRECTORY}/log").stdout

    assert (page["severity"], page["next_command"]) == (
        "critical",
        f"rolling-upgrade inspect --env {site.lab.name} --host web1",
    )
    assert "Manual intervention is required" in page["message"]


def test_full_disk_restarts_nothing_and_is_reported_without_writing_files(site: Site, web1: Host) -> None:
    """The watchdog's own files are on the full disk too: it continues from memory."""
    address = local_address(web1)
    with receiving(judge=slack, address=address) as chat, receiving(address=address) as hook:
        install(site, chat, hook)
        unit = "systemctl --user {} memoryark-watchdog"
        web1.sh(unit.format("stop"), user="deploy")
        web1.sh(
            f"cp -a {DIRECTORY} /tmp/kept && "
            f"mount -t tmpfs -o size=1m,mode=0700,uid=deploy,gid=deploy tmpfs {DIRECTORY}"
        )
        web1.sh(f"mount -t tmpfs -o size=1m,mode=0777 tmpfs {BACKUPS} && cp -a /tmp/kept/. {DIRECTORY}/")
        web1.sh(unit.format("start"), user="deploy")
        wait_until(
            lambda: "all services are healthy" in web1.sh(f"cat {DIRECTORY}/log").stdout, "the first observation"
        )
        before = container_starts(web1)
        try:
            web1.sh(f"cat /dev/zero > {DIRECTORY}/zeros || cat /dev/zero > {BACKUPS}/zeros || :", check=False)
            assert_events(hook, f"check failing: disk {BACKUPS}")
            state = web1.sh(unit.format("show -P NRestarts"), user="deploy").stdout.strip()
            web1.sh(f"rm {DIRECTORY}/zeros {BACKUPS}/zeros")
            assert_events(hook, f"check failing: disk {BACKUPS}", f"check resolved: disk {BACKUPS}")
        finally:
            web1.sh(unit.format("stop"), user="deploy")
            web1.sh(f"umount {DIRECTORY} {BACKUPS}; rm -rf /tmp/kept")

    assert (container_starts(web1), state) == (before, "0")
    assert "required 10 %" in hook.requests[0].json["cause"]
