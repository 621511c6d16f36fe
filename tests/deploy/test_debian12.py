"""The oldest supported hosts, Debian 12 with Podman 4.3 and Nginx 1.22: deploy, undo, rollback, reboot, push."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.images import write_layout
from tests.deploy.bare_host import assert_only_the_site_helper_runs_as_root, bare_host
from tests.deploy.conftest import Site, restored, wait_until


@pytest.fixture(scope="module")
def prepared_debian12_site(worker_id: str) -> Iterator[Site]:
    """One Debian 12 host, bare before setup, with a deploy of v1."""
    bare = bare_host("bookworm-bare", f"bookworm-{worker_id}")
    site = next(bare)
    for words in (("setup",), ("setup.check",), ("deploy", "--tag", "v1")):
        site.run_ok(*words)
    yield site
    next(bare, None)


@pytest.fixture
def old(prepared_debian12_site: Site) -> Iterator[Site]:
    """The host on v1, restored after the test."""
    with restored(prepared_debian12_site):
        yield prepared_debian12_site


def test_debian12_deploy_user_may_run_only_two_command_lines_as_root(old: Site) -> None:
    assert_only_the_site_helper_runs_as_root(old.lab.hosts[0])


def test_debian12_host_is_upgraded_by_a_push_rolls_back_and_survives_a_bad_release(old: Site, tmp_path: Path) -> None:
    """The rollback starts a kept container that crashed before."""
    host = old.lab.hosts[0]
    name = old.running_container(host)
    restarts = f"podman inspect --format '{{{{.State.Running}}}} {{{{.RestartCount}}}}' {name}"
    before = int(host.sh(restarts, user="deploy").stdout.split()[1])
    host.sh(f"kill -9 $(podman inspect --format '{{{{.State.Pid}}}}' {name})", user="deploy")
    wait_until(lambda: host.sh(restarts, user="deploy").stdout.split() == ["true", str(before + 1)], "the restart")
    wait_until(lambda: old.serves(host, "v1"), "v1")

    services = ("backend", "frontend")
    ids = {write_layout(tmp_path / name, old.lab.machine, name, "v3", {"note": name.encode()}) for name in services}
    images = [f"--image={name}={tmp_path / name}" for name in services]
    old.lab.registry.stop()
    try:
        code, output = old.deploy("v3", "--transfer", "push", *images)
    finally:
        old.lab.registry.start()
    assert (code, old.versions()) == (0, ["v3"]), output
    image_ids = "podman ps --quiet | xargs podman container inspect --format 'sha256:{{.Image}}'"
    assert {*host.sh(image_ids, user="deploy").stdout.split()} == ids

    code, output = old.run("rollback")
    assert (code, old.versions(), output.count("start the kept") > 1) == (0, ["v1"], True), output
    assert (old.deploy("exits-at-once")[0], old.versions()) == (1, ["v1"])


def test_debian12_host_is_backed_up_restored_and_serves_the_live_colors_after_a_reboot(old: Site) -> None:
    old.run_ok("backup")
    newest = json.loads(old.run("backups", "--json")[1])["hosts"][0]["backups"][-1]["id"]
    code, output = old.run("restore", newest)
    assert (code, old.versions()) == (0, ["v1"]), output
    old.run_ok("backup.verify")

    host = old.lab.hosts[0]
    before = set(old.running_containers(host))
    host.reboot()
    wait_until(lambda: old.run("status")[0] == 0, "the application after a reboot", 90)
    assert set(old.running_containers(host)) == before


def test_debian12_host_is_monitored_by_prometheus(old: Site) -> None:
    """Prometheus 2.42, Alertmanager 0.25 and blackbox-exporter 0.23 run beside the application that they monitor."""
    host = old.lab.hosts[0]
    old.edit_environment(
        setup={"node_exporter": True, "watchdog": True}, monitoring={"address": host.address, "user": "root"}
    )
    for words in (("setup",), ("observe.install",)):
        old.run_ok(*words)

    ask = "curl -fsS 'http://127.0.0.1:9090/api/v1/query?query=count(up==1)'"
    wait_until(lambda: '"6"]' in host.sh(ask).stdout, "every target", 90)
    code, output = old.run("observe.install")
    assert (code, "Nothing to do" in output) == (0, True), output
    for words in (("observe.uninstall",), ("monitor.uninstall",)):
        old.run_ok(*words)
