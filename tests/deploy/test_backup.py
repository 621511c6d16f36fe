"""Backup and restore on a real host: restored data, undone restores, refusals, and the timer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import Host
from rolling_upgrade.engine.shell import quote
from tests.deploy.conftest import Site, http_request, kill, start_until_step, wait_for_end_of_run, wait_until

_UPLOADS = "/home/deploy/uploads"
_BACKUPS = "/home/deploy/backups/database/memoryark-"


@pytest.fixture
def web1(site: Site) -> Iterator[Host]:
    """The first host. Its maintenance page is removed afterwards."""
    yield site.lab.hosts[0]
    site.lab.hosts[0].sh("rm -f /var/lib/memoryark/live/maintenance.html")


def upload(host: Host, content: bytes = b"content") -> str:
    """Upload a file as a visitor. Return its id."""
    return str(json.loads(http_request(host, "/api/uploads", "POST", content)[1])["id"])


def readable(host: Host, upload: str) -> bool:
    """Return whether a visitor gets the file, which needs its row and its content."""
    return http_request(host, f"/api/uploads/{upload}")[0] == 200


def take_backup(site: Site, *words: str) -> str:
    """Take a backup of web1. Return its id."""
    site.run_ok("backup", "--hosts", "web1", *words)
    return str(list_backups(site)[-1]["id"])


def list_backups(site: Site) -> list[dict[str, object]]:
    output = site.run_ok("backups", "--hosts", "web1", "--json")
    return list(json.loads(output)["hosts"][0]["backups"])


def restore(site: Site, id: str, *words: str) -> tuple[int, str]:
    return site.run("restore", id, "--hosts", "web1", *words)


def change_database(host: Host, id: str, sql: str) -> None:
    """Change the database in a backup with SQL, and update its manifest."""
    path = f"{_BACKUPS}{id}"
    program = "import sqlite3, sys; sqlite3.connect('database.db').executescript(sys.argv[1])"
    change = f"cd {path} && python3 -I -c {quote(program)} {quote(sql)} && : > rows && sha256sum database.db rows"
    rows = [row.split() for row in host.sh(change, user="deploy").stdout.splitlines()]
    hashes = {name: digest for digest, name in rows}
    manifest = json.loads(host.sh(f"cat {path}/manifest.json").stdout)
    for file in manifest["files"]:
        file["sha256"] = hashes.get(file["path"], file["sha256"])
        file["bytes"] = int(host.sh(f"stat -c %s {path}/{file['path']}").stdout)
    host.sh(f"printf %s {quote(json.dumps(manifest))} > {path}/manifest.json", user="deploy")


def test_restore_brings_the_data_back_backs_up_the_previous_data_and_is_undone_if_the_start_fails(
    site: Site, web1: Host
) -> None:
    early = upload(web1)
    id = take_backup(site)
    late = upload(web1)

    code, output = restore(site, id)

    assert code == 0, output
    assert (readable(web1, early), readable(web1, late)) == (True, False)
    rows = {backup["id"]: int(str(backup["rows"])) for backup in list_backups(site)}
    before = list_backups(site)[-1]
    assert (before["kind"], before["rows"]) == ("restore", rows[id] + 1)
    assert_nothing_left(web1)

    # The backup is intact, but the application fails its health check with the restored database.
    change_database(web1, id, "drop table uploads; create view uploads as select n from missing")
    code, output = restore(site, id, "--only", "database")
    assert (code, "restore the previous database" in output, readable(web1, early)) == (1, True, True), output
    assert web1.sh("ls /home/deploy/data /var/lib/memoryark/live").stdout.count("maintenance") == 0


@pytest.mark.parametrize(
    "step", ["database", *(pytest.param(step, marks=pytest.mark.extended) for step in ("stop", "backend.start"))]
)
def test_restore_whose_workstation_is_killed_is_completed_by_the_host(site: Site, web1: Host, step: str) -> None:
    early = upload(web1)
    id = take_backup(site)
    late = upload(web1)

    kill(start_until_step(site, step, "restore", id))
    wait_for_end_of_run(web1)

    assert (readable(web1, early), readable(web1, late)) == (True, False)
    assert "restore  good" in site.run_ok("history", "--limit", "1")
    assert_nothing_left(web1)


def test_restore_after_a_power_cut_is_completed_by_the_same_command(site: Site, web1: Host) -> None:
    early = upload(web1)
    id = take_backup(site)
    late = upload(web1)

    process = start_until_step(site, "database", "restore", id)
    web1.kill()
    kill(process)
    web1.start()
    code, output = restore(site, id)

    assert (code, readable(web1, early), readable(web1, late)) == (0, True, False), output
    assert_nothing_left(web1)


def assert_nothing_left(host: Host) -> None:
    """Assert that no data is set aside, that no maintenance page is up, and that both containers run again."""
    left = f"ls -A {_UPLOADS} /home/deploy/data | grep '^[.]' || :; ls /var/lib/memoryark/live | grep maintenance || :"
    assert host.sh(left).stdout == ""
    assert host.sh("podman ps -q | wc -l", user="deploy").stdout.strip() == "2"


@pytest.mark.extended
def test_restore_damaged_backup_is_refused_before_any_change(site: Site, web1: Host) -> None:
    upload(web1)
    id = take_backup(site)
    file = web1.sh(f"ls -d {_UPLOADS.replace('uploads', 'backups/uploads')}/memoryark-{id}.uploads/files/* | head -n 1")
    web1.sh(f"printf damaged > {file.stdout.strip()}")

    code, output = restore(site, id)

    assert (code, "damaged" in output, site.version(web1)) == (1, True, "v1"), output
    assert site.run("backup.verify", "--backup", id, "--hosts", "web1")[0] == 1
    assert list_backups(site)[-1]["verified"] == "damaged"
    code, output = restore(site, id)
    assert (code, "failed its last verification" in output) == (3, True), output


@pytest.mark.extended
def test_restore_backup_with_a_wrong_manifest_is_refused(site: Site, web1: Host) -> None:
    id = take_backup(site)
    web1.sh(f"sed -i 's/memoryark/another/' {_BACKUPS}{id}/manifest.json", user="deploy")

    code, output = restore(site, id)

    assert (code, "its manifest belongs to another" in output) == (3, True), output


@pytest.mark.extended
def test_restore_unknown_backup_lists_the_existing_ones(site: Site, web1: Host) -> None:
    id = take_backup(site)

    code, output = restore(site, "20200101T000000Z-000000")

    assert (code, id in output, site.version(web1)) == (3, True, "v1"), output


def test_restore_while_a_foreign_container_uses_the_data_is_undone(site: Site, web1: Host) -> None:
    id = take_backup(site)
    image = web1.sh("podman images -q | head -n 1", user="deploy").stdout.strip()
    run = "podman run --detach --name intruder --volume /home/deploy/data:/data --entrypoint python3"
    web1.sh(f"{run} {image} -c 'import time; time.sleep(600)'", user="deploy")
    try:
        code, output = restore(site, id)
        assert (code, "intruder" in output, site.version(web1)) == (1, True, "v1"), output
    finally:
        web1.sh("podman rm --force --time 0 intruder", user="deploy")


def test_backup_fetched_is_readable_only_by_its_owner(site: Site, web1: Host, tmp_path: Path) -> None:
    upload(web1, os.urandom(3_000_000))

    id = take_backup(site, "--fetch", str(tmp_path / "here"))

    (archive,) = (tmp_path / "here").iterdir()
    assert archive.name == f"memoryark-{id}.web1.tar"
    assert (archive.stat().st_mode & 0o777, archive.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert archive.stat().st_size > 3_000_000


def test_backup_onto_a_full_disk_is_refused_before_it_starts(site: Site, web1: Host) -> None:
    web1.sh("mount -t tmpfs -o size=1m,mode=0777 tmpfs /home/deploy/backups/database")
    try:
        code, output = site.run("backup", "--hosts", "web1")
    finally:
        web1.sh("umount /home/deploy/backups/database")
    assert (code, "not enough disk space for a backup" in output) == (1, True), output


def test_setup_installs_and_removes_the_backup_timer(site: Site, web1: Host) -> None:
    before = len(list_backups(site))
    site.edit_env(AUTO_BACKUP_ENABLED="true", BACKUP_SCHEDULE='"* * * * *"')
    site.run_ok("setup", "--hosts", "web1")
    assert "OnCalendar=*-*-* *:*:00" in web1.sh("cat /etc/systemd/user/memoryark-backup.timer").stdout
    web1.sh("systemctl --user start memoryark-backup.service", user="deploy")
    wait_until(lambda: len(list_backups(site)) > before, "the timer's backup")
    assert list_backups(site)[-1]["kind"] == "scheduled"
    assert "JWT" not in web1.sh("cat /usr/local/lib/memoryark/backup").stdout

    site.edit_env(AUTO_BACKUP_ENABLED="false")
    site.run_ok("setup", "--hosts", "web1")
    assert web1.sh("systemctl --user list-timers --all | grep -c memoryark || :", user="deploy").stdout.strip() == "0"
