"""Backup and restore on a real host: what goes back and what is undone, what is refused, and the timer."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import Host
from rolling_upgrade.engine.shell import quote
from tests.deploy.conftest import DOMAIN, Site, begun, kill, wait_until

pytestmark = pytest.mark.xdist_group("backup")

_UPLOADS = "/home/deploy/uploads"
_BACKUPS = "/home/deploy/backups/database/memoryark-"


@pytest.fixture
def web1(site: Site) -> Iterator[Host]:
    """The host that these tests work on; its maintenance page is down afterwards."""
    yield site.lab.hosts[0]
    site.lab.hosts[0].sh("rm -f /var/lib/memoryark/live/maintenance.html")


def upload(host: Host, content: bytes = b"content") -> str:
    """Store a file as a visitor does; its id."""
    connection = http.client.HTTPConnection(host.address, 80, timeout=10)
    try:
        connection.request("POST", "/api/uploads", content, {"Host": DOMAIN})
        return str(json.loads(connection.getresponse().read())["id"])
    finally:
        connection.close()


def readable(host: Host, upload: str) -> bool:
    """Whether a visitor gets the file: its row and its bytes are both there."""
    connection = http.client.HTTPConnection(host.address, 80, timeout=10)
    try:
        connection.request("GET", f"/api/uploads/{upload}", headers={"Host": DOMAIN})
        return connection.getresponse().status == 200
    finally:
        connection.close()


def taken(site: Site, *words: str) -> str:
    """Take a backup of web1; its id."""
    code, output = site.run("backup", "--hosts", "web1", *words)
    assert code == 0, output
    return str(listed(site)[-1]["id"])


def listed(site: Site) -> list[dict[str, object]]:
    code, output = site.run("backups", "--hosts", "web1", "--json")
    assert code == 0, output
    return list(json.loads(output)["hosts"][0]["backups"])


def restore(site: Site, id: str, *words: str) -> tuple[int, str]:
    return site.run("restore", id, "--hosts", "web1", *words)


def change_database(host: Host, id: str, sql: str) -> None:
    """Give a backup another database that is as whole, its manifest with it."""
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


def test_restore_brings_rows_and_files_back_and_backs_up_the_previous_data(site: Site, web1: Host) -> None:
    early = upload(web1)
    id = taken(site)
    late = upload(web1)

    code, output = restore(site, id)

    assert code == 0, output
    assert (readable(web1, early), readable(web1, late)) == (True, False)
    rows = {one["id"]: int(str(one["rows"])) for one in listed(site)}
    before = listed(site)[-1]
    assert (before["kind"], before["rows"]) == ("restore", rows[id] + 1)
    assert_nothing_left(web1)


def test_restore_failed_start_restores_the_previous_data(site: Site, web1: Host) -> None:
    """The backup is whole, and what it holds is none of the application's: its health check fails."""
    id = taken(site)
    kept = upload(web1)
    change_database(web1, id, "drop table uploads; create view uploads as select n from missing")

    code, output = restore(site, id, "--only", "database")

    assert code == 1, output
    assert "bring the former database back" in output
    assert readable(web1, kept)
    assert web1.sh("ls /home/deploy/data /var/lib/memoryark/live").stdout.count("maintenance") == 0


@pytest.mark.parametrize(
    "step", ["database", *(pytest.param(step, marks=pytest.mark.extended) for step in ("stop", "backend.start"))]
)
def test_restore_killed_at_any_step_is_completed_by_the_same_command(site: Site, web1: Host, step: str) -> None:
    early = upload(web1)
    id = taken(site)
    late = upload(web1)

    kill(begun(site, step, "restore", id))
    code, output = restore(site, id)

    assert (code, readable(web1, early), readable(web1, late)) == (0, True, False), output
    assert_nothing_left(web1)


def test_restore_after_a_power_cut_is_completed_by_the_same_command(site: Site, web1: Host) -> None:
    early = upload(web1)
    id = taken(site)
    late = upload(web1)

    process = begun(site, "database", "restore", id)
    web1.kill()
    kill(process)
    web1.start()
    code, output = restore(site, id)

    assert (code, readable(web1, early), readable(web1, late)) == (0, True, False), output
    assert_nothing_left(web1)


def assert_nothing_left(host: Host) -> None:
    """No data set aside, no maintenance page, and the set-aside writers run again."""
    left = f"ls -A {_UPLOADS} /home/deploy/data | grep '^[.]' || :; ls /var/lib/memoryark/live | grep maintenance || :"
    assert host.sh(left).stdout == ""
    assert host.sh("podman ps -q | wc -l", user="deploy").stdout.strip() == "2"


def test_restore_damaged_backup_is_refused_before_any_change(site: Site, web1: Host) -> None:
    upload(web1)
    id = taken(site)
    file = web1.sh(f"ls -d {_UPLOADS.replace('uploads', 'backups/uploads')}/memoryark-{id}.uploads/files/* | head -n 1")
    web1.sh(f"printf rotten > {file.stdout.strip()}")

    code, output = restore(site, id)

    assert (code, "damaged" in output, site.version(web1)) == (1, True, "v1"), output
    assert site.run("backup.verify", "--backup", id, "--hosts", "web1")[0] == 1
    assert listed(site)[-1]["verified"] == "damaged"
    code, output = restore(site, id)
    assert (code, "was found damaged" in output) == (3, True), output


def test_restore_backup_with_a_wrong_manifest_is_refused(site: Site, web1: Host) -> None:
    id = taken(site)
    web1.sh(f"sed -i 's/memoryark/another/' {_BACKUPS}{id}/manifest.json", user="deploy")

    code, output = restore(site, id)

    assert (code, "its manifest belongs to another" in output) == (3, True), output


def test_restore_unknown_backup_lists_the_existing_ones(site: Site, web1: Host) -> None:
    id = taken(site)

    code, output = restore(site, "20200101T000000Z-000000")

    assert (code, id in output, site.version(web1)) == (3, True, "v1"), output


def test_restore_while_a_foreign_container_uses_the_data_is_undone(site: Site, web1: Host) -> None:
    id = taken(site)
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

    id = taken(site, "--fetch", str(tmp_path / "here"))

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
    assert (code, "no room for a backup" in output) == (1, True), output


def test_setup_installs_and_removes_the_backup_timer(site: Site, web1: Host) -> None:
    before = len(listed(site))
    site.edit_env(AUTO_BACKUP_ENABLED="true", BACKUP_SCHEDULE='"* * * * *"')
    assert site.run("setup", "--hosts", "web1")[0] == 0
    assert "OnCalendar=*-*-* *:*:00" in web1.sh("cat /etc/systemd/user/memoryark-backup.timer").stdout
    web1.sh("systemctl --user start memoryark-backup.service", user="deploy")
    wait_until(lambda: len(listed(site)) > before, "the timer's backup")
    assert listed(site)[-1]["kind"] == "scheduled"
    assert "JWT" not in web1.sh("cat /usr/local/lib/memoryark/backup").stdout
    assert site.run("setup", "--hosts", "web1")[1].count("Nothing to do") == 1

    site.edit_env(AUTO_BACKUP_ENABLED="false")
    assert site.run("setup", "--hosts", "web1")[0] == 0
    assert web1.sh("systemctl --user list-timers --all | grep -c memoryark || :", user="deploy").stdout.strip() == "0"
